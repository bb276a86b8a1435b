#!/usr/bin/env bash
# PneumoniaMNIST from the publisher's file to a sealed artifact: docs/examples/pneumoniamnist.md explains it.
#   docs/examples/pneumoniamnist.sh                    downloads 4 MB from the publisher
#   docs/examples/pneumoniamnist.sh --from DIRECTORY   takes the file from a folder of local copies
# Training takes about ten minutes on two cores, once; the search stops after BUDGET (default 15m) and goes on when run again.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$(realpath "${VENV:-.venv}")/bin:$PATH"

featherweight data fetch pneumoniamnist "$@"
if [ ! -f runs/pneumoniamnist-0/weights.safetensors ]; then
    featherweight imaging train --data pneumoniamnist --format medmnist --network resnet18-small-images --image-size 28 \
        --epochs 8 --batch-size 64 --augmentation 0.3 --seed 0 --out runs/pneumoniamnist-0
fi
featherweight optimize apps/imaging/recipes/pneumoniamnist.toml --budget "${BUDGET:-15m}" --out runs/pneumoniamnist-artifact
featherweight artifact verify runs/pneumoniamnist-artifact
