"""How good the gate is on a user's own cases: planted faults that it should refuse, harmless candidates that it should
not.

The cases (validation cases: no test case is read) are taken for a population, into which each fault is planted once, so
that its true damage is known. Whoever judges sees only a sample: so the judge is given as many cases as there are,
drawn with replacement, patients or cards whole and class by class. A fault whose true damage is beyond a limit should
be refused in at least 95% of such draws; one whose damage is smaller is allowed to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from featherweight.core.arrays import Bools
from featherweight.core.errors import DataError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.absolute import AUC_FLOOR, AVERAGE_PRECISION_FLOOR
from featherweight.core.evidence.judge import judge_one
from featherweight.core.evidence.metric import Asked, Limit, Metric
from featherweight.core.evidence.metrics import AUC, AVERAGE_PRECISION, CHANGED_DECISIONS, Limits
from featherweight.core.evidence.planted import GRADED, HARMLESS, PLANTED, GradedFault, PlantedFault
from featherweight.core.evidence.planted_classes import CLASS_FAULTS, CLASS_GRADED, CLASS_HARMLESS
from featherweight.core.evidence.planted_draws import MAX_CASES, MOST_CASES, Drawn, Units, take_cases
from featherweight.core.evidence.planted_result import GateTrial, NoTrial, PlantedResult, share_of_limit
from featherweight.core.evidence.predictions import Measured, Predictions, changed_outcomes
from featherweight.core.evidence.subgroups import compare_subgroups
from featherweight.core.target import LabelKind

DRAWS = 3
HARMLESS_DRAWS = 6
"""And of the faults that are just beyond a limit."""
GROUP_DRAWS = 1
"""Of all, where a limit holds in every group: such judgements take a hundred times as long."""
_SAMPLES = 100
"""Resamples behind a bound that is made of such: this is a trial of many judgements, not one of them."""
_BEYOND = 1 + 1e-9
_JUST_BEYOND = 1.25
"""Times what a limit allows: the harm of graded faults."""
_STEPS = 10
_FLOORS = {AUC_FLOOR: AUC, AVERAGE_PRECISION_FLOOR: AVERAGE_PRECISION}
"""Limits on the candidate itself -> what they are on."""
_WORTH_TELLING = 0.01
"""So much worse must a metric without a limit be that it is told."""

Refuses = Callable[[Predictions, Predictions], bool]
"""(baseline, candidate) -> whether the candidate is refused."""


def try_gate(
    baseline: Predictions, limits: Limits, *, seed: int, refuses: Refuses | None = None
) -> GateTrial | NoTrial:
    """Plant every fault of the table into the baseline's answers, and judge. refuses: another gate in the place of the
    limits' own, on the same faults and draws."""
    kind = baseline.label_kind
    if not any(_limited(limits, kind)):
        return NoTrial("no limit looks at answers")
    if not all(inside.any() for _, inside in baseline.strata):
        whole = "the validation cases are all of one class"
        return NoTrial(whole if kind == "binary" else "a class has no validation case")
    if not np.isfinite(baseline.all_outcomes.thresholds).all():
        return NoTrial("a threshold is infinite, so that one decision is never made")
    table, just_beyond, harmless_ones = _tables(kind)
    bench = _Bench.of(baseline, limits, seed, refuses)
    faults, missing = [], []
    for place, fault in enumerate(table):
        planted = bench.plant(fault, [seed, 1, place])
        if planted is None:
            missing.append(fault.name)
        else:
            result = bench.measure(fault, planted)
            faults.append(bench.judge(result, planted, DRAWS if result.beyond else 0))
    for place, graded in enumerate(just_beyond):
        judged = bench.judge_just_beyond(graded, [seed, 5, place])
        if judged is None:
            missing.append(graded.title)
        else:
            faults.append(judged)
    harmless = []
    for place, fault in enumerate(harmless_ones):
        planted = _planted(fault, bench.whole, [seed, 2, place]) or bench.whole
        result = bench.measure(fault, planted)
        if bench.is_harmless(planted):
            harmless.append(bench.judge(result, planted, HARMLESS_DRAWS))
    _of_baseline.cache_clear()
    return GateTrial(bench.size, len(baseline.ids), tuple(faults), tuple(harmless), tuple(missing))


_Tables = tuple[Sequence[PlantedFault], Sequence[GradedFault], Sequence[PlantedFault]]


def _tables(kind: LabelKind) -> _Tables:
    """(faults, those of a size that is chosen, harmless candidates) of labels of this kind."""
    if kind == "multi-class":
        return CLASS_FAULTS, CLASS_GRADED, CLASS_HARMLESS
    return PLANTED, GRADED, HARMLESS


def _limited(limits: Limits, kind: LabelKind) -> Iterator[tuple[Metric, Limit, float]]:
    """The limits on answers: not those on speed and size."""
    for name, (metric, rule) in metrics.limits(kind).items():
        if name in limits and metric.reads != "running":
            yield metric, rule, limits[name]


@dataclass(frozen=True)
class _Bench:
    """The population, and the draws from it that every fault is judged on."""

    whole: Predictions
    limits: Limits
    seed: int
    refuses: Refuses | None

    @classmethod
    def of(cls, baseline: Predictions, limits: Limits, seed: int, refuses: Refuses | None) -> _Bench:
        """Of the baseline's answers, or of as many of them as it takes to see that a copy of it keeps the limits."""
        most = MAX_CASES
        while most < len(baseline.ids):
            thinned = Units.of(baseline).thinned(np.random.default_rng([seed, 3]), most)
            found = cls(take_cases(baseline, *thinned), limits, seed, refuses)
            if most >= MOST_CASES or not found.refuses_a_copy:
                return found
            most = min(4 * most, MOST_CASES)
        return cls(baseline, limits, seed, refuses)

    @property
    def refuses_a_copy(self) -> bool:
        """Whether the limits refuse the baseline itself: then its cases are too few, and refusals say nothing."""
        draws = self.draws[: self._most_draws(HARMLESS_DRAWS)]
        return any(self._misses_a_limit(drawn.before, drawn.before) for drawn in draws)

    @property
    def size(self) -> int:
        return len(self.whole.ids)

    @cached_property
    def limited(self) -> tuple[tuple[Metric, Limit, float], ...]:
        """What is cheaply judged comes first: the first limit that is missed decides."""
        return tuple(sorted(self.named, key=lambda limited: _cost(limited[0], limited[1])))

    @cached_property
    def named(self) -> tuple[tuple[Metric, Limit, float], ...]:
        """In the order of the table."""
        return tuple(_limited(self.limits, self.whole.label_kind))

    @cached_property
    def draws(self) -> tuple[Drawn, ...]:
        units = Units.of(self.whole)
        return tuple(Drawn.of(self.whole, units, [self.seed, 4, draw]) for draw in range(max(DRAWS, HARMLESS_DRAWS)))

    def plant(self, fault: PlantedFault, seed: list[int]) -> Predictions | None:
        """None where the cases have not what it takes, or nothing would change."""
        found = _planted(fault, self.whole, seed)
        if found is None or _same(found, self.whole):
            return None
        return self.whole.answered(
            found.scores, found.probabilities, threshold=found.threshold, outcomes=found.outcomes
        )

    def measure(self, fault: PlantedFault, planted: Predictions) -> PlantedResult:
        """What it costs the population, before anything is judged."""
        found = self._losses(planted)
        # A floor is nearly reached by the baseline itself, so that what counts is how much nearer the fault is to it.
        own = {name: share_of_limit(rule, loss, limit) for name, (rule, loss, limit) in self._own.items()}
        shares = {name: share_of_limit(rule, loss, limit) for name, (rule, loss, limit) in found.items()}
        name = max(shares, key=lambda name: (shares[name] > _BEYOND, shares[name] - own.get(name, 0.0)), default="")
        _, loss, limit = found[name] if name else (None, 0.0, 0.0)
        beyond = bool(name) and shares[name] > _BEYOND
        return PlantedResult(fault.name, fault.imitates, name, loss, limit, beyond, 0, 0)

    @cached_property
    def _own(self) -> dict[str, tuple[Limit, float, float]]:
        """The same of the baseline itself."""
        return self._losses(self.whole)

    def _losses(self, planted: Predictions) -> dict[str, tuple[Limit, float, float]]:
        """Name of a limit -> itself, the true loss, what is allowed, of those that can be measured."""
        losses = ((rule, self._true_loss(one, rule, planted), limit) for one, rule, limit in self.named)
        return {rule.name: (rule, loss, limit) for rule, loss, limit in losses if loss is not None}

    def _true_loss(self, metric: Metric, rule: Limit, planted: Predictions) -> float | None:
        if metric.whole is None:
            return true_loss(metric, rule, self.limits, self.whole, planted)
        losses = (
            true_loss(metric.whole, metric.whole.limit or rule, self.limits, before, planted.among(inside))
            for inside, before in self._groups.get(metric.whole.name, ())
        )
        return max((loss for loss in losses if loss is not None), default=None)

    @cached_property
    def _groups(self) -> dict[str, list[tuple[Bools, Predictions]]]:
        """Name of a metric -> the groups that can show whether the limit on it is kept: in others nothing is judged.
        Each by its cases and the baseline's answers on them."""
        found: dict[str, dict[tuple[str, str], tuple[Bools, Predictions]]] = {}
        for row in compare_subgroups(self.whole, self.whole, self.limits, seed=self.seed).rows:
            inside = np.asarray(self.whole.groups[row.column] == row.value)
            held = not self.limits.group_columns or row.column in self.limits.group_columns
            for figure in row.figures:
                if held and figure.can_show and inside.any():
                    groups = found.setdefault(figure.name, {})
                    groups.setdefault((row.column, row.value), (inside, self.whole.among(inside)))
        return {name: list(groups.values()) for name, groups in found.items()}

    def is_harmless(self, planted: Predictions) -> bool:
        """Whether no limit is used up by half, or hardly more than by the baseline itself."""
        own = self._own
        return all(
            share_of_limit(rule, loss, limit) <= max(0.5, 1.001 * share_of_limit(*own[name]) if name in own else 0.0)
            for name, (rule, loss, limit) in self._losses(planted).items()
        )

    def _worst_unlimited(self, planted: Predictions) -> tuple[str, float]:
        """Of the metrics of answers that no limit is set on."""
        found = [("", 0.0)]
        for metric in metrics.METRICS:
            judged = self.whole.label_kind in metric.labels
            if judged and metric.reads != "running" and self.limits.of(metric) is None:
                loss = _estimated_loss(metric, self.whole, planted)
                found += [(metric.name, loss)] if loss is not None and loss >= _WORTH_TELLING else []
        return max(found, key=lambda one: one[1])

    def judge(self, result: PlantedResult, planted: Predictions, draws: int) -> PlantedResult:
        """Refused in how many draws; with none, in one judgement of the cases as they are."""
        if draws:
            pairs = ((drawn.before, drawn.after(planted)) for drawn in self.draws[: self._most_draws(draws)])
            verdicts = [self._refused(before, after) for before, after in pairs]
        else:
            verdicts = [self._refused(self.whole, planted)]
        judged = replace(result, refused=sum(verdicts), draws=len(verdicts))
        if judged.finding == "caught":  # and not told of any further
            return judged
        unlimited, worse = self._worst_unlimited(planted)
        return replace(judged, unlimited=unlimited, unlimited_loss=worse)

    def _most_draws(self, wanted: int) -> int:
        return GROUP_DRAWS if any(metric.whole is not None for metric, *_ in self.limited) else wanted

    def judge_just_beyond(self, graded: GradedFault, seed: list[int]) -> PlantedResult | None:
        """The fault with the smallest amount that harms so much more than a limit allows; None where the largest does
        not, or the cases have not what it takes."""
        found, low, high = None, 1e-4 * graded.most, graded.most
        for step in range(_STEPS):
            amount = high if step == 0 else (low * high) ** 0.5
            fault = graded.of(amount)
            planted = self.plant(fault, seed)
            result = None if planted is None else self.measure(fault, planted)
            if planted is not None and result is not None and result.times >= _JUST_BEYOND:
                found, high = (result, planted), amount
            elif step == 0:
                return None
            else:
                low = amount
        return None if found is None else replace(self.judge(*found, HARMLESS_DRAWS), just_beyond=True)

    def _refused(self, before: Predictions, after: Predictions) -> bool:
        """As `judge` would, until the first limit is missed. A bound is never below what was seen: what is seen beyond
        a limit needs none, where bounds take long."""
        return (self.refuses or self._misses_a_limit)(before, after)

    def _misses_a_limit(self, before: Predictions, after: Predictions) -> bool:
        for metric, rule, limit in self.limited:
            loss = None if _is_dear_to_see(metric, rule) else true_loss(metric, rule, self.limits, before, after)
            if loss is not None and share_of_limit(rule, loss, limit) > _BEYOND:
                return True
        one, other = Measured("baseline", before), Measured("planted", after)
        return any(
            judge_one(one, other, metric, rule, self.limits, seed=self.seed, samples=_SAMPLES, sizes=False).status
            != "passed"
            for metric, rule, _ in self.limited
        )


def _cost(metric: Metric, rule: Limit) -> int:
    if metric.whole is not None:
        return 4
    if metric.reads == "decisions":
        return 0
    return 1 if metric.own_losses is not None else 2 if rule.judge is None else 3


def _is_dear_to_see(metric: Metric, rule: Limit) -> bool:
    """Whether what these cases lose is found as their bound is, so that it spares nothing."""
    seen = metric is CHANGED_DECISIONS or metric in _FLOORS
    return metric.whole is not None or (rule.judge is not None and not seen)


def _planted(fault: PlantedFault, whole: Predictions, seed: list[int]) -> Predictions | None:
    """None also where what comes out is no answer: scores near the largest number there is leave room for no fault that
    makes them larger."""
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            found = fault.plant(whole, np.random.default_rng(seed))
            return found if found is None or found.all_outcomes else None
        except DataError:
            return None


def _same(one: Predictions, other: Predictions) -> bool:
    thresholds = one.threshold == other.threshold and one.outcomes == other.outcomes
    alike = thresholds and np.array_equal(one.scores, other.scores)
    if one.probabilities is None or other.probabilities is None:
        return alike
    return alike and np.array_equal(one.probabilities, other.probabilities)


def true_loss(metric: Metric, rule: Limit, limits: Limits, before: Predictions, after: Predictions) -> float | None:
    """What these cases lose, in the limit's unit; None where they cannot say, and for limits of groups."""
    if metric is CHANGED_DECISIONS:
        return changed_outcomes(before, after).count / len(before.ids)
    if metric in _FLOORS:
        estimate = _FLOORS[metric].estimate
        return None if estimate is None else estimate(after)
    if rule.judge is not None:
        asked = Asked(limits[rule.name], _SAMPLES, 0, limits.prevalence)
        return rule.judge(Measured("baseline", before), Measured("planted", after), asked).seen
    if before.label_kind in metric.each:  # in the class where it is worst
        parts = zip(before.parts, after.parts, strict=True)
        losses = [_estimated_loss(metric, one, other) for (_, one), (_, other) in parts]
        return max((loss for loss in losses if loss is not None), default=None)
    if metric.reads == "decisions":  # at the threshold where it is worst
        pairs = zip(before.at_thresholds, after.at_thresholds, strict=True)
        losses = [_estimated_loss(metric, one, other) for one, other in pairs]
        return max((loss for loss in losses if loss is not None), default=None)
    return _estimated_loss(metric, before, after)


def _estimated_loss(metric: Metric, before: Predictions, after: Predictions) -> float | None:
    if metric.estimate is None:
        return None
    was, now = _of_baseline(metric, before), metric.estimate(after)
    if was is None or now is None:
        return None
    return was - now if metric.direction == "higher" else now - was


@lru_cache(maxsize=256)
def _of_baseline(metric: Metric, before: Predictions) -> float | None:
    """The same for all faults that are planted in it."""
    return None if metric.estimate is None else metric.estimate(before)
