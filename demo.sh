#!/usr/bin/env bash
# The main jobs, small but real: make images, train, optimize, classify. No data set, no server, a few minutes.
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/.venv/bin:$PATH"
rm -rf runs/demo

step() { printf '\n\033[1m%s\033[0m\n\033[2m$ %s\033[0m\n' "$1" "$2"; }

step "1. Synthetic chest radiographs, as a hospital archive would send them" "featherweight imaging synthesize runs/demo/images"
featherweight imaging synthesize runs/demo/images --count 1200

step "2. Train a small network on them" "featherweight imaging train --data runs/demo/images --reader folder ..."
featherweight imaging train --data runs/demo/images --reader folder --network compact --side 96 --epochs 8 \
    --batch 32 --learning-rate 0.003 --positive opacity --out runs/demo/network

step "3. Prune, recover, quantize, judge, seal" "featherweight optimize apps/imaging/recipes/demo.toml"
featherweight optimize apps/imaging/recipes/demo.toml --out runs/demo/artifact

step "4. The nightly job: classify the archive, one file of it broken" "featherweight imaging classify runs/demo/images ..."
head -c 3000 "$(find runs/demo/images -name '*.dcm' | sort | head -n 1)" > runs/demo/images/truncated.dcm
featherweight imaging classify runs/demo/images --model runs/demo/artifact --out runs/demo/results || [ $? -eq 3 ]

printf '\n\033[1mOpen in a browser:\033[0m\n'
printf '  the evidence  %s\n' "$PWD/runs/demo/artifact/evidence.html"
printf '  the worklist  %s\n' "$PWD/runs/demo/results/index.html"
