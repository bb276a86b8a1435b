"""Pruning of tree ensembles: subtrees become leaves, trees that are one leaf leave, the leaves that stay are refitted.

No label is asked for: what counts is how far the scores of real rows move.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsqr

from core.model import Model, StepRecord
from core.passes.steps import PruneTreesStep
from core.passes.tree_rows import join_rows
from core.tensors import Tensors
from core.trees.arrange import PROBABILITY_STEP, Nodes, arrange, levels_of, nodes_of
from core.trees.ensemble import LEAF, Ensemble
from core.trees.predict import Rows, reached_leaves

Floats = npt.NDArray[np.float64]
SMALLEST_WEIGHT = 1e-3
"""Of p(1-p): rows that the model is sure of count a little, too."""
ROWS_BEFORE = 0.01
"""Each leaf counts as if this many average rows had reached it before the first real one."""
REFIT_ITERATIONS = 60


def prune_trees(model: Model, step: PruneTreesStep, batches: Iterable[Tensors]) -> tuple[Model, StepRecord]:
    """A copy of the trees with at most `step.ratio` of the splits removed, and subtrees of one value as leaves.

    Replacing a subtree by its mean moves the log-odds of the rows that reach it; the sum of the squared moves, weighted
    with p(1-p) as a second-order view of the log loss has it, is its cost. For a price of a split, the cheapest trees
    are found exactly, bottom up (cost-complexity pruning, Breiman et al. 1984), and the price is the highest that
    removes no more than was asked. Then the leaves move, by weighted least squares with a ridge towards where they are,
    so that the scores are again those of the unpruned trees. Raises UsageError for a network, DataError without rows.
    """
    before = model.ensemble(step.kind)
    rows = join_rows(batches, step.kind)
    leaves = reached_leaves(before, rows)
    sums = before.value[leaves].sum(axis=1, dtype=np.float64) + before.base
    weights = _weights(before, sums)
    pruned = _collapsed(before, _costs(before, leaves, weights), step.ratio)
    after = _refitted(pruned, rows, sums, weights)
    facts = {
        "splits_before": before.splits,
        "splits_after": after.splits,
        "trees_before": len(before.roots),
        "trees_after": len(after.roots),
        "deepest_before": len(levels_of(nodes_of(before))) - 1,
        "deepest_after": len(levels_of(nodes_of(after))) - 1,
        "calibration_samples": len(rows),
        "margin_change_pruned": _change(pruned, rows, sums, weights),
        "margin_change_refitted": _change(after, rows, sums, weights),
    }
    return Model(after, model.inputs, model.outputs), StepRecord(step.kind, asdict(step), facts)


def _weights(ensemble: Ensemble, sums: Floats) -> Floats:
    """p(1-p) times the squared change of log-odds per change of the sum; the mean is 1."""
    if ensemble.output == "margin":
        chance = 1 / (1 + np.exp(-np.clip(sums, -30, 30)))
        found = np.maximum(chance * (1 - chance), SMALLEST_WEIGHT)
    else:
        found = 1 / np.maximum(np.clip(sums, 0, 1) * (1 - np.clip(sums, 0, 1)), SMALLEST_WEIGHT)
    return np.asarray(found / found.mean())


@dataclass(frozen=True)
class _Costs:
    """Of every node: what its whole subtree as one leaf costs, and the value of that leaf."""

    cost: Floats
    mean: Floats
    levels: list[npt.NDArray[np.int64]]


def _costs(ensemble: Ensemble, leaves: npt.NDArray[np.int32], weights: Floats) -> _Costs:
    count = len(ensemble.feature)
    weight = np.full(count, ROWS_BEFORE)
    for tree in range(leaves.shape[1]):
        weight += np.bincount(leaves[:, tree], weights, minlength=count)
    cost, mean = np.zeros(count), ensemble.value.astype(np.float64)
    levels = levels_of(nodes_of(ensemble))
    for level in reversed(levels):
        split = level[ensemble.feature[level] != LEAF]
        left, right = ensemble.left[split], ensemble.right[split]
        weight[split] = weight[left] + weight[right]
        share, gap = weight[right] / weight[split], mean[right] - mean[left]
        mean[split] = mean[left] + gap * share  # exact where both are the same
        cost[split] = cost[left] + cost[right] + weight[left] * share * gap**2
    return _Costs(cost, mean, levels)


def _collapsed(ensemble: Ensemble, costs: _Costs, ratio: float) -> Ensemble:
    """Subtrees of one value always become leaves; others, cheapest first, while no more than `ratio` of splits go."""
    wanted = ensemble.splits * (1 - ratio)
    low, high = 0.0, float(costs.cost.max()) or 1.0
    best = _at_price(ensemble, costs, low)
    for _ in range(60):
        price = (low + high) / 2 if low else high / 1024
        trial = _at_price(ensemble, costs, price)
        if trial.splits >= wanted:
            low, best = price, trial
        else:
            high = price
    return best


def _at_price(ensemble: Ensemble, costs: _Costs, price: float) -> Ensemble:
    total = np.zeros(len(ensemble.feature))
    is_leaf = ensemble.feature == LEAF
    for level in reversed(costs.levels):
        split = level[ensemble.feature[level] != LEAF]
        kept = total[ensemble.left[split]] + total[ensemble.right[split]] + price
        is_leaf[split] = costs.cost[split] <= kept
        total[split] = np.minimum(costs.cost[split], kept)
    nodes = replace(
        nodes_of(ensemble), feature=np.where(is_leaf, LEAF, ensemble.feature), value=np.where(is_leaf, costs.mean, 0)
    )
    return _without_lone_leaves(nodes, ensemble)


def _without_lone_leaves(nodes: Nodes, ensemble: Ensemble) -> Ensemble:
    lone = nodes.feature[nodes.roots] == LEAF
    lone[0] = lone[0] and not lone.all()  # one tree stays, whatever it is
    base = ensemble.base + float(nodes.value[nodes.roots[lone]].sum())
    value = nodes.value
    if ensemble.output == "probability":
        base, value = (np.round(x / PROBABILITY_STEP) * PROBABILITY_STEP for x in (base, value))
    return arrange(
        replace(nodes, roots=nodes.roots[~lone], value=value), ensemble.features, float(base), ensemble.output
    )


def _refitted(ensemble: Ensemble, rows: Rows, wanted: Floats, weights: Floats) -> Ensemble:
    leaves = reached_leaves(ensemble, rows)
    missing = wanted - ensemble.base - ensemble.value[leaves].sum(axis=1, dtype=np.float64)
    root = np.sqrt(weights)
    count, trees = leaves.shape
    matrix = csr_array(
        (np.repeat(root, trees), leaves.ravel(), np.arange(0, count * trees + 1, trees)),
        shape=(count, len(ensemble.feature)),
    )
    moves = lsqr(matrix, root * missing, damp=30.0, iter_lim=REFIT_ITERATIONS)[0]
    value = ensemble.value + np.where(ensemble.feature == LEAF, moves, 0)
    return _without_lone_leaves(replace(nodes_of(ensemble), value=value), ensemble)


def _change(ensemble: Ensemble, rows: Rows, wanted: Floats, weights: Floats) -> float:
    found = ensemble.value[reached_leaves(ensemble, rows)].sum(axis=1, dtype=np.float64) + ensemble.base
    return float(np.sqrt((weights * (found - wanted) ** 2).mean()))
