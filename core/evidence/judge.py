"""Judges a candidate against its baseline: each limit of the recipe becomes one Check with what was found."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from core.errors import Fault

Status = Literal["passed", "failed", "not measured"]


@dataclass(frozen=True)
class Limits:
    """What a candidate must keep; None asks nothing. Recipes embed this table as [limits].

    Losses are non-inferiority margins in the metric's own unit (0.005 of AUC): a candidate passes when the one-sided
    95% bound of its loss against the baseline, paired on the same cases, stays inside the margin. A data set too small
    to tell therefore fails. Ratios are baseline over candidate: 2.0 is twice as fast, or half the size.
    """

    auc_loss: float | None = None
    sensitivity_loss: float | None = None
    specificity_loss: float | None = None
    flip_ratio_max: float | None = None
    """Largest share of cases, 0..1, whose decision differs from the baseline's."""
    latency_ratio_min: float | None = None
    size_ratio_min: float | None = None

    def faults(self) -> tuple[Fault, ...]:
        """Every value that makes no sense, keyed `limits.NAME`; the recipe's parser reports them with its own."""
        found = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            ratio = field.name.endswith("_ratio_min")
            if not math.isfinite(value) or value < 0 or (ratio and value == 0) or (not ratio and value > 1):
                wanted = "above 0" if ratio else "from 0 to 1"
                found.append(Fault(f"limits.{field.name}", f"found {value}, expected a number {wanted}"))
        return tuple(found)


@dataclass(frozen=True)
class Check:
    """One limit, judged. found and limit are in the limit's unit; found is None when nothing could be measured."""

    name: str
    status: Status
    found: float | None
    limit: float
    explanation: str
