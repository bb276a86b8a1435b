"""The closed set of models and what each is fitted with. Importing this loads no library.

The numbers were chosen by average precision on the handbook's four validation folds (`protocol.VALIDATION`), those of
CARDS on three later parts of the first 80% of the ULB cards; no test day was looked at.
"""

from __future__ import annotations

import msgspec

from featherweight.apps.fraud.features.catalogue import HANDBOOK

COLUMNS: tuple[str, ...] = (
    "amount",
    *(name for name in HANDBOOK if name.startswith("terminal")),
    "customer_amount_ratio_30d",
    "customer_amount_z_30d",
    "customer_max_ratio_30d",
    "customer_usual_amount_30d",
    "customer_usual_ratio_30d",
    "customer_high_count_14d",
    "customer_high_ratio_14d",
    "customer_days_since_first_high_14d",
    "terminal_fraud_streak",
    "terminal_fraud_streak_days",
    "terminal_fraud_streak_mean_amount",
    "terminal_days_since_known_legitimate",
)
"""The features that pay: with a week of training and 600 frauds, others cost more by chance than they tell."""


class XGBoost(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="xgboost",
    rename={"subsample": "row_ratio"},
):
    """`members` boosters of `trees` trees with different seeds, their margins averaged: one ensemble."""

    members: int = 3
    trees: int = 100
    depth: int = 5
    learning_rate: float = 0.06
    min_child_weight: float = 1.0
    column_ratio: float = 0.5
    subsample: float = 0.8
    l2: float = 5.0
    positive_weight: float = 1.0


class LightGBM(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="lightgbm",
    rename={"subsample": "row_ratio", "min_samples_leaf": "min_rows_a_leaf"},
):
    """As XGBoost, leaf by leaf."""

    members: int = 3
    trees: int = 100
    depth: int = 6
    leaves: int = 15
    learning_rate: float = 0.05
    min_samples_leaf: int = 20
    column_ratio: float = 0.5
    subsample: float = 0.8
    l2: float = 5.0
    positive_weight: float = 1.0


class Forest(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="forest",
    rename={"min_samples_leaf": "min_rows_a_leaf", "max_features": "columns_a_split"},
):
    """scikit-learn's RandomForestClassifier."""

    trees: int = 100
    depth: int = 12
    min_samples_leaf: int = 4
    max_features: int = 5


class HistGradientBoosting(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="hist-gradient-boosting",
    rename={"min_samples_leaf": "min_rows_a_leaf"},
):
    """scikit-learn's HistGradientBoostingClassifier, averaged as XGBoost."""

    members: int = 3
    trees: int = 100
    depth: int = 6
    leaves: int = 15
    learning_rate: float = 0.06
    min_samples_leaf: int = 20
    column_ratio: float = 0.5
    l2: float = 5.0


class Logistic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="logistic"):
    """scikit-learn's LogisticRegression on standardized columns; becomes a network of one layer."""

    inverse_penalty: float = 1.0


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="network"):
    """Layers of `width` units with ReLU between them."""

    width: int = 64
    layers: int = 2
    epochs: int = 12
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.02


ModelSettings = XGBoost | LightGBM | Forest | HistGradientBoosting | Logistic | Network

HISTORIES: dict[str, ModelSettings] = {
    "xgboost": XGBoost(),
    "lightgbm": LightGBM(),
    "forest": Forest(),
    "hist-gradient-boosting": HistGradientBoosting(),
    "logistic": Logistic(),
    "network": Network(),
}
"""For features of histories."""

CARDS: dict[str, ModelSettings] = HISTORIES | {
    "xgboost": XGBoost(
        depth=4, learning_rate=0.15, min_child_weight=0.5, column_ratio=0.3, subsample=0.5, l2=1.0, positive_weight=20.0
    ),
    "lightgbm": LightGBM(leaves=31, learning_rate=0.15, min_samples_leaf=5),
}
"""For features that are given, as the ULB cards have them."""
