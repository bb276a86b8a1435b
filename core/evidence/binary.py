"""The figures of yes or no: what the table's entries for binary labels compute, from `core.statistics`."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Bools, Clusters
from featherweight.core.evidence.metric import Pair, Side
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics import reliability as r
from featherweight.core.statistics.average_precision import (
    average_precision_interval as logit_interval_of_average_precision,
)
from featherweight.core.statistics.loss_bounds import OwnLosses
from featherweight.core.statistics.own_losses import (
    auc_own_losses,
    average_precision_own_losses,
    brier_own_losses,
    card_precision_own_losses,
)
from featherweight.core.statistics.paired import paired_share_difference
from featherweight.core.statistics.resampling import average_precision as ranked_precision
from featherweight.core.statistics.resampling import percentile_interval
from featherweight.core.statistics.sample_size import Needed, cases_needed_of_share
from featherweight.core.terminal import counted

# ---------------------------------------------------------------------------------------------------- ranking


def auc(of: Predictions) -> float | None:
    return s.roc_auc(of.scores, of.labels)


def auc_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    return s.roc_auc_interval(of.scores, of.labels, of.cluster_kinds)


def auc_floor(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    return s.roc_auc_floor(of.scores, of.labels, of.cluster_kinds)


def auc_losses(pair: Pair) -> OwnLosses | None:
    """Each case's own part of the loss; None where a class has no case."""
    before, after = pair.baseline, pair.candidate
    if not _both_classes(before):
        return None
    return auc_own_losses(before.scores, after.scores, before.labels, before.cluster_kinds)


def _both_classes(of: Predictions) -> bool:
    return 0 < int((of.labels == 1).sum()) < len(of.labels)


def average_precision(of: Predictions) -> float | None:
    return ranked_precision(of.scores, of.labels)


def average_precision_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    return logit_interval_of_average_precision(of.scores, of.labels, of.cluster_kinds)


def average_precision_losses(pair: Pair) -> OwnLosses | None:
    """Each case's own part of the loss; None where a class has no case."""
    before, after = pair.baseline, pair.candidate
    if not _both_classes(before):
        return None
    return average_precision_own_losses(before.scores, after.scores, before.labels, before.cluster_kinds)


def card_precision(of: Predictions) -> float | None:
    return None if of.desk is None else of.desk.precision(of.scores)


def card_precision_interval(pair: Pair, side: Side) -> s.Interval | None:
    if pair.card_draws is None:
        return None
    drawn = pair.card_draws[side]
    return percentile_interval(float(drawn[0]), drawn[1:])


def card_precision_losses(pair: Pair) -> OwnLosses | None:
    """The part of each case that raised an alert, or raises one now; None where no compromised card can raise one: 0
    against 0 would prove nothing."""
    before, after = pair.baseline, pair.candidate
    if before.desk is None or not before.desk.can_alert:
        return None
    return card_precision_own_losses(before.desk, before.scores, after.scores, before.labels, before.cluster_kinds)


# ---------------------------------------------------------------------------------------------------- decisions


def everywhere(of: Predictions) -> Bools:
    return np.ones(len(of.labels), bool)


def among_positives(of: Predictions) -> Bools:
    return np.asarray(of.labels == 1)


def among_negatives(of: Predictions) -> Bools:
    return np.asarray(of.labels != 1)


def _right(of: Predictions, inside: Bools) -> Bools:
    return of.right[inside]


def _cluster_kinds(of: Predictions, inside: Bools) -> tuple[Clusters, ...]:
    return tuple(kind[inside] for kind in of.cluster_kinds)


def share_right(of: Predictions, inside: Bools) -> float | None:
    """Share of right decisions among the cases `inside` [N]."""
    return float(_right(of, inside).mean()) if inside.any() else None


def share_right_interval(of: Predictions, inside: Bools) -> s.Interval | None:
    return s.share_interval(_right(of, inside), _cluster_kinds(of, inside))


def share_right_difference(pair: Pair, inside: Bools) -> s.Difference | None:
    before, after = _right(pair.baseline, inside), _right(pair.candidate, inside)
    return paired_share_difference(before, after, _cluster_kinds(pair.baseline, inside))


def needed_of_share(pair: Pair, inside: Bools, margin: float) -> Needed:
    before, after = (_right(one, inside).astype(np.float64) for one in (pair.baseline, pair.candidate))
    return cases_needed_of_share(after - before, margin, _cluster_kinds(pair.baseline, inside))


def balanced_accuracy(of: Predictions) -> float | None:
    shares = share_right(of, among_positives(of)), share_right(of, among_negatives(of))
    return None if shares[0] is None or shares[1] is None else (shares[0] + shares[1]) / 2


def balanced_accuracy_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    parts = [share_right_interval(of, inside) for inside in (among_positives(of), among_negatives(of))]
    return r.balanced_accuracy_interval(*parts)


# ---------------------------------------------------------------------------------------------------- probabilities


def brier_score(of: Predictions) -> float | None:
    return None if of.probabilities is None else r.brier_score(of.probabilities, of.labels)


def brier_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    return None if of.probabilities is None else r.brier_interval(of.probabilities, of.labels, of.cluster_kinds)


def brier_losses(pair: Pair) -> OwnLosses | None:
    """Each case's own part of the loss; None without probabilities."""
    before, after = pair.baseline, pair.candidate
    if before.probabilities is None or after.probabilities is None:
        return None
    return brier_own_losses(before.probabilities, after.probabilities, before.labels, before.cluster_kinds)


CALIBRATION_ERROR_METHOD = (
    "ten bins, without what chance adds; tests of the bins' gaps, inverted; simulated, it holds 90 to 98%"
)


def calibration_error_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    if of.probabilities is None:
        return None
    return r.calibration_error_interval(
        of.probabilities, of.labels, of.cluster_kinds, samples=pair.samples, seed=pair.seed
    )


# ---------------------------------------------------------------------------------------------------- methods


def _count(of: Predictions) -> int:
    return 0 if of.clusters is None else len(np.unique(of.clusters))


def _clusters(of: Predictions) -> str:
    """Those of each kind, counted."""
    return " and ".join(counted(*one) for one in of.counts_of_clusters(everywhere(of)))


def resampled(of: Predictions, samples: int) -> str:
    """How a bootstrap of the cases is made."""
    what = "of the cases, class by class" if of.clusters is None else f"of the {counted(_count(of), of.cluster_noun)}"
    return f"percentiles of {samples:,} bootstrap resamples {what}"


def auc_method(of: Predictions, samples: int) -> str:
    if of.clusters is None:
        return "DeLong's variance over cases"
    return f"Obuchowski's variance over {_clusters(of)}"


def average_precision_method(of: Predictions, samples: int) -> str:
    what = "cases" if of.clusters is None else _clusters(of)
    return f"infinitesimal jackknife over {what}, on the logit scale with Student's quantile of the positive ones"


def card_precision_method(of: Predictions, samples: int) -> str:
    return f"interval: percentiles of {samples:,} bootstrap resamples of the cards; the days are fixed"


def share_method(of: Predictions, samples: int) -> str:
    said = "exact unconditional bound of the paired difference (Tango's ordering, Berger and Boos); Wilson's interval"
    if of.clusters is not None:
        said += (
            f", both for the effective number of cases in {_clusters(of)} (Rao and Scott), the "
            "bound no better than that of each one's own part in the loss"
        )
    return said


def brier_method(of: Predictions, samples: int) -> str:
    if of.clusters is None:
        return "normal interval of the mean squared error"
    return f"normal interval of the mean squared error, variance between {_clusters(of)}"
