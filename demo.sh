#!/usr/bin/env bash
# The main jobs, small but real: make images, train, optimize, classify. No data set, no server, a few minutes.
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/.venv/bin:$PATH"
rm -rf runs/demo

run() { printf '\n\033[1m%s\033[0m\n\033[2m$ %s\033[0m\n' "$1" "${*:2}"; "${@:2}"; }

run "1. Synthetic chest radiographs with a known truth, to train on" \
    featherweight imaging synthesize runs/demo/images --count 1500
run "2. Train a small network on them" \
    featherweight imaging train --data runs/demo/images --network compact --side 96 --epochs 12 \
    --learning-rate 0.003 --positive opacity --out runs/demo/network
run "3. Prune, recover, quantize; judge every candidate; seal the fastest that keeps the limits" \
    featherweight optimize apps/imaging/recipes/demo.toml --out runs/demo/artifact
run "4. Tonight's archive: other patients, and one file that broke on the way" \
    featherweight imaging synthesize runs/demo/archive --count 300 --seed 1
truncated=$(find runs/demo/archive -name '*.dcm' | sort | head -n 1)
head -c 3000 "$truncated" > runs/demo/archive/cut-short.dcm
rm "$truncated"
run "5. The nightly job; exit code 3 says that some files were rejected" \
    featherweight imaging classify runs/demo/archive --model runs/demo/artifact --out runs/demo/results || [ $? -eq 3 ]

printf '\n\033[1mLook at:\033[0m\n'
printf '  the evidence  file://%s\n' "$PWD/runs/demo/artifact/evidence.html"
printf '  the worklist  file://%s\n' "$PWD/runs/demo/results/index.html"
