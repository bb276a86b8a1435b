"""LightGBM's JSON dump (`json.dumps(booster.dump_model())`) to an Ensemble, without LightGBM.

The format: https://lightgbm.readthedocs.io/en/stable/pythonapi/lightgbm.Booster.html#lightgbm.Booster.dump_model
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from core.errors import DataError, UsageError
from core.trees.arrange import Nodes, arrange, below, join
from core.trees.ensemble import LEAF, Ensemble

_ZERO = np.float32(1e-35)
"""LightGBM reads every value up to this far from zero as zero, and puts thresholds there."""


def decode_lightgbm(content: bytes | bytearray | str) -> Ensemble:
    """LightGBM compares x <= threshold in float64; the thresholds become those float32 ones for which x < threshold
    says the same of every float32 x.

    Raises UsageError for a model of a kind that does not become an Ensemble (several classes, linear leaves,
    categorical splits, zero as missing, an objective without log-odds), DataError for bytes that are no model.
    """
    try:
        model = json.loads(content)
        scale = _scale(model)
        trees = [_tree(tree["tree_structure"], scale) for tree in model["tree_info"]]
        return arrange(join(trees), int(model["max_feature_idx"]) + 1)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"this is no LightGBM model in JSON ({type(error).__name__}: {error}); write json.dumps(dump_model())"
        ) from error


def _scale(model: dict[str, Any]) -> float:
    """What a leaf is multiplied by so that the sum of the trees is the log-odds."""
    if int(model["num_class"]) > 1 or int(model["num_tree_per_iteration"]) > 1:
        raise UsageError("this LightGBM model has several classes; only binary models can be used")
    name, *settings = str(model["objective"]).split()
    if name not in ("binary", "cross_entropy"):
        raise UsageError(f"this LightGBM model's objective is {name}; expected binary or cross_entropy")
    sigmoid = next((float(text.removeprefix("sigmoid:")) for text in settings if text.startswith("sigmoid:")), 1.0)
    return sigmoid / (len(model["tree_info"]) if model.get("average_output") else 1)


def _tree(root: dict[str, Any], scale: float) -> Nodes:
    feature: list[int] = []
    threshold: list[float] = []
    children: list[list[int]] = []
    missing_left: list[bool] = []
    value: list[float] = []
    pending: list[tuple[dict[str, Any], int]] = [(root, -1)]
    while pending:
        node, parent = pending.pop()
        if parent >= 0:
            children[parent].append(len(feature))
        children.append([])
        if "leaf_value" in node:
            if node.get("leaf_features"):
                raise UsageError("this LightGBM model has linear leaves; train without linear_tree")
            feature.append(LEAF)
            threshold.append(0.0)
            missing_left.append(False)
            value.append(float(node["leaf_value"]) * scale)
            continue
        pending += [(node["right_child"], len(feature)), (node["left_child"], len(feature))]
        missing_left.append(_missing_left(node))
        feature.append(int(node["split_feature"]))
        threshold.append(float(node["threshold"]))
        value.append(0.0)
    left, right = (np.array([two[side] if two else LEAF for two in children]) for side in (0, 1))
    exact = np.array(threshold, np.float64)
    beside_zero = np.where(exact < 0, -_ZERO, np.nextafter(_ZERO, np.float32(1)))
    limits = np.where(np.abs(exact) <= _ZERO, beside_zero, below(exact))
    return Nodes(np.array([0]), np.array(feature), limits, left, right, np.array(missing_left), np.array(value))


def _missing_left(node: dict[str, Any]) -> bool:
    if node["decision_type"] != "<=":
        raise UsageError("this LightGBM model splits categories; encode them as numbers before training")
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":  # a NaN that training never saw counts as zero
        return float(node["threshold"]) >= 0
    raise UsageError("this LightGBM model treats zero as missing; train with zero_as_missing=false")
