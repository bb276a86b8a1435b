"""Planted faults of scores: what broken programs and services do to answers, done to the baseline's own answers.

`core.evidence.planted_trial` plants them all on a user's cases and sees which of them the recipe's limits refuse.
Programs that are really broken are tested beside them, in tests/integration/test_planted_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import Floats
from featherweight.core.evidence import planted_changes as c
from featherweight.core.evidence import planted_groups as g
from featherweight.core.evidence.planted_changes import Planter
from featherweight.core.evidence.predictions import Predictions


@dataclass(frozen=True)
class PlantedFault:
    """name: what becomes of the answers; imitates: what does such a thing; plant: does it to the baseline's answers, on
    exactly so many cases as it says, so that its true damage to these cases is known."""

    name: str
    imitates: str
    plant: Planter


@dataclass(frozen=True)
class GradedFault:
    """A fault of a size that is chosen by the limits, just beyond one of them. name: with a place for the amount;
    plant: of an amount; most: the largest amount."""

    name: str
    imitates: str
    plant: Callable[[float], Planter]
    most: float = 1.0

    @property
    def title(self) -> str:
        """Without the amount."""
        return f"Just beyond a limit, as from {self.imitates}"

    def of(self, amount: float) -> PlantedFault:
        return PlantedFault(self.name.format(amount), self.imitates, self.plant(amount))


def _middle(of: Predictions) -> float:
    return float(of.scores.mean())


_FEW_CASES = (
    PlantedFault("1% of the positives are lost", "a rare kind of finding that the network forgot", c.lost(0.01, 1)),
    PlantedFault("3% of the positives are lost", "a kind of finding that the network forgot", c.lost(0.03, 1)),
    PlantedFault("10% of the positives are lost", "a filter or a tree that found them is gone", c.lost(0.1, 1)),
    PlantedFault("1% of the negatives rise above all", "an artefact that saturates a layer", c.lost(0.01, 0)),
    PlantedFault("3% of the negatives rise above all", "a common artefact that saturates a layer", c.lost(0.03, 0)),
    PlantedFault("10% of the negatives rise above all", "a missing value read as a large one", c.lost(0.1, 0)),
    PlantedFault("5% of the surest positives are lost", "an activation that overflows", c.lost(0.05, 1, surest=True)),
    PlantedFault("5% of the surest negatives rise", "an activation that wraps around", c.lost(0.05, 0, surest=True)),
    PlantedFault("2% of the scores change strongly", "int8 products that overflow now and then", c.moved(0.02, 3)),
    PlantedFault("10% of the scores change strongly", "int8 products that overflow often", c.moved(0.1, 3)),
    PlantedFault(
        "5% of the scores change strongly, for the worse", "harm in one direction", c.moved(0.05, 3, one_sided=True)
    ),
    PlantedFault("5% of the cases have each other's score", "answers mixed up by a queue", c.exchanged(0.05)),
    PlantedFault("20% of the cases have each other's score", "answers mixed up by a race", c.exchanged(0.2)),
    PlantedFault("10% of the cases have the score before", "a buffer that is not renewed", c.repeated(0.1)),
    PlantedFault("5% of the batches are shifted by one", "an index that is off by one", c.shifted_batches(0.05)),
    PlantedFault("All batches are shifted by one", "answers paired with the wrong inputs", c.shifted_batches(1.0)),
)
_ALL_CASES = (
    PlantedFault("Noise of 0.2 deviations on all scores", "weights of too few bits", c.moved(1, 0.2)),
    PlantedFault("Noise of 0.5 deviations on all scores", "weights of far too few bits", c.moved(1, 0.5)),
    PlantedFault("Noise of 1 deviation on all scores", "a layer's scale that is wrong", c.moved(1, 1.0)),
    PlantedFault(
        "All positives sink a little", "a wrong bias in one branch", c.moved(1, 0.3, labels=[1], one_sided=True)
    ),
    PlantedFault(
        "All negatives rise a little", "a rectifier that is gone", c.moved(1, 0.3, labels=[0], one_sided=True)
    ),
    PlantedFault("The order is reversed", "the classes exchanged", c.reversed_scores),
    PlantedFault(
        "The sign of the score is lost", "an absolute value too many", c.all_scores(lambda of: np.abs(of.scores))
    ),
    PlantedFault("Nothing but one answer", "a layer's weights are zero", c.all_scores(lambda of: 0 * of.scores)),
    PlantedFault(
        "All scores a deviation too high",
        "the output's bias doubled",
        c.all_scores(lambda of: of.scores + c.spread(of)),
    ),
    PlantedFault(
        "All scores a deviation too low", "the output's bias lost", c.all_scores(lambda of: of.scores - c.spread(of))
    ),
    PlantedFault(
        "All scores half as far from their mean",
        "the output's scale halved",
        c.all_scores(lambda of: (of.scores + _middle(of)) / 2 + c.spread(of) / 2),
    ),
)
_RANGE = (
    PlantedFault("Two different scores", "an output of one bit", c.levels(2)),
    PlantedFault("Four different scores", "an output of two bits", c.levels(4)),
    PlantedFault("16 different scores", "an output of four bits", c.levels(16)),
    PlantedFault("The upper 30% of the scores are one number", "an output range cut above", c.clipped(high=0.7)),
    PlantedFault("The upper 5% of the scores are one number", "an output range cut above", c.clipped(high=0.95)),
    PlantedFault("The lower 70% of the scores are one number", "an output range cut below", c.clipped(low=0.7)),
    PlantedFault("The highest 2% of the scores wrap around", "int8 that overflows", c.wrapped(0.02, top=True)),
    PlantedFault("The lowest 2% of the scores wrap around", "int8 that underflows", c.wrapped(0.02, top=False)),
    PlantedFault("2% of the scores are the largest number", "an overflow that no NaN betrays", c.overflowed(0.02)),
)
_GROUPS = (
    PlantedFault("The rarest group has one answer", "one device's images are all black", g.in_group(g.one_answer)),
    PlantedFault("The rarest group is in the reverse order", "one device's images are inverted", g.in_group(g.turned)),
    PlantedFault(
        "Positives of the rarest group sink", "one site's findings forgotten", g.in_group(g.against_label(2, 1))
    ),
    PlantedFault("Negatives of the rarest group rise", "one site's artefact", g.in_group(g.against_label(2, 0))),
    PlantedFault("Scores of the rarest group are too high", "one device's window", g.in_group(g.too_high)),
    PlantedFault(
        "The largest group is in the reverse order",
        "most devices' images are inverted",
        g.in_group(g.turned, rarest=False),
    ),
    PlantedFault(
        "Positives of the largest group sink a little",
        "one sex served worse",
        g.in_group(g.against_label(0.3, 1), rarest=False),
    ),
    PlantedFault(
        "Negatives of the largest group rise a little",
        "one band of amounts",
        g.in_group(g.against_label(0.3, 0), rarest=False),
    ),
    PlantedFault("The largest cluster is lost", "one patient or card of many cases", g.largest_cluster_lost),
    PlantedFault("5% of the clusters are lost", "patients or cards of one kind", g.clusters_lost(0.05, 1)),
    PlantedFault("Negatives of 5% of the clusters rise", "patients or cards of one kind", g.clusters_lost(0.05, 0)),
    PlantedFault("Each cluster has its first score", "a state that is never renewed", g.first_of_cluster),
    PlantedFault("Each case has its cluster's score before", "stale features", g.one_behind),
)
_THRESHOLD = (
    PlantedFault("Threshold so high that 10% are missed", "the threshold of another model", c.threshold_missing(0.1)),
    PlantedFault("Threshold so high that 50% are missed", "the threshold of another scale", c.threshold_missing(0.5)),
    PlantedFault("Threshold so low that 10% are alarmed", "the threshold of another model", c.threshold_alarming(0.1)),
    PlantedFault("Threshold of the other sign", "a score on the other class", c.threshold_by(lambda at, of: -at)),
    PlantedFault(
        "A probability taken for the threshold",
        "a threshold that was converted twice",
        c.threshold_by(lambda at, of: c.sigmoid(at) + c.spread(of)),
    ),
    PlantedFault("Nothing is positive", "a threshold above all scores", c.threshold_by(lambda at, of: c.above_all(of))),
    PlantedFault(
        "Everything is positive", "a threshold below all scores", c.threshold_by(lambda at, of: c.below_all(of))
    ),
    PlantedFault("The last outcome vanishes", "declines that vanish", c.outcome_vanished(-1)),
    PlantedFault("The second outcome becomes the first", "reviews that become approvals", c.outcome_vanished(1)),
    PlantedFault("The strongest answers become weak ones", "declines that vanish", c.pressed_above(0.02)),
    PlantedFault("The weakest answers fall below", "reviews that become approvals", c.pushed_below(0.5)),
)
_CALIBRATION = (
    PlantedFault("All probabilities are one number", "a calibration on no data", c.one_probability),
    PlantedFault("All probabilities too high", "calibrated on another mix of cases", c.calibration(shift=1.0)),
    PlantedFault("All probabilities too low", "calibrated on another mix of cases", c.calibration(shift=-1.0)),
    PlantedFault("Probabilities too sure", "overfitted, no calibration", c.calibration(slope=3.0)),
    PlantedFault("Probabilities not sure enough", "distilled at a high temperature", c.calibration(slope=1 / 3)),
    PlantedFault("Probabilities of the other class", "the classes exchanged", c.probabilities_by(lambda p, of: 1 - p)),
    PlantedFault("Probabilities squared", "calibrated twice", c.probabilities_by(lambda p, of: p**2)),
)
_TIME = (
    PlantedFault("Noise that grows with time", "drift, a state that is not renewed", c.drifting(1.0)),
    PlantedFault("The last 10% have one answer", "a service that fails to a default", c.outage(0.1)),
    PlantedFault("The last 2% have one answer", "a short failure to a default", c.outage(0.02)),
)
PLANTED: tuple[PlantedFault, ...] = (*_FEW_CASES, *_ALL_CASES, *_RANGE, *_GROUPS, *_THRESHOLD, *_CALIBRATION, *_TIME)


GRADED: tuple[GradedFault, ...] = (
    GradedFault("Just beyond: {:.2%} of the positives lost", "findings forgotten", lambda share: c.lost(share, 1)),
    GradedFault("Just beyond: {:.2%} of the negatives rise", "an artefact", lambda share: c.lost(share, 0)),
    GradedFault(
        "Just beyond: {:.2%} of the scores change strongly",
        "int8 products that overflow",
        lambda share: c.moved(share, 3, one_sided=True),
    ),
    GradedFault("Just beyond: noise of {:.3f} deviations", "too few bits", lambda spreads: c.moved(1, spreads), 10.0),
    GradedFault("Just beyond: {:.2%} of the scores exchanged", "answers mixed up", c.exchanged),
    GradedFault("Just beyond: threshold so high that {:.2%} are missed", "another model's", c.threshold_missing),
    GradedFault("Just beyond: threshold so low that {:.2%} are alarmed", "another model's", c.threshold_alarming),
    GradedFault(
        "Just beyond: {:.2%} of the clusters lost", "patients or cards", lambda share: g.clusters_lost(share, 1)
    ),
)
"""Of the sizes that tell a good gate from one that takes what is seen for what is so."""


def _copy(of: Predictions, draw: np.random.Generator) -> Predictions:
    return replace(of)


def _other_scale(of: Predictions, draw: np.random.Generator) -> Predictions:
    return c.rethresholded(replace(of, scores=3 * of.scores + 1), lambda at: 3 * at + 1)


def _bent_scale(of: Predictions, draw: np.random.Generator) -> Predictions:
    """An increasing function that is no straight line, of scores and threshold."""

    middle, unit = of.threshold, c.spread(of)

    def bent(scores: Floats) -> Floats:
        away = (scores - middle) / unit
        return np.asarray(np.sign(away) * np.log1p(np.abs(away)))

    return c.rethresholded(replace(of, scores=bent(of.scores)), lambda at: float(bent(np.array(at))))


HARMLESS: tuple[PlantedFault, ...] = (
    PlantedFault("An exact copy", "the same program again", _copy),
    PlantedFault("Another scale, threshold moved along", "logits in place of log odds", _other_scale),
    PlantedFault("A bent scale, threshold moved along", "probabilities in place of logits", _bent_scale),
    PlantedFault("256 different scores", "an output of eight bits", c.levels(256)),
    PlantedFault("Noise of 0.002 deviations", "another order of summation", c.moved(1, 0.002)),
    PlantedFault("Noise of 0.01 deviations", "a good int8 program", c.moved(1, 0.01)),
)
"""Candidates that do no harm, or none worth a limit: a gate that refuses them is of no use."""
