"""The chosen program on the test cases by every runtime of this host that opens it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from featherweight.core.backends.registry import NAMES, find_backend
from featherweight.core.errors import BackendError, TensorError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metrics import AUC, AVERAGE_PRECISION, Limits
from featherweight.core.evidence.predictions import Measured, changed_outcomes
from featherweight.core.evidence.report import Comparison
from featherweight.core.evidence.runtime_figures import RuntimeFigures
from featherweight.core.program import Program
from featherweight.core.search.measurements import run_scores
from featherweight.core.task import HeldOut, Probability, Task

NO_WORSE = 5e-5
"""By so little, less than half of the last digit that is printed, may a limit that was missed be missed by more:
rounding differs from runtime to runtime."""


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
        changed = changed_outcomes(predictions, found.predictions).count
        worse = tuple(_worse(checks, test.checks, changed))
        return RuntimeFigures(
            name,
            program.precision,
            judged=False,
            serves=not worse,
            auc=_estimate(found, "auc"),
            average_precision=_estimate(found, "average_precision"),
            difference=difference,
            changed=changed,
            missed=_missed(checks),
            worse=worse,
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
    return tuple(check.name for check in checks if _is_missed(check))


def _is_missed(check: Check) -> bool:
    return check.status != "passed" and check.metric.reads != "running"


def _worse(checks: tuple[Check, ...], judged: tuple[Check, ...], changed: int) -> Iterator[str]:
    """Limits that are missed here and kept by the judged runtime, or missed here by more: whoever sealed it by force
    saw the judged runtime's figures, and accepted no others. Where a limit could be measured by neither, no outcome may
    change. changed: outcomes that do."""
    accepted = {check.name: check for check in judged if _is_missed(check)}
    for check in filter(_is_missed, checks):
        before = accepted.get(check.name)
        if before is None or (check.found is None) != (before.found is None):
            yield check.name
        elif check.found is None or before.found is None:
            if changed:
                yield check.name
        elif (check.found - before.found) * (-1 if check.rule.kind == "min" else 1) > NO_WORSE:
            yield check.name


def _estimate(of: Measured, name: str) -> float | None:
    return metrics.ranking_estimate(AUC if name == "auc" else AVERAGE_PRECISION, of.predictions)
