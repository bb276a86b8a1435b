"""Figures of several classes and what each case's own part in their loss is (core.statistics.loss_bounds): Cohen's
kappa (Educational and Psychological Measurement 1960), mean recall, and means over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats, Integers, Labels
from featherweight.core.statistics.cluster_kinds import Kinds
from featherweight.core.statistics.intervals import Z_TWO_SIDED, Interval, standard_error, wilson_interval
from featherweight.core.statistics.loss_bounds import OwnLosses


def mean_own_losses(losses: Sequence[OwnLosses], rarest: Bools) -> OwnLosses:
    """Of the mean of one figure over the classes, each against the rest; at least one. rarest: cases of the rarest
    class [N]. A case that is lost altogether is lost to every class: in its own it counts among the few, in all others
    among the many, and at most so much as its worst in each."""
    count = len(losses)
    return OwnLosses(
        np.mean([own.parts for own in losses], axis=0),
        sum(own.lost for own in losses) / count,
        rarest,
        losses[0].clusters,
        sum(own.grows for own in losses) / count,
    )


def recall_own_losses(
    before: Bools, after: Bools, labels: Labels, clusters: Sequence[Clusters] = ()
) -> OwnLosses | None:
    """Of the mean recall of the classes that have a case. before, after: whether the decisions are right [N]."""
    found, numbered, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not len(found):
        return None
    parts = (before.astype(np.float64) - after) / sizes[numbered] / len(found)
    rarest = np.asarray(numbered == sizes.argmin())
    return OwnLosses(parts, 1 / int(sizes.min()) / len(found), rarest, clusters)


class _Agreement(NamedTuple):
    """seen: share of decisions that are right; chance: the share that decisions of these frequencies, given at random,
    would be right; labels, decisions: shares of the classes [K]."""

    seen: float
    chance: float
    labels: Floats
    decisions: Floats

    @classmethod
    def of(cls, decisions: Integers, labels: Labels, classes: int) -> _Agreement:
        shares = [np.bincount(places, minlength=classes) / len(labels) for places in (labels, decisions)]
        return cls(float((decisions == labels).mean()), float(shares[0] @ shares[1]), shares[0], shares[1])

    @property
    def slopes(self) -> tuple[float, float]:
        """The derivatives of kappa by `seen` and by `chance`."""
        return 1 / (1 - self.chance), -(1 - self.seen) / (1 - self.chance) ** 2


def kappa(decisions: Integers, labels: Labels, classes: int) -> float | None:
    """Cohen's kappa of places of classes [N]; None where labels and decisions are all of one class."""
    found = _Agreement.of(decisions, labels, classes)
    return None if found.chance >= 1 else (found.seen - found.chance) / (1 - found.chance)


def kappa_interval(decisions: Integers, labels: Labels, classes: int, clusters: Kinds = None) -> Interval | None:
    """95% interval by the delta method (Fleiss, Cohen and Everitt, Psychological Bulletin 1969), variance between
    clusters where there are some; of decisions that are all right that of Wilson's interval of their share."""
    estimate, found = kappa(decisions, labels, classes), _Agreement.of(decisions, labels, classes)
    if estimate is None:
        return None
    by_seen, by_chance = found.slopes
    chance = found.decisions[labels] + found.labels[decisions] - 2 * found.chance
    influence = by_seen * ((decisions == labels) - found.seen) + by_chance * chance
    reach = Z_TWO_SIDED * standard_error(influence, clusters)
    if reach > 1e-12:
        return Interval(estimate, max(-1.0, estimate - reach), min(1.0, estimate + reach))
    share = wilson_interval(len(labels), len(labels))
    low = -1.0 if share is None else (share.low - found.chance) / (1 - found.chance)
    return Interval(estimate, min(estimate, low), estimate)


def kappa_own_losses(
    before: Integers, after: Integers, labels: Labels, classes: int, clusters: Sequence[Clusters] = ()
) -> OwnLosses | None:
    """Each case's part is what its change of decision costs at the middle between the two programs; what that leaves of
    the loss, which is little, is shared out in proportion to the parts' sizes. None where a kappa is not known."""
    figures = kappa(before, labels, classes), kappa(after, labels, classes)
    if figures[0] is None or figures[1] is None:
        return None
    ends = [_Agreement.of(places, labels, classes) for places in (before, after)]
    shares = ends[0].labels
    seen, chance = (ends[0].seen + ends[1].seen) / 2, (ends[0].chance + ends[1].chance) / 2
    middle = _Agreement(seen, chance, shares, shares)
    by_seen, by_chance = middle.slopes
    gained = (after == labels).astype(np.float64) - (before == labels)
    parts = -(by_seen * gained + by_chance * (shares[after] - shares[before])) / len(labels)
    size = float(np.abs(parts).sum())
    if size > 0:
        parts += (figures[0] - figures[1] - float(parts.sum())) * np.abs(parts) / size
    lost = (by_seen - by_chance * float(np.ptp(shares))) / len(labels)
    rarest = np.asarray(labels == min(np.unique(labels), key=lambda place: shares[place]))
    return OwnLosses(parts, lost, rarest, clusters)
