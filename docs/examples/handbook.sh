#!/usr/bin/env bash
# The Fraud Detection Handbook's transactions to a sealed scorer: docs/examples/handbook.md explains it.
#   docs/examples/handbook.sh --from DIRECTORY   the folder with fraud_handbook_transactions.parquet
# About five minutes on two cores: replaying 1.75 million transactions through the histories is most of it.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$(realpath "${VENV:-.venv}")/bin:$PATH"

featherweight data fetch fraud_handbook "$@"
if [ ! -f runs/handbook/trees.safetensors ]; then
    featherweight fraud train --data fraud_handbook --format handbook --until 2018-08-14 --out runs/handbook
fi
featherweight optimize apps/fraud/recipes/handbook.toml --budget "${BUDGET:-10m}" --out runs/handbook-artifact
featherweight artifact verify runs/handbook-artifact
