"""The chosen program on the test cases by every runtime of this host that opens it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from featherweight.core.backends.registry import NAMES, find_backend
from featherweight.core.errors import BackendError, TensorError
from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metrics import AUC, AVERAGE_PRECISION, Limits
from featherweight.core.evidence.predictions import Measured, changed_outcomes
from featherweight.core.evidence.report import Comparison
from featherweight.core.evidence.runtime_figures import RuntimeFigures
from featherweight.core.program import Program
from featherweight.core.search.measurements import run_scores
from featherweight.core.task import HeldOut, Probability, Task


def measure_runtimes(
    task: Task,
    cases: HeldOut,
    test: Comparison,
    program: Program,
    judged_on: str,
    probability: Probability | None,
    limits: Limits,
    *,
    seed: int,
) -> tuple[RuntimeFigures, ...]:
    """The runtime that judged it first. A runtime that cannot run such programs at all is left out.

    cases: those of `test`; probability: of the sealed calibration.
    """
    missed = _missed(test.checks)
    predictions = test.candidate.predictions
    first = RuntimeFigures(
        judged_on,
        program.precision,
        judged=True,
        serves=True,
        auc=_estimate(test.candidate, "auc"),
        average_precision=_estimate(test.candidate, "average_precision"),
        difference=0.0,
        changed=0,
        missed=missed,
    )

    def figures(name: str) -> RuntimeFigures:
        with find_backend(name).open(program, threads=1) as session:
            scores = run_scores(session, cases, task)
        probabilities = None if probability is None else probability(scores)
        found = replace(test.candidate, predictions=replace(predictions, scores=scores, probabilities=probabilities))
        difference = float(np.abs(scores - predictions.scores).max())
        checks = test.checks if difference == 0 else judge(test.baseline, found, limits, seed=seed)
        also = tuple(one for one in _missed(checks))
        return RuntimeFigures(
            name,
            program.precision,
            judged=False,
            serves=set(also) <= set(missed),
            auc=_estimate(found, "auc"),
            average_precision=_estimate(found, "average_precision"),
            difference=difference,
            changed=changed_outcomes(predictions, found.predictions).count,
            missed=also,
        )

    rows = [first]
    for name in _others(judged_on):
        found = find_backend(name).probe()
        if found.available and not found.runs(program.kind, program.precision):
            continue
        try:
            rows.append(figures(name))
        except (BackendError, TensorError, MemoryError) as error:
            why = str(error) or type(error).__name__
            rows.append(RuntimeFigures(name, program.precision, judged=False, serves=False, reason=why))
    return tuple(rows)


def _others(judged_on: str) -> Iterator[str]:
    return (name for name in NAMES if name != judged_on)


def _missed(checks: tuple[Check, ...]) -> tuple[str, ...]:
    """Limits that do not depend on how fast or large the program is."""
    return tuple(check.name for check in checks if check.status != "passed" and check.metric.reads != "running")


def _estimate(of: Measured, name: str) -> float | None:
    metric = AUC if name == "auc" else AVERAGE_PRECISION
    return None if metric.estimate is None else metric.estimate(of.predictions)
