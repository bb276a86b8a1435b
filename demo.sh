#!/usr/bin/env bash
# The main jobs of both apps, small but real: make data, train, optimize, run. No data set, no server, a few minutes.
set -euo pipefail
cd "$(dirname "$0")"
PATH="$(realpath "${VENV:-.venv}")/bin:$PATH" # make names the environment
rm -rf runs/demo

run() { printf '\n\033[1m%s\033[0m\n\033[2m$ %s\033[0m\n' "$1" "${*:2}"; "${@:2}"; }

run "1. Synthetic chest radiographs with a known truth, to train on" \
    featherweight imaging synthesize runs/demo/images --count 1500
run "2. Train a small network on them" \
    featherweight imaging train --data runs/demo/images --network compact --image-size 96 --epochs 12 \
    --learning-rate 0.003 --positive opacity --out runs/demo/network
run "3. Prune, recover, quantize; judge every candidate; seal the fastest that keeps the limits" \
    featherweight optimize apps/imaging/recipes/demo.toml --out runs/demo/artifact
run "   Does this host reproduce the reference decisions? Batches, threads, backends, on the artifact's reference inputs" \
    featherweight artifact verify runs/demo/artifact
run "4. Tonight's archive: other patients, and one file that broke on the way" \
    featherweight imaging synthesize runs/demo/archive --count 300 --seed 1
truncated=$(find runs/demo/archive -name '*.dcm' | sort | head -n 1)
head -c 3000 "$truncated" > runs/demo/archive/cut-short.dcm
rm "$truncated"
run "5. The nightly job; exit code 3 says that some files were rejected" \
    featherweight imaging classify runs/demo/archive --model runs/demo/artifact --out runs/demo/results || [ $? -eq 3 ]

run "6. Two months of card payments, after the Fraud Detection Handbook's description, and their labels" \
    featherweight fraud synthesize runs/demo/cards --customers 1200 --terminals 2400 --days 75
run "7. Replay the histories, train trees, calibrate for 20 alerts a day" \
    featherweight fraud train --data runs/demo/cards --train-days 14 --alerts-per-day 20 --out runs/demo/fraud
run "8. Drop what the trees do not need, quantize their leaves; judge every candidate; seal the fastest" \
    featherweight optimize apps/fraud/recipes/demo.toml --out runs/demo/fraud-artifact
run "9. Score the stream with the embedded default: decisions, latency, alerts with their reasons" \
    featherweight fraud score --input runs/demo/cards/transactions.parquet --labels runs/demo/cards/labels.parquet \
    --model runs/demo/fraud-artifact --output runs/demo/decisions.parquet

printf '\n\033[1mLook at:\033[0m\n'
printf '  the network'"'"'s evidence  file://%s\n' "$PWD/runs/demo/artifact/evidence.html"
printf '  the cases that changed  file://%s\n' "$PWD/runs/demo/artifact-cases.html"
printf '  the worklist            file://%s\n' "$PWD/runs/demo/results/index.html"
printf '  the trees'"'"' evidence    file://%s\n' "$PWD/runs/demo/fraud-artifact/evidence.html"
printf '  the decisions           %s\n' "$PWD/runs/demo/decisions.parquet"
