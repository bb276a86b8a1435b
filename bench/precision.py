"""int8 with 8 and 7 bits and with the worst operators in float: how far the outputs move, and what each costs.

    python -m bench.precision --network runs/pneumoniamnist-0 [--float-operators 1 2 4]
    python -m bench.precision --network runs/handbook-network --task fraud --data fraud_handbook --reader handbook

The network as it was trained; validation cases. "error" is the outputs' mean squared change relative to their variance,
"flips" the decisions that change at the network's own threshold. Overflow with 8 bits shows on processors with AVX2 and
no VNNI only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from bench.passes import BACKENDS, BASELINE, latencies
from bench.timing import show
from featherweight.apps.fraud.training.task import open_task as open_fraud
from featherweight.apps.imaging.training.task import open_task as open_imaging
from featherweight.core.backends.registry import find_backend
from featherweight.core.export import export
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from featherweight.core.task import Task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--task", choices=["imaging", "fraud"], default="imaging")
    parser.add_argument("--data", default="pneumoniamnist")
    parser.add_argument("--reader", default="medmnist")
    parser.add_argument("--float-operators", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = {"data": options.data, "reader": options.reader}
    task: Task
    if options.task == "imaging":
        task = open_imaging({**source, "network": str(options.network)})
    else:
        task = open_fraud({**source, "model": str(options.network)})
    fp32, _ = export(task.baseline)
    steps = {"int8": QuantizeStep(), "int8, weights of 7 bits": QuantizeStep(weight_bits=7)}
    steps |= {f"int8, {count} in float": QuantizeStep(float_operators=count) for count in options.float_operators}
    programs = {BASELINE: fp32}
    for name, step in steps.items():
        programs[name], record = quantize(fp32, step, task.calibration_batches(step.calibration_samples, 0))
        print(name, record.facts.get("float_operators", ""), flush=True)
    timed = latencies(programs, task.validation_cases(), options.repetitions)
    rows = []
    for name, program in programs.items():
        cells = [cell for backend in BACKENDS for cell in _apart(fp32, program, backend, task)]
        ratios = [f"{medians[BASELINE] / medians[name]:.2f}x" for medians in timed.values()]
        rows.append([name, f"{len(program.content):,}", *cells, *ratios])
    columns = [f"{what}, {backend}" for backend in BACKENDS for what in ("error", "flips")]
    show(
        f"{options.network}, {len(task.validation_cases().labels)} validation cases",
        ["program", "bytes", *columns, *BACKENDS],
        rows,
    )


def _apart(fp32: Program, program: Program, backend: str, task: Task) -> tuple[str, str]:
    scores = []
    for one in (fp32, program):
        with find_backend(backend).open(one, threads=1) as session:
            scores.append(
                np.concatenate([task.scores(session.run(batch)) for batch in task.validation_cases().batches(16)])
            )
    before, after = scores
    flips = ((before >= task.positive_threshold) != (after >= task.positive_threshold)).mean()
    return f"{((before - after) ** 2).mean() / before.var():.1e}", f"{flips:.2%}"


if __name__ == "__main__":
    main()
