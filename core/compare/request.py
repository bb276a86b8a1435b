"""What a comparison is asked for, checked before a file is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featherweight.core.compare.cases import Columns
from featherweight.core.compare.tables import Table, is_table
from featherweight.core.errors import UsageError
from featherweight.core.evidence.in_force import Costs
from featherweight.core.evidence.metrics import LATENCY, SIZE, Limits

Source = Path | Table
"""What a model is: a table of predictions, an ONNX file or the folder of an artifact."""


@dataclass(frozen=True)
class ThresholdInForce:
    """threshold: that a site keeps; prevalence: share of positive cases at the site, that of the cases if None."""

    threshold: float
    prevalence: float | None = None
    costs: Costs | None = None


@dataclass(frozen=True)
class ComparisonRequest:
    """What is compared, on what, and what must be kept.

    baseline, candidate: the models, A and B; data: the table of labelled cases; thresholds: of A and of B on the raw
    score, None where the model brings its own or that in force is meant; inputs: what models are run on, the data if
    None; features: columns of an input without names of its own, in order.
    """

    baseline: Source
    candidate: Source
    data: Source
    columns: Columns
    limits: Limits
    thresholds: tuple[float | None, float | None] = (None, None)
    in_force: ThresholdInForce | None = None
    inputs: Source | None = None
    features: tuple[str, ...] = ()
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError for a request that judges nothing, or what is never measured."""
        if not self.limits:
            raise UsageError("no limit is set, so nothing would be judged; set one, such as auc_loss = 0.005")
        if self.limits.of(LATENCY) is not None:
            raise UsageError("latency_ratio_min: a comparison times nothing; leave this limit out")
        if self.limits.of(SIZE) is not None and any(map(is_predictions, (self.baseline, self.candidate))):
            raise UsageError("size_ratio_min: a table of predictions has no size as a model; leave this limit out")
        if not all(threshold is None or math.isfinite(threshold) for threshold in self.thresholds):
            raise UsageError("a threshold is not a finite number")


def is_predictions(source: Source) -> bool:
    """Whether the model is given as a table of its predictions."""
    return isinstance(source, Table) or is_table(source)


def threshold_in_force(
    threshold: float | None, prevalence: float | None, cost_missed: float | None, cost_alarm: float | None
) -> ThresholdInForce | None:
    """None where no threshold is in force. Raises UsageError for values that are not possible, or missing."""
    if threshold is None:
        if (prevalence, cost_missed, cost_alarm) != (None, None, None):
            raise UsageError("prevalence and costs are for a threshold in force; give it too (--threshold-in-force)")
        return None
    if not math.isfinite(threshold):
        raise UsageError("the threshold in force is not a finite number")
    if prevalence is not None and not 0 < prevalence < 1:
        raise UsageError(f"prevalence: found {prevalence:g}, expected a share above 0 and below 1")
    if cost_missed is None and cost_alarm is None:
        return ThresholdInForce(threshold, prevalence)
    if cost_missed is None or cost_alarm is None:
        raise UsageError("one cost is given without the other; give that of a missed case and that of a false alarm")
    if (
        not all(math.isfinite(cost) and cost >= 0 for cost in (cost_missed, cost_alarm))
        or cost_missed + cost_alarm == 0
    ):
        raise UsageError("costs: expected two numbers of 0 or more, not both 0")
    return ThresholdInForce(threshold, prevalence, Costs(cost_missed, cost_alarm))


def parse_limits(texts: list[str]) -> Mapping[str, float | str]:
    """NAME=VALUE of the command line, as a table [limits] has it. Raises UsageError."""
    found: dict[str, float | str] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name or not value:
            raise UsageError(f"--limit: found {text!r}, expected NAME=VALUE, such as auc_loss=0.005")
        if name in found:
            raise UsageError(f"--limit: {name} is given twice")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    return found
