"""Judges a candidate against its baseline: each limit of the recipe becomes one Check with what was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from core.errors import Fault
from core.evidence import statistics as s
from core.evidence.cases_needed import Needed, cases_needed, cases_needed_of_share
from core.evidence.figures import card_precision_difference, ranking_difference, right_difference
from core.evidence.measured import Measured, Predictions, check_same_cases
from core.evidence.resampling import median_ratio
from core.terminal import counted

FEW_CASES = 30

Status = Literal["passed", "failed", "not measured"]


@dataclass(frozen=True)
class Limits:
    """What a candidate must keep; None asks nothing. Recipes embed this table as [limits].

    Losses are non-inferiority margins in the metric's own unit (0.005 of AUC): a candidate passes when the one-sided
    95% bound of its loss against the baseline, paired on the same cases, stays inside the margin. A data set too small
    to tell therefore fails. Ratios are baseline over candidate: 2.0 is twice as fast, or half the size.
    """

    auc_loss: float | None = None
    average_precision_loss: float | None = None
    card_precision_loss: float | None = None
    """Of the mean share of compromised cards among each day's alerts; only where the data has cards and alerts."""
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
    cases_needed: int | None = None
    """Of a loss: how many cases of the kind that it is counted on show with 80% power that it is inside the limit, if
    there is none; None where that cannot be said."""
    cases_needed_as_seen: int | None = None
    """The same if the loss is as large as it was seen; None also where that is beyond the limit."""


_HOPEFUL = (
    " The 95% are approximate: in simulated studies such bounds held in 91 to 95 of 100 where each class had hundreds "
    "of cases, and in as few as 80 with under 50 cases of the rarer class or under 50 clusters."
)
"""From the table in docs/evidence.md, 'How far the bounds hold'."""


def all_passed(checks: Sequence[Check]) -> bool:
    """Whether a candidate may be sealed: a limit that could not be measured is not kept."""
    return all(check.status == "passed" for check in checks)


def judge(baseline: Measured, candidate: Measured, limits: Limits, *, seed: int = 0) -> tuple[Check, ...]:
    """One Check for each limit that is set, in the order of the fields of Limits. seed: of the resamples.

    Raises DataError unless both were run on the same cases.
    """
    before, after = baseline.predictions, candidate.predictions
    check_same_cases(before, after)
    checks = [*_ranking_checks(before, after, limits, seed), *_share_checks(before, after, limits)]
    if limits.flip_ratio_max is not None:
        checks.append(_flip_check(before, after, limits.flip_ratio_max))
    if limits.latency_ratio_min is not None:
        checks.append(_latency_check(baseline, candidate, limits.latency_ratio_min, seed))
    if limits.size_ratio_min is not None:
        checks.append(_size_check(baseline, candidate, limits.size_ratio_min))
    return tuple(checks)


def warnings(
    baseline: Measured, candidate: Measured, limits: Limits | None = None, *, seed: int = 0
) -> tuple[str, ...]:
    """What a reader must be told, in plain lines: of the programs, and of what `limits` would not notice."""
    lines = [] if limits is None else list(_blind_spots(limits))
    if baseline.latency and candidate.latency:
        ratio = median_ratio(baseline.latency.samples_ms, candidate.latency.samples_ms, seed=seed)
        if ratio.low <= 1:
            before, after = np.median(baseline.latency.samples_ms), np.median(candidate.latency.samples_ms)
            lines.append(
                f"{candidate.name} is not shown to be faster than {baseline.name} on the host that measured it: median "
                f"{after:.3g} ms against {before:.3g} ms, {ratio.estimate:.2f} times as fast (95% interval "
                f"{ratio.low:.2f} to {ratio.high:.2f})."
            )
    if baseline.size and candidate.size and candidate.size.compressed_bytes >= baseline.size.compressed_bytes:
        before_size, after_size = baseline.size, candidate.size
        lines.append(
            f"{candidate.name} is not smaller than {baseline.name}: {after_size.compressed_bytes:,} bytes as shipped "
            f"against {before_size.compressed_bytes:,}; unpacked {after_size.bytes:,} against {before_size.bytes:,}."
        )
    counts = baseline.predictions.confusion
    for kind, number in (("positive", counts.positives), ("negative", counts.negatives)):
        if number < FEW_CASES:
            lines.append(
                f"Only {counted(number, f'{kind} cases')}: the intervals are wide and what they say about them "
                "is little."
            )
    return tuple(lines)


def _blind_spots(limits: Limits) -> Iterator[str]:
    """Faults that such limits let pass."""
    missing = [name for name in ("sensitivity", "specificity") if getattr(limits, f"{name}_loss") is None]
    if limits.flip_ratio_max is None and missing:
        shifted = {"sensitivity": "set too high", "specificity": "set too low"}[missing[0]]
        yield (
            f"The recipe limits neither changed decisions nor the loss of {' or '.join(missing)}: a threshold "
            f"{shifted if len(missing) == 1 else 'set wrong'} would not be noticed. Add flip_ratio_max"
            f"{''.join(f' or {name}_loss' for name in missing[:1])}."
        )
    if limits.auc_loss is limits.average_precision_loss is limits.card_precision_loss is None:
        yield (
            "The recipe limits no loss of AUC, average precision or card precision: cases in the wrong order would be "
            "noticed only where they cross the threshold."
        )


def _ranking_checks(before: Predictions, after: Predictions, limits: Limits, seed: int) -> Iterator[Check]:
    counts, total = before.confusion, len(before.ids)
    cases = f"{counts.positives} positive and {counts.negatives} negative cases{_clusters(before, None)}"
    if limits.auc_loss is not None:
        difference = s.roc_auc_difference(before.scores, after.scores, before.labels, before.clusters)
        yield _loss_check(
            "auc_loss", "AUC", difference, limits.auc_loss, cases, _needed(difference, total, limits.auc_loss)
        )
    if (limit := limits.average_precision_loss) is not None:
        difference = ranking_difference(before, after, seed)
        needed = _needed(difference, total, limit)
        yield _loss_check("average_precision_loss", "Average precision", difference, limit, cases, needed)
    if (limit := limits.card_precision_loss) is not None:
        difference = card_precision_difference(before, after, seed)
        if difference is None:
            text = "Card precision cannot be compared: the data names no cards, none compromised, or no desk of alerts."
            yield Check("card_precision_loss", "not measured", None, limit, text)
        else:
            needed = _needed(difference, total, limit)
            yield _loss_check("card_precision_loss", "Card precision", difference, limit, cases, needed)


def _share_checks(before: Predictions, after: Predictions, limits: Limits) -> Iterator[Check]:
    positive = before.labels == 1
    for name, kind, limit, inside in (
        ("sensitivity", "positive", limits.sensitivity_loss, positive),
        ("specificity", "negative", limits.specificity_loss, ~positive),
    ):
        if limit is not None:
            difference = right_difference(before, after, inside)
            cases, needed = f"{counted(int(inside.sum()), f'{kind} cases')}{_clusters(before, inside)}", None
            if difference is not None:
                right = [(one.decisions == positive)[inside].astype(np.float64) for one in (before, after)]
                clusters = None if before.clusters is None else before.clusters[inside]
                needed = cases_needed_of_share(right[1] - right[0], limit, clusters)
            yield _loss_check(f"{name}_loss", name.capitalize(), difference, limit, cases, needed, f"{kind} cases")


def _clusters(predictions: Predictions, inside: s.Bools | None) -> str:
    if predictions.clusters is None:
        return ""
    found = predictions.clusters if inside is None else predictions.clusters[inside]
    count = len(np.unique(found))
    return f" in {counted(count, 'clusters')}" if count < len(found) else ""


def _needed(difference: s.Difference | None, cases: int, limit: float) -> Needed | None:
    return None if difference is None else cases_needed(difference, cases, limit)


def _loss_check(
    name: str,
    what: str,
    difference: s.Difference | None,
    limit: float,
    cases: str,
    needed: Needed | None,
    kind: str = "cases",
) -> Check:
    if difference is None:
        return Check(name, "not measured", None, limit, f"{what} cannot be compared on {cases}.")
    worst = 0.0 - difference.low
    bound = f"the loss is at most {_digits(worst)}" if worst >= 0 else "there is no loss"
    change = _change(difference.estimate)
    text = f"{what} {change}; with 95% confidence {bound}, and the limit is {_digits(limit)} ({cases})."
    text += _HOPEFUL if name in ("auc_loss", "average_precision_loss") else ""
    numbers = (None, None) if needed is None else (needed.without_loss, needed.as_seen)
    if worst <= limit:
        return Check(name, "passed", worst, limit, text, *numbers)
    if -difference.estimate <= limit:
        text += " The loss that was seen is inside the limit, but so few cases cannot show it"
        text += f": {needed.describe(kind)}." if needed is not None and needed.without_loss else ": more are needed."
    return Check(name, "failed", worst, limit, text, *numbers)


def _change(estimate: float) -> str:
    if estimate == 0:
        return "did not change"
    return f"{'rose' if estimate > 0 else 'fell'} by {_digits(abs(estimate))}"


def _digits(value: float) -> str:
    return f"{value:.4f}"


def _flip_check(before: Predictions, after: Predictions, limit: float) -> Check:
    flips = s.flipped_decisions(before.decisions, after.decisions)
    cases = len(before.ids)
    found = flips.count / cases
    text = (
        f"{flips.count} of {counted(cases, 'decisions')} changed ({found:.2%}): {len(flips.to_positive)} to positive, "
        f"{len(flips.to_negative)} to negative; the limit is {limit:.2%}."
    )
    return Check("flip_ratio_max", "passed" if found <= limit else "failed", found, limit, text)


def _latency_check(baseline: Measured, candidate: Measured, limit: float, seed: int) -> Check:
    if baseline.latency is None or candidate.latency is None:
        return Check("latency_ratio_min", "not measured", None, limit, "Latency was not measured for both programs.")
    before, after = baseline.latency, candidate.latency
    if before.batch != after.batch:
        text = f"Latency was measured at batch {before.batch} and {after.batch}, which cannot be compared."
        return Check("latency_ratio_min", "not measured", None, limit, text)
    ratio = median_ratio(before.samples_ms, after.samples_ms, seed=seed)
    text = (
        f"{ratio.estimate:.2f} times as fast (median {np.median(before.samples_ms):.3g} ms to "
        f"{np.median(after.samples_ms):.3g} ms at batch {after.batch}, {counted(len(after.samples_ms), 'runs')}); 95% "
        f"interval {ratio.low:.2f} to {ratio.high:.2f}, whose lower end must reach {limit:g}."
    )
    return Check("latency_ratio_min", "passed" if ratio.low >= limit else "failed", ratio.low, limit, text)


def _size_check(baseline: Measured, candidate: Measured, limit: float) -> Check:
    if baseline.size is None or candidate.size is None:
        return Check("size_ratio_min", "not measured", None, limit, "The size was not measured for both programs.")
    before, after = baseline.size, candidate.size
    found = before.compressed_bytes / after.compressed_bytes
    text = (
        f"{found:.2f} times smaller as shipped ({before.compressed_bytes:,} bytes to {after.compressed_bytes:,}); "
        f"unpacked {before.bytes:,} to {after.bytes:,}; the limit is {limit:g}."
    )
    return Check("size_ratio_min", "passed" if found >= limit else "failed", found, limit, text)
