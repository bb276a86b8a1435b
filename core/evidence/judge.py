"""Judges a candidate against its baseline: each limit of the recipe becomes one Check with what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from featherweight.core.arrays import Bools
from featherweight.core.evidence import metrics
from featherweight.core.evidence.absurd import absurd_limits
from featherweight.core.evidence.figures import BOUND_SAMPLES
from featherweight.core.evidence.group_limits import judge_in_groups
from featherweight.core.evidence.metric import Asked, Limit, Metric, Pair, pair
from featherweight.core.evidence.metrics import CHANGED_DECISIONS, SENSITIVITY, SPECIFICITY, Limits
from featherweight.core.evidence.predictions import Measured, Predictions, check_same_cases
from featherweight.core.statistics.intervals import Difference
from featherweight.core.statistics.loss_bounds import LARGEST_UNSEEN, LEAST_AS_SEEN, Unseen
from featherweight.core.statistics.resampling import median_ratio
from featherweight.core.statistics.sample_size import Needed
from featherweight.core.target import LabelKind
from featherweight.core.terminal import counted

__all__ = ["SMALL_SAMPLE", "Check", "Limits", "Status", "all_passed", "judge", "judge_one", "warnings"]

SMALL_SAMPLE = 30
FEW = 100
"""Cases, or clusters, of the rarer class, below which a bound of a ranking that takes the unseen case for no worse than
the worst seen fails too often where few cases change much (`bench/levels.py`)."""

MAX_NAMED = 5
"""Classes that a sentence names."""

Status = Literal["passed", "failed", "not measured"]


@dataclass(frozen=True)
class Check:
    """One limit, judged. metric: whose limit it is; found and limit are in the limit's unit; found is None when nothing
    could be measured."""

    metric: Metric
    status: Status
    found: float | None
    limit: float
    explanation: str
    cases_needed: int | None = None
    """How many cases, of the kind that a loss is counted on, show with 80% power that it is inside the limit if there
    is no loss; None where that cannot be said."""
    cases_needed_as_seen: int | None = None
    """The same if the loss is as large as it was seen; None also where that is beyond the limit."""
    seen: float | None = None
    """What these cases show, in the limit's unit: the estimate, of which `found` is the worse end."""
    cases_least: int | None = None
    """With fewer cases no candidate can keep the limit, even if nothing changes; None where that cannot be said."""

    @property
    def cases_in_sight(self) -> int | None:
        """The larger of what is needed without a loss and with the loss that was seen."""
        return max(
            (count for count in (self.cases_needed, self.cases_needed_as_seen) if count is not None), default=None
        )

    @property
    def rule(self) -> Limit:
        """The metric's limit: its key, title, kind and unit."""
        if self.metric.limit is None:
            raise TypeError(f"{self.metric.name} has no limit, so that it cannot be checked")
        return self.metric.limit

    @property
    def name(self) -> str:
        """The limit's key in a recipe."""
        return self.rule.name


def all_passed(checks: Sequence[Check]) -> bool:
    """Whether a candidate may be sealed: a limit that could not be measured is not kept."""
    return all(check.status == "passed" for check in checks)


def judge(baseline: Measured, candidate: Measured, limits: Limits, *, seed: int) -> tuple[Check, ...]:
    """One Check for each limit that is set, in the order of the table. seed: of the resamples.

    Raises DataError unless both were run on the same cases.
    """
    check_same_cases(baseline.predictions, candidate.predictions)
    return tuple(
        judge_one(baseline, candidate, metric, rule, limits, seed=seed)
        for name, (metric, rule) in metrics.limits().items()
        if name in limits
    )


def judge_one(
    baseline: Measured,
    candidate: Measured,
    metric: Metric,
    rule: Limit,
    limits: Limits,
    *,
    seed: int,
    samples: int = BOUND_SAMPLES,
    sizes: bool = True,
) -> Check:
    """One limit of those that are set. samples: resamples of a bound that is made of such; sizes: whether it is also
    computed how many cases are needed."""
    kind, limit = baseline.predictions.label_kind, limits[rule.name]
    if not metric.is_for(kind):
        text = f"{metric.title} is not for {kind} labels."
        return Check(metric, "not measured", None, limit, text)
    if metric.whole is None and rule.judge is None:
        both = pair(baseline.predictions, candidate.predictions, samples=samples, seed=seed, sizes=sizes)
        return _worst_loss_check(metric, both, limits, limit)
    if metric.whole is not None:
        finding = judge_in_groups(baseline, candidate, metric.whole, limits, limit, seed=seed)
    elif rule.judge is not None:
        finding = rule.judge(baseline, candidate, Asked(limit, samples, seed, limits.prevalence))
    if finding.found is None:
        return Check(metric, "not measured", None, limit, finding.text)
    kept = finding.found >= limit if rule.kind == "min" else finding.found <= limit
    return Check(metric, "passed" if kept else "failed", finding.found, limit, finding.text, seen=finding.seen)


def warnings(baseline: Measured, candidate: Measured, limits: Limits | None = None, *, seed: int) -> tuple[str, ...]:
    """What a reader must be told, in plain lines: of the programs, and of what `limits` would not notice."""
    kind = baseline.predictions.label_kind
    lines = [] if limits is None else [*absurd_limits(baseline.predictions, limits), *_blind_spots(limits, kind)]
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
    numbers = [(name, int(inside.sum())) for name, inside in baseline.predictions.strata]
    small = [(name, number) for name, number in numbers if number < SMALL_SAMPLE]
    if kind == "binary":
        lines += [
            f"Only {counted(number, f'{name} cases')}: the intervals are wide and what they say about them is little."
            for name, number in small
        ]
    elif small:
        named = "; ".join(f"{name} {number}" for name, number in small[:MAX_NAMED])
        more = f"; and {counted(len(small) - MAX_NAMED, 'more classes')}" if len(small) > MAX_NAMED else ""
        lines.append(f"Few cases of some classes ({named}{more}): what the intervals say about them is little.")
    return tuple(lines)


def _blind_spots(limits: Limits, kind: LabelKind) -> Iterator[str]:
    """Faults that such limits let pass."""
    if kind == "multi-class" and all(limits.of(one) is None for one in (CHANGED_DECISIONS, SENSITIVITY)):
        yield (
            "No limit is on changed decisions, nor on the loss of sensitivity in each class: one class that is "
            "lost among many would hardly be noticed. Add "
            f"{_or([one.limit.name for one in (CHANGED_DECISIONS, SENSITIVITY) if one.limit is not None])}."
        )
    missing = [one for one in (SENSITIVITY, SPECIFICITY) if kind == "binary" and limits.of(one) is None]
    if limits.of(CHANGED_DECISIONS) is None and missing:
        shifted = "set too high" if missing[0] is SENSITIVITY else "set too low"
        yield (
            f"No limit is on changed decisions, nor on the loss of {_or([one.phrase for one in missing])}: a "
            f"threshold {shifted if len(missing) == 1 else 'set wrong'} would not be noticed. Add "
            f"{_or([one.limit.name for one in (CHANGED_DECISIONS, *missing[:1]) if one.limit is not None])}."
        )
    ranking = [one for one, _ in metrics.limits(kind).values() if one.reads == "ranking" and one.is_compared]
    if all(limits.of(one) is None for one in ranking):
        yield (
            f"No limit is on the loss of {_or([one.phrase for one in ranking])}: cases in the wrong order would be "
            "noticed only where they cross the threshold."
        )


def _or(words: Sequence[str]) -> str:
    return " or ".join([*([", ".join(words[:-1])] if words[:-1] else []), words[-1]])


def _worst_loss_check(metric: Metric, both: Pair, limits: Limits, limit: float) -> Check:
    """Of a metric that reads decisions the check at the threshold where it is worst: the limit is to be kept at all
    that the app acts on. Of several classes that in the class where it is worst. Each is judged at 5%: a candidate that
    must pass all of them passes none too easily."""
    if both.baseline.label_kind in metric.each:
        checks = [(name, _loss_check(metric, one, limits, limit)) for name, one in both.parts]
        name, worst = max(checks, key=lambda named: float("inf") if named[1].found is None else named[1].found)
        said = f"In the class {name} against the rest, the worst of {len(checks)}: {worst.explanation}"
        return replace(worst, explanation=said)
    if metric.reads != "decisions" or len(both.at_thresholds) == 1:
        return _loss_check(metric, both, limits, limit)
    checks = [(name, _loss_check(metric, one, limits, limit)) for name, one in both.at_thresholds]
    name, worst = max(checks, key=lambda named: float("inf") if named[1].found is None else named[1].found)
    said = f"At the threshold of {name}, the worst of {len(checks)}: {worst.explanation}"
    return replace(worst, explanation=said)


def _loss_check(metric: Metric, both: Pair, limits: Limits, limit: float) -> Check:
    before, unseen = both.baseline, limits.unseen(both)
    if metric.own_losses is not None and unseen != "lost":
        few = before.rarer_class
        if few < LEAST_AS_SEEN:
            fewest = both.needed(metric, unseen, limit).least or LEAST_AS_SEEN
            return Check(metric, "not measured", None, limit, _not_shown(metric, before), cases_least=fewest)
    difference, cases = both.difference(metric, unseen), _cases(metric, before)
    if difference is None:
        text = f"{metric.title} cannot be compared" + (f": {metric.lacks}." if metric.lacks else f" on {cases}.")
        return Check(metric, "not measured", None, limit, text)
    needed, worst, loss = both.needed(metric, unseen, limit), 0.0 - difference.low, 0.0 - difference.estimate
    text = _loss_text(metric, difference, limit, cases)
    if metric.own_losses is not None:
        text += f" {_assumed(metric, before, unseen)}"
    if worst > limit and loss <= limit:
        text += _too_few(metric, needed)
    status: Status = "passed" if worst <= limit else "failed"
    least = needed.least
    return Check(metric, status, worst, limit, text, needed.without_loss, needed.as_seen, loss, least)


def _not_shown(metric: Metric, before: Predictions) -> str:
    few = before.rarer_class
    kinds = [one for _, inside in before.strata for one in before.counts_of_clusters(inside)]
    named = f" ({counted(*min(kinds))})" if kinds else ""
    return (
        f"{metric.title}: that little is lost cannot be shown. There are {few} independent cases of the rarer class"
        f"{named}; with fewer than {LEAST_AS_SEEN} nothing excludes that {LARGEST_UNSEEN:.0%} of it are lost "
        "altogether and not one seen."
    )


def _loss_text(metric: Metric, difference: Difference, limit: float, cases: str) -> str:
    worst = 0.0 - difference.low
    bound = f"the loss is at most {_digits(worst)}" if worst >= 0 else "there is no loss"
    change = _change(difference.estimate if metric.direction == "higher" else -difference.estimate)
    return f"{metric.title} {change}; with 95% confidence {bound}, and the limit is {_digits(limit)} ({cases})."


def _assumed(metric: Metric, before: Predictions, unseen: Unseen) -> str:
    """What the bound of a ranking or of probabilities assumes, and what its cases cannot exclude without that."""
    if unseen == "lost":
        return "The bound holds though a case like none of these be lost altogether."
    binary = before.label_kind == "binary"
    strata = [(name, inside) for name, inside in before.strata if inside.any()]
    if not binary:
        strata = [min(strata, key=lambda named: before.independent(named[1]))]
    shares = [
        (f"{name} ones" if binary else f"class {name} (the rarest)", 1 - 0.05 ** (1 / before.independent(inside)))
        for name, inside in strata
    ]
    lost = " or ".join(f"{share:.2%} of the {kind}" for kind, share in shares)
    # The mean of all errors does not hang on the rarer class, as a ranking does.
    parts = (
        [np.ones(len(before.labels), bool)]
        if metric.reads == "probabilities"
        else [inside for _, inside in before.strata]
    )
    few = min(before.independent(inside) for inside in parts)
    of_what = "cases" if metric.reads == "probabilities" else "of a class"
    return (
        f"The bound takes the case that was not seen for no worse than the worst that was: such cases cannot exclude "
        f"that up to {lost} are lost altogether."
        + (f" With fewer than {FEW} {of_what} it does not hold against few large changes." if few < FEW else "")
    )


def _too_few(metric: Metric, needed: Needed) -> str:
    more = f": {needed.describe(metric.cases)}." if needed.without_loss else ": more are needed."
    return f" The loss that was seen is inside the limit, but so few cases cannot show it{more}"


def _cases(metric: Metric, before: Predictions) -> str:
    """Those that a loss is judged on: for a reader who doubts that they are enough."""
    if before.label_kind != "binary":
        name, rarest = min(before.strata, key=lambda named: int(named[1].sum()))
        numbers = f"{counted(len(before.ids), 'cases')} of {len(before.strata)} classes, {int(rarest.sum())} of {name}"
        return numbers + _clusters(before, np.ones(len(before.ids), bool))
    positive, counts = before.labels == 1, before.confusion
    if metric.counted == "positive":
        numbers, inside = counted(counts.positives, "positive cases"), positive
    elif metric.counted == "negative":
        numbers, inside = counted(counts.negatives, "negative cases"), ~positive
    else:
        numbers = f"{counts.positives} positive and {counted(counts.negatives, 'negative cases')}"
        inside = np.ones(len(positive), bool)
    return numbers + _clusters(before, inside)


def _clusters(predictions: Predictions, inside: Bools) -> str:
    found = [counted(*one) for one in predictions.counts_of_clusters(inside) if one[0] < int(inside.sum())]
    return f" in {' and '.join(found)}" if found else ""


def _change(estimate: float) -> str:
    if estimate == 0:
        return "did not change"
    return f"{'rose' if estimate > 0 else 'fell'} by {_digits(abs(estimate))}"


def _digits(value: float) -> str:
    return f"{value:.4f}"
