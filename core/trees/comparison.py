"""Trees that were read, compared with the library that fitted them: on rows at the thresholds, where the two would
differ first. Part of reading a model, never of scoring with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from featherweight.core.arrays import AnyFloats, Bools, FeatureRows, Floats, Integers
from featherweight.core.errors import UsageError
from featherweight.core.terminal import counted
from featherweight.core.trees.canonical import PROBABILITY_STEP
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.predict import SMALLEST_PROBABILITY, as_margin, reached_leaves

Score = Callable[[FeatureRows], AnyFloats]
"""The library's own answer to rows [N, F]: margins [N], of forests probabilities of class 1."""

RELATIVE = 1e-5
"""Tolerance relative to the largest partial sum of a row, or to 1: float32 sums in another order differ by less."""
MAX_ROWS, MIN_ROWS = 8192, 256
MAX_VISITS = 500_000
"""Rows times trees: half a second, of deep trees more than one."""
MAX_VALUES = 1 << 24
"""Rows times features."""
TRIES = 4
"""Rows tried for each split: below its threshold, on it, above it, missing."""

_LOWEST, _HIGHEST = np.float32(-np.inf), np.float32(np.inf)
_LIMITS = np.finfo(np.float32)
_USUAL = np.array([0, -0.0, 1, -1, 1e-30, -1e-30, 1e-36, -1e-36, 1e-42], np.float32)
"""LightGBM takes what is nearer to zero than 1e-35 for zero."""
_ODD = np.array([np.nan, np.nan, np.nan, np.inf, -np.inf, _LIMITS.max, _LIMITS.min], np.float32)


def check_same_scores(ensemble: Ensemble, score: Score, library: str) -> None:
    """Raise UsageError where `score` and the trees give a row another margin; `library` names who scores.

    The rows reach the splits and lie on their thresholds, on the float32 numbers beside them, or are missing there. Of
    an ensemble of many splits, a seeded draw is compared: always the same ones. Infinite and missing values are left
    out where the library refuses them; what the trees say of those then has nothing to be compared with.
    """
    rows, expected = _scored(threshold_rows(ensemble, _affordable(ensemble)), score, library)
    found, largest = _margins(ensemble, rows)
    allowed = RELATIVE * largest
    if ensemble.output == "probability":
        low = float(SMALLEST_PROBABILITY)
        chance = np.clip(expected, low, 1 - low)
        expected = np.log(chance) - np.log1p(-chance)
        # A forest's leaves are rounded, each by half a step at most.
        allowed = RELATIVE * np.maximum(1, np.abs(expected))
        allowed += len(ensemble.roots) * PROBABILITY_STEP / 2 / (chance * (1 - chance))
    differs = ~(np.abs(found - expected) <= allowed)
    if differs.any():
        gaps = np.where(differs, np.nan_to_num(np.abs(found - expected) / allowed, nan=np.inf), 0)
        worst = int(np.argmax(gaps))
        raise UsageError(
            f"the trees that were read do not score as {library} does: of "
            f"{counted(len(rows), 'rows')} at the thresholds, {int(differs.sum())} have another margin; "
            f"row {worst} has {expected[worst]:.7g} by the library and "
            f"{found[worst]:.7g} by the trees. {_likely_cause(rows, found, expected, differs)}"
        )


def threshold_rows(ensemble: Ensemble, count: int, seed: int = 0) -> FeatureRows:
    """Rows [about count, F], TRIES for a split: each reaches the split, when that can be, with a value below its
    threshold, on it, above it and missing; other features have values at their own thresholds. A few rows are free."""
    generator = np.random.default_rng(seed)
    splits = np.flatnonzero(ensemble.feature != LEAF)
    wanted = max(1, count // TRIES)
    if len(splits) > wanted:
        chosen = np.sort(generator.choice(splits, wanted, replace=False))
    else:
        chosen = np.tile(splits, min(8, wanted // max(1, len(splits))))
    at = ensemble.threshold[chosen]
    tries = [np.nextafter(at, _LOWEST), at, np.nextafter(at, _HIGHEST), np.full(len(at), np.nan, np.float32)]
    reaching = np.repeat(_rows_that_reach(ensemble, chosen, generator), TRIES, axis=0)
    reaching[np.arange(len(reaching)), np.repeat(ensemble.feature[chosen], TRIES)] = np.stack(tries, axis=1).ravel()
    return np.concatenate([reaching, _free_values(ensemble, 64, generator)])


def _affordable(ensemble: Ensemble) -> int:
    visits = min(MAX_ROWS, MAX_VISITS // len(ensemble.roots))
    return max(TRIES, min(max(MIN_ROWS, visits), MAX_VALUES // ensemble.features))


def _rows_that_reach(ensemble: Ensemble, nodes: Integers, generator: np.random.Generator) -> FeatureRows:
    """One row for each node, whose values are those nearest to the thresholds on the way from the root to it."""
    parent = np.full(len(ensemble.feature), -1)
    splits = np.flatnonzero(ensemble.feature != LEAF)
    parent[ensemble.left[splits]] = parent[ensemble.right[splits]] = splits
    shape = (len(nodes), ensemble.features)
    least, most = np.full(shape, _LOWEST), np.full(shape, _HIGHEST)
    may_miss = np.ones(shape, bool)
    row, node = np.arange(len(nodes)), nodes
    while True:
        inner = parent[node] >= 0
        row, node = row[inner], node[inner]
        if not len(row):
            break
        above = parent[node]
        place, limit = (row, ensemble.feature[above]), ensemble.threshold[above]
        is_left = ensemble.left[above] == node
        most[place] = np.where(is_left, np.minimum(most[place], np.nextafter(limit, _LOWEST)), most[place])
        least[place] = np.where(is_left, least[place], np.maximum(least[place], limit))
        may_miss[place] &= ensemble.missing_left[above] == is_left
        node = above
    values = _free_values(ensemble, len(nodes), generator)
    bounded = (least > _LOWEST) | (most < _HIGHEST)
    takes_least = (least > _LOWEST) & ((most == _HIGHEST) | (generator.random(shape) < 0.5))
    missing = may_miss & (generator.random(shape) < 0.1)
    missing |= (least == _HIGHEST) | (most == _LOWEST)  # where only a missing value leads
    return np.where(bounded, np.where(missing, np.float32(np.nan), np.where(takes_least, least, most)), values)


def _free_values(ensemble: Ensemble, count: int, generator: np.random.Generator) -> FeatureRows:
    """Each feature's values from its thresholds and beside them; some usual ones, missing and infinite ones."""
    rows = np.empty((count, ensemble.features), np.float32)
    for feature in range(ensemble.features):
        at = ensemble.threshold[ensemble.feature == feature]
        near = np.concatenate([np.nextafter(at, _LOWEST), at, np.nextafter(at, _HIGHEST)])
        usual = generator.choice(_USUAL, count)
        rows[:, feature] = (
            np.where(generator.random(count) < 0.2, usual, generator.choice(near, count)) if len(near) else usual
        )
    odd = generator.random(rows.shape) < 0.08
    rows[odd] = generator.choice(_ODD, int(odd.sum()))
    return rows


def _scored(rows: FeatureRows, score: Score, library: str) -> tuple[FeatureRows, Floats]:
    """The rows as the library takes them, and what it says of them. Libraries differ in whether they take infinite and
    missing values, and some in that from one model to the next."""
    finite = np.clip(rows, _LIMITS.min, _LIMITS.max)
    for taken in (rows, finite, np.nan_to_num(finite, nan=0.0)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the rows have no names for their features
                expected = np.asarray(score(taken), np.float64)
        except Exception as error:  # noqa: BLE001 - the libraries' own errors have no common class
            reason = error
            continue
        if expected.shape != (len(taken),):
            raise UsageError(
                f"{library} gives {counted(len(taken), 'rows')} scores of the shape {expected.shape}; expected "
                "one a row"
            )
        return taken, expected
    text = str(reason).strip().splitlines() or [type(reason).__name__]
    raise UsageError(f"{library} cannot score rows by this model, so nothing shows what it says: {text[0]}") from reason


def _margins(ensemble: Ensemble, rows: FeatureRows) -> tuple[Floats, Floats]:
    """What `predict` says of each row; the largest absolute value of base and first leaves summed, at least 1."""
    found, largest = np.empty(len(rows)), np.ones(len(rows))
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        leaves = reached_leaves(ensemble, rows[part])
        sums = ensemble.base + np.cumsum(ensemble.value[leaves], axis=1, dtype=np.float64)
        found[part] = as_margin(ensemble, sums[:, -1].astype(np.float32))
        largest[part] = np.maximum(1, np.abs(sums).max(axis=1))
    return found, largest


def _likely_cause(rows: FeatureRows, found: Floats, expected: Floats, differs: Bools) -> str:
    has_missing = np.isnan(rows).any(axis=1)
    gap = expected - found
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = expected / found
    if not differs[~has_missing].any():
        return "Only rows with missing values differ: train with missing values as NaN, or without any"
    if differs.mean() > 0.9 and np.ptp(gap) < 1e-3 * abs(gap.mean()):
        return f"All differ by {gap.mean():.6g}: the model starts from another score than the one that was read"
    if differs.mean() > 0.9 and np.ptp(factor[found != 0]) < 1e-3 * abs(factor[found != 0].mean()):
        return f"All differ by the factor {factor[found != 0].mean():.6g}: the model weighs its trees"
    return (
        "The model does something beside its trees: it scales or encodes its inputs, starts from another model's "
        "score, or leaves some of the trees out; apply that before, and train the trees alone"
    )
