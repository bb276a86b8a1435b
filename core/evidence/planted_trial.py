"""How good the gate is on a user's own cases: planted faults that it should refuse, harmless candidates that it should
not.

The cases (validation cases: no test case is read) are taken for a population, into which each fault is planted once, so
that its true damage is known. Whoever judges sees only a sample: so the judge is given as many cases as there are,
drawn with replacement, patients or cards whole and class by class. A fault whose true damage is beyond a limit should
be refused in at least 95% of such draws; one whose damage is smaller is allowed to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from featherweight.core.arrays import Clusters, Indices, Integers
from featherweight.core.evidence import metrics
from featherweight.core.evidence.judge import judge_one
from featherweight.core.evidence.metric import Asked, Limit, Metric
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.planted import GRADED, HARMLESS, PLANTED, GradedFault, PlantedFault
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.task import Alerts

MAX_CASES = 3000
"""Of more, so many are used: all clusters with a positive case up to half of this number, and of the others."""
DRAWS = 3
HARMLESS_DRAWS = 6
"""And of the faults that are just beyond a limit."""
_SAMPLES = 100
"""Resamples behind a bound that is made of such: this is a trial of many judgements, not one of them."""
_BEYOND = 1 + 1e-9
_JUST_BEYOND = 1.25
"""Times what a limit allows: the harm of graded faults."""
_STEPS = 10
_WORTH_TELLING = 0.01
"""So much worse must a metric without a limit be that it is told."""

Finding = Literal["caught", "let through", "allowed", "refused though allowed", "no limit looks at it"]


@dataclass(frozen=True)
class PlantedResult:
    """name, imitates: as in the table; limit: the one that the fault harms most, in proportion ("" for none);
    loss: its true damage there, in the limit's unit; allowed: the limit; beyond: whether that is more than the limit
    allows; refused: in so many of `draws` judgements; unlimited: the metric without a limit that is worse by most, by
    `unlimited_loss` ("" where none is); just_beyond: its size was chosen by the limits."""

    name: str
    imitates: str
    limit: str
    loss: float
    allowed: float
    beyond: bool
    refused: int
    draws: int
    unlimited: str = ""
    unlimited_loss: float = 0.0
    just_beyond: bool = False

    @property
    def times(self) -> float:
        """The harm, as so many times what the limit allows."""
        return _share(metrics.limits()[self.limit][1], self.loss, self.allowed) if self.limit else 0.0

    @property
    def finding(self) -> Finding:
        if self.beyond:
            return "caught" if self.refused == self.draws else "let through"
        if self.refused:
            return "refused though allowed"
        return "no limit looks at it" if self.unlimited else "allowed"


@dataclass(frozen=True)
class GateTrial:
    """cases: of `of` validation cases, so many were used; faults: in the order of the table; harmless: candidates
    that do no harm worth half a limit; not_planted: names of the faults that such cases cannot have, or that change
    nothing in them."""

    cases: int
    of: int
    faults: tuple[PlantedResult, ...]
    harmless: tuple[PlantedResult, ...]
    not_planted: tuple[str, ...]

    @property
    def just_beyond(self) -> tuple[PlantedResult, ...]:
        """Those whose size was chosen by the limits."""
        return tuple(one for one in self.faults if one.just_beyond)

    def found(self, *findings: Finding) -> tuple[PlantedResult, ...]:
        return tuple(one for one in self.faults if one.finding in findings)

    @property
    def beyond(self) -> tuple[PlantedResult, ...]:
        """Those that harm more than a limit allows."""
        return tuple(one for one in self.faults if one.beyond)

    @property
    def caught(self) -> int:
        """Refused judgements, of those of `beyond`."""
        return sum(one.refused for one in self.beyond)

    @property
    def should_be_caught(self) -> int:
        return sum(one.draws for one in self.beyond)

    @property
    def false_refusals(self) -> int:
        """Refused judgements, of those of `harmless`."""
        return sum(one.refused for one in self.harmless)

    @property
    def harmless_draws(self) -> int:
        return sum(one.draws for one in self.harmless)

    @property
    def refuses_a_copy(self) -> bool:
        """Whether even the baseline itself is refused: the cases are too few to show anything."""
        return bool(self.harmless) and self.harmless[0].refused > 0


Refuses = Callable[[Predictions, Predictions], bool]
"""(baseline, candidate) -> whether the candidate is refused."""


def try_gate(baseline: Predictions, limits: Limits, *, seed: int, refuses: Refuses | None = None) -> GateTrial | None:
    """Plant every fault of the table into the baseline's answers, and judge. None where the limits look at no answers,
    or a class has no case. refuses: another gate in the place of the limits' own, on the same faults and draws."""
    limited = list(_limited(limits))
    if not limited or not 0 < int((baseline.labels == 1).sum()) < len(baseline.labels):
        return None
    bench = _Bench.of(baseline, limits, seed, refuses)
    faults, missing = [], []
    for place, fault in enumerate(PLANTED):
        planted = bench.plant(fault, [seed, 1, place])
        if planted is None:
            missing.append(fault.name)
        else:
            result = bench.measure(fault, planted)
            faults.append(bench.judge(result, planted, DRAWS if result.beyond else 0))
    for place, graded in enumerate(GRADED):
        judged = bench.judge_just_beyond(graded, [seed, 5, place])
        if judged is None:
            missing.append(graded.title)
        else:
            faults.append(judged)
    harmless = []
    for place, fault in enumerate(HARMLESS):
        planted = fault.plant(bench.whole, np.random.default_rng([seed, 2, place])) or bench.whole
        result = bench.measure(fault, planted)
        if bench.is_harmless(planted):
            harmless.append(bench.judge(result, planted, HARMLESS_DRAWS))
    return GateTrial(bench.size, len(baseline.ids), tuple(faults), tuple(harmless), tuple(missing))


def _limited(limits: Limits) -> Iterator[tuple[Metric, Limit, float]]:
    """The limits on answers: not those on speed and size, and not those of every group, which take too long."""
    for name, (metric, rule) in metrics.limits().items():
        if name in limits and metric.reads != "running" and metric.whole is None:
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
        """Of the baseline's answers, or of as many of them as are used."""
        units = _Units.of(baseline)
        if len(baseline.ids) <= MAX_CASES:
            return cls(baseline, limits, seed, refuses)
        return cls(_taken(baseline, *units.thinned(np.random.default_rng([seed, 3]))), limits, seed, refuses)

    @property
    def size(self) -> int:
        return len(self.whole.ids)

    @cached_property
    def draws(self) -> tuple[tuple[Indices, Clusters | None, Predictions], ...]:
        units, found = _Units.of(self.whole), []
        for draw in range(max(DRAWS, HARMLESS_DRAWS)):
            places, clusters = units.drawn(np.random.default_rng([self.seed, 4, draw]))
            found.append((places, clusters, _taken(self.whole, places, clusters)))
        return tuple(found)

    def plant(self, fault: PlantedFault, seed: list[int]) -> Predictions | None:
        """None where the cases have not what it takes, or nothing would change."""
        found = fault.plant(self.whole, np.random.default_rng(seed))
        return None if found is None or _same(found, self.whole) else found

    def measure(self, fault: PlantedFault, planted: Predictions) -> PlantedResult:
        """What it costs the population, before anything is judged."""
        found = self._losses(planted)
        unlimited, worse = self._worst_unlimited(planted)
        # A floor is nearly reached by the baseline itself, so that what counts is how much nearer the fault is to it.
        own = {name: _share(rule, loss, limit) for name, (rule, loss, limit) in self._own.items()}
        shares = {name: _share(rule, loss, limit) for name, (rule, loss, limit) in found.items()}
        name = max(shares, key=lambda name: (shares[name] > _BEYOND, shares[name] - own.get(name, 0.0)), default="")
        _, loss, limit = found[name] if name else (None, 0.0, 0.0)
        beyond = bool(name) and shares[name] > _BEYOND
        return PlantedResult(fault.name, fault.imitates, name, loss, limit, beyond, 0, 0, unlimited, worse)

    @cached_property
    def _own(self) -> dict[str, tuple[Limit, float, float]]:
        """The same of the baseline itself."""
        return self._losses(self.whole)

    def _losses(self, planted: Predictions) -> dict[str, tuple[Limit, float, float]]:
        """Name of a limit -> itself, the true loss, what is allowed, of those that can be measured."""
        losses = (
            (rule, true_loss(one, rule, self.limits, self.whole, planted), limit)
            for one, rule, limit in _limited(self.limits)
        )
        return {rule.name: (rule, loss, limit) for rule, loss, limit in losses if loss is not None}

    def is_harmless(self, planted: Predictions) -> bool:
        """Whether no limit is used up by half, or hardly more than by the baseline itself."""
        own = self._own
        return all(
            _share(rule, loss, limit) <= max(0.5, 1.001 * _share(*own[name]) if name in own else 0.0)
            for name, (rule, loss, limit) in self._losses(planted).items()
        )

    def _worst_unlimited(self, planted: Predictions) -> tuple[str, float]:
        """Of the metrics of answers that no limit is set on."""
        found = [("", 0.0)]
        for metric in metrics.METRICS:
            if metric.reads != "running" and self.limits.of(metric) is None:
                loss = _estimated_loss(metric, self.whole, planted)
                found += [(metric.name, loss)] if loss is not None and loss >= _WORTH_TELLING else []
        return max(found, key=lambda one: one[1])

    def judge(self, result: PlantedResult, planted: Predictions, draws: int) -> PlantedResult:
        """Refused in how many draws; with none, in one judgement of the cases as they are."""
        if not draws:
            return replace(result, refused=int(self._refused(self.whole, planted)), draws=1)
        refused = 0
        for places, clusters, before in self.draws[:draws]:
            refused += self._refused(before, _taken(planted, places, clusters))
        return replace(result, refused=refused, draws=draws)

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
        if self.refuses is not None:
            return self.refuses(before, after)
        one, other = Measured("baseline", before), Measured("planted", after)
        for metric, rule, limit in sorted(_limited(self.limits), key=lambda limited: limited[0].own_losses is None):
            if metric.own_losses is None:
                loss = true_loss(metric, rule, self.limits, before, after)
                if loss is not None and _share(rule, loss, limit) > _BEYOND:
                    return True
            check = judge_one(one, other, metric, rule, self.limits, seed=self.seed, samples=_SAMPLES, sizes=False)
            if check.status != "passed":
                return True
        return False


def _same(one: Predictions, other: Predictions) -> bool:
    thresholds = one.threshold == other.threshold and one.outcomes == other.outcomes
    alike = thresholds and np.array_equal(one.scores, other.scores)
    if one.probabilities is None or other.probabilities is None:
        return alike
    return alike and np.array_equal(one.probabilities, other.probabilities)


def true_loss(metric: Metric, rule: Limit, limits: Limits, before: Predictions, after: Predictions) -> float | None:
    """What these cases lose, in the limit's unit; None where they cannot say."""
    if rule.judge is not None:
        asked = Asked(limits[rule.name], _SAMPLES, 0, limits.prevalence)
        return rule.judge(Measured("baseline", before), Measured("planted", after), asked).seen
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


def _share(rule: Limit, loss: float, limit: float) -> float:
    """Of what the limit allows; above 1 it is missed."""
    part, whole = (limit, loss) if rule.kind == "min" else (loss, limit)
    if whole <= 0:
        return 0.0 if part <= 0 else np.inf
    return part / whole


@dataclass(frozen=True)
class _Units:
    """What is drawn whole: cases, or clusters. order: places of the cases by unit; starts, sizes: of each unit's in
    `order`; positive: units with a positive case."""

    order: Indices
    starts: Integers
    sizes: Integers
    strata: tuple[Indices, Indices]
    clustered: bool

    @classmethod
    def of(cls, predictions: Predictions) -> _Units:
        count, clusters = len(predictions.labels), predictions.clusters
        numbered = np.arange(count) if clusters is None else np.unique(clusters, return_inverse=True)[1]
        sizes = np.bincount(numbered)
        having = np.bincount(numbered, predictions.labels == 1) > 0
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        order = np.argsort(numbered, kind="stable")
        return cls(order, starts, sizes, (np.flatnonzero(having), np.flatnonzero(~having)), clusters is not None)

    def drawn(self, draw: np.random.Generator) -> tuple[Indices, Clusters | None]:
        """As many units as there are, with replacement, each copy a unit of its own."""
        return self._cases(np.concatenate([draw.choice(part, len(part)) for part in self.strata if len(part)]))

    def thinned(self, draw: np.random.Generator) -> tuple[Indices, Clusters | None]:
        """MAX_CASES of them, without replacement."""
        kept, room = [], MAX_CASES // 2
        for part in self.strata:
            mixed = draw.permutation(part)
            fitting = mixed[np.cumsum(self.sizes[mixed]) <= room]
            kept.append(fitting if len(fitting) else mixed[:1])
            room = MAX_CASES - int(self.sizes[kept[0]].sum())
        return self._cases(np.sort(np.concatenate(kept)))

    def _cases(self, units: Indices) -> tuple[Indices, Clusters | None]:
        sizes = self.sizes[units]
        ends = np.cumsum(sizes)
        inside = np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes)
        places = self.order[np.repeat(self.starts[units], sizes) + inside]
        return places, np.repeat(np.arange(len(units)), sizes) if self.clustered else None


def _taken(of: Predictions, places: Indices, clusters: Clusters | None) -> Predictions:
    """The cases at these places, some more than once, in these clusters."""
    alerts = of.alerts
    return replace(
        of,
        ids=tuple(map(str, range(len(places)))),
        labels=of.labels[places],
        scores=of.scores[places],
        probabilities=None if of.probabilities is None else of.probabilities[places],
        groups={name: values[places] for name, values in of.groups.items()},
        clusters=clusters,
        cross_clusters=None if of.cross_clusters is None else of.cross_clusters[places],
        alerts=None if alerts is None else Alerts(alerts.days[places], alerts.eligible[places], alerts.per_day),
    )
