"""Pruning of tree ensembles: subtrees become leaves, trees that are one leaf leave, the leaves that stay are refitted.

No label is asked for: what counts is how far the scores of real rows move.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsqr

from featherweight.core.arrays import FeatureRows, Floats, Int32s, Integers
from featherweight.core.model import Model, StepRecord
from featherweight.core.passes.steps import PruneTreesStep
from featherweight.core.passes.tree_rows import join_rows, leaf_sums, row_weights
from featherweight.core.tensors import Tensors
from featherweight.core.trees.canonical import (
    Nodes,
    for_target,
    join_targets,
    levels_of,
    nodes_of,
    rearranged,
    round_to_grid,
)
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.predict import reached_leaves

ROWS_BEFORE = 0.01
"""Each leaf counts as if this many average rows had reached it before the first real one."""
TREE_PRICE = 100.0
"""What a tree costs, in splits: runtimes pay for each tree more than for its last branches. Of a model of 300 trees of
depth 6, as many splits fewer then mean half as many trees as with trees for nothing, and the scores move less."""
ROUNDS = 6
"""Leaves that were refitted take over what is pruned next: six rounds move the scores half as far as one."""
RIDGE = 30.0**2
"""In average rows: with less the refit follows what the unpruned trees know by heart of the rows."""
REFIT_ITERATIONS = 60


def prune_trees(model: Model, step: PruneTreesStep, batches: Iterable[Tensors]) -> tuple[Model, StepRecord]:
    """A copy of the trees with at most `step.ratio` of the splits removed, and subtrees of one value as leaves.

    Replacing a subtree by its mean moves the log-odds of the rows that reach it; the sum of the squared moves, weighted
    with p(1-p) as a second-order view of the log loss has it, is its cost. For a price of a split and of a tree, the
    cheapest trees are found exactly, bottom up (cost-complexity pruning, Breiman et al. 1984), and the price is the
    highest that removes no more than was asked. Then the leaves move, by weighted least squares with a ridge towards
    where they are, so that the scores are again those of the unpruned trees. All this in ROUNDS equal parts. Raises
    UsageError for a network, DataError without rows. Of several targets each is pruned for itself.
    """
    before = model.ensemble(step.kind)
    rows = join_rows(batches, step.kind)
    if before.targets == 1:
        after, square = _pruned(before, rows, step.ratio)
    else:
        parts = [_pruned(for_target(before, target), rows, step.ratio) for target in range(before.targets)]
        after, square = join_targets([part for part, _ in parts]), float(np.mean([moved for _, moved in parts]))
    facts = {
        "splits_before": before.splits,
        "splits_after": after.splits,
        "trees_before": len(before.roots),
        "trees_after": len(after.roots),
        "deepest_before": len(levels_of(nodes_of(before))) - 1,
        "deepest_after": len(levels_of(nodes_of(after))) - 1,
        "calibration_samples": len(rows),
        "root_mean_square_change": float(np.sqrt(square)),
    }
    return Model(after, model.inputs, model.outputs), StepRecord(step.kind, asdict(step), facts)


def _pruned(before: Ensemble, rows: FeatureRows, ratio: float) -> tuple[Ensemble, float]:
    """(trees of one target, pruned; the mean square by which the scores moved, weighted)."""
    leaves = reached_leaves(before, rows)
    sums = leaf_sums(before, leaves)
    weights = row_weights(before, sums)
    after = before
    for turn in range(1, ROUNDS + 1):
        costs = _costs(after, leaves, weights)
        pruned = _collapsed(after, costs, before.splits * (1 - ratio) ** (turn / ROUNDS))
        leaves = reached_leaves(pruned, rows)
        if pruned.splits < after.splits or len(pruned.roots) < len(after.roots):
            after = _refitted(pruned, leaves, sums, weights)
    return after, float((weights * (leaf_sums(after, leaves) - sums) ** 2).mean())


@dataclass(frozen=True)
class _Costs:
    """For every node: the cost of its whole subtree as one leaf, and the value of that leaf."""

    cost: Floats
    mean: Floats
    levels: list[Integers]


def _costs(ensemble: Ensemble, leaves: Int32s, weights: Floats) -> _Costs:
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


def _collapsed(ensemble: Ensemble, costs: _Costs, wanted: float) -> Ensemble:
    """Subtrees of one value always become leaves; others, cheapest first, while at least `wanted` splits stay."""
    low, high = 0.0, float(costs.cost.max())
    best = _at_price(ensemble, costs, low)
    for _ in range(50):
        price = (low + high) / 2
        trial = _at_price(ensemble, costs, price)
        if trial.splits >= wanted:
            low, best = price, trial
        else:
            high = price
    return best


def _at_price(ensemble: Ensemble, costs: _Costs, price: float) -> Ensemble:
    total = np.zeros(len(ensemble.feature))
    is_leaf = ensemble.feature == LEAF
    is_root = np.zeros(len(is_leaf), bool)
    is_root[ensemble.roots] = True
    for level in reversed(costs.levels):
        split = level[ensemble.feature[level] != LEAF]
        kept = total[ensemble.left[split]] + total[ensemble.right[split]] + price * (1 + TREE_PRICE * is_root[split])
        is_leaf[split] = costs.cost[split] <= kept
        total[split] = np.minimum(costs.cost[split], kept)
    nodes = replace(
        nodes_of(ensemble), feature=np.where(is_leaf, LEAF, ensemble.feature), value=np.where(is_leaf, costs.mean, 0)
    )
    return _without_lone_leaves(nodes, ensemble)


def _without_lone_leaves(nodes: Nodes, ensemble: Ensemble) -> Ensemble:
    """Trees that are one leaf become part of the base; one tree stays, whatever it is."""
    lone = nodes.feature[nodes.roots] == LEAF
    lone[0] = lone[0] and not lone.all()
    base, value = np.array(ensemble.base + nodes.value[nodes.roots[lone]].sum()), nodes.value
    if ensemble.output == "probability":
        base, value = round_to_grid(base), round_to_grid(value)
    nodes = replace(nodes, roots=nodes.roots[~lone], value=value, target=ensemble.target[~lone])
    return rearranged(ensemble, nodes, float(base))


def _refitted(ensemble: Ensemble, leaves: Int32s, wanted: Floats, weights: Floats) -> Ensemble:
    """The same trees with leaves whose sums are nearer to `wanted` [N]; leaves: int32 [N, trees], those reached."""
    count, trees = leaves.shape
    root = np.sqrt(weights)
    matrix = csr_array(
        (np.repeat(root, trees), leaves.ravel(), np.arange(0, count * trees + 1, trees)),
        shape=(count, len(ensemble.feature)),
    )
    missing = root * (wanted - leaf_sums(ensemble, leaves))
    moves = lsqr(matrix, missing, damp=np.sqrt(RIDGE), iter_lim=REFIT_ITERATIONS)[0]
    value = np.where(ensemble.feature == LEAF, ensemble.value + moves, 0)
    if ensemble.output == "probability":
        value = round_to_grid(value)
    return replace(ensemble, value=value.astype(np.float32))
