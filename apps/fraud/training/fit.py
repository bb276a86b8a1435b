"""Fit one of the closed set of models to rows of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from featherweight.apps.fraud.training import network
from featherweight.apps.fraud.training.models import (
    Forest,
    HistGradientBoosting,
    LightGBM,
    Logistic,
    ModelSettings,
    Network,
    XGBoost,
)
from featherweight.core.arrays import FeatureRows, Labels, Scores
from featherweight.core.errors import DataError, MissingExtraError
from featherweight.core.terminal import counted
from featherweight.core.training import Fit, Schedule
from featherweight.core.trees.canonical import canonicalize, join, nodes_of
from featherweight.core.trees.ensemble import Ensemble
from featherweight.core.trees.lightgbm import from_lightgbm
from featherweight.core.trees.predict import predict as predict_trees
from featherweight.core.trees.sklearn import from_sklearn
from featherweight.core.trees.xgboost import from_xgboost

OnStep = Callable[[int, int], None]
"""(steps done, steps in all)."""


def silent(done: int, total: int) -> None:
    """The OnStep that shows nothing."""


def fit(
    settings: ModelSettings,
    features: FeatureRows,
    labels: Labels,
    *,
    seed: int = 0,
    threads: int = 1,
    on_step: OnStep = silent,
) -> Ensemble | nn.Module:
    """features: [N, F], NaN where missing; labels: [N], 1 is fraud. The same seed gives the same model.

    Raises DataError when one of the classes is missing, MissingExtraError without the library.
    """
    frauds = int(labels.sum())
    if not 0 < frauds < len(labels):
        raise DataError(
            f"the training days hold {counted(len(labels), 'transactions')}, {frauds} of them fraud; a model "
            "needs both kinds: train on more days, or check that labels are there"
        )
    match settings:
        case XGBoost():
            return average(_members(settings.members, seed, _xgboost(settings, features, labels, threads), on_step))
        case LightGBM():
            return average(_members(settings.members, seed, _lightgbm(settings, features, labels, threads), on_step))
        case HistGradientBoosting():
            return average(_members(settings.members, seed, _histogram(settings, features, labels), on_step))
        case Forest():
            return _forest(settings, features, labels, seed, threads)
        case Logistic():
            return _logistic(settings, features, labels)
        case Network():
            return _network(settings, features, labels, seed, on_step)
        case _:
            assert_never(settings)


def margins(model: Ensemble | nn.Module, features: FeatureRows) -> Scores:
    """Log-odds [N] of features [N, F]."""
    if isinstance(model, Ensemble):
        return predict_trees(model, features).astype(np.float64)
    return network.predict(model, features)


def average(members: Sequence[Ensemble]) -> Ensemble:
    """One ensemble whose margin is the mean of the members' margins."""
    share = np.float32(1 / len(members))
    parts = [replace(nodes_of(member), value=member.value * share) for member in members]
    return canonicalize(join(parts), members[0].features, float(np.mean([member.base for member in members])))


def _members(count: int, seed: int, one: Callable[[int], Ensemble], on_step: OnStep) -> list[Ensemble]:
    fitted = []
    for member in range(count):
        on_step(member, count)
        fitted.append(one(seed * 1000 + member))
    on_step(count, count)
    return fitted


def _xgboost(settings: XGBoost, features: FeatureRows, labels: Labels, threads: int) -> Callable[[int], Ensemble]:
    try:
        import xgboost
    except ModuleNotFoundError as error:
        raise MissingExtraError("xgboost", "dev", "--model xgboost") from error
    rows = xgboost.QuantileDMatrix(features, labels, nthread=threads)
    parameters: dict[str, Any] = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "nthread": threads,
        "max_depth": settings.depth,
        "learning_rate": settings.learning_rate,
        "min_child_weight": settings.min_child_weight,
        "colsample_bytree": settings.column_ratio,
        "subsample": settings.subsample,
        "reg_lambda": settings.l2,
        "scale_pos_weight": settings.positive_weight,
    }

    def one(seed: int) -> Ensemble:
        booster = xgboost.train(parameters | {"seed": seed}, rows, settings.trees)
        return from_xgboost(booster)

    return one


def _lightgbm(settings: LightGBM, features: FeatureRows, labels: Labels, threads: int) -> Callable[[int], Ensemble]:
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise MissingExtraError("lightgbm", "train", "--model lightgbm") from error
    parameters: dict[str, Any] = {
        "objective": "binary",
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
        "max_depth": settings.depth,
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_samples_leaf,
        "feature_fraction": settings.column_ratio,
        "bagging_fraction": settings.subsample,
        "bagging_freq": 1,
        "lambda_l2": settings.l2,
        "scale_pos_weight": settings.positive_weight,
    }

    def one(seed: int) -> Ensemble:
        booster = lightgbm.train(parameters | {"seed": seed}, lightgbm.Dataset(features, labels), settings.trees)
        return from_lightgbm(booster)

    return one


def _histogram(settings: HistGradientBoosting, features: FeatureRows, labels: Labels) -> Callable[[int], Ensemble]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    # scikit-learn 1.9 fails on a column that is never there.
    features = np.where(np.isnan(features).all(axis=0), np.float32(0), features)

    def one(seed: int) -> Ensemble:
        model = HistGradientBoostingClassifier(
            max_iter=settings.trees,
            max_depth=settings.depth,
            max_leaf_nodes=settings.leaves,
            learning_rate=settings.learning_rate,
            min_samples_leaf=settings.min_samples_leaf,
            max_features=settings.column_ratio,
            l2_regularization=settings.l2,
            early_stopping=False,
            random_state=seed,
        )
        return from_sklearn(model.fit(features, labels))

    return one


def _forest(settings: Forest, features: FeatureRows, labels: Labels, seed: int, threads: int) -> Ensemble:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        settings.trees,
        max_depth=settings.depth,
        min_samples_leaf=settings.min_samples_leaf,
        max_features=min(settings.max_features, features.shape[1]),
        random_state=seed,
        n_jobs=threads,
    )
    return from_sklearn(model.fit(features, labels))


def _logistic(settings: Logistic, features: FeatureRows, labels: Labels) -> nn.Module:
    from sklearn.linear_model import LogisticRegression

    built = network.build(features.shape[1], 0, 0)
    standardize = network.standardize_of(built)
    standardize.fit(features)
    with torch.no_grad():
        columns = standardize(torch.from_numpy(features)).numpy()
        fitted = LogisticRegression(C=settings.inverse_penalty, max_iter=1000).fit(columns, labels)
        last = network.last_of(built)
        last.weight.copy_(torch.from_numpy(fitted.coef_))
        last.bias.copy_(torch.from_numpy(fitted.intercept_))
    return built.eval()


@dataclass(frozen=True)
class Batches:
    """Shuffled batches of one epoch: ([B, F], [B, 1]); the same for the same (seed, epoch)."""

    features: FeatureRows
    labels: Labels
    epoch: int
    batch: int
    seed: int

    def __len__(self) -> int:
        return len(self.labels) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.labels), generator=generator).numpy()
        for start in range(0, len(self) * self.batch, self.batch):
            index = order[start : start + self.batch]
            targets = torch.from_numpy(self.labels[index]).float().view(-1, 1)
            yield torch.from_numpy(self.features[index]), targets


def _network(settings: Network, features: FeatureRows, labels: Labels, seed: int, on_step: OnStep) -> nn.Module:
    torch.manual_seed(seed)
    built = network.build(features.shape[1], settings.width, settings.layers)
    network.standardize_of(built).fit(features)
    last = network.last_of(built)
    share = float(labels.mean())
    with torch.no_grad():  # begin at the share of frauds, or the first steps only learn that
        last.bias.fill_(float(np.log(share / (1 - share))))
    batch = min(settings.batch, len(labels))
    steps = len(labels) // batch
    schedule = Schedule(
        settings.epochs, steps, settings.learning_rate, settings.weight_decay, ema_decay=0.995, mixed_precision=False
    )
    run = Fit(
        built, schedule, lambda outputs, _, targets: functional.binary_cross_entropy_with_logits(outputs, targets)
    )
    while run.epoch < settings.epochs:
        on_step(run.epoch, settings.epochs)
        run.run_epoch(Batches(features, labels, run.epoch, batch, seed), lambda loss: None)
    on_step(settings.epochs, settings.epochs)
    return run.averaged.eval()
