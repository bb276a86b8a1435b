"""Whether the cases at hand can show at all that limits are kept: asked before hours of search, not after them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from featherweight.core.arrays import Scores
from featherweight.core.errors import LimitError
from featherweight.core.evidence.class_predictions import predictions_on
from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured
from featherweight.core.softmax import softmax
from featherweight.core.target import Classes
from featherweight.core.task import HeldOut, Probability
from featherweight.core.terminal import counted


def check_cases_suffice(parts: Mapping[str, HeldOut], limits: Limits, *, seed: int) -> None:
    """parts: name of a split -> its cases, whose labels alone are looked at. Raises LimitError where a limit would be
    missed by a candidate that decides everything right, as the baseline does: by any that is not better than it."""
    missed = [(part, check) for part, cases in parts.items() for check in _out_of_reach(cases, limits, seed)]
    if not missed:
        return
    lines = [f"  {_line(part, parts[part], check)}" for part, check in missed]
    raise LimitError(
        "these limits cannot be shown with the cases at hand, even if nothing gets worse:\n"
        + "\n".join(lines)
        + "\nbring more cases or set wider limits; --anyway searches all the same"
    )


def _out_of_reach(cases: HeldOut, limits: Limits, seed: int) -> Iterator[Check]:
    perfect = predictions_on(cases, *_perfect(cases), None)
    both = Measured("baseline", perfect), Measured("candidate", perfect)
    for check in judge(*both, limits, seed=seed):
        # The calibration says nothing here: nobody's probabilities are those of a program that is always right. What
        # is lost by each case does: nothing is, whatever they are.
        tells = check.metric.reads in ("ranking", "decisions") or check.metric.own_losses is not None
        if (tells and _is_missed(check)) or not check.metric.is_for(perfect.label_kind):
            yield check


def _perfect(cases: HeldOut) -> tuple[Scores, float, Probability]:
    """(scores, threshold, what makes probabilities of them) of a program that is always right."""
    if isinstance(cases.target, Classes):
        return 9.0 * np.eye(len(cases.target.names))[cases.labels], 0.0, softmax
    return cases.labels.astype(np.float64), 0.5, lambda scores: scores


def _is_missed(check: Check) -> bool:
    """Also where the data lacks what the metric is made of. What could not be measured otherwise is the candidate's."""
    too_few = check.cases_least is not None or bool(check.metric.lacks)
    return check.status == "failed" or (check.status == "not measured" and too_few)


def _line(part: str, cases: HeldOut, check: Check) -> str:
    if check.cases_least is None or check.status == "not measured":
        return f"{part} cases: {check.explanation}"
    kinds = {"positive": cases.labels == 1, "negative": cases.labels != 1}
    inside = kinds.get(str(check.metric.counted))
    found = counted(len(cases.labels) if inside is None else int(inside.sum()), check.metric.cases)
    limit = f"{check.name} = {check.rule.describe(check.limit)}"
    return f"{part} cases: {limit} cannot be shown with {found}: {check.cases_least:,} are needed"
