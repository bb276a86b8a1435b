"""Trees read from the libraries that fitted them route every row as the library does, and survive ONNX and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from featherweight.core.errors import DataError, UsageError
from featherweight.core.trees.canonical import PROBABILITY_STEP, Nodes, canonicalize, strict_thresholds
from featherweight.core.trees.ensemble import LEAF, Ensemble
from featherweight.core.trees.lightgbm import decode_lightgbm
from featherweight.core.trees.onnx_file import decode_trees, encode_trees
from featherweight.core.trees.predict import borderline_rows, predict
from featherweight.core.trees.sklearn import from_sklearn
from featherweight.core.trees.xgboost import decode_xgboost
from tests.fakes import rows

Rows = npt.NDArray[np.float32]
WITH_GAPS, LABELS = rows(1500, seed=1)
WHOLE = np.nan_to_num(WITH_GAPS)


@cache
def boosted(**settings: Any) -> xgboost.XGBClassifier:
    chosen = {"n_estimators": 30, "max_depth": 5, "n_jobs": 1} | settings
    return xgboost.XGBClassifier(**chosen).fit(WITH_GAPS, LABELS)


def light(inputs: Rows = WITH_GAPS, **settings: Any) -> lightgbm.Booster:
    chosen = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 15} | settings
    return lightgbm.train(chosen, lightgbm.Dataset(inputs, LABELS), 30)


def ensemble_of(model: Any) -> Ensemble:
    if isinstance(model, xgboost.XGBClassifier):
        return decode_xgboost(model.get_booster().save_raw("json"))
    if isinstance(model, lightgbm.Booster):
        return decode_lightgbm(json.dumps(model.dump_model()))
    return from_sklearn(model)


def probability_of(model: Any, inputs: Rows) -> npt.NDArray[np.float64]:
    if isinstance(model, lightgbm.Booster):
        return np.asarray(model.predict(inputs))
    return np.asarray(model.predict_proba(inputs)[:, 1], np.float64)


def run_onnx(ensemble: Ensemble, inputs: Rows) -> Rows:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(encode_trees(ensemble), options)
    return np.asarray(session.run(["score"], {"features": inputs})[0][:, 0])


def same(one: Ensemble, other: Ensemble) -> bool:
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Ensemble))


FEW = {"n_estimators": 8, "random_state": 0}
MODELS: dict[str, tuple[Callable[[], Any], bool]] = {
    "xgboost": (boosted, True),
    "xgboost by leaves": (lambda: boosted(grow_policy="lossguide", max_leaves=12, max_depth=0, gamma=1.0), True),
    "xgboost with a base score": (lambda: boosted(base_score=0.2), True),
    "xgboost dart": (lambda: boosted(booster="dart", rate_drop=0.3), True),
    "xgboost random forest": (lambda: boosted(n_estimators=1, num_parallel_tree=9, subsample=0.6), True),
    "lightgbm": (light, True),
    "lightgbm with a sigmoid": (lambda: light(sigmoid=0.6), True),
    "lightgbm that saw nothing missing": (lambda: light(WHOLE), True),
    "lightgbm without missing": (lambda: light(use_missing=False), True),
    "lightgbm random forest": (lambda: light(boosting="rf", bagging_freq=1, bagging_fraction=0.6), True),
    "lightgbm dart": (lambda: light(boosting="dart", drop_seed=3), True),
    "random forest": (lambda: RandomForestClassifier(**FEW).fit(WITH_GAPS, LABELS), True),
    "extra trees": (lambda: ExtraTreesClassifier(**FEW, min_samples_leaf=4).fit(WITH_GAPS, LABELS), True),
    "bagged trees": (
        lambda: BaggingClassifier(DecisionTreeClassifier(max_depth=6), **FEW, max_features=0.5).fit(WITH_GAPS, LABELS),
        True,
    ),
    "gradient boosting": (lambda: GradientBoostingClassifier(**FEW).fit(WHOLE, LABELS), False),
    "gradient boosting from zero": (lambda: GradientBoostingClassifier(**FEW, init="zero").fit(WHOLE, LABELS), False),
    "histogram gradient boosting": (lambda: HistGradientBoostingClassifier(max_iter=20).fit(WITH_GAPS, LABELS), True),
}


@pytest.mark.parametrize("name", MODELS)
def test_trees_say_what_their_library_says(name: str) -> None:
    make, gaps = MODELS[name]
    model = make()
    ensemble = ensemble_of(model)
    cases = borderline_rows(ensemble, 400, seed=7)
    # The libraries refuse infinite values.
    cases = np.clip(cases, -1e30, 1e30) if gaps else np.nan_to_num(np.clip(cases, -1e30, 1e30))
    inputs = np.concatenate([WITH_GAPS[:400] if gaps else WHOLE[:400], cases])
    margins = predict(ensemble, inputs)
    expected = probability_of(model, inputs)
    # One row routed otherwise would show: leaves differ by more than rounding does.
    np.testing.assert_allclose(1 / (1 + np.exp(-margins.astype(np.float64))), expected, atol=3e-6)
    np.testing.assert_allclose(run_onnx(ensemble, inputs), margins, atol=1e-5, rtol=1e-5)
    assert same(decode_trees(encode_trees(ensemble)), ensemble)


def test_a_program_gives_a_single_row_what_it_gives_a_batch() -> None:
    ensemble = ensemble_of(boosted())
    inputs = borderline_rows(ensemble, 40)
    expected = predict(ensemble, inputs)
    found = [float(run_onnx(ensemble, inputs[index : index + 1])[0]) for index in range(10)]
    np.testing.assert_allclose(found, expected[:10], atol=1e-5)


@settings(max_examples=300)
@given(st.floats(width=64, allow_nan=False), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_below_is_at_most_for_every_float32(threshold: float, x: float) -> None:
    limit = strict_thresholds(np.array([threshold]))[0]
    with np.errstate(over="ignore"):
        beside = np.nextafter(limit, np.float32(-np.inf))
    for value in (np.float32(x), np.float32(np.clip(threshold, -3e38, 3e38)), beside):
        assert (value < limit) == (float(value) <= threshold)


@st.composite
def forests(draw: st.DrawFn) -> Ensemble:
    """Any trees, their nodes in any order, the numbers few, so that equal thresholds and leaves are common."""
    count = draw(st.integers(1, 4))
    numbers = st.sampled_from([0.0, -0.0, 1.0, -1.5, 0.1, 1e-40, 1e30])
    feature: list[int] = []
    children: list[list[int]] = []

    def grow(depth: int) -> int:
        is_split = depth < 4 and draw(st.booleans())
        below_it = [grow(depth + 1), grow(depth + 1)] if is_split else [LEAF, LEAF]
        feature.append(draw(st.integers(0, 2)) if is_split else LEAF)
        children.append(below_it)
        return len(feature) - 1

    roots = [grow(0) for _ in range(count)]
    size = len(feature)
    threshold, value = (draw(hnp.arrays(np.float32, size, elements=numbers)) for _ in range(2))
    left, right = np.array(children).T
    gaps = draw(hnp.arrays(np.bool_, size))
    nodes = Nodes(np.array(roots), np.array(feature), threshold, left, right, gaps, value)
    return canonicalize(nodes, 3, draw(numbers), draw(st.sampled_from(["margin", "probability"])))


@given(forests())
def test_any_trees_survive_onnx_and_back(ensemble: Ensemble) -> None:
    again = decode_trees(encode_trees(ensemble))
    inputs = borderline_rows(ensemble, 60)
    np.testing.assert_array_equal(predict(again, inputs), predict(ensemble, inputs))
    assert encode_trees(again) == encode_trees(ensemble)
    assert canonicalize(Nodes(*(getattr(ensemble, field.name) for field in fields(Nodes))), 3).roots[0] == 0


@settings(max_examples=30, deadline=None)
@given(forests())
def test_any_trees_run_in_onnx_runtime(ensemble: Ensemble) -> None:
    inputs = borderline_rows(ensemble, 40)
    with np.errstate(over="ignore"):
        expected = predict(ensemble, inputs)
    np.testing.assert_allclose(run_onnx(ensemble, inputs), expected, rtol=1e-5, atol=1e-5)


def test_forests_have_sums_that_are_exact_in_any_order() -> None:
    ensemble = ensemble_of(RandomForestClassifier(n_estimators=50, random_state=0).fit(WITH_GAPS, LABELS))
    whole = ensemble.value.astype(np.float64) / PROBABILITY_STEP
    np.testing.assert_array_equal(whole, np.round(whole))
    model = probability_of(MODELS["random forest"][0](), WITH_GAPS)
    assert model.max() == 1.0  # rows that every tree is sure of are clipped, never infinite
    assert np.isfinite(predict(ensemble, WITH_GAPS)).all()


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: boosted(objective="binary:hinge"), "objective is binary:hinge"),
        (lambda: xgboost.XGBClassifier(booster="gblinear").fit(WHOLE, LABELS), "booster is gblinear"),
        (lambda: light(objective="poisson"), "objective is poisson"),
        (lambda: light(zero_as_missing=True), "zero as missing"),
        (lambda: light(linear_tree=True), "linear leaves"),
        (lambda: RandomForestClassifier(), "not fitted"),
        (lambda: LogisticRegression().fit(WHOLE, LABELS), "LogisticRegression is not a tree ensemble"),
        (lambda: BaggingClassifier(GaussianNB(), n_estimators=2).fit(WHOLE, LABELS), "expected decision trees"),
        (lambda: GradientBoostingClassifier(loss="exponential").fit(WHOLE, LABELS), "loss is exponential"),
        (lambda: GradientBoostingClassifier(init=GaussianNB()).fit(WHOLE, LABELS), "starts from GaussianNB"),
    ],
)
def test_what_cannot_be_read_says_why(make: Callable[[], Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        ensemble_of(make())


@pytest.mark.parametrize("decode", [decode_xgboost, decode_lightgbm])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"learner": 5}',
        b'{"tree_info": [{}], "num_class": 1}',
        b'{"tree_info": [], "num_class": 1, "num_tree_per_iteration": 1, "objective": "binary", "average_output": 1}',
    ],
)
def test_bytes_that_are_no_model_are_data_errors(decode: Callable[[bytes], Ensemble], content: bytes) -> None:
    with pytest.raises(DataError, match=r"this is not an? (XGBoost|LightGBM) model"):
        decode(content)


def spoiled(change: Callable[[dict[str, Any]], None]) -> bytes:
    model = json.loads(bytes(boosted().get_booster().save_raw("json")))
    change(model["learner"])
    return json.dumps(model).encode()


def tree(learner: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = learner["gradient_booster"]["model"]["trees"][0]
    return found


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda learner: tree(learner)["left_children"].__setitem__(1, 0), "two parents"),
        (lambda learner: tree(learner)["left_children"].__setitem__(0, 10**6), "outside"),
        (lambda learner: tree(learner)["split_indices"].__setitem__(0, 77), "feature outside"),
        (lambda learner: tree(learner)["split_conditions"].__setitem__(0, float("nan")), "not a finite"),
        (lambda learner: tree(learner)["default_left"].pop(), "differ in length"),
        (lambda learner: tree(learner)["left_children"].pop(), "differ in length"),
        (lambda learner: learner["learner_model_param"].__setitem__("num_feature", str(1 << 32)), "over 4294967296 f"),
        (lambda learner: learner["gradient_booster"]["model"].__setitem__("trees", []), "not an XGBoost model"),
        (lambda learner: learner["learner_model_param"].__setitem__("base_score", "1"), "not an XGBoost model"),
    ],
)
def test_models_that_are_no_trees_are_data_errors(change: Callable[[dict[str, Any]], None], part: str) -> None:
    with pytest.raises(DataError, match=part):
        decode_xgboost(spoiled(change))


def test_replaced_nodes_do_not_touch_the_original() -> None:
    ensemble = ensemble_of(boosted())
    changed = replace(ensemble, value=ensemble.value * 2)
    assert not same(ensemble, changed)
    assert same(ensemble, ensemble_of(boosted()))
