"""CatBoost's models to an Ensemble: their JSON (`save_model("model.json", format="json")`), read without CatBoost.

The format: https://catboost.ai/docs/en/concepts/json_model. A row goes right where x > border, compared in float32; of
a symmetric tree every level asks one thing, and the first split is the lowest bit of the leaf's number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.errors import DataError, UsageError
from featherweight.core.trees.canonical import Nodes, strict_thresholds, with_bases
from featherweight.core.trees.ensemble import LEAF, Ensemble

BINARY = ("Logloss", "CrossEntropy")
CLASSES = ("MultiClass",)
LABELS = ("MultiClassOneVsAll",)
VALUES = ("RMSE", "MAE", "Quantile", "MAPE", "Huber", "LogCosh", "Expectile", "Lq")
_LOSSES = (*BINARY, *CLASSES, *LABELS, *VALUES)
MAX_DEPTH = 16
"""Of a symmetric tree: CatBoost's own limit."""
_MAX_FEATURES = 1 << 20


@dataclass(frozen=True)
class _Split:
    feature: int
    border: float
    missing_left: bool


def decode_catboost(content: bytes | bytearray | str) -> Ensemble:
    """All trees of a model in JSON. Raises UsageError for a model of a kind that does not become an Ensemble (splits of
    categories, whose JSON has their hashes alone, texts or embeddings; a loss whose scores are no log-odds, classes or
    values), DataError for bytes that are no model."""
    try:
        return _ensemble(json.loads(content))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"this is not a CatBoost model in JSON ({type(error).__name__}: {error}); save it by "
            "save_model('model.json', format='json')"
        ) from error


def loss_of(content: dict[str, Any]) -> str:
    """The name of the loss that a model states."""
    parameters = content["model_info"]["params"]
    found = json.loads(parameters) if isinstance(parameters, str) else parameters
    return str(found["loss_function"]["type"])


def feature_names(content: dict[str, Any]) -> tuple[str, ...]:
    """The names of the features in their order, where they have names."""
    found = sorted((one["flat_feature_index"], str(one.get("feature_id") or "")) for one in _columns(content))
    names = tuple(name for _, name in found)
    numbered = tuple(str(place) for place in range(len(names)))
    return names if all(names) and names != numbered and len(set(names)) == len(names) else ()


def _columns(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for some in content["features_info"].values() if isinstance(some, list) for one in some]


def _ensemble(content: dict[str, Any]) -> Ensemble:
    if loss_of(content) not in _LOSSES:
        raise UsageError(
            f"this CatBoost model's loss is {loss_of(content)}, whose scores are no log-odds, classes or values; "
            f"expected one of {', '.join(_LOSSES)}"
        )
    scale, biases = content["scale_and_bias"]
    biases = [float(bias) for bias in (biases if isinstance(biases, list) else [biases])]
    columns = {int(one["feature_index"]): one for one in content["features_info"].get("float_features", [])}
    features = 1 + max(int(one["flat_feature_index"]) for one in _columns(content) if "flat_feature_index" in one)
    if features > _MAX_FEATURES:
        raise DataError(f"found more than {_MAX_FEATURES:,} features, which no table has")

    def split(given: dict[str, Any]) -> _Split:
        if given["split_type"] != "FloatFeature":
            raise UsageError(
                f"this CatBoost model splits by {given['split_type']}, categories of which its JSON has hashes alone; "
                "encode them as numbers before training (LightGBM's and XGBoost's categories are read)"
            )
        column = columns[int(given["float_feature_index"])]
        missing_left = column["nan_value_treatment"] != "AsTrue"
        return _Split(int(column["flat_feature_index"]), float(given["border"]), missing_left)

    targets = len(biases)
    trees = []
    for tree in content.get("oblivious_trees", []):
        values = np.array(tree["leaf_values"], np.float64).reshape(-1, targets) * float(scale)
        splits = [split(one) for one in tree.get("splits") or []]
        if len(splits) > MAX_DEPTH or len(values) != 1 << len(splits):
            raise ValueError(f"a tree of {len(splits)} splits has {len(values)} leaves")
        trees += [_symmetric(splits, values[:, target], target) for target in range(targets)]
    for tree in content.get("trees", []):
        nodes, left, right, leaves = _walked(tree, split, targets)
        trees += [_any(nodes, left, right, leaves[:, target] * float(scale), target) for target in range(targets)]
    return with_bases(trees, features, biases)


def _symmetric(splits: list[_Split], values: Array, target: int) -> Nodes:
    """As a heap: the last split, the highest bit, is the root."""
    inner = len(values) - 1
    by_node = [splits[-1 - int(np.log2(node + 1))] for node in range(inner)]
    numbers = np.arange(inner)
    left = np.append(2 * numbers + 1, np.full(len(values), LEAF))
    right = np.append(2 * numbers + 2, np.full(len(values), LEAF))
    padded: list[_Split | None] = [*by_node, *([None] * len(values))]
    return _any(padded, left, right, np.append(np.zeros(inner), values), target)


def _walked(root: dict[str, Any], split: Any, targets: int) -> tuple[list[_Split | None], Array, Array, Array]:
    """A tree that is written as nested splits: (split of each node, None of leaves; children; values [nodes,
    targets])."""
    splits: list[_Split | None] = []
    children: list[list[int]] = []
    values: list[Array] = []
    pending: list[tuple[dict[str, Any], int]] = [(root, -1)]
    while pending:
        node, parent = pending.pop()
        if parent >= 0:
            children[parent].append(len(splits))
        children.append([])
        if "split" in node:
            pending += [(node["right"], len(splits)), (node["left"], len(splits))]
            splits.append(split(node["split"]))
            values.append(np.zeros(targets))
        else:
            splits.append(None)
            values.append(np.array(node["value"], np.float64).reshape(targets))
    left, right = (np.array([two[side] if two else LEAF for two in children]) for side in (0, 1))
    return splits, left, right, np.stack(values)


def _any(splits: Sequence[_Split | None], left: Array, right: Array, values: Array, target: int) -> Nodes:
    return Nodes(
        roots=np.array([0]),
        feature=np.array([LEAF if one is None else one.feature for one in splits]),
        threshold=strict_thresholds(np.array([0.0 if one is None else one.border for one in splits])),
        left=left,
        right=right,
        missing_left=np.array([one is not None and one.missing_left for one in splits]),
        value=values,
        target=np.array([target]),
    )
