"""Every reader of trees compares what it read with the library that fitted them, and refuses trees whose scores
differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import DataError, UsageError
from featherweight.core.program import Program
from featherweight.core.trees.comparison import TRIES, check_same_scores, threshold_rows
from featherweight.core.trees.ensemble import LEAF, Ensemble, tensor_specs
from featherweight.core.trees.lightgbm import decode_lightgbm, from_lightgbm
from featherweight.core.trees.onnx_file import encode_trees
from featherweight.core.trees.predict import SMALLEST_PROBABILITY, goes_left, predict
from featherweight.core.trees.sklearn import from_sklearn
from featherweight.core.trees.xgboost import decode_xgboost, from_xgboost
from tests.fakes import fitted_trees, rows

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
WITH_GAPS, LABELS = rows(1500, seed=1)
WHOLE = np.nan_to_num(WITH_GAPS)
FEW: dict[str, Any] = {"n_estimators": 8, "random_state": 0}


def light(inputs: Rows = WITH_GAPS, labels: Any = LABELS, **settings: Any) -> lightgbm.Booster:
    chosen = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 15} | settings
    return lightgbm.train(chosen, lightgbm.Dataset(inputs, labels, free_raw_data=False), 20)


def light_classifier(inputs: Rows = WITH_GAPS, labels: Any = LABELS, **settings: Any) -> lightgbm.LGBMClassifier:
    chosen: dict[str, Any] = {"n_estimators": 20, "num_leaves": 15, "verbose": -1, "n_jobs": 1} | settings
    return lightgbm.LGBMClassifier(**chosen).fit(inputs, labels)


def boosted(inputs: Rows = WITH_GAPS, labels: Any = LABELS, **settings: Any) -> xgboost.XGBClassifier:
    chosen: dict[str, Any] = {"n_estimators": 20, "max_depth": 4, "n_jobs": 1} | settings
    return xgboost.XGBClassifier(**chosen).fit(inputs, labels)


@cache
def stopped_early() -> xgboost.XGBClassifier:
    model = xgboost.XGBClassifier(n_estimators=300, learning_rate=0.8, early_stopping_rounds=9, n_jobs=1)
    model.fit(WITH_GAPS[:600], LABELS[:600], eval_set=[(WITH_GAPS[600:], LABELS[600:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    return model


def light_stopped_early() -> lightgbm.LGBMClassifier:
    model = lightgbm.LGBMClassifier(n_estimators=300, learning_rate=0.5, verbose=-1, n_jobs=1)
    stop = lightgbm.early_stopping(9, verbose=False)
    model.fit(WITH_GAPS[:600], LABELS[:600], eval_X=WITH_GAPS[600:], eval_y=LABELS[600:], callbacks=[stop])
    assert model.best_iteration_ < 100
    return model


def squared_loss(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    return scores - labels, np.ones_like(scores)


def tilted_loss(scores: Floats, data: Any) -> tuple[Floats, Floats]:
    return squared_loss(data.get_label(), scores)


def margins_of(model: Any, inputs: Rows) -> Floats:
    """What the library says, by its own ways: nothing of the code that is tested."""
    if isinstance(model, xgboost.XGBClassifier):
        return np.asarray(model.predict(inputs, output_margin=True), np.float64)
    if isinstance(model, xgboost.Booster):
        return np.asarray(model.predict(xgboost.DMatrix(inputs), output_margin=True), np.float64)
    if isinstance(model, lightgbm.Booster):
        chance = np.asarray(model.predict(inputs), np.float64)
    elif isinstance(model, GradientBoostingClassifier | HistGradientBoostingClassifier):
        return np.asarray(model.decision_function(inputs), np.float64)
    else:
        chance = np.asarray(model.predict_proba(inputs)[:, 1], np.float64)
    low = float(SMALLEST_PROBABILITY)
    chance = np.clip(chance, low, 1 - low)
    return np.asarray(np.log(chance / (1 - chance)))


READ: dict[str, tuple[Callable[[], Any], Callable[[Any], Ensemble], bool]] = {
    "LGBMClassifier": (light_classifier, from_sklearn, True),
    "LGBMClassifier of text labels": (
        lambda: light_classifier(labels=np.array(["no", "yes"])[LABELS]),
        from_sklearn,
        True,
    ),
    "LGBMClassifier that stopped early": (light_stopped_early, from_sklearn, True),
    "LightGBM from its booster": (light, from_lightgbm, True),
    "LightGBM's forest": (lambda: light(boosting="rf", bagging_freq=1, bagging_fraction=0.6), from_lightgbm, True),
    "LightGBM's DART with a sigmoid": (lambda: light(boosting="dart", drop_rate=0.5, sigmoid=0.7), from_lightgbm, True),
    "LightGBM, weighted": (lambda: light_classifier(class_weight="balanced"), from_sklearn, True),
    "LightGBM, monotone": (lambda: light(monotone_constraints=[1, 0, 0, 0, 0, 0]), from_lightgbm, True),
    "LightGBM, cross entropy": (lambda: light(objective="cross_entropy"), from_lightgbm, True),
    "XGBClassifier": (boosted, from_sklearn, True),
    "XGBClassifier that stopped early": (stopped_early, from_sklearn, True),
    "XGBClassifier of forests that stopped early": (
        lambda: xgboost.XGBClassifier(
            n_estimators=60, num_parallel_tree=3, subsample=0.6, learning_rate=0.9, early_stopping_rounds=5, n_jobs=1
        ).fit(WITH_GAPS[:600], LABELS[:600], eval_set=[(WITH_GAPS[600:], LABELS[600:])], verbose=False),
        from_sklearn,
        True,
    ),
    "XGBRFClassifier": (
        lambda: xgboost.XGBRFClassifier(n_estimators=9, n_jobs=1).fit(WITH_GAPS, LABELS),
        from_sklearn,
        True,
    ),
    "XGBoost from its booster": (lambda: boosted(base_score=0.1).get_booster(), from_xgboost, True),
    "XGBoost, raw log-odds": (lambda: boosted(objective="binary:logitraw"), from_sklearn, True),
    "XGBoost, many rounds": (lambda: boosted(n_estimators=700, max_depth=2, learning_rate=0.05), from_sklearn, True),
    "histogram boosting": (
        lambda: HistGradientBoostingClassifier(max_iter=20).fit(WITH_GAPS, LABELS),
        from_sklearn,
        True,
    ),
    "histogram boosting, weighted, monotone": (
        lambda: HistGradientBoostingClassifier(
            max_iter=20, class_weight="balanced", monotonic_cst=[1, 0, 0, 0, 0, 0]
        ).fit(WITH_GAPS, LABELS),
        from_sklearn,
        True,
    ),
    "histogram boosting that saw nothing missing": (
        lambda: HistGradientBoostingClassifier(max_iter=20).fit(WHOLE, LABELS),
        from_sklearn,
        True,
    ),
    "forest that saw nothing missing": (lambda: RandomForestClassifier(**FEW).fit(WHOLE, LABELS), from_sklearn, True),
    "forest, weighted": (
        lambda: ExtraTreesClassifier(**FEW, class_weight="balanced").fit(WITH_GAPS, LABELS),
        from_sklearn,
        True,
    ),
    "large forest": (
        lambda: RandomForestClassifier(70, random_state=0, n_jobs=1).fit(WITH_GAPS, LABELS),
        from_sklearn,
        True,
    ),
    "bag whose members draw one class alone": (
        lambda: BaggingClassifier(
            Pipeline([("nothing", "passthrough"), ("tree", DecisionTreeClassifier())]), max_samples=3, **FEW
        ).fit(WITH_GAPS, LABELS),
        from_sklearn,
        True,
    ),
    "gradient boosting with weights": (
        lambda: GradientBoostingClassifier(**FEW).fit(WHOLE, LABELS, sample_weight=1 + LABELS),
        from_sklearn,
        False,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read_scores_as_its_library(name: str) -> None:
    make, read, gaps = READ[name]
    model = make()
    ensemble = read(model)
    made = np.clip(threshold_rows(ensemble, 400, seed=9), -1e30, 1e30)
    inputs = np.concatenate([WITH_GAPS, made]) if gaps else np.nan_to_num(np.concatenate([WHOLE, made]))
    expected = margins_of(model, inputs)
    chance = 1 / (1 + np.exp(-np.abs(expected)))
    # Probabilities near 0 and 1 say little of the margin; a forest's leaves are rounded, too.
    tolerance = 1e-5 * np.maximum(1, np.abs(expected)) + 1e-5 / (chance * (1 - chance)) * (ensemble.output != "margin")
    assert (np.abs(predict(ensemble, inputs) - expected) <= tolerance + 1e-9 / (1 - chance)).all()


def two_outputs() -> Any:
    return RandomForestClassifier(**FEW).fit(WITH_GAPS, np.stack([LABELS, 1 - LABELS], axis=1))


def bag_of(member: Any) -> Any:
    return BaggingClassifier(member, n_estimators=4, random_state=0).fit(WHOLE, LABELS)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "bag of scaled trees": (
        lambda: bag_of(make_pipeline(StandardScaler(), DecisionTreeClassifier())),
        "StandardScaler",
    ),
    "bag of regressions": (lambda: bag_of(DecisionTreeRegressor(max_depth=3)), "expected decision trees"),
    "bag of boosting": (lambda: bag_of(GradientBoostingClassifier(n_estimators=2)), "expected decision trees"),
    "two outputs": (two_outputs, "2 outputs"),
    "one class": (lambda: RandomForestClassifier(**FEW).fit(WHOLE, np.ones(len(WHOLE))), "1 classes"),
    "boosting from a constant": (
        lambda: GradientBoostingClassifier(**FEW, init=DummyClassifier(strategy="constant", constant=1)).fit(
            WHOLE, LABELS
        ),
        "starts from DummyClassifier of the strategy constant",
    ),
    "boosting from a share drawn": (
        lambda: GradientBoostingClassifier(**FEW, init=DummyClassifier(strategy="uniform")).fit(WHOLE, LABELS),
        "starts from DummyClassifier of the strategy uniform",
    ),
    "boosting from a regression": (
        lambda: GradientBoostingClassifier(**FEW, init=LogisticRegression()).fit(WHOLE, LABELS),
        "starts from LogisticRegression",
    ),
    "boosted stumps that vote": (lambda: AdaBoostClassifier(n_estimators=3).fit(WHOLE, LABELS), "not a tree ensemble"),
    "calibrated": (
        lambda: CalibratedClassifierCV(RandomForestClassifier(**FEW), cv=2).fit(WHOLE, LABELS),
        "CalibratedClassifierCV is not a tree ensemble",
    ),
    "voting": (
        lambda: VotingClassifier([("a", RandomForestClassifier(**FEW))]).fit(WHOLE, LABELS),
        "not a tree ensemble",
    ),
    "scaled": (
        lambda: make_pipeline(StandardScaler(), light_classifier()).fit(WHOLE, LABELS),
        "Pipeline is not a tree",
    ),
    "XGBClassifier, missing=0": (lambda: boosted(WHOLE, missing=0.0), "reads 0 as missing"),
    "XGBClassifier, missing=-999": (lambda: boosted(missing=-999.0), "reads -999 as missing"),
    "XGBClassifier, own objective": (lambda: boosted(objective=squared_loss), "objective of its own"),
    "XGBClassifier, linear": (
        lambda: xgboost.XGBClassifier(booster="gblinear").fit(WHOLE, LABELS),
        "booster is gblinear",
    ),
    "XGBClassifier, not fitted": (lambda: xgboost.XGBClassifier(), "not fitted"),
    "LGBMClassifier, own objective": (lambda: light_classifier(objective=squared_loss), "objective of its own"),
    "LGBMClassifier, linear leaves": (lambda: light_classifier(WHOLE, linear_tree=True), "linear leaves"),
    "LGBMClassifier, zero as missing": (lambda: light_classifier(zero_as_missing=True), "zero as missing"),
    "LGBMClassifier, not fitted": (lambda: lightgbm.LGBMClassifier(), "not fitted"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_tree_ensemble_is_refused_with_the_reason(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(UsageError, match=said):
        from_sklearn(make())


def test_boosters_of_an_own_objective_are_refused() -> None:
    booster = light(objective=tilted_loss)
    for read in (from_lightgbm, lambda model: decode_lightgbm(json.dumps(model.dump_model()))):
        with pytest.raises(UsageError, match="objective of its own"):
            read(booster)
    data = xgboost.DMatrix(WITH_GAPS, LABELS)
    with pytest.raises(UsageError, match="objective of its own"):
        from_xgboost(xgboost.train({"objective": "binary:hinge"}, data, 3, obj=tilted_loss))


@pytest.mark.parametrize("read", [from_lightgbm, from_xgboost])
def test_what_is_no_model_is_refused(read: Callable[[Any], Ensemble]) -> None:
    for other in ("model.txt", None, {}, DecisionTreeRegressor()):
        with pytest.raises(UsageError, match=r"is not an? |not fitted"):
            read(other)


def test_of_a_model_that_stopped_early_those_trees_count_that_its_library_counts(tmp_path: Any) -> None:
    model = stopped_early()
    booster, best = model.get_booster(), model.best_iteration
    for read in (lambda: from_xgboost(booster), lambda: decode_xgboost(booster.save_raw("json"))):
        with pytest.raises(UsageError, match=rf"round {best} was its best.*booster\[: booster.best_iteration \+ 1\]"):
            read()
    sliced = from_xgboost(booster[: best + 1])
    model.save_model(tmp_path / "model.json")
    saved = decode_xgboost((tmp_path / "model.json").read_bytes())
    for found in (sliced, saved, from_sklearn(model)):
        assert len(found.roots) == best + 1
        np.testing.assert_allclose(predict(found, WITH_GAPS), margins_of(model, WITH_GAPS), rtol=1e-5, atol=1e-5)


def spoiled(change: Callable[[dict[str, Any]], Any]) -> str:
    """What is changed: of the model's trees, all of them and the first."""
    content = json.loads(bytes(boosted(n_estimators=3).get_booster().save_raw("json")))
    change(content["learner"]["gradient_booster"]["model"])
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model["gbtree_model_param"].__setitem__("num_trees", "2"), "not one that XGBoost .* loads"),
        # XGBoost 3.2 loads these, and leaves its memory:
        (lambda model: model["tree_info"].__setitem__(1, 1_000_000), "another class"),
        (lambda model: model["trees"][0]["parents"].__setitem__(1, 1_000_000), "other children"),
        (lambda model: model["trees"][0]["parents"].__setitem__(1, 2), "other children"),
        (lambda model: model["trees"][0]["tree_param"].__setitem__("size_leaf_vector", "-5"), "vectors"),
    ],
)
def test_json_that_xgboost_does_not_load_is_refused(change: Callable[[dict[str, Any]], Any], said: str) -> None:
    assert len(decode_xgboost(spoiled(lambda model: None)).roots) == 3
    with pytest.raises((DataError, UsageError), match=said):
        decode_xgboost(spoiled(change))


class Sampler:
    """As imbalanced-learn has them: of no meaning to a row that is scored."""

    def fit_resample(self, inputs: Rows, labels: Any) -> Any:
        return inputs, labels


class SamplingPipeline(Pipeline):
    """As imbalanced-learn's: scoring passes the samplers by."""

    def predict_proba(self, X: Any, **parameters: Any) -> Any:  # noqa: N803 - scikit-learn's name
        return self.steps[-1][1].predict_proba(X, **parameters)


def test_pipelines_of_a_balanced_bag_are_read() -> None:
    model = bag_of(DecisionTreeClassifier(max_depth=4))
    expected = predict(from_sklearn(model), WHOLE)
    model.estimators_ = [SamplingPipeline([("sampler", Sampler()), ("tree", one)]) for one in model.estimators_]
    np.testing.assert_array_equal(predict(from_sklearn(model), WHOLE), expected)


@pytest.mark.parametrize("kind", ["histogram", "lightgbm"])
def test_infinite_values_go_where_the_library_sends_them(kind: str) -> None:
    """A split of missing values against all others is x <= inf, which holds of infinity, too."""
    inputs = WITH_GAPS.copy()
    inputs[:, 0] = np.where(np.isnan(inputs[:, 1]), np.float32(np.nan), inputs[:, 0])
    labels = np.isnan(inputs[:, 0]).astype(int) ^ (inputs[:, 2] > 1)
    model = (
        HistGradientBoostingClassifier(max_iter=8).fit(inputs, labels) if kind == "histogram" else light(inputs, labels)
    )
    ensemble = from_sklearn(model) if kind == "histogram" else from_lightgbm(model)
    assert np.isneginf(ensemble.threshold[ensemble.feature == 0]).any()
    inputs[::3, 0], inputs[1::3, 0] = np.inf, -np.inf
    np.testing.assert_allclose(predict(ensemble, inputs), margins_of(model, inputs), rtol=1e-5, atol=1e-5)
    with find_backend("onnxruntime").open(
        Program(encode_trees(ensemble), "fp32", *tensor_specs(6), "trees")
    ) as session:
        ran = session.run({"features": inputs})["score"][:, 0]
    np.testing.assert_allclose(ran, predict(ensemble, inputs), rtol=1e-5, atol=1e-5)


class Halving(lightgbm.LGBMClassifier):
    """Trees over inputs that are scaled before: their own scoring does it, their nodes do not know."""

    def predict(self, X: Any, **settings: Any) -> Any:  # noqa: N803 - LightGBM's name
        return super().predict(X / 2, **settings)


class HalvingBoosted(xgboost.XGBClassifier):
    def predict(self, X: Any, **settings: Any) -> Any:  # noqa: N803 - XGBoost's name
        return super().predict(X / 2, **settings)


class HalvingForest(RandomForestClassifier):
    def predict_proba(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        return super().predict_proba(X / 2)


class HalvingHistogram(HistGradientBoostingClassifier):
    def decision_function(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        return super().decision_function(X / 2)


HalvingForest.__name__, HalvingHistogram.__name__ = "RandomForestClassifier", "HistGradientBoostingClassifier"


def counts_another_tree(model: dict[str, Any]) -> None:
    """Its two rounds have one tree and two, which the number of trees a round does not say."""
    model["iteration_indptr"] = [0, 2, 3]


READERS: dict[str, Callable[[], Ensemble]] = {
    "lightgbm": lambda: from_sklearn(Halving(n_estimators=5, verbose=-1, n_jobs=1).fit(WITH_GAPS, LABELS)),
    "xgboost": lambda: from_sklearn(HalvingBoosted(n_estimators=5, n_jobs=1).fit(WITH_GAPS, LABELS)),
    "forest": lambda: from_sklearn(HalvingForest(**FEW).fit(WITH_GAPS, LABELS)),
    "histogram": lambda: from_sklearn(HalvingHistogram(max_iter=5).fit(WITH_GAPS, LABELS)),
    "xgboost's JSON": lambda: decode_xgboost(saved_early(counts_another_tree)),
}


def saved_early(change: Callable[[dict[str, Any]], Any]) -> str:
    """As XGBClassifier saves three trees of which the first is the best."""
    content = json.loads(spoiled(change))
    content["learner"]["attributes"] = {"best_iteration": "0", "scikit_learn": "{}"}
    return json.dumps(content)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_asks_the_library(name: str) -> None:
    with pytest.raises(UsageError, match=r"do not score as .* does: of .* rows at the thresholds"):
        READERS[name]()
    assert len(decode_xgboost(saved_early(lambda model: None)).roots) == 1


# ---- the comparison itself ----


def moved(ensemble: Ensemble, field: str, place: int, change: Callable[[Any], Any]) -> Ensemble:
    array = getattr(ensemble, field).copy()
    array[place] = change(array[place])
    return replace(ensemble, **{field: array})


def splits_of(ensemble: Ensemble) -> npt.NDArray[np.int64]:
    return np.flatnonzero(ensemble.feature != LEAF)


def without_last_tree(ensemble: Ensemble) -> Ensemble:
    value = ensemble.value.copy()
    value[ensemble.roots[-1] :] = 0
    return replace(ensemble, value=value)


UP, DOWN = np.float32(np.inf), np.float32(-np.inf)
FAULTS: dict[str, tuple[Callable[[Ensemble, int], Ensemble], str]] = {
    "a threshold one number higher": (lambda e, at: moved(e, "threshold", at, lambda x: np.nextafter(x, UP)), "beside"),
    "a threshold one number lower": (
        lambda e, at: moved(e, "threshold", at, lambda x: np.nextafter(x, DOWN)),
        "beside",
    ),
    "missing values to the other side": (
        lambda e, at: moved(e, "missing_left", at, lambda x: not x),
        "Only rows with missing",
    ),
    "sides exchanged": (
        lambda e, at: moved(moved(e, "left", at, lambda _: e.right[at]), "right", at, lambda _: e.left[at]),
        "beside",
    ),
    "another start": (lambda e, at: replace(e, base=e.base + 1e-3), "All differ by .*starts from another score"),
    "leaves times a factor": (
        lambda e, at: replace(e, value=e.value * np.float32(1.001), base=e.base * 1.001),
        "the factor",
    ),
    "the last tree left out": (lambda e, at: without_last_tree(e), "beside"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", [0.0, 0.9])
def test_a_fault_in_any_split_is_found(fault: str, place: float) -> None:
    """Every split of a small ensemble is tried, the deepest, too."""
    ensemble = fitted_trees()
    spoil, said = FAULTS[fault]
    splits = splits_of(ensemble)
    with pytest.raises(UsageError, match=f"do not score as this library does: .*{said}"):
        check_same_scores(
            ensemble, lambda x: predict(spoil(ensemble, splits[int(place * len(splits))]), x), "this library"
        )
    check_same_scores(ensemble, lambda x: predict(ensemble, x), "this library")


def test_what_a_library_cannot_score_is_refused() -> None:
    def fail(inputs: Rows) -> Rows:
        raise ValueError("no such column\nand more")

    with pytest.raises(UsageError, match=r"this library cannot score rows by this model.*: no such column$"):
        check_same_scores(fitted_trees(), fail, "this library")
    with pytest.raises(UsageError, match="expected one a row"):
        check_same_scores(fitted_trees(), lambda x: np.zeros((len(x), 2)), "this library")
    with pytest.raises(UsageError, match="do not score"):
        check_same_scores(fitted_trees(), lambda x: np.full(len(x), np.nan), "this library")


def test_rows_reach_the_splits_that_they_try() -> None:
    ensemble = from_lightgbm(light())
    splits = splits_of(ensemble)
    made = threshold_rows(ensemble, TRIES * len(splits))
    tries = made[: TRIES * len(splits)].reshape(len(splits), TRIES, -1)
    for place in (0, 1):  # below and on the threshold
        reached = [reaches(ensemble, row, split) for row, split in zip(tries[:, place], splits, strict=True)]
        assert np.mean(reached) > 0.97  # to some splits only a missing value leads
    on = tries[np.arange(len(splits)), 1, ensemble.feature[splits]]
    np.testing.assert_array_equal(on, ensemble.threshold[splits])
    assert np.isnan(tries[np.arange(len(splits)), 3, ensemble.feature[splits]]).all()
    np.testing.assert_array_equal(made, threshold_rows(ensemble, TRIES * len(splits)))


def reaches(ensemble: Ensemble, row: Rows, split: int) -> bool:
    node = int(ensemble.roots[np.searchsorted(ensemble.roots, split, side="right") - 1])
    while node != split and ensemble.feature[node] != LEAF:
        left = goes_left(ensemble, row[None], np.array([0]), np.array([node]))[0]
        node = int(ensemble.left[node] if left else ensemble.right[node])
    return node == split


def test_the_comparison_of_a_large_ensemble_is_bounded() -> None:
    ensemble = from_sklearn(RandomForestClassifier(60, random_state=0, n_jobs=1).fit(WITH_GAPS, LABELS))
    assert TRIES * ensemble.splits > 20_000
    seen: list[int] = []

    def score(inputs: Rows) -> Rows:
        seen.append(len(inputs))
        return 1 / (1 + np.exp(-predict(ensemble, inputs).astype(np.float64)))

    check_same_scores(ensemble, score, "this library")
    assert sum(seen) < 8300
