"""Figures of several classes that exclude each other: entries of the table in `core.evidence.metrics`, with what they
compute. What is of one class (its AUC, its sensitivity, which is its recall) is that of a yes or no, class against the
rest; here are the means over the classes and what looks at all of them at once.

All losses but those of shares are sums of each case's own part (core.statistics.loss_bounds), so that they are bounded
by case or by cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from featherweight.core.arrays import Bools, Floats, Labels, Scores
from featherweight.core.evidence import binary as b
from featherweight.core.evidence.class_predictions import ClassPredictions
from featherweight.core.evidence.metric import CLASSES, Limit, Metric, Pair, Side
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics import reliability as r
from featherweight.core.statistics.average_precision import logit_interval, precision_influence
from featherweight.core.statistics.class_losses import (
    kappa,
    kappa_interval,
    kappa_own_losses,
    mean_own_losses,
    recall_own_losses,
)
from featherweight.core.statistics.intervals import auc_influence
from featherweight.core.statistics.loss_bounds import OwnLosses
from featherweight.core.statistics.paired import paired_share_difference
from featherweight.core.statistics.sample_size import Needed, cases_needed_of_share
from featherweight.core.terminal import counted

MANY = 10
"""With more classes the right one counts among the first five, with fewer among the first two."""


def of_classes(of: Predictions) -> ClassPredictions:
    """The table asks these entries of such predictions alone."""
    return cast(ClassPredictions, of)


def _known(of: Predictions) -> list[tuple[int, Predictions]]:
    """The classes that have a case and are not all there is (in a group they may), with their places."""
    return [(place, part) for place, (_, part) in enumerate(of.parts) if 0 < int(part.labels.sum()) < len(part.labels)]


def _fewest(of: Predictions) -> int:
    """Independent cases of the rarest class that has any."""
    return min(of.independent(inside) for _, inside in of.strata if inside.any())


def _rarest(of: Predictions) -> Bools:
    return min((inside for _, inside in of.strata if inside.any()), key=lambda inside: int(inside.sum()))


# ---------------------------------------------------------------------------------------------------- ranking


def _macro(of: Predictions, figure: Callable[[Predictions], float | None]) -> float | None:
    """The mean of a figure over the classes; None where no class has one."""
    found = [figure(part) for _, part in _known(of)]
    return float(np.mean([one for one in found if one is not None])) if found else None


def _macro_interval(
    of: Predictions, estimate: float | None, influence: Callable[[Scores, Labels], Floats]
) -> s.Interval | None:
    """influence: of each case [N] on the figure of one class."""
    if estimate is None:
        return None
    mean = np.mean([influence(part.scores, part.labels) for _, part in _known(of)], axis=0)
    return logit_interval(estimate, mean, of.cluster_kinds, _fewest(of))


def macro_auc(of: Predictions) -> float | None:
    return _macro(of, b.auc)


def macro_auc_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    return _macro_interval(of, macro_auc(of), auc_influence)


def macro_auc_losses(pair: Pair) -> OwnLosses | None:
    return _mean_of_parts(pair, b.auc_losses)


def macro_average_precision(of: Predictions) -> float | None:
    return _macro(of, b.average_precision)


def macro_average_precision_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    return _macro_interval(of, macro_average_precision(of), precision_influence)


def macro_average_precision_losses(pair: Pair) -> OwnLosses | None:
    return _mean_of_parts(pair, b.average_precision_losses)


def _mean_of_parts(pair: Pair, losses: Callable[[Pair], OwnLosses | None]) -> OwnLosses | None:
    """The mean of the losses of all classes, case by case; None where no class has any."""
    places = [place for place, _ in _known(pair.baseline)]
    found = [own for place in places if (own := losses(pair.parts[place][1])) is not None]
    return mean_own_losses(found, _rarest(pair.baseline)) if found else None


# ---------------------------------------------------------------------------------------------------- decisions


def _share_right_difference(pair: Pair) -> s.Difference | None:
    return b.share_right_difference(pair, b.everywhere(pair.baseline))


def macro_recall(of: Predictions) -> float | None:
    """Mean over the classes that have a case of the share of its cases that are decided for it."""
    return float(np.mean([of.right[inside].mean() for _, inside in of.strata if inside.any()]))


def macro_recall_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    estimate, influence = macro_recall(of), np.zeros(len(of.labels))
    inside_of = [inside for _, inside in of.strata if inside.any()]
    for inside in inside_of:
        right = of.right[inside]
        influence[inside] = (right - right.mean()) / len(right) / len(inside_of)
    return None if estimate is None else logit_interval(estimate, influence, of.cluster_kinds, _fewest(of))


def macro_recall_losses(pair: Pair) -> OwnLosses | None:
    before, after = pair.baseline, pair.candidate
    return recall_own_losses(before.right, after.right, before.labels, before.cluster_kinds)


def cohen_kappa(of: Predictions) -> float | None:
    return kappa(of.outcome_places, of.labels, len(of.parts))


def cohen_kappa_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    return kappa_interval(of.outcome_places, of.labels, len(of.parts), of.cluster_kinds)


def cohen_kappa_losses(pair: Pair) -> OwnLosses | None:
    before, after = pair.baseline, pair.candidate
    places = before.outcome_places, after.outcome_places
    return kappa_own_losses(*places, before.labels, len(before.parts), before.cluster_kinds)


def _in_top(of: Predictions) -> Bools:
    """bool [N]: whether the right class is among the first two, or five of more than MANY; of equal scores the first
    ones come first."""
    most = 5 if len(of.parts) > MANY else 2
    own = of.scores[np.arange(len(of.labels)), of.labels][:, None]
    earlier = np.arange(of.scores.shape[1])[None] < of.labels[:, None]
    return np.asarray(((of.scores > own) | ((of.scores == own) & earlier)).sum(axis=1) < most)


def top_k_accuracy(of: Predictions) -> float | None:
    return float(_in_top(of).mean())


def _top_k_difference(pair: Pair) -> s.Difference | None:
    return paired_share_difference(_in_top(pair.baseline), _in_top(pair.candidate), pair.baseline.cluster_kinds)


def _top_k_needed(pair: Pair, difference: s.Difference, margin: float) -> Needed:
    before, after = (_in_top(one).astype(np.float64) for one in (pair.baseline, pair.candidate))
    return cases_needed_of_share(after - before, margin, pair.baseline.cluster_kinds)


# ---------------------------------------------------------------------------------------------------- probabilities


def class_brier_score(of: Predictions) -> float | None:
    return None if of.probabilities is None else float(_squared(of).mean())


def _squared(of: Predictions) -> Floats:
    """Half of the sum of the squared errors of all classes, of each case [N]."""
    chances = of_classes(of).chances
    return np.asarray(((chances - np.eye(chances.shape[1])[of.labels]) ** 2).sum(axis=1) / 2)


def class_brier_interval(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    if of.probabilities is None:
        return None
    values = _squared(of)
    estimate, reach = float(values.mean()), s.Z_TWO_SIDED * s.standard_error(values, of.cluster_kinds)
    return s.Interval(estimate, max(0.0, estimate - reach), min(1.0, estimate + reach))


def class_brier_losses(pair: Pair) -> OwnLosses | None:
    before, after = pair.baseline, pair.candidate
    if before.probabilities is None or after.probabilities is None:
        return None
    parts = (_squared(after) - _squared(before)) / len(before.labels)
    return OwnLosses(parts, 1 / len(parts), np.ones(len(parts), bool), before.cluster_kinds)


def confidence(of: Predictions) -> Floats | None:
    """float64 [N]: the probability of the class that is decided for; None without probabilities."""
    if of.probabilities is None:
        return None
    return np.asarray(of.probabilities[np.arange(len(of.labels)), of.outcome_places])


def _top_label_error(pair: Pair, side: Side) -> s.Interval | None:
    of = pair.side(side)
    sure, right = confidence(of), of.right.astype(np.int64)
    if sure is None:
        return None
    return r.calibration_error_interval(sure, right, of.cluster_kinds, samples=pair.samples, seed=pair.seed)


# ---------------------------------------------------------------------------------------------------- entries


def _by_influence(of: Predictions, samples: int) -> str:
    what = "cases" if of.clusters is None else counted(len(np.unique(of.clusters)), of.cluster_noun)
    return f"infinitesimal jackknife over {what}, on the logit scale with Student's quantile of the rarest class"


def _by_delta(of: Predictions, samples: int) -> str:
    what = "" if of.clusters is None else f", variance between {counted(len(np.unique(of.clusters)), of.cluster_noun)}"
    return f"normal interval by the delta method (Fleiss, Cohen and Everitt){what}"


MACRO_AUC = Metric(
    name="macro_auc",
    title="Macro AUC",
    phrase="macro AUC",
    note="mean of the classes, each against the rest",
    reads="ranking",
    labels=CLASSES,
    estimate=macro_auc,
    interval=macro_auc_interval,
    own_losses=macro_auc_losses,
    method=_by_influence,
    limit=Limit(
        "macro_auc_loss",
        "loss",
        "Loss of macro AUC",
        meaning="Largest loss of the mean over the classes of the area under the ROC curve, each against the rest.",
    ),
)
MACRO_AVERAGE_PRECISION = Metric(
    name="macro_average_precision",
    title="Macro average precision",
    phrase="macro average precision",
    note="mean of the classes, each against the rest",
    reads="ranking",
    labels=CLASSES,
    estimate=macro_average_precision,
    interval=macro_average_precision_interval,
    own_losses=macro_average_precision_losses,
    method=_by_influence,
    limit=Limit(
        "macro_average_precision_loss",
        "loss",
        "Loss of macro average precision",
        meaning="Largest loss of the mean over the classes of average precision, each against the rest.",
    ),
)
TOP_1_ACCURACY = Metric(
    name="top_1_accuracy",
    title="Accuracy",
    phrase="accuracy",
    note="of several classes",
    reads="decisions",
    labels=CLASSES,
    estimate=lambda of: b.share_right(of, b.everywhere(of)),
    interval=lambda pair, side: b.share_right_interval(pair.side(side), b.everywhere(pair.baseline)),
    difference=_share_right_difference,
    needed=lambda pair, _, margin: b.needed_of_share(pair, b.everywhere(pair.baseline), margin),
    method=b.share_method,
    limit=Limit(
        "accuracy_loss",
        "loss",
        "Loss of accuracy",
        meaning="Largest loss of the share of cases that are decided for their own class, of several.",
    ),
)
MACRO_RECALL = Metric(
    name="macro_recall",
    title="Balanced accuracy",
    phrase="balanced accuracy",
    note="mean recall of the classes",
    reads="decisions",
    labels=CLASSES,
    estimate=macro_recall,
    interval=macro_recall_interval,
    own_losses=macro_recall_losses,
    method=_by_influence,
    limit=Limit(
        "balanced_accuracy_loss",
        "loss",
        "Loss of balanced accuracy",
        meaning="Largest loss of the mean over several classes of the share of its cases that are decided for it.",
    ),
)
COHEN_KAPPA = Metric(
    name="cohen_kappa",
    title="Cohen's kappa",
    phrase="Cohen's kappa",
    note="agreement with the labels beyond chance",
    reads="decisions",
    labels=CLASSES,
    unit="from -1 to 1",
    estimate=cohen_kappa,
    interval=cohen_kappa_interval,
    own_losses=cohen_kappa_losses,
    method=_by_delta,
    limit=Limit(
        "kappa_loss",
        "loss",
        "Loss of Cohen's kappa",
        meaning="Largest loss of Cohen's kappa, the agreement with the labels of several classes beyond chance.",
    ),
)
TOP_K_ACCURACY = Metric(
    name="top_k_accuracy",
    title="Top-k accuracy",
    phrase="top-k accuracy",
    note=f"among the first two, of more than {MANY} classes among the first five",
    reads="ranking",
    labels=CLASSES,
    estimate=top_k_accuracy,
    interval=lambda pair, side: s.share_interval(_in_top(pair.side(side)), pair.baseline.cluster_kinds),
    difference=_top_k_difference,
    needed=_top_k_needed,
    method=b.share_method,
    limit=Limit(
        "top_k_accuracy_loss",
        "loss",
        "Loss of top-k accuracy",
        meaning=(
            "Largest loss of the share of cases whose own class is among the first two, or of more than ten classes "
            "among the first five."
        ),
    ),
)
CLASS_BRIER_SCORE = Metric(
    name="class_brier_score",
    title="Brier score of all classes",
    phrase="Brier score of all classes",
    note="half of the sum of squared errors; smaller is better",
    reads="probabilities",
    labels=CLASSES,
    direction="lower",
    estimate=class_brier_score,
    interval=class_brier_interval,
    own_losses=class_brier_losses,
    method=b.brier_method,
    limit=Limit(
        "class_brier_loss",
        "loss",
        "Loss of the Brier score of all classes",
        meaning="Largest rise of half of the sum over several classes of the squared errors of the probabilities.",
    ),
)
TOP_LABEL_CALIBRATION_ERROR = Metric(
    name="top_label_calibration_error",
    title="Expected calibration error of the decided class",
    phrase="expected calibration error of the decided class",
    note="smaller is better",
    reads="probabilities",
    labels=CLASSES,
    direction="lower",
    interval=_top_label_error,
    method=lambda of, samples: b.CALIBRATION_ERROR_METHOD,
)
