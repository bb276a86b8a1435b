"""Whether the cases at hand can show at all that limits are kept: asked before hours of search, not after them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from featherweight.core.arrays import Bools
from featherweight.core.errors import LimitError
from featherweight.core.evidence.figures import BOUND_SAMPLES
from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metric import pair
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.task import HeldOut
from featherweight.core.terminal import counted

LARGEST_UNSEEN: Final = 0.1
"""Share of a class that may be lost altogether and not one of its cases be among those at hand."""
LEAST_AS_SEEN: Final = math.ceil(math.log(0.05) / math.log(1 - LARGEST_UNSEEN))
"""Cases, or clusters, of the rarer class, below which no bound of a ranking is believed that takes the unseen case for
no worse than the worst seen: 29. With n of them, a share p of the class that is lost altogether leaves no trace in
(1 - p)^n of all samples, and with fewer than 29 a tenth of it is missed in more than 5%."""


def hold_back(checks: Sequence[Check], baseline: Measured, candidate: Measured, limits: Limits) -> tuple[Check, ...]:
    """The checks, of which those of a ranking are not measured where so few cases cannot show what they say."""
    both = pair(baseline.predictions, candidate.predictions, samples=BOUND_SAMPLES, seed=0)
    few = fewest_of_a_class(baseline.predictions)
    if few >= LEAST_AS_SEEN or limits.unseen(both) == "lost":
        return tuple(checks)
    return tuple(
        _not_shown(check, few) if check.metric.own_losses is not None and check.metric.reads == "ranking" else check
        for check in checks
    )


def fewest_of_a_class(of: Predictions) -> int:
    """Cases of the rarer class, or clusters where cases come in such, of the kind with the fewest."""

    def count(inside: Bools) -> int:
        return min([int(inside.sum()), *(len(np.unique(kind[inside])) for kind in of.cluster_kinds)])

    return min(count(of.labels == 1), count(of.labels != 1))


def _not_shown(check: Check, few: int) -> Check:
    text = (
        f"{check.rule.title}: cannot be shown. There are {few} independent cases of the rarer class; with fewer than "
        f"{LEAST_AS_SEEN} nothing excludes that {LARGEST_UNSEEN:.0%} of it are lost altogether and not one seen."
    )
    return replace(check, status="not measured", found=None, seen=None, explanation=text, cases_least=LEAST_AS_SEEN)


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
    )
    both = Measured("baseline", perfect), Measured("candidate", perfect)
    for check in judge(*both, limits, seed=seed):
        # What reads probabilities says nothing here: nobody's are those of a program that is always right.
        if check.metric.reads in ("ranking", "decisions") and _is_missed(check):
            yield check


def _is_missed(check: Check) -> bool:
    """Also where the data lacks what the metric is made of. What could not be measured otherwise is the candidate's."""
    return check.status == "failed" or (check.status == "not measured" and bool(check.metric.lacks))


def _line(part: str, cases: HeldOut, check: Check) -> str:
    if check.cases_least is None:
        return f"{part} cases: {check.explanation}"
    kinds = {"positive": cases.labels == 1, "negative": cases.labels != 1}
    inside = kinds.get(str(check.metric.counted))
    found = counted(len(cases.labels) if inside is None else int(inside.sum()), check.metric.cases)
    limit = f"{check.name} = {check.rule.describe(check.limit)}"
    return f"{part} cases: {limit} cannot be shown with {found}: {check.cases_least:,} are needed"
