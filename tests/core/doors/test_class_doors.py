"""Data and models of several classes: which output is whose, and what is refused because nobody says it."""

from __future__ import annotations

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from xgboost import XGBClassifier

from featherweight.core.doors.binding import class_names
from featherweight.core.doors.data import Data
from featherweight.core.doors.load import load
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.rows import baseline_scores, check_rows, run_model
from featherweight.core.doors.scores import infer_score, meant, probabilities, raw_scores
from featherweight.core.doors.splits import draw_split
from featherweight.core.errors import DataError, UsageError
from featherweight.core.tensors import TensorSpec

DRAW = np.random.default_rng(0)
ROWS = DRAW.normal(size=(900, 5)).astype(np.float32)
PLACES = (ROWS[:, :3] + 0.3 * DRAW.normal(size=(900, 3))).argmax(axis=1)
NAMED = np.array(["low", "middle", "top"])[PLACES]


def data(labels: object, **more: object) -> Data:
    return Data(cases=(ROWS, labels), **more)  # type: ignore[arg-type]


def test_the_order_of_the_classes_is_said_by_user_model_or_numbers() -> None:
    assert class_names(data(PLACES), None) == ("0", "1", "2")
    assert class_names(data(NAMED), ("middle", "low", "top")) == ("middle", "low", "top")
    assert class_names(data(NAMED, classes=["top", "low", "middle"]), ("low", "middle", "top"))[0] == "top"
    assert class_names(data(PLACES % 2), None) == ("0", "1")
    # A class of the model that these cases lack stays one: what it has learnt is not known then.
    assert class_names(data(PLACES % 2), ("0", "1", "2")) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "more", "says"),
    [
        (NAMED, {}, r"the labels are 'low', 'middle', 'top'; name them in the order of the model's outputs"),
        (PLACES + 1, {}, "name them in the order of the model's outputs"),
        (NAMED, {"classes": ["low", "top"]}, "middle are none of the classes as they are named: low, top"),
        (NAMED, {"positive": "low"}, "'low' is named the positive one; leave that out for several classes"),
        (ROWS[:, 0], {}, r"and no quantities \(regression\)"),
        (np.arange(900), {}, r"up to 200 classes are judged, and no quantities"),
    ],
)
def test_what_is_not_said_is_not_guessed(labels: object, more: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        class_names(data(labels, **more), None)


def test_the_answer_of_several_classes_has_a_number_for_each() -> None:
    logits = DRAW.normal(size=(20, 3)).astype(np.float32)
    spec = TensorSpec("y", "float32", (None, 3))
    chances = probabilities(logits.astype(np.float64)).astype(np.float32)
    for given, form in ((logits, "logits"), (chances, "probabilities")):
        score = infer_score({"y": given}, [spec], classes=3)
        assert score.form == form
        scores = raw_scores({"y": given}, score)
        assert scores.shape == (20, 3)
        np.testing.assert_allclose(probabilities(scores), chances, atol=1e-6)
    with pytest.raises(UsageError, match="one output of 4 float32 numbers a case, one for each class"):
        infer_score({"y": logits}, [spec], classes=4)
    with pytest.raises(UsageError, match="one or two float32 numbers a case"):
        infer_score({"y": logits}, [spec])
    with pytest.raises(UsageError, match="form: logit does not fit"):
        infer_score({"y": logits}, [spec], form="logit", classes=3)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        LinearDiscriminantAnalysis(),
        LinearSVC(),
        SGDClassifier(loss="log_loss"),
        MLPClassifier((8,), tol=1.0, random_state=0),
        make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
    ],
)
def test_linear_models_of_several_classes_are_what_their_library_says(model: object) -> None:
    fitted = model.fit(ROWS, NAMED)  # type: ignore[attr-defined]
    loaded = load(fitted)
    assert loaded.classes == ("low", "middle", "top")
    assert loaded.model.outputs[0].shape == (None, 3)
    assert loaded.recalibrates == (type(fitted).__name__ in ("LinearSVC", "SGDClassifier"))
    inputs = {"features": ROWS}
    score = infer_score(run_model(loaded.model, inputs), loaded.model.outputs, form="logits", classes=3)
    assert "agrees with scikit-learn on 900 rows" in check_rows(loaded, score, inputs, inputs)[0]
    decided = raw_scores(run_model(loaded.model, inputs), score).argmax(axis=1)
    assert (np.array(loaded.classes)[decided] == fitted.predict(ROWS)).mean() > 0.999
    if not loaded.recalibrates:
        wrong = LoadedModel(
            loaded.model, "x", "scikit-learn", lambda given: fitted.predict_proba(given["features"])[:, ::-1]
        )
        with pytest.raises(UsageError, match="have another probability than scikit-learn gives them"):
            check_rows(wrong, score, inputs, inputs)


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(8, random_state=0),
        HistGradientBoostingClassifier(max_iter=8),
        LGBMClassifier(n_estimators=8, n_jobs=1, verbose=-1),
        XGBClassifier(n_estimators=8, n_jobs=1),
    ],
)
def test_trees_of_several_classes_are_what_their_library_says(model: object) -> None:
    named = not isinstance(model, XGBClassifier)  # which takes numbers alone
    fitted = model.fit(ROWS, NAMED if named else PLACES)  # type: ignore[attr-defined]
    loaded = load(fitted)
    assert loaded.meaning == "classes"
    assert loaded.classes == (("low", "middle", "top") if named else ("0", "1", "2"))
    inputs = {"features": ROWS.astype(loaded.model.inputs[0].dtype)}
    score = infer_score(run_model(loaded.model, inputs), loaded.model.outputs, classes=3)
    assert score.form == "logits"
    assert f"agrees with {loaded.library} on 900 rows" in check_rows(loaded, score, inputs, inputs)[0]
    assert baseline_scores(loaded, score, inputs).shape == (900, 3)


def test_labels_of_which_a_case_may_have_several_are_no_classes() -> None:
    fitted = MLPClassifier((4,), tol=1.0, random_state=0).fit(ROWS, np.eye(3, dtype=int)[PLACES] + [0, 0, 1] > 0)
    with pytest.raises(UsageError, match="tells 3 labels, of which a case may have several"):
        load(fitted)
    each = meant(np.zeros((2, 3)), "labels")
    np.testing.assert_array_equal(each, np.full((2, 3), 0.5))
    np.testing.assert_allclose(meant(np.zeros((2, 3)), "classes"), 1 / 3)


def test_a_yes_or_no_for_each_class_has_no_probabilities_of_its_own() -> None:
    """Its library divides them by their sum, which is no softmax of its scores."""
    several = LogisticRegression().fit(ROWS, NAMED)
    several.solver = "liblinear"
    assert load(several).recalibrates


def test_a_sigmoid_for_each_class_is_no_temperature() -> None:
    fitted = CalibratedClassifierCV(LinearSVC(), method="sigmoid", ensemble=False).fit(ROWS, PLACES)
    with pytest.raises(UsageError, match="load the LinearSVC itself, which is calibrated anew here"):
        load(fitted)


def test_a_split_that_is_drawn_has_every_class_everywhere() -> None:
    drawn = draw_split({"x": ROWS}, PLACES, None, 0)
    assert {len(np.unique(PLACES[places])) for places in drawn.values()} == {3}
    with pytest.raises(DataError, match="one of the labels has 3 cases; at least 5 are needed"):
        draw_split({"x": ROWS}, np.where(np.arange(900) < 3, 3, PLACES), None, 0)
