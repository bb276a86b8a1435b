"""Trees that were read, compared with the library that fitted them: on rows at the thresholds, where the two would
differ first. Part of reading a model, never of scoring with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from featherweight.core.arrays import AnyFloats, Bools, FeatureRows, Floats, Floats32, Integers
from featherweight.core.errors import UsageError
from featherweight.core.terminal import counted
from featherweight.core.trees.canonical import PROBABILITY_STEP
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.predict import SMALLEST_PROBABILITY, as_margin, reached_leaves, target_sums

Score = Callable[[FeatureRows], AnyFloats]
"""The library's own answer to rows [N, F]: margins [N], or [N, targets] of several; of forests probabilities, of two
classes of class 1."""

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
    made = threshold_rows(ensemble, _affordable(ensemble))
    rows, expected = _scored(made, score, library, ensemble.targets)
    found, largest = _margins(ensemble, rows)
    allowed = RELATIVE * largest
    if ensemble.output == "probability":
        low = float(SMALLEST_PROBABILITY)
        chance = np.clip(expected, low, 1 - low)
        expected = np.log(chance) - (np.log1p(-chance) if ensemble.targets == 1 else 0)
        # A forest's leaves are rounded, each by half a step at most.
        allowed = RELATIVE * np.maximum(1, np.abs(expected))
        allowed += len(ensemble.roots) * PROBABILITY_STEP / 2 / (chance * (1 - chance))
    beyond = np.where(np.abs(found - expected) <= allowed, 0, np.nan_to_num(np.abs(found - expected), nan=np.inf))
    differs = np.array((beyond > 0).any(axis=1), np.bool_, ndmin=1)
    if differs.any():
        worst = int(np.argmax((beyond / allowed).max(axis=1)))
        target = int(np.argmax(beyond[worst]))
        found, expected = found[:, target], expected[:, target]
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
    most = max(1, MAX_VALUES // ensemble.features)
    wanted = max(1, min(count, most) // TRIES)
    if len(splits) > wanted:
        chosen = np.sort(generator.choice(splits, wanted, replace=False))
    else:
        chosen = np.tile(splits, min(8, wanted // max(1, len(splits))))
    at = ensemble.threshold[chosen]
    tries = [np.nextafter(at, _LOWEST), at, np.nextafter(at, _HIGHEST), np.full(len(at), np.nan, at.dtype)]
    _try_categories(ensemble, chosen, tries, generator)
    reaching = np.repeat(_rows_that_reach(ensemble, chosen, generator), TRIES, axis=0)
    reaching[np.arange(len(reaching)), np.repeat(ensemble.feature[chosen], TRIES)] = np.stack(tries, axis=1).ravel()
    return np.concatenate([reaching, _free_values(ensemble, min(64, most), generator)])


def _affordable(ensemble: Ensemble) -> int:
    visits = min(MAX_ROWS, MAX_VISITS // len(ensemble.roots))
    return max(TRIES, min(max(MIN_ROWS, visits), MAX_VALUES // ensemble.features))


def _rows_that_reach(ensemble: Ensemble, nodes: Integers, generator: np.random.Generator) -> FeatureRows:
    """One row for each node, whose values are those nearest to the thresholds on the way from the root to it."""
    parent = np.full(len(ensemble.feature), -1)
    splits = np.flatnonzero(ensemble.feature != LEAF)
    parent[ensemble.left[splits]] = parent[ensemble.right[splits]] = splits
    shape, kind = (len(nodes), ensemble.features), ensemble.threshold.dtype
    least, most = np.full(shape, _LOWEST, kind), np.full(shape, _HIGHEST, kind)
    may_miss = np.ones(shape, bool)
    allowed = {feature: np.ones((len(nodes), len(known) + 1), bool) for feature, known in _known(ensemble).items()}
    inside = _inside(ensemble)
    row, node = np.arange(len(nodes)), nodes
    while True:
        inner = parent[node] >= 0
        row, node = row[inner], node[inner]
        if not len(row):
            break
        above = parent[node]
        is_left = ensemble.left[above] == node
        numbers = ensemble.counts[above] == 0
        for feature, possible in allowed.items():
            mine = ensemble.feature[above] == feature
            number, table = inside[feature]
            possible[row[mine]] &= table[number[above[mine]]] == is_left[mine, None]
        place, limit = (row[numbers], ensemble.feature[above[numbers]]), ensemble.threshold[above[numbers]]
        missed = (row, ensemble.feature[above])
        may_miss[missed] &= ensemble.missing_left[above] == is_left
        is_left = is_left[numbers]
        most[place] = np.where(is_left, np.minimum(most[place], np.nextafter(limit, _LOWEST)), most[place])
        least[place] = np.where(is_left, least[place], np.maximum(least[place], limit))
        node = above
    values = _free_values(ensemble, len(nodes), generator)
    for feature, possible in allowed.items():
        asked = ~possible.all(axis=1)
        draw = np.argmax(generator.random(possible.shape) * possible, axis=1)
        known = np.append(_known(ensemble)[feature], _known(ensemble)[feature][-1] + 1)
        taken = np.where(possible.any(axis=1), known[draw], np.nan)
        values[:, feature] = np.where(asked, taken, values[:, feature])
    bounded = (least > _LOWEST) | (most < _HIGHEST)
    takes_least = (least > _LOWEST) & ((most == _HIGHEST) | (generator.random(shape) < 0.5))
    missing = may_miss & (generator.random(shape) < 0.1)
    missing |= (least == _HIGHEST) | (most == _LOWEST)  # where only a missing value leads
    return np.where(bounded, np.where(missing, np.float32(np.nan), np.where(takes_least, least, most)), values)


def _known(ensemble: Ensemble) -> dict[int, Floats32]:
    """The categories of each categorical feature that splits ask for, rising."""
    owner = np.repeat(ensemble.feature, ensemble.counts)
    return {int(feature): np.unique(ensemble.members[owner == feature]) for feature in ensemble.categorical}


def _inside(ensemble: Ensemble) -> dict[int, tuple[Integers, Bools]]:
    """For each categorical feature the places of its splits, int64 [nodes], in a table of whether a split's members
    hold each category, and another one: bool [splits, categories + 1]."""
    owner = np.repeat(np.arange(len(ensemble.counts)), ensemble.counts)
    found = {}
    for feature, known in _known(ensemble).items():
        splits = np.flatnonzero(ensemble.feature == feature)
        place = np.zeros(len(ensemble.feature), np.int64)
        place[splits] = np.arange(len(splits))
        table = np.zeros((len(splits), len(known) + 1), bool)
        mine = ensemble.feature[owner] == feature
        table[place[owner[mine]], np.searchsorted(known, ensemble.members[mine])] = True
        found[feature] = place, table
    return found


def _try_categories(
    ensemble: Ensemble, splits: Integers, tries: list[AnyFloats], generator: np.random.Generator
) -> None:
    """At splits of categories, in the place of thresholds: one of its members, another's, one that nobody knows. tries:
    TRIES arrays [splits], the last of which stays."""
    inside, known = _inside(ensemble), _known(ensemble)
    for feature, (place, table) in inside.items():
        mine = np.flatnonzero((ensemble.feature[splits] == feature) & (ensemble.counts[splits] > 0))
        values = np.append(known[feature], known[feature][-1] + 1)
        draws = generator.random((len(mine), len(values)))
        tries[0][mine] = values[np.argmax(draws * table[place[splits[mine]]], axis=1)]
        tries[1][mine] = values[np.argmax(draws * ~table[place[splits[mine]]], axis=1)]
        tries[2][mine] = values[-1]


def _free_values(ensemble: Ensemble, count: int, generator: np.random.Generator) -> FeatureRows:
    """Each feature's values from its thresholds and beside them; some usual ones, missing and infinite ones."""
    rows = np.empty((count, ensemble.features), ensemble.threshold.dtype)
    known = _known(ensemble)
    for feature in range(ensemble.features):
        if feature in known:
            rows[:, feature] = generator.choice(np.append(known[feature], [0, known[feature][-1] + 1]), count)
            continue
        at = ensemble.threshold[ensemble.feature == feature]
        near = np.concatenate([np.nextafter(at, _LOWEST), at, np.nextafter(at, _HIGHEST)])
        usual = generator.choice(_USUAL, count)
        rows[:, feature] = (
            np.where(generator.random(count) < 0.2, usual, generator.choice(near, count)) if len(near) else usual
        )
    odd = generator.random(rows.shape) < 0.08
    rows[odd] = generator.choice(_ODD, int(odd.sum()))
    return rows


def _scored(rows: FeatureRows, score: Score, library: str, targets: int) -> tuple[FeatureRows, Floats]:
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
        if expected.shape == (len(taken),):
            expected = expected[:, None]
        if expected.shape != (len(taken), targets):
            raise UsageError(
                f"{library} gives {counted(len(taken), 'rows')} scores of the shape {expected.shape}; expected "
                f"{'one' if targets == 1 else targets} a row"
            )
        return taken, expected
    text = str(reason).strip().splitlines() or [type(reason).__name__]
    raise UsageError(f"{library} cannot score rows by this model, so nothing shows what it says: {text[0]}") from reason


def _margins(ensemble: Ensemble, rows: FeatureRows) -> tuple[Floats, Floats]:
    """What `predict` says of each row [N, targets]; the largest absolute value of base and first leaves summed, at
    least 1."""
    found, largest = np.empty((len(rows), ensemble.targets)), np.ones((len(rows), ensemble.targets))
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        values = ensemble.value[reached_leaves(ensemble, rows[part])].astype(np.float64)
        found[part] = as_margin(ensemble, target_sums(ensemble, values).astype(np.float32))
        for target in range(ensemble.targets):
            sums = ensemble.base + np.cumsum(values[:, ensemble.target == target], axis=1)
            largest[part, target] = np.maximum(1, np.abs(sums).max(axis=1))
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
