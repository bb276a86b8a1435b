#!/usr/bin/env bash
# Trains every network that the README's accuracy figures are about. About an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
featherweight=${FEATHERWEIGHT:-.venv/bin/featherweight}
"$featherweight" imaging train --data chest_xray_224 --reader kermany --network resnet18 --side 224 --epochs 16 --out runs/chest-xray
for seed in 0 1 2; do
    "$featherweight" imaging train --data pneumoniamnist --reader medmnist --network resnet18-small-images \
        --side 28 --epochs 10 --batch 64 --seed "$seed" --out "runs/pneumoniamnist-$seed"
done
