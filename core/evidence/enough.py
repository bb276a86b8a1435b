"""Whether the cases at hand can show at all that limits are kept: asked before hours of search, not after them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from featherweight.core.errors import LimitError
from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.task import HeldOut
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
    scores = cases.labels.astype(np.float64)
    perfect = Predictions(
        cases.ids,
        cases.labels,
        scores,
        0.5,
        scores,
        groups=cases.groups,
        clusters=cases.clusters,
        alerts=cases.alerts,
        cross_clusters=cases.cross_clusters,
        cluster_noun=cases.cluster_noun,
        cross_cluster_noun=cases.cross_cluster_noun,
    )
    both = Measured("baseline", perfect), Measured("candidate", perfect)
    for check in judge(*both, limits, seed=seed):
        # The calibration says nothing here: nobody's probabilities are those of a program that is always right. What
        # is lost by each case does: nothing is, whatever they are.
        if (check.metric.reads in ("ranking", "decisions") or check.metric.own_losses) and _is_missed(check):
            yield check


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
