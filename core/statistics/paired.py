"""Two programs' decisions on the same cases: exact bounds and tests for the difference of two paired shares.

Of `trials` cases the candidate gained some (right where the baseline was wrong) and lost some; the difference is
(gained - lost) / trials. Which pairs of numbers count as extreme is ordered by Tango's score statistic (Statistics in
Medicine 1998), whose own bound is only asymptotic: its error exceeds 5% for some shares of changed decisions. Here it
is made exact: the probability of the extreme pairs under their trinomial distribution, at its largest over the share of
lost cases, which is unknown (Hsueh, Liu & Chen, Biometrics 2001), searched where that share lies with 99.9%
confidence (Berger & Boos, JASA 1994).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from featherweight.core.arrays import Bools, Clusters, Floats, Integers
from featherweight.core.statistics.cluster_kinds import fewest_clusters
from featherweight.core.statistics.intervals import Difference, bisect, design_effect
from featherweight.core.statistics.loss_bounds import OwnLosses, loss_upper_bound

_DOUBT = 1 / 50
"""Berger and Boos' constant, as a part of the error that is allowed: what the search for the share of lost cases may
miss. It is added to each p-value."""
_SHARES = 41
"""At which the probability is computed; a finer grid moves bounds by less than 0.00001."""
_STEPS = 40
_DEVIATIONS = 7.0
"""Numbers of cases beyond so many standard deviations are left out: their probability is below 1e-10."""


def paired_share_difference(
    baseline_right: Bools, candidate_right: Bools, clusters: Sequence[Clusters] = (), *, confidence: float = 0.95
) -> Difference | None:
    """Difference of two paired shares with its one-sided lower bound; None without cases.

    Where cases come in clusters (of a patient, a card), changes within one go together: the bound is then that of as
    many cases as would tell as much if they were independent (see `at_effective_counts`), where it is the lower one.
    The design effect of few changes is hardly known, and clusters may be lost whole: the bound is never better than
    that of as many cases as there are clusters of which none was lost, of the kind that has the fewest, nor than that
    of each case's own part in the loss (core.statistics.loss_bounds). clusters: of each kind.
    """
    trials = len(baseline_right)
    if trials == 0:
        return None
    gained = int((candidate_right & ~baseline_right).sum())
    lost = int((baseline_right & ~candidate_right).sum())
    changes = candidate_right.astype(np.float64) - baseline_right
    effect = design_effect(changes, clusters)

    def bound(fewer: int, gains: int, losses: int) -> float:
        return exact_bound(fewer, gains, losses, confidence)

    low = at_effective_counts(bound, trials, gained, lost, effect)
    independent = fewest_clusters(clusters, trials)
    low = min(low, bound(trials, gained, lost), bound(independent, min(gained, independent), 0))
    if independent < trials:
        own = OwnLosses(-changes / trials, 1 / trials, np.ones(trials, bool), clusters)
        low = min(low, max(-1.0, -loss_upper_bound(own, "as-seen", confidence=confidence)))
    return Difference((gained - lost) / trials, low)


def at_effective_counts(
    found: Callable[[int, int, int], float], trials: int, gained: int, lost: int, effect: float
) -> float:
    """`found` of (trials, gained, lost) divided by the design effect (Rao & Scott, Biometrics 1992; variance of the
    paired difference between clusters as Obuchowski, Statistics in Medicine 1998); of fractions, between those of the
    whole numbers around them."""
    fewer = max(1, math.floor(trials / effect))

    def between(gains: float, losses: float) -> float:
        low_gain, low_loss, total = math.floor(gains), math.floor(losses), 0.0
        for gain, gain_weight in ((low_gain, 1 - gains + low_gain), (low_gain + 1, gains - low_gain)):
            for loss, loss_weight in ((low_loss, 1 - losses + low_loss), (low_loss + 1, losses - low_loss)):
                if gain_weight * loss_weight > 0:
                    inside = min(loss, fewer)
                    total += gain_weight * loss_weight * found(fewer, min(gain, fewer - inside), inside)
        return total

    return between(gained / effect, lost / effect)


@lru_cache(maxsize=4096)
def exact_bound(trials: int, gained: int, lost: int, confidence: float = 0.95) -> float:
    """Lower bound of the difference: the least one that is not contradicted when pairs are ordered by Tango's bound
    (Buehler, JASA 1957; Lloyd & Moldovan, Statistics in Medicine 2008). Falls with `lost`, rises with `gained`."""
    estimate = (gained - lost) / trials
    z = NormalDist().inv_cdf(confidence)
    score = score_bound(trials, gained, lost, z)
    wanted, reach = 1 - confidence, estimate - score
    extreme = _Extreme(trials, gained, lost, score, wanted * _DOUBT)
    if trials == lost or (score - 3 * reach < -1 and extreme.p_value(-1 + 1e-9) > wanted):
        return -1.0
    # The normal quantile of the p-value is nearly a straight line, so that few steps find where it crosses.
    low, at_low = -1.0, -40.0
    high, at_high = estimate, _quantile(extreme.p_value(estimate))
    middle = score
    for _ in range(_STEPS):
        at_middle = _quantile(extreme.p_value(middle))
        if at_middle <= -z:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
        if high - low < 1e-4 * reach:
            break
        if low == -1:
            middle = max(-1 + 1e-9, high - 2 * (estimate - high) / 3 - reach / 50)
        else:
            share = min(0.98, max(0.02, (-z - at_low) / (at_high - at_low)))
            middle = low + share * (high - low)
    return low


@lru_cache(maxsize=4096)
def exact_p_value(trials: int, gained: int, lost: int, difference: float, doubt: float = 1e-5) -> float:
    """P-value of the hypothesis that the true difference is `difference` or less, against a larger one; never below
    `doubt`."""
    return _Extreme(trials, gained, lost, difference, doubt).p_value(difference)


def _quantile(p_value: float) -> float:
    return NormalDist().inv_cdf(min(p_value, 1 - 1e-15))


def score_bound(trials: int, gained: int, lost: int, z: float) -> float:
    """Tango's asymptotic lower bound, z standard errors below."""
    estimate = (gained - lost) / trials

    def contradicted(delta: float) -> bool:
        # `score_statistic` of one pair, without arrays: a bound asks for it sixty times.
        linear = (2 * trials - gained + lost) * delta - gained - lost
        inside = max(0.0, linear * linear + 8 * trials * lost * delta * (1 - delta))
        share_lost = max(0.0, (math.sqrt(inside) - linear) / (4 * trials))
        variance = max(trials * (2 * share_lost + delta * (1 - delta)), 1e-12)
        return (gained - lost - trials * delta) / math.sqrt(variance) > z

    return bisect(contradicted, -1.0, estimate)


def score_statistic(trials: int, lost: Floats, gained: Floats, delta: float) -> Floats:
    """Tango's statistic of a true difference of `delta`: standard errors between it and what was seen."""
    linear = (2 * trials - gained + lost) * delta - gained - lost
    inside = np.maximum(0.0, linear**2 + 8 * trials * lost * delta * (1 - delta))
    share_lost = np.maximum(0.0, (np.sqrt(inside) - linear) / (4 * trials))
    variance = np.maximum(trials * (2 * share_lost + delta * (1 - delta)), 1e-12)
    return np.asarray((gained - lost - trials * delta) / np.sqrt(variance))


class _Extreme:
    """The pairs (lost, gained) that speak at least as much for the candidate as the one that was seen, by the score
    statistic at `delta`: for every number of lost cases, those with enough gained ones."""

    def __init__(self, trials: int, gained: int, lost: int, delta: float, doubt: float) -> None:
        self._trials, self._doubt = trials, doubt
        self._factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 2)))])
        self._shares = self._plausible_shares(lost)
        self._lost = self._window()
        seen = score_statistic(trials, np.array([float(lost)]), np.array([float(gained)]), delta)[0] - 1e-9
        # More gained cases speak for the candidate. Bisected for all numbers of lost at once.
        too_few, enough = np.full(len(self._lost), -1), trials - self._lost + 1
        while (enough - too_few > 1).any():
            middle = (too_few + enough) // 2
            reached = score_statistic(trials, self._lost.astype(np.float64), middle.astype(np.float64), delta) >= seen
            enough, too_few = np.where(reached, middle, enough), np.where(reached, too_few, middle)
        self._enough = enough

    def p_value(self, delta: float) -> float:
        low, high = max(self._shares[0], -delta, 0.0), min(self._shares[1], (1 - delta) / 2)
        if low > high:
            return self._doubt
        shares = np.linspace(math.sqrt(low), math.sqrt(high), _SHARES) ** 2
        return min(1.0, float(self._probabilities(shares, delta).max()) + self._doubt)

    def _probabilities(self, shares: Floats, delta: float) -> Floats:
        """Probabilities of the extreme pairs, for each share of lost cases."""
        share, lost = shares[:, None], self._lost[None]
        weights = np.exp(self._log_binomial(share, lost))
        gains = np.clip((share + delta) / np.maximum(1 - share, 1e-300), 0.0, 1.0)
        rest = self._trials - lost
        # Most tails are 0 or 1, or count for nothing; what is left is computed.
        spread = _DEVIATIONS * np.sqrt(rest * gains * (1 - gains)) + 20
        tails = (self._enough[None] < rest * gains).astype(np.float64)
        near = (np.abs(self._enough[None] - rest * gains) <= spread) & (weights > 1e-13)
        parts = np.broadcast_arrays(self._enough[None], rest, gains)
        tails[near] = _at_least(*(part[near] for part in parts))
        return np.asarray((weights * tails).sum(axis=1))

    def _log_binomial(self, share: Floats, count: Integers) -> Floats:
        rest = self._trials - count
        logs = self._factorials[self._trials] - self._factorials[count] - self._factorials[rest]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = logs + np.where(count > 0, count * np.log(share), 0) + np.where(rest > 0, rest * np.log1p(-share), 0)
        return np.asarray(logs)

    def _plausible_shares(self, lost: int) -> tuple[float, float]:
        """Clopper and Pearson's interval for the share of lost cases."""
        from scipy.special import betaincinv

        low = 0.0 if lost == 0 else float(betaincinv(lost, self._trials - lost + 1, self._doubt / 2))
        high = 1.0 if lost == self._trials else float(betaincinv(lost + 1, self._trials - lost, 1 - self._doubt / 2))
        return low, high

    def _window(self) -> Integers:
        low, high = (self._trials * share for share in self._shares)
        first = math.floor(low - _DEVIATIONS * math.sqrt(low) - 20)
        last = math.ceil(high + _DEVIATIONS * math.sqrt(high) + 20)
        return np.arange(max(0, first), min(self._trials, last) + 1)


def _at_least(count: Integers, trials: Integers, share: Floats) -> Floats:
    """P(Binomial(trials, share) >= count), as a regularized incomplete beta function; all [M]."""
    from scipy.special import betainc

    found = np.where(count <= 0, 1.0, 0.0)
    inside = (count > 0) & (count <= trials)
    found[inside] = betainc(count[inside], trials[inside] - count[inside] + 1, share[inside])
    return found
