"""The comparison again within each group of cases: site, device, sex, amount band, the class itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from core.evidence.judge import Limits
from core.evidence.measured import Predictions

FEW_CASES = 20
MOST_VALUES = 20

SubgroupStatus = Literal["not worse", "no sign of harm", "worse, not shown", "shown worse", "too few cases"]
"""not worse: the bound keeps the margin; no sign of harm: the loss that was seen keeps it, the bound does not;
worse, not shown: the loss that was seen does not, but chance may have made it; shown worse: chance has not."""


@dataclass(frozen=True)
class SubgroupFigure:
    """name: auc, average_precision, sensitivity or specificity; difference: candidate minus baseline; low: its lower
    bound, with 95% confidence in all bounds of the table together; margin: the recipe's limit on the loss, or 0 where
    it has none (then nothing can be shown to be `not worse`); p_value: of a loss beyond the margin, adjusted."""

    name: str
    baseline: float | None
    candidate: float | None
    difference: float | None
    low: float | None
    margin: float
    p_value: float | None
    status: SubgroupStatus


@dataclass(frozen=True)
class Subgroup:
    """The cases of one value of one column. flips: decisions that changed among them."""

    column: str
    value: str
    cases: int
    positives: int
    flips: int
    figures: tuple[SubgroupFigure, ...]

    @property
    def status(self) -> SubgroupStatus:
        """The worst of the figures'."""
        order: tuple[SubgroupStatus, ...] = (
            "shown worse", "worse, not shown", "no sign of harm", "not worse", "too few cases"
        )  # fmt: skip
        found = {figure.status for figure in self.figures}
        return next((status for status in order if status in found), "too few cases")


@dataclass(frozen=True)
class Subgroups:
    """rows: column by column, the largest group first; tests: comparisons that were corrected for; method: the
    correction in a sentence; notes: what was left out."""

    rows: tuple[Subgroup, ...]
    tests: int
    method: str
    notes: tuple[str, ...]


@lru_cache(maxsize=4)
def compare_subgroups(baseline: Predictions, candidate: Predictions, limits: Limits) -> Subgroups:
    """Every value of every column of `groups`, and the class itself, as far as there are enough cases."""
    return Subgroups((), 0, "", ())
