"""Card precision: of the cards that a desk can look at in a day, those with the highest scores, how many were
compromised (the Fraud Detection Handbook's card precision top-k; Le Borgne et al. 2022, 4.4). A cluster is a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Draws, Floats, Indices, Integers, Labels, Scores
from featherweight.core.statistics.resampling import Units, cluster_units


def card_precision(
    scores: Scores, labels: Labels, clusters: Clusters, *, days: Integers, eligible: Bools, per_day: int
) -> float:
    """scores, labels, clusters, days, eligible: of each case [N]. Each day the cards are ranked by their highest score
    among the eligible cases, and the share of compromised ones among the first `per_day` counts; those are found and
    leave the days that follow. The mean over the days; 0 without an eligible case."""
    return Desk(labels, clusters, days=days, eligible=eligible, per_day=per_day).precision(scores)


def card_precision_draws(
    scorers: Sequence[Floats],
    labels: Labels,
    clusters: Clusters,
    *,
    days: Integers,
    eligible: Bools,
    per_day: int,
    samples: int = 2000,
    seed: int,
) -> list[Floats]:
    """Card precision of each of `scorers` in the same resamples of the cards [1 + samples], that of the cases
    themselves first; the days stay as they are. A card drawn twice is two cards."""
    desk = Desk(labels, clusters, days=days, eligible=eligible, per_day=per_day)
    return desk.draws(scorers, samples=samples, seed=seed)


class Desk:
    """What the cards of each day are ranked from, prepared once for all scorers of the same cases. Arguments as of
    `card_precision`."""

    def __init__(self, labels: Labels, clusters: Clusters, *, days: Integers, eligible: Bools, per_day: int) -> None:
        self._places, self.per_day = np.flatnonzero(eligible), per_day
        self._labels, self._clusters, self._days_of = labels, clusters, days

    @cached_property
    def can_alert(self) -> bool:
        """Whether a compromised card can raise an alert."""
        return bool((self._labels[self._places] == 1).any())

    def precision(self, scores: Scores) -> float:
        """Of the cases themselves."""
        if not len(self._places):
            return 0.0
        return float(_mean_share(self._ranked(scores), self._units.whole(), self.per_day)[0])

    def alerts(self, scores: Scores) -> Indices:
        """The cases that raise the days' alerts: of each day's first `per_day` cards, in whose place a compromised one
        stands once, that with the highest score."""
        if not len(self._places):
            return np.zeros(0, np.intp)
        seen, found = scores[self._places], np.zeros(self._units.count, bool)
        raised: list[int] = []
        for day in self._days:
            ranked = day.ranked(seen)
            shown = np.flatnonzero(~found[ranked.cards])[: self.per_day]
            found[ranked.cards[shown[ranked.compromised[shown]]]] = True
            raised += [day.top(place, seen) for place in ranked.order[shown]]
        return self._places[raised]

    @cached_property
    def compromised(self) -> Bools:
        """bool [N]: eligible cases of a card on a day on which it is compromised."""
        found = np.zeros(len(self._labels), bool)
        for day in self._days if len(self._places) else []:
            sizes = np.diff(day.starts, append=len(day.rows))
            found[self._places[day.rows[np.repeat(day.compromised, sizes)]]] = True
        return found

    @cached_property
    def share_of_alert(self) -> float:
        """What one alert adds to the figure: one over the alerts of all days."""
        return 1 / (max(1, len(np.unique(self._days_of[self._places]))) * self.per_day)

    @cached_property
    def usual_days(self) -> float:
        """On so many days a card can raise an alert; those with more have more of all alerts."""
        pairs = np.unique(np.stack([self._clusters[self._places], self._days_of[self._places]]), axis=1)
        days = np.unique(pairs[0], return_counts=True)[1]
        return float((days**2).sum() / max(1, days.sum()))

    def draws(self, scorers: Sequence[Floats], *, samples: int, seed: int) -> list[Floats]:
        """As `card_precision_draws`."""
        if not len(self._places):
            return [np.zeros(1 + samples) for _ in scorers]
        ranked = [self._ranked(scores) for scores in scorers]
        drawn: list[list[Floats]] = [[] for _ in scorers]
        for counts in self._units.draw(samples, seed):
            for one, found in zip(ranked, drawn, strict=True):
                found.append(_mean_share(one, counts, self.per_day))
        return [np.concatenate(found) for found in drawn]

    def _ranked(self, scores: Scores) -> list[_Day]:
        seen = scores[self._places]
        return [day.ranked(seen) for day in self._days]

    @property
    def _units(self) -> Units:
        """The cards as units of a resample."""
        return self._cards[0]

    @cached_property
    def _cards(self) -> tuple[Units, Indices]:
        """And the unit of each eligible case."""
        return cluster_units(self._clusters[self._places], self._labels[self._places] == 1)

    @cached_property
    def _days(self) -> list[_Unranked]:
        days, clusters = self._days_of[self._places], self._clusters[self._places]
        positive, units = self._labels[self._places] == 1, self._cards[1]
        return [_Unranked.of(np.flatnonzero(days == day), clusters, positive, units) for day in np.unique(days)]


@dataclass(frozen=True)
class _Day:
    """A day's cards, the highest score first. order: their places among the day's cards as they were before."""

    cards: Indices
    compromised: Bools
    order: Indices


@dataclass(frozen=True)
class _Unranked:
    """A day's cards, the lowest number first. rows: the day's cases by card; starts: where each card's begin."""

    rows: Indices
    starts: Indices
    cards: Indices
    compromised: Bools

    @classmethod
    def of(cls, rows: Indices, clusters: Clusters, positive: Bools, units: Indices) -> _Unranked:
        order = rows[np.argsort(clusters[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(clusters[order], prepend=clusters[order[0]] - 1))
        return cls(order, starts, units[order[starts]], np.logical_or.reduceat(positive[order], starts))

    def ranked(self, scores: Floats) -> _Day:
        """Where scores are equal, the card with the lower number comes first, as in the handbook; units are numbered by
        what is known of their labels and must not decide."""
        order = np.argsort(-np.maximum.reduceat(scores[self.rows], self.starts), kind="stable")
        return _Day(self.cards[order], self.compromised[order], order)

    def top(self, place: int, scores: Floats) -> int:
        """The case of the card at this place that has its highest score."""
        end = self.starts[place + 1] if place + 1 < len(self.starts) else len(self.rows)
        mine = self.rows[self.starts[place] : end]
        return int(mine[np.argmax(scores[mine])])


def _mean_share(days: Sequence[_Day], counts: Draws, per_day: int) -> Floats:
    """[rows], for how often each card was drawn [rows, cards]."""
    left, shares = counts.copy(), np.zeros(len(counts))
    for day in days:
        seen = min(len(day.cards), 2 * per_day + 50)
        while True:
            cards, compromised = day.cards[:seen], day.compromised[:seen]
            copies = left[:, cards]
            so_far = np.cumsum(copies, axis=1)
            if seen == len(day.cards) or so_far[:, -1].min() >= per_day:
                break
            seen = min(len(day.cards), 2 * seen)
        checked = np.clip(per_day - (so_far - copies), 0, copies)[:, compromised]
        left[:, cards[compromised]] -= checked
        shares += checked.sum(axis=1) / per_day
    return shares / len(days)
