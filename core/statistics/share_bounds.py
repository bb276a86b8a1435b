"""How large a share of cases may be, of which some were seen: changed decisions, which no limit may judge by what was
counted alone."""

from __future__ import annotations

import numpy as np

from featherweight.core.arrays import Bools
from featherweight.core.statistics.cluster_kinds import Kinds, fewest_clusters, kinds_of
from featherweight.core.statistics.intervals import design_effect
from featherweight.core.statistics.loss_bounds import OwnLosses, loss_upper_bound


def share_upper_bound(hits: Bools, clusters: Kinds = None, *, confidence: float = 0.95) -> float:
    """The one-sided upper bound of the share of `hits` [N] by Clopper and Pearson (Biometrika 1934); 1 without cases.

    Where cases come in clusters, of one kind or of two, that of as many independent cases as tell as much (Korn and
    Graubard, Survey Methodology 1998: the design effect, times what Student's quantile is wider for so few clusters).
    The design effect of few hits is hardly known: the bound is never below that of as many clusters of which none was
    hit, nor that of each cluster's own part in the share (core.statistics.loss_bounds).
    """
    cases, count = len(hits), int(hits.sum())
    bound, independent = _clopper_pearson(float(count), float(cases), confidence), fewest_clusters(clusters, cases)
    if independent < cases:
        effect = design_effect(hits.astype(np.float64), clusters) * _few_clusters(cases, independent, confidence)
        whole = _clopper_pearson(0.0, float(independent), confidence)
        own = OwnLosses(hits / cases, 1 / cases, np.ones(cases, bool), kinds_of(clusters))
        parts = min(1.0, loss_upper_bound(own, "lost", confidence=confidence))
        bound = max(bound, whole, parts, _clopper_pearson(count / effect, cases / effect, confidence))
    return bound


def _clopper_pearson(hits: float, trials: float, confidence: float) -> float:
    """Both may be fractions, of an effective number of trials."""
    from scipy.special import betaincinv

    return 1.0 if hits >= trials else float(betaincinv(hits + 1, trials - hits, confidence))


def _few_clusters(cases: int, clusters: int, confidence: float) -> float:
    from scipy.special import stdtrit

    if clusters < 2:
        return float(cases)
    return float((stdtrit(clusters - 1, confidence) / stdtrit(cases - 1, confidence)) ** 2)
