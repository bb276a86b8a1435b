"""Planted faults of several classes: what broken programs and services do to K scores a case, done to the baseline's
own answers. The table of the faults of a yes or no, and what all faults have in common, is in
`core.evidence.planted`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from featherweight.core.arrays import Bools, Floats, Indices
from featherweight.core.evidence.class_metrics import of_classes
from featherweight.core.evidence.class_predictions import ClassPredictions
from featherweight.core.evidence.planted import GradedFault, PlantedFault
from featherweight.core.evidence.planted_changes import Planter, some_of, spread
from featherweight.core.evidence.planted_groups import SMALL
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.softmax import HIGHEST, LOWEST, softmax

_SURE = 1e-200
"""Probabilities below say nothing of the temperature any more."""
Change = Callable[[ClassPredictions, np.random.Generator], Floats | None]
"""The scores [N, K] with the fault in them; None where the cases have not what it needs."""


@lru_cache(maxsize=2)
def _temperature(of: ClassPredictions) -> float:
    """By which the scores became the probabilities; 1 where that cannot be seen."""
    if of.probabilities is None:
        return 1.0
    sure = (of.probabilities > _SURE).all(axis=1)
    scores, logs = of.scores[sure], np.log(of.probabilities[sure])
    apart, odds = (values - values.mean(axis=1, keepdims=True) for values in (scores, logs))
    along = float((apart * odds).sum())
    return float(np.clip((apart * apart).sum() / along, LOWEST, HIGHEST)) if along > 0 else 1.0


def _rescored(of: ClassPredictions, scores: Floats) -> ClassPredictions:
    """With these scores, and with the probabilities that the baseline's calibration gives them."""
    chances = None if of.probabilities is None else softmax(scores / _temperature(of))
    return replace(of, scores=scores, probabilities=chances)


def _scores(change: Change) -> Planter:
    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        found = change(of_classes(of), draw)
        return None if found is None else _rescored(of_classes(of), found)

    return plant


def _all(change: Callable[[Floats], Floats]) -> Planter:
    """All scores [N, K] by one rule."""
    return _scores(lambda of, draw: change(of.scores))


# ------------------------------------------------------------------------------------------------------- classes


def _place(of: ClassPredictions, rank: int) -> int:
    """A class by how many cases it has: 0 is the rarest, -1 the most frequent."""
    return int(np.argsort(np.bincount(of.labels, minlength=len(of.names)), kind="stable")[rank])


def _sunk(of: ClassPredictions, places: Indices | Bools) -> Floats:
    """The own class of these cases below all others."""
    scores = of.scores.copy()
    scores[places, of.labels[places]] = of.scores.min() - spread(of)
    return scores


def lost(share: float, rank: int) -> Planter:
    """Of one class so many cases are given to others; at least one."""
    return _scores(lambda of, draw: _sunk(of, some_of(np.asarray(of.labels == _place(of, rank)), share, draw)))


def moved(share: float, spreads: float) -> Planter:
    """Noise of so many standard deviations of all scores on a share of the cases."""

    def change(of: ClassPredictions, draw: np.random.Generator) -> Floats:
        places, scores = some_of(np.ones(len(of.labels), bool), share, draw), of.scores.copy()
        scores[places] += spreads * spread(of) * draw.normal(size=(len(places), len(of.names)))
        return scores

    return _scores(change)


def exchanged(share: float) -> Planter:
    """A share of the cases with each other's scores."""

    def change(of: ClassPredictions, draw: np.random.Generator) -> Floats:
        places, scores = some_of(np.ones(len(of.labels), bool), share, draw), of.scores.copy()
        scores[places] = of.scores[np.roll(places, 1)]
        return scores

    return _scores(change)


def raised(rank: int, spreads: float) -> Planter:
    """All scores of one class by so many standard deviations; below 0 they sink."""

    def change(of: ClassPredictions, draw: np.random.Generator) -> Floats:
        scores = of.scores.copy()
        scores[:, _place(of, rank)] += spreads * spread(of)
        return scores

    return _scores(change)


def _two_exchanged(of: ClassPredictions, draw: np.random.Generator) -> Floats:
    scores, pair = of.scores.copy(), [_place(of, -1), _place(of, -2)]
    scores[:, pair] = of.scores[:, pair[::-1]]
    return scores


def _never(rank: int) -> Planter:
    """One class below all others everywhere."""

    def change(of: ClassPredictions, draw: np.random.Generator) -> Floats:
        scores = of.scores.copy()
        scores[:, _place(of, rank)] = of.scores.min() - spread(of)
        return scores

    return _scores(change)


def _levels(count: int) -> Planter:
    """Rounded to so many levels between the lowest and the highest score."""

    def change(scores: Floats) -> Floats:
        low, high = float(scores.min()), float(scores.max())
        step = (high - low) / (count - 1) or 1.0
        return np.asarray(low + step * np.round((scores - low) / step))

    return _all(change)


def _one_answer(of: ClassPredictions, inside: Bools) -> Floats:
    """The same scores for these cases: their means."""
    scores = of.scores.copy()
    scores[inside] = of.scores.mean(axis=0)
    return scores


# ------------------------------------------------------------------------------------------------ groups and clusters


def _in_group(change: Callable[[ClassPredictions, Bools, np.random.Generator], Floats], *, rarest: bool) -> Planter:
    """In the rarest or the most frequent value of any column that has enough cases."""

    def of_group(of: ClassPredictions, draw: np.random.Generator) -> Floats | None:
        masks = [np.asarray(values == value) for values in of.groups.values() for value in np.unique(values)]
        known = [inside for inside in masks if SMALL <= int(inside.sum()) < len(inside)]
        if not known:
            return None
        return change(of, (min if rarest else max)(known, key=lambda inside: int(inside.sum())), draw)

    return _scores(of_group)


def _turned(of: ClassPredictions, inside: Bools, draw: np.random.Generator) -> Floats:
    """The classes of these cases one further."""
    return np.where(inside[:, None], np.roll(of.scores, 1, axis=1), of.scores)


def _noisy(of: ClassPredictions, inside: Bools, draw: np.random.Generator) -> Floats:
    noise = 0.7 * spread(of) * draw.normal(size=of.scores.shape)
    return of.scores + np.where(inside[:, None], noise, 0.0)


def clusters_lost(share: float) -> Planter:
    """Every case of a share of the clusters is given to another class."""

    def change(of: ClassPredictions, draw: np.random.Generator) -> Floats | None:
        if of.clusters is None or len(np.unique(of.clusters)) == len(of.clusters):
            return None
        numbered = np.unique(of.clusters, return_inverse=True)[1]
        hit = some_of(np.ones(int(numbered.max()) + 1, bool), share, draw)
        return _sunk(of, np.isin(numbered, hit))

    return _scores(change)


def _last(share: float) -> Planter:
    def change(of: ClassPredictions, draw: np.random.Generator) -> Floats:
        count = len(of.labels)
        return _one_answer(of, np.arange(count) >= count - max(1, round(share * count)))

    return _scores(change)


# ------------------------------------------------------------------------------------------------------- calibration


def _chances(change: Callable[[ClassPredictions, Floats], Floats]) -> Planter:
    """Other probabilities; scores and decisions stay."""

    def plant(of: Predictions, draw: np.random.Generator) -> Predictions | None:
        found = of_classes(of)
        return None if of.probabilities is None else replace(found, probabilities=change(found, of.probabilities))

    return plant


def _powered(power: float) -> Planter:
    return _chances(lambda of, chances: softmax(power * np.log(np.maximum(chances, 1e-300))))


def _shares(of: ClassPredictions, chances: Floats) -> Floats:
    return np.tile(np.bincount(of.labels, minlength=len(of.names)) / len(of.labels), (len(of.labels), 1))


CLASS_FAULTS: tuple[PlantedFault, ...] = (
    PlantedFault("1% of the rarest class are lost", "a kind of finding that the network forgot", lost(0.01, 0)),
    PlantedFault("3% of the rarest class are lost", "a kind of finding that the network forgot", lost(0.03, 0)),
    PlantedFault("10% of the rarest class are lost", "a filter or a tree that found them is gone", lost(0.1, 0)),
    PlantedFault("3% of the largest class are lost", "a kind of finding that the network forgot", lost(0.03, -1)),
    PlantedFault("10% of the largest class are lost", "a filter or a tree that found them is gone", lost(0.1, -1)),
    PlantedFault("2% of the scores change strongly", "int8 products that overflow now and then", moved(0.02, 3)),
    PlantedFault("10% of the scores change strongly", "int8 products that overflow often", moved(0.1, 3)),
    PlantedFault("5% of the cases have each other's scores", "answers mixed up by a queue", exchanged(0.05)),
    PlantedFault("20% of the cases have each other's scores", "answers mixed up by a race", exchanged(0.2)),
    PlantedFault("All cases have their neighbour's scores", "an index off by one", _all(lambda of: np.roll(of, 1, 0))),
    PlantedFault("Noise of 0.2 deviations on all scores", "weights of too few bits", moved(1, 0.2)),
    PlantedFault("Noise of 0.5 deviations on all scores", "weights of far too few bits", moved(1, 0.5)),
    PlantedFault("Noise of 1 deviation on all scores", "a layer's scale that is wrong", moved(1, 1.0)),
    PlantedFault("The two largest classes are exchanged", "labels in another order", _scores(_two_exchanged)),
    PlantedFault("All classes are one further", "places counted from 1", _all(lambda of: np.roll(of, 1, 1))),
    PlantedFault("The rarest class is never decided", "a class lost in pruning", _never(0)),
    PlantedFault("The largest class is never decided", "a class lost in pruning", _never(-1)),
    PlantedFault("The rarest class sinks a little", "a wrong bias of one output", raised(0, -0.5)),
    PlantedFault("The largest class rises a little", "a wrong bias of one output", raised(-1, 0.5)),
    PlantedFault("The order of the classes is reversed", "the sign of the output", _all(lambda of: -of)),
    PlantedFault("The sign of the scores is lost", "an absolute value too many", _all(np.abs)),
    PlantedFault("Nothing but one answer", "a layer's weights are zero", _all(lambda of: 0 * of + of.mean(axis=0))),
    PlantedFault("Two different scores", "an output of one bit", _levels(2)),
    PlantedFault("Four different scores", "an output of two bits", _levels(4)),
    PlantedFault("16 different scores", "an output of four bits", _levels(16)),
    PlantedFault(
        "The upper 30% of the scores are one number",
        "an output range cut above",
        _all(lambda of: np.minimum(of, np.quantile(of, 0.7))),
    ),
    PlantedFault(
        "The rarest group has one answer",
        "one device's images are all black",
        _in_group(lambda of, inside, draw: _one_answer(of, inside), rarest=True),
    ),
    PlantedFault(
        "The classes of the rarest group are one further", "one site's codes", _in_group(_turned, rarest=True)
    ),
    PlantedFault("Noise in the largest group", "most devices' images are too dark", _in_group(_noisy, rarest=False)),
    PlantedFault("5% of the clusters are lost", "patients or cards of one kind", clusters_lost(0.05)),
    PlantedFault("Probabilities too sure", "overfitted, no calibration", _powered(3.0)),
    PlantedFault("Probabilities not sure enough", "distilled at a high temperature", _powered(1 / 3)),
    PlantedFault("All probabilities are those of the whole", "a calibration on no data", _chances(_shares)),
    PlantedFault(
        "Probabilities of the next class", "classes in another order", _chances(lambda of, p: np.roll(p, 1, 1))
    ),
    PlantedFault("The last 10% have one answer", "a service that fails to a default", _last(0.1)),
    PlantedFault("The last 2% have one answer", "a short failure to a default", _last(0.02)),
)

CLASS_GRADED: tuple[GradedFault, ...] = (
    GradedFault("Just beyond: {:.2%} of the rarest class lost", "findings forgotten", lambda share: lost(share, 0)),
    GradedFault("Just beyond: {:.2%} of the largest class lost", "findings forgotten", lambda share: lost(share, -1)),
    GradedFault(
        "Just beyond: {:.2%} of the scores change strongly",
        "int8 products that overflow",
        lambda share: moved(share, 3),
    ),
    GradedFault("Just beyond: noise of {:.3f} deviations", "too few bits", lambda spreads: moved(1, spreads), 10.0),
    GradedFault("Just beyond: {:.2%} of the scores exchanged", "answers mixed up", exchanged),
    GradedFault("Just beyond: the rarest class {:.3f} too low", "a wrong bias", lambda much: raised(0, -much), 10.0),
    GradedFault("Just beyond: {:.2%} of the clusters lost", "patients or cards", clusters_lost),
)


def _copy(of: Predictions, draw: np.random.Generator) -> Predictions:
    return replace(of)


def _other_scale(of: Predictions, draw: np.random.Generator) -> Predictions:
    return replace(of, scores=3 * of.scores + 1)


CLASS_HARMLESS: tuple[PlantedFault, ...] = (
    PlantedFault("An exact copy", "the same program again", _copy),
    PlantedFault("Another scale, the same probabilities", "another unit of the logits", _other_scale),
    PlantedFault("256 different scores", "an output of eight bits", _levels(256)),
    PlantedFault("Noise of 0.002 deviations", "another order of summation", moved(1, 0.002)),
    PlantedFault("Noise of 0.01 deviations", "a good int8 program", moved(1, 0.01)),
)
