"""Each case's own part of a loss: of AUC, of average precision, of card precision and of the Brier score, whose parts
are the squared errors.

Of rankings, both scorers are put on one scale, the midranks of all cases. A case moves from its old rank to its new
one; its part is what its move alone costs, the mean of that among the others' old ranks and among their new ones (of
the AUC the parts of positives and negatives then add up to the loss exactly: Shapley's value of two players). What the
parts of average precision leave of the loss, which is little, is shared out in proportion to their size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats, Indices, Labels, Probabilities, Scores
from featherweight.core.statistics.card_precision import Desk
from featherweight.core.statistics.intervals import midranks
from featherweight.core.statistics.loss_bounds import OwnLosses


def auc_own_losses(baseline: Scores, candidate: Scores, labels: Labels, clusters: Sequence[Clusters] = ()) -> OwnLosses:
    """Both classes must be present. A case of the rarer class that falls below all of the other one is a loss of one
    over their number."""
    positive = labels == 1
    old, new = midranks(baseline), midranks(candidate)
    parts = np.empty(len(labels))
    for inside, sign in ((positive, 1.0), (~positive, -1.0)):
        among = [np.sort(ranks[~inside]) for ranks in (old, new)]
        fallen = sum(_share_below(ranks, old[inside]) - _share_below(ranks, new[inside]) for ranks in among)
        parts[inside] = sign * np.asarray(fallen) / 2 / inside.sum()
    return OwnLosses(parts, 1 / min(int(positive.sum()), int((~positive).sum())), positive, clusters)


def _share_below(rising: Floats, values: Floats) -> Floats:
    """Of `rising` [M], below each value; ties count half."""
    found = np.searchsorted(rising, values, "left") + np.searchsorted(rising, values, "right")
    return np.asarray(found / (2 * len(rising)))


def average_precision_own_losses(
    baseline: Scores, candidate: Scores, labels: Labels, clusters: Sequence[Clusters] = ()
) -> OwnLosses:
    """Both classes must be present. The worst single move is a negative that rises above all positives, or a positive
    that sinks below all negatives, whichever costs more."""
    positive = labels == 1
    old, new = midranks(baseline), midranks(candidate)
    before, after = _Precisions(old, positive), _Precisions(new, positive)
    parts = (before.costs(old, new) - after.costs(new, old)) / 2
    size = float(np.abs(parts).sum())
    if size > 0:
        parts += (before.average - after.average - float(parts.sum())) * np.abs(parts) / size
    lost = max(before.worst_move(old), after.worst_move(new))
    # What one alarm above all positives costs is a sum of 1 / (hits + 1) over their number: it grows as a logarithm.
    return OwnLosses(parts, lost, positive, clusters, 1 / int(positive.sum()))


def brier_own_losses(
    baseline: Probabilities, candidate: Probabilities, labels: Labels, clusters: Sequence[Clusters] = ()
) -> OwnLosses:
    """The worst that may happen to a case is a certain and right probability that becomes a certain and wrong one: one
    over the number of cases."""
    count = len(labels)
    parts = ((candidate - labels) ** 2 - (baseline - labels) ** 2) / count
    return OwnLosses(parts, 1 / count, np.ones(count, bool), clusters)


def card_precision_own_losses(
    desk: Desk, baseline: Scores, candidate: Scores, labels: Labels, clusters: Sequence[Clusters]
) -> OwnLosses:
    """The cases of compromised cards move to their new ranks, or all others do; what either costs is the mean of that
    among the others' old ranks and among their new ones (Shapley's value of two players), and is shared out to the
    cards that raise, or raised, the alerts: each card's part lies at its case with the highest old rank, so that one
    that is found on another day, by another case, has no part. The worst that may happen is a legitimate card that
    alerts on every day, and keeps a compromised one away on each. clusters: those of the cards first."""
    old, new, inside, unit = midranks(baseline), midranks(candidate), desk.compromised, desk.share_of_alert
    highest = _highest(2 * clusters[0] + inside, old)
    raised = [
        np.bincount(highest[desk.alerts(ranks)], minlength=len(labels))
        for ranks in (old, np.where(inside, new, old), np.where(inside, old, new), new)
    ]
    (none, theirs, others, both), half = raised, unit / 2
    parts = np.where(inside, none - theirs + others - both, others - none + both - theirs) * half
    left = float((none - both)[inside].sum()) * unit - float(parts.sum())  # of days with fewer cards than alerts
    size = float(np.abs(parts).sum())
    if size > 0:
        parts += left * np.abs(parts) / size
    sizes = np.unique(clusters[0], return_counts=True)[1]
    usual = float((sizes**2).sum() / sizes.sum())
    return OwnLosses(parts, unit * desk.usual_days / usual, labels == 1, clusters)


def _highest(groups: Clusters, ranks: Floats) -> Indices:
    """Of each case [N] the case of its group with the highest rank."""
    order = np.lexsort((-ranks, groups))
    first = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    found = np.empty(len(groups), np.intp)
    found[order] = np.repeat(order[first], np.diff(first, append=len(order)))
    return found


class _Precisions:
    """The precision at each positive of one ranking, and what it would be with a case more or less above it. ranks:
    float64 [N]. As scikit-learn's, a case counts from its own score on, ties with it."""

    def __init__(self, ranks: Floats, positive: Bools) -> None:
        self._positive = positive
        self._falling = -np.sort(-ranks[positive])
        self._negatives = np.sort(ranks[~positive])
        hits, alarms = self._hits_from(self._falling), self._alarms_from(self._falling)
        self._precision = hits / (hits + alarms)
        self.average = float(self._precision.mean())
        self._alarm_more = self._precision - hits / (hits + alarms + 1)
        self._alarm_less = self._precision - hits / np.maximum(hits + alarms - 1, 1)
        self._hit_more = self._precision - (hits + 1) / (hits + 1 + alarms)
        self._hit_less = self._precision - (hits - 1) / np.maximum(hits - 1 + alarms, 1)

    def costs(self, old: Floats, new: Floats) -> Floats:
        """What average precision loses if one case alone moves from its `old` rank to its `new` one [N]."""
        found = np.empty(len(old))
        for inside, costs in ((self._positive, self._of_positives), (~self._positive, self._of_negatives)):
            found[inside] = costs(old[inside], new[inside]) / len(self._falling)
        return found

    def worst_move(self, ranks: Floats) -> float:
        """The largest cost of one case that is lost altogether: a negative above all cases, a positive below all."""
        lost = np.where(self._positive, 0.0, len(ranks) + 1.0)
        return float(self.costs(np.where(self._positive, ranks, 0.0), lost).max())

    def _of_negatives(self, old: Floats, new: Floats) -> Floats:
        rises = _between(self._alarm_more, self._hits_above(new), self._hits_above(old))
        falls = _between(self._alarm_less, self._hits_above(old), self._hits_above(new))
        return np.where(new > old, rises, falls)

    def _of_positives(self, old: Floats, new: Floats) -> Floats:
        own = self._hits_from(old).astype(np.intp) - 1
        sinks = new < old
        hits = self._hits_from(new) + np.where(sinks, 0, 1)
        moved = self._precision[own] - hits / (hits + self._alarms_from(new))
        above_old, above_new = self._hits_above(old), self._hits_above(new)
        others = np.where(
            sinks,
            _between(self._hit_less, above_old, above_new) - self._hit_less[own],
            _between(self._hit_more, above_new, above_old),
        )
        return np.where(new == old, 0.0, moved + others)

    def _hits_from(self, ranks: Floats) -> Floats:
        return np.searchsorted(-self._falling, -ranks, "right").astype(np.float64)

    def _hits_above(self, ranks: Floats) -> Indices:
        return np.searchsorted(-self._falling, -ranks, "left")

    def _alarms_from(self, ranks: Floats) -> Floats:
        return (len(self._negatives) - np.searchsorted(self._negatives, ranks, "left")).astype(np.float64)


def _between(values: Floats, start: Indices, end: Indices) -> Floats:
    """The sums of values[start:end], of each pair of places; 0 where start is not before end."""
    so_far = np.concatenate([[0.0], np.cumsum(values)])
    return np.where(end > start, so_far[end] - so_far[start], 0.0)
