"""What a metric is, and what a limit on it is. `core.evidence.metrics` is the table of them all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Real
from typing import Final, Literal

from featherweight.core.arrays import Floats
from featherweight.core.errors import UsageError
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.statistics.intervals import Difference, Interval
from featherweight.core.statistics.loss_bounds import OwnLosses, Unseen, loss_lower_bound, loss_upper_bound
from featherweight.core.statistics.resampling import Rankings, compare_rankings
from featherweight.core.statistics.sample_size import (
    Needed,
    believed_from,
    cases_needed,
    cases_needed_of_own_losses,
)
from featherweight.core.target import LabelKind

Side = Literal["baseline", "candidate"]
LimitKind = Literal["loss", "max", "min"]
"""loss: what may be lost at most against the baseline, shown with 95% confidence; max, min: what is found may be at
most, must be at least, so large."""
Unit = Literal["metric", "share", "times", "count"]
"""Unit of a limit: the metric's own unit; a share, 0..1, shown in percent; baseline over candidate; a whole number."""
Counted = Literal["all", "positive", "negative"]
"""The cases that a metric is counted on."""

BINARY: Final[frozenset[LabelKind]] = frozenset({"binary"})
CLASSES: Final[frozenset[LabelKind]] = frozenset({"multi-class"})
ANY: Final[frozenset[LabelKind]] = frozenset({"binary", "multi-class", "multi-label", "regression"})


@dataclass(frozen=True, eq=False)
class Pair:
    """Baseline and candidate on the same cases, with what is drawn of them: `samples` resamples, all from `seed`."""

    baseline: Predictions
    candidate: Predictions
    samples: int
    seed: int
    sizes: bool = True
    """Whether it is asked how many cases are needed, which takes longer than the bounds themselves."""
    _own_losses: dict[Metric, OwnLosses | None] = field(default_factory=dict, repr=False)
    _differences: dict[tuple[Metric, Unseen], Difference | None] = field(default_factory=dict, repr=False)

    def side(self, side: Side) -> Predictions:
        return self.baseline if side == "baseline" else self.candidate

    def own_losses(self, metric: Metric) -> OwnLosses | None:
        """Each case's own part of what the candidate loses; computed once. None where the metric has none or the cases
        cannot give it."""
        if metric.own_losses is None:
            return None
        if metric not in self._own_losses:
            self._own_losses[metric] = metric.own_losses(self)
        return self._own_losses[metric]

    def difference(self, metric: Metric, unseen: Unseen) -> Difference | None:
        """The gain of the candidate, paired; computed once. None where the metric has none or the cases cannot give
        it. unseen: how bad the case is taken to be that these cases do not hold, where the metric's bound asks."""
        key = metric, unseen
        if key not in self._differences:
            own = self.own_losses(metric)
            if own is not None:
                self._differences[key] = Difference(-own.loss, max(-1.0, -loss_upper_bound(own, unseen)))
            else:
                self._differences[key] = None if metric.difference is None else metric.difference(self)
        return self._differences[key]

    def loss_at_least(self, metric: Metric) -> float | None:
        """What the candidate loses at least, with 95% confidence: above 0 it is shown to be worse. None where
        `difference` is."""
        own = self.own_losses(metric)
        if own is not None:
            return loss_lower_bound(own)
        found = None if metric.difference is None else metric.difference(self._turned)
        return None if found is None else found.low

    @cached_property
    def at_thresholds(self) -> tuple[tuple[str, Pair], ...]:
        """(outcome that begins there, the pair with that threshold as the only one), for every threshold that the app
        acts on, the lowest first."""
        names = self.baseline.all_outcomes.names[1:]
        both = zip(names, self.baseline.at_thresholds, self.candidate.at_thresholds, strict=True)
        return tuple(
            (name, self if one is self.baseline and other is self.candidate else pair(one, other, **self._draws))
            for name, one, other in both
        )

    @cached_property
    def parts(self) -> tuple[tuple[str, Pair], ...]:
        """Of several classes each against the rest, by its name."""
        both = zip(self.baseline.parts, self.candidate.parts, strict=True)
        return tuple((name, Pair(one, other, self.samples, self.seed, self.sizes)) for (name, one), (_, other) in both)

    def pairs_of(self, metric: Metric) -> tuple[Pair, ...]:
        """What the metric's limit is judged on: these cases, or each class against the rest, or nothing."""
        kind = self.baseline.label_kind
        if kind in metric.each:
            return tuple(one for _, one in self.parts)
        return (self,) if kind in metric.labels else ()

    @property
    def _draws(self) -> dict[str, int]:
        return {"samples": self.samples, "seed": self.seed}

    @cached_property
    def _turned(self) -> Pair:
        """The baseline as a candidate in the candidate's place, with the same draws."""
        return Pair(self.candidate, self.baseline, self.samples, self.seed)

    def needed(self, metric: Metric, unseen: Unseen, margin: float) -> Needed:
        """How many cases, of the kind that the metric is counted on, would show that the margin is kept."""
        if not self.sizes:
            return Needed(None, None, None)
        own, difference = self.own_losses(metric), self.difference(metric, unseen)
        if own is not None:
            found = cases_needed_of_own_losses(own, unseen, margin)
            return found if unseen == "lost" else believed_from(found, len(own.parts), self.baseline.rarer_class)
        return Needed(None, None, None) if difference is None else metric.needed(self, difference, margin)

    @cached_property
    def rankings(self) -> Rankings | None:
        """Both rankings from one set of resamples; None where a class has no case."""
        scores = self.baseline.scores, self.candidate.scores
        labels, clusters = self.baseline.labels, self.baseline.clusters
        return compare_rankings(*scores, labels, clusters, samples=self.samples, seed=self.seed)

    @cached_property
    def card_draws(self) -> dict[Side, Floats] | None:
        """Card precision of both in the same resamples of the cards [1 + samples], that of the cases themselves first.
        None without alerts and clusters, and where no compromised card can raise an alert: 0 against 0 would prove
        nothing."""
        desk, key = self.baseline.desk, (self.samples, self.seed)
        if desk is None or not desk.can_alert:
            return None
        missing = [one for one in (self.baseline, self.candidate) if key not in one.card_draws]
        drawn = desk.draws([one.scores for one in missing], samples=self.samples, seed=self.seed)
        for one, found in zip(missing, drawn, strict=True):
            one.card_draws[key] = found
        return {"baseline": self.baseline.card_draws[key], "candidate": self.candidate.card_draws[key]}


@lru_cache(maxsize=64)
def pair(baseline: Predictions, candidate: Predictions, *, samples: int, seed: int, sizes: bool = True) -> Pair:
    """The same object for the same programs, so that a check and its report draw once and name one bound."""
    return Pair(baseline, candidate, samples, seed, sizes)


@dataclass(frozen=True)
class Finding:
    """found: the worse end of the 95% interval, what is held against the limit; seen: what these cases show; both in
    the limit's unit, None where nothing could be measured; text: the same in a sentence."""

    found: float | None
    seen: float | None
    text: str


@dataclass(frozen=True)
class Asked:
    """What a limit's judge is asked. limit: in its unit; samples, seed: of resamples; prevalence: that predictive
    values are judged at, None where the recipe states none."""

    limit: float
    samples: int
    seed: int
    prevalence: float | None = None


@dataclass(frozen=True)
class Limit:
    """name: its key in a recipe's [limits]; title: of its row in the page; judge: what was found, of a limit that is
    not simply on the metric's paired difference; in_recipes: whether a recipe may set it; meaning: a sentence for those
    who write recipes; example: a value for them, where the usual one makes little sense."""

    name: str
    kind: LimitKind
    title: str
    unit: Unit = "metric"
    judge: Callable[[Measured, Measured, Asked], Finding] | None = None
    in_recipes: bool = True
    meaning: str = ""
    example: float | None = None

    def describe(self, value: float) -> str:
        """A limit or what was found, in its unit."""
        match self.unit:
            case "times":
                return f"{value:.2f} times"
            case "share":
                return f"{value:.2%}"
            case "count":
                return f"{value:.0f}"
            case "metric":
                return f"{value:.4f}"

    def fault(self, value: float) -> str | None:
        """What is wrong with such a limit."""
        inside = 0 < value <= (1 if self.unit == "metric" else math.inf) if self.kind == "min" else 0 <= value <= 1
        return None if inside and value != float("inf") else f"found {value}, expected {self.expected}"

    @property
    def expected(self) -> str:
        """What such a limit may be, in words."""
        if self.kind != "min":
            return "a number from 0 to 1"
        return "a number above 0, up to 1" if self.unit == "metric" else "a number above 0"


def limit_value(name: str, value: object) -> float:
    """A limit as a float. name: its key. Raises TypeError for what is not a number, UsageError for an integer that no
    float holds."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"the limit {name} is of the type {type(value).__name__}; give a number")
    try:
        return float(value)
    except OverflowError:
        raise UsageError(f"the limit {name} is a number of too many digits; give one that a float holds") from None


def needed_by_error(pair: Pair, difference: Difference, margin: float) -> Needed:
    """As many times the cases at hand as make the error of the difference small enough."""
    return cases_needed(difference, len(pair.baseline.ids), margin)


@dataclass(frozen=True, eq=False)
class Metric:
    """One line of the table.

    name: its key in evidence.json; title: at the beginning of a sentence; phrase: in the middle of one; note: for the
    title of its row, what it is, or which way it counts. reads: what of a program it looks at. counted: the cases that
    it is counted on, None where it is counted on none. labels: the kinds of labels that it is for; each: those of
    which its limit holds in each class against the rest.

    estimate: of one program, None where the cases cannot give it; interval: the same with its two-sided 95% interval;
    difference: the gain of the candidate (above 0 is better, whatever the direction is) with its one-sided 95% lower
    bound, paired; own_losses: the same loss as the sum of each case's part, in place of `difference`; needed: how many
    cases would show that no more than the margin is lost; method: how interval and bound are made, for a reader. Each
    is None where there is none.

    lacks: why cases may not give it at all, for a metric that asks more of them than labels: then it is left out of the
    page; in_groups: whether a limited loss is also compared group by group; whole: the metric that this one's limit
    judges in every group.
    """

    name: str
    title: str
    phrase: str
    reads: Literal["ranking", "decisions", "probabilities", "running"]
    labels: frozenset[LabelKind]
    each: frozenset[LabelKind] = frozenset()
    unit: str = "from 0 to 1"
    direction: Literal["higher", "lower"] = "higher"
    note: str = ""
    counted: Counted | None = "all"
    estimate: Callable[[Predictions], float | None] | None = None
    interval: Callable[[Pair, Side], Interval | None] | None = None
    difference: Callable[[Pair], Difference | None] | None = None
    own_losses: Callable[[Pair], OwnLosses | None] | None = None
    needed: Callable[[Pair, Difference, float], Needed] = needed_by_error
    method: Callable[[Predictions, int], str] | None = None
    limit: Limit | None = None
    lacks: str = ""
    in_groups: bool = True
    whole: Metric | None = None

    @property
    def row_title(self) -> str:
        return f"{self.title} ({self.note})" if self.note else self.title

    @property
    def is_compared(self) -> bool:
        """Whether it has a paired difference."""
        return self.difference is not None or self.own_losses is not None

    def is_for(self, labels: LabelKind) -> bool:
        """Whether its limit can be judged on labels of this kind."""
        return labels in self.labels or labels in self.each

    @property
    def cases(self) -> str:
        """What it is counted on, in words."""
        return f"{self.counted} cases" if self.counted in ("positive", "negative") else "cases"
