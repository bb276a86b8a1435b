"""What the planted faults do to answers: functions of predictions and a generator. `core.evidence.planted` is the table
of the faults that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from featherweight.core.arrays import Bools, Floats, Indices
from featherweight.core.evidence.predictions import Predictions

Planter = Callable[[Predictions, np.random.Generator], Predictions | None]
"""The predictions with the fault in them; None where the cases have not what it needs (groups, clusters, probabilities,
a class)."""


# ------------------------------------------------------------------------------------------------------- what is common


def rescored(of: Predictions, scores: Floats) -> Predictions:
    """With these scores, and with the probabilities that the baseline's calibration gives them."""
    found = _calibrated(of)
    probabilities = None if found is None else np.interp(scores, *found)
    return replace(of, scores=scores, probabilities=probabilities)


@lru_cache(maxsize=2)
def _calibrated(of: Predictions) -> tuple[Floats, Floats] | None:
    """The baseline's scores, rising, and their probabilities: the same for all that is planted in it."""
    if of.probabilities is None:
        return None
    order = np.argsort(of.scores, kind="stable")
    return of.scores[order], of.probabilities[order]


def rethresholded(of: Predictions, change: Callable[[float], float]) -> Predictions:
    """With every threshold changed by one rule."""
    outcomes = of.outcomes and replace(of.outcomes, thresholds=tuple(sorted(map(change, of.outcomes.thresholds))))
    return replace(of, threshold=change(of.threshold), outcomes=outcomes)


def spread(of: Predictions) -> float:
    """Standard deviation of all scores; 1 where they are all the same."""
    return float(of.scores.std()) or 1.0


def some_of(inside: Bools, share: float, draw: np.random.Generator) -> Indices:
    """The share of these cases, at least one, drawn without replacement."""
    places = np.flatnonzero(inside)
    return draw.choice(places, min(len(places), max(1, round(share * len(places)))), replace=False)


def labelled(of: Predictions, label: int) -> Bools:
    return np.asarray(of.labels == label)


def with_scores(of: Predictions, places: Indices | Bools, scores: Floats | float) -> Predictions:
    found = of.scores.copy()
    found[places] = scores
    return rescored(of, found)


def below_all(of: Predictions) -> float:
    return float(of.scores.min()) - spread(of)


def above_all(of: Predictions) -> float:
    return float(of.scores.max()) + spread(of)


def _by_time(of: Predictions) -> Indices:
    """Places of the cases in the order of their days, or as they stand."""
    return np.arange(len(of.labels)) if of.alerts is None else np.argsort(of.alerts.days, kind="stable")


# -------------------------------------------------------------------------------------------------------- single cases


def lost(share: float, label: int, *, surest: bool = False) -> Planter:
    """Positives below all other cases, or negatives above them; surest: of the half that the baseline ranked best."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        inside = labelled(of, label)
        if not inside.any():
            return None
        if surest:
            sign, middle = (1 if label == 1 else -1), float(np.median(of.scores[inside]))
            inside &= sign * (of.scores - middle) >= 0
        return with_scores(of, some_of(inside, share, draw), below_all(of) if label == 1 else above_all(of))

    return plant


def moved(share: float, spreads: float, *, labels: Sequence[int] = (0, 1), one_sided: bool = False) -> Planter:
    """Noise of so many standard deviations of all scores on a share of the cases; one_sided: always for the worse."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        inside = np.isin(of.labels, labels)
        if not inside.any():
            return None
        places = some_of(inside, share, draw)
        noise = spreads * spread(of) * draw.normal(size=len(places))
        if one_sided:
            noise = np.where(of.labels[places] == 1, -1.0, 1.0) * np.abs(noise)
        return with_scores(of, places, of.scores[places] + noise)

    return plant


def exchanged(share: float) -> Planter:
    """A share of the cases with each other's scores."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        places = some_of(np.ones(len(of.labels), bool), share, draw)
        return with_scores(of, places, of.scores[np.roll(places, 1)])

    return plant


def repeated(share: float) -> Planter:
    """A share of the cases with the score of the case before them."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        places = some_of(np.ones(len(of.labels), bool), share, draw)
        return with_scores(of, places, of.scores[places - 1])

    return plant


def shifted_batches(share: float, batch: int = 32) -> Planter:
    """In a share of the batches every answer is that of the neighbour."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        starts = np.arange(0, len(of.labels), batch)
        scores = of.scores.copy()
        for start in draw.choice(starts, max(1, round(share * len(starts))), replace=False):
            scores[start : start + batch] = np.roll(of.scores[start : start + batch], 1)
        return rescored(of, scores)

    return plant


# ---------------------------------------------------------------------------------------------------- range of scores


def levels(count: int) -> Planter:
    """Rounded to so many levels between the lowest and the highest score."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        low, high = float(of.scores.min()), float(of.scores.max())
        step = (high - low) / (count - 1) or 1.0
        return rescored(of, low + step * np.round((of.scores - low) / step))

    return plant


def clipped(low: float = 0.0, high: float = 1.0) -> Planter:
    """All below one quantile or above another are one number."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        return rescored(of, of.scores.clip(*np.quantile(of.scores, [low, high])))

    return plant


def wrapped(share: float, *, top: bool) -> Planter:
    """The highest scores come out below all others, or the lowest above them."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        order = np.argsort(of.scores, kind="stable")
        count = max(1, round(share * len(order)))
        places, ends = (order[-count:], below_all(of)) if top else (order[:count], above_all(of))
        away = of.scores[places] - of.scores[places].mean()
        return with_scores(of, places, ends + 1e-3 * away)

    return plant


def overflowed(share: float) -> Planter:
    """A share of the cases, whatever they are, with the largest number there is."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        return with_scores(of, some_of(np.ones(len(of.labels), bool), share, draw), float(np.finfo(np.float32).max))

    return plant


def all_scores(change: Callable[[Predictions], Floats]) -> Planter:
    """Every score by one rule, the threshold as it was."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        return rescored(of, change(of))

    return plant


def reversed_scores(of: Predictions, draw: np.random.Generator) -> Predictions:
    """The score of the other class, and a threshold on it."""
    found = rethresholded(replace(of, scores=-of.scores), lambda threshold: -threshold)
    return found if of.probabilities is None else replace(found, probabilities=1 - of.probabilities)


# ---------------------------------------------------------------------------------------------------------- threshold


def threshold_missing(share: float) -> Planter:
    """So high that a share of the positives that were found is not."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        found = of.scores[labelled(of, 1) & of.decisions]
        if not len(found):
            return None
        higher = float(np.nextafter(np.quantile(found, share), np.inf)) - of.threshold
        return rethresholded(of, lambda threshold: threshold + higher)

    return plant


def threshold_alarming(share: float) -> Planter:
    """So low that a share of the negatives that raised no alarm does."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        quiet = of.scores[labelled(of, 0) & ~of.decisions]
        if not len(quiet):
            return None
        lower = float(np.quantile(quiet, 1 - share)) - of.threshold
        return rethresholded(of, lambda threshold: threshold + lower)

    return plant


def threshold_by(change: Callable[[float, Predictions], float]) -> Planter:
    """Every threshold by one rule."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        return rethresholded(of, lambda threshold: change(threshold, of))

    return plant


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(value, -500, 500))))


# -------------------------------------------------------------------------------------------------------- calibration


def calibration(slope: float = 1.0, shift: float = 0.0) -> Planter:
    """Probabilities whose log odds are so many times as large, and shifted; scores and decisions as they were."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        if of.probabilities is None:
            return None
        inside = of.probabilities.clip(1e-12, 1 - 1e-12)
        odds = slope * np.log(inside / (1 - inside)) + shift
        return replace(of, probabilities=1 / (1 + np.exp(-odds)))

    return plant


def probabilities_by(change: Callable[[Floats, Predictions], Floats]) -> Planter:
    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        if of.probabilities is None:
            return None
        return replace(of, probabilities=change(of.probabilities, of))

    return plant


def one_probability(of: Predictions, draw: np.random.Generator) -> Predictions | None:
    """That of the whole: right on average, and of no use for any case."""
    if of.probabilities is None:
        return None
    return replace(of, probabilities=np.full(len(of.labels), float(of.labels.mean())))


# --------------------------------------------------------------------------------------------- several outcomes, time


def outcome_vanished(place: int) -> Planter:
    """Of several outcomes one that no case gets any more: its threshold takes that of the next, or lies above all
    scores; -1 is the last outcome, 1 the second."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        if of.outcomes is None or len(of.outcomes.thresholds) < 2:
            return None
        thresholds = [*of.outcomes.thresholds, above_all(of)]
        at = place % len(of.outcomes.names) - 1
        thresholds[at] = thresholds[at + 1]
        decision = of.outcomes.thresholds.index(of.threshold)
        moved = replace(of.outcomes, thresholds=tuple(thresholds[:-1]))
        return replace(of, threshold=moved.thresholds[decision], outcomes=moved)

    return plant


def pressed_above(share: float) -> Planter:
    """The scores above the threshold, in their order, in the lowest share of the room above it: a second, higher
    threshold is reached by none. Ranking and decisions at the first one stay."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        above = of.decisions
        if not above.any():
            return None
        return with_scores(of, above, of.threshold + share * (of.scores[above] - of.threshold))

    return plant


def pushed_below(share: float) -> Planter:
    """The lowest share of those above the threshold fall below it, in their order: reviews become approvals."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        above = of.decisions
        if not above.any():
            return None
        near = above & (of.scores <= np.quantile(of.scores[above], share))
        below = of.scores[~above].max(initial=of.threshold - spread(of))
        gap = (of.threshold - below) / 2
        ranks = np.argsort(np.argsort(of.scores[near], kind="stable"), kind="stable")
        return with_scores(of, near, below + gap * (1 + ranks) / (1 + len(ranks)))

    return plant


def drifting(spreads: float) -> Planter:
    """Noise that grows with time from the middle on."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        order, noise = _by_time(of), draw.normal(size=len(of.labels))
        late = np.empty(len(order))
        late[order] = np.maximum(0.0, np.linspace(-1, 1, len(order)))
        return rescored(of, of.scores + 2 * spreads * spread(of) * late * noise)

    return plant


def outage(share: float) -> Planter:
    """The last share of the time has one answer for all."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions:
        last = _by_time(of)[-max(1, round(share * len(of.labels))) :]
        return with_scores(of, last, float(np.median(of.scores)))

    return plant
