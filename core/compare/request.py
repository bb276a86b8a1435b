"""What a comparison is asked for, checked before a file is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.core.compare.bounded import LARGEST, is_sane
from featherweight.core.compare.cases import MAX_CLUSTERS, Columns
from featherweight.core.compare.tables import Table, is_table
from featherweight.core.errors import UsageError
from featherweight.core.evidence.in_force import Costs
from featherweight.core.evidence.metrics import LATENCY, SIZE, Limits
from featherweight.core.record.uses import FILE

Source = Path | Table
"""What a model is: a table of predictions, an ONNX file or the folder of an artifact."""
Threshold = float | Mapping[str, float] | None
"""One threshold; or all that the app acts on, name of the outcome that begins there -> threshold; or what the model
itself brings."""


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
    None; features: columns of an input without names of its own, in order; record: the file of uses of the cases, None
    for that of `find_record`; show: tell the figures though limits are missed; limits_file: where they come from.
    """

    baseline: Source
    candidate: Source
    data: Source
    columns: Columns
    limits: Limits
    thresholds: tuple[Threshold, Threshold] = (None, None)
    in_force: ThresholdInForce | None = None
    inputs: Source | None = None
    features: tuple[str, ...] = ()
    seed: int = 0
    record: Path | None = None
    show: bool = False
    limits_file: Path | None = None

    def check(self) -> None:
        """Raise UsageError for a request that judges nothing, or what is never measured."""
        if not self.limits:
            raise UsageError("no limit is set, so nothing would be judged; set one, such as auc_loss = 0.005")
        if self.limits.of(LATENCY) is not None:
            raise UsageError("latency_ratio_min: a comparison times nothing; leave this limit out")
        if self.limits.of(SIZE) is not None and any(map(is_predictions, (self.baseline, self.candidate))):
            raise UsageError("size_ratio_min: a table of predictions has no size as a model; leave this limit out")
        for threshold in self.thresholds:
            values = threshold.values() if isinstance(threshold, Mapping) else () if threshold is None else (threshold,)
            if not all(map(is_sane, values)):
                raise UsageError(f"a threshold: not a finite number of at most {LARGEST:g}")
        if len(self.columns.clusters) > MAX_CLUSTERS or len(set(self.columns.clusters)) < len(self.columns.clusters):
            raise UsageError(
                f"found the columns {', '.join(self.columns.clusters)} of clusters; expected up to {MAX_CLUSTERS} "
                "different ones, such as the card and the terminal"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed: found {self.seed}, expected a whole number from 0 to {2**32 - 1}")


def find_record(request: ComparisonRequest, out: Path) -> Path:
    """The file in which the uses of the cases are written down: the one that was asked for; else `test-uses.jsonl`
    beside the file of limits, which stays where the results come and go; else beside the folder `out`."""
    if request.record is not None:
        return request.record
    return (out if request.limits_file is None else request.limits_file).parent / FILE


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
    found = one_number("the threshold in force", threshold)
    if prevalence is not None and not 0 < one_number("prevalence", prevalence) < 1:
        raise UsageError(f"prevalence: found {prevalence:g}, expected a share above 0 and below 1")
    if cost_missed is None and cost_alarm is None:
        return ThresholdInForce(found, prevalence)
    if cost_missed is None or cost_alarm is None:
        raise UsageError("one cost is given without the other; give that of a missed case and that of a false alarm")
    costs = Costs(one_number("the cost of a missed case", cost_missed), one_number("that of an alarm", cost_alarm))
    if min(costs.missed, costs.alarm) < 0 or max(costs.missed, costs.alarm) < 1 / LARGEST:
        raise UsageError("costs: expected two numbers of 0 or more, not both 0")
    return ThresholdInForce(found, prevalence, costs)


def one_number(what: str, value: Any) -> float:
    """As float64. Raises UsageError for what is not one number that a score, a share or a cost can be."""
    try:
        found = float("nan") if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = float("nan")
    if not is_sane(found):
        raise UsageError(f"{what}: not a finite number of at most {LARGEST:g}")
    return found


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


def parse_thresholds(option: str, texts: Sequence[str]) -> Threshold:
    """One number, or NAME=VALUE for every threshold that the app acts on. Raises UsageError."""
    if not texts:
        return None
    parts = [text.rpartition("=") for text in texts]
    if len(parts) == 1 and not parts[0][1]:
        return one_number(option, _float(texts[0]))
    names = [name.strip() for name, _, _ in parts]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"{option}: found {', '.join(ascii(text[:60]) for text in texts[:5])}; expected one number, or a different "
            "NAME=VALUE for every threshold that the app acts on, such as review=0.5 and decline=0.9"
        )
    return {
        name: one_number(f"{option} {name}", _float(value)) for name, (_, _, value) in zip(names, parts, strict=True)
    }


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
