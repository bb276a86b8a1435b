"""Card precision: of the cards that a desk can look at in a day, those with the highest scores, how many were
compromised (the Fraud Detection Handbook's card precision top-k; Le Borgne et al. 2022, 4.4). A cluster is a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Draws, Floats, Indices, Integers, Labels, Scores
from featherweight.core.statistics.resampling import Units, cluster_units


def card_precision(
    scores: Scores, labels: Labels, clusters: Clusters, *, days: Integers, eligible: Bools, per_day: int
) -> float:
    """scores, labels, clusters, days, eligible: of each case [N]. Each day the cards are ranked by their highest score
    among the eligible cases, and the share of compromised ones among the first `per_day` counts; those are found and
    leave the days that follow. The mean over the days; 0 without an eligible case."""
    if not eligible.any():
        return 0.0
    units, (ranked,) = _ranked([scores], labels, clusters, days, eligible)
    return float(_mean_share(ranked, units.whole(), per_day)[0])


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
    if not eligible.any():
        return [np.zeros(1 + samples) for _ in scorers]
    units, ranked = _ranked(scorers, labels, clusters, days, eligible)
    drawn: list[list[Floats]] = [[] for _ in scorers]
    for counts in units.draw(samples, seed):
        for one, found in zip(ranked, drawn, strict=True):
            found.append(_mean_share(one, counts, per_day))
    return [np.concatenate(found) for found in drawn]


def _ranked(
    scorers: Sequence[Floats], labels: Labels, clusters: Clusters, days: Integers, eligible: Bools
) -> tuple[Units, list[list[_Day]]]:
    """The cards as units of a resample, and each scorer's days."""
    positive = labels[eligible] == 1
    units, cards = cluster_units(clusters[eligible], positive)
    return units, [
        _rank_days(scores[eligible], days[eligible], clusters[eligible], cards, positive) for scores in scorers
    ]


@dataclass(frozen=True)
class _Day:
    """A day's cards, the highest score first."""

    cards: Indices
    compromised: Bools


def _rank_days(scores: Scores, days: Integers, clusters: Clusters, cards: Indices, positive: Bools) -> list[_Day]:
    """Where scores are equal, the card with the lower number comes first, as in the handbook; `cards` are numbered by
    what is known of their labels and must not decide."""
    found = []
    for day in np.unique(days):
        rows = np.flatnonzero(days == day)
        names, first, place = np.unique(clusters[rows], return_index=True, return_inverse=True)
        highest = np.full(len(names), -np.inf)
        np.maximum.at(highest, place, scores[rows])
        compromised = np.bincount(place, positive[rows]) > 0
        order = np.argsort(-highest, kind="stable")
        found.append(_Day(cards[rows][first][order], compromised[order]))
    return found


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
