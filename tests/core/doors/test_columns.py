"""Steps of scikit-learn before a model: what they make of each column is taken up into it, or refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)

from featherweight.core.doors.load import load
from featherweight.core.doors.rows import run_model
from featherweight.core.errors import UsageError
from tests.core.doors.test_load import notes_of

COUNT = 900


def table(missing: float = 0.05) -> tuple[Any, Any]:
    """Two columns of numbers and two of categories: 0 to 3, and three that are no neighbours."""
    generator = np.random.default_rng(0)
    numbers = generator.normal(3, 2, (COUNT, 2))
    codes = generator.integers(0, 4, COUNT)
    places = generator.choice([-2.0, 1.5, 40.0], COUNT)
    rows = np.stack([codes, numbers[:, 0], places, numbers[:, 1]], axis=1).astype(np.float32)
    score = numbers[:, 0] - 3 + 2 * (codes == 2) - (codes == 3) + (places == 1.5) * numbers[:, 1] / 2
    labels = (score + generator.normal(0, 0.5, COUNT) > 0.5).astype(np.int64)
    rows[generator.random(rows.shape) < missing] = np.nan
    return rows, labels


def encoded(*, fill: bool = False, encoder: Any = None) -> ColumnTransformer:
    """Scaled numbers and encoded categories, as most pipelines have them; the columns change their order."""
    encoder = encoder or OneHotEncoder(handle_unknown="ignore")
    categories = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder) if fill else encoder
    return ColumnTransformer(
        [("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [3, 1]), ("categories", categories, [0, 2])]
    )


PIPELINES: dict[str, Any] = {
    "one-hot and boosting": lambda: make_pipeline(encoded(), GradientBoostingClassifier(n_estimators=15)),
    "one-hot and a forest": lambda: make_pipeline(encoded(fill=True), RandomForestClassifier(15, random_state=0)),
    "one-hot, scaled, and boosting": lambda: make_pipeline(
        encoded(encoder=OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
        StandardScaler(),
        GradientBoostingClassifier(n_estimators=12),
    ),
    "one-hot and a regression": lambda: make_pipeline(encoded(), LogisticRegression()),
    "one-hot without its first and a regression": lambda: make_pipeline(
        encoded(fill=True, encoder=OneHotEncoder(handle_unknown="ignore", drop="first")), LogisticRegression()
    ),
    "ordinal and boosting": lambda: make_pipeline(
        encoded(fill=True, encoder=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
        GradientBoostingClassifier(n_estimators=12),
    ),
    "ordinal and a regression": lambda: make_pipeline(
        encoded(fill=True, encoder=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=7)),
        LogisticRegression(),
    ),
    "one-hot and a network": lambda: make_pipeline(
        encoded(), MLPClassifier((12, 5), activation="tanh", tol=10, n_iter_no_change=3, random_state=0)
    ),
    "columns that are left out": lambda: make_pipeline(
        ColumnTransformer([("drop", "drop", [0]), ("keep", "passthrough", [3])], remainder=SimpleImputer()),
        HistGradientBoostingClassifier(max_iter=12),
    ),
    "powers": lambda: make_pipeline(SimpleImputer(), PowerTransformer(), GradientBoostingClassifier(n_estimators=9)),
    "quantiles": lambda: make_pipeline(
        SimpleImputer(), QuantileTransformer(n_quantiles=50), RandomForestClassifier(9, random_state=0)
    ),
    "bins": lambda: make_pipeline(
        ColumnTransformer([("bins", KBinsDiscretizer(8, encode="ordinal", strategy="uniform"), [1, 3])]),
        GradientBoostingClassifier(n_estimators=9),
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_scores_as_it_did_also_values_that_it_does_not_know(name: str) -> None:
    rows, labels = table(0.0 if name == "bins" else 0.05)
    fitted = PIPELINES[name]().fit(rows, labels)
    loaded = load(fitted)
    assert loaded.features == 4
    (note,) = notes_of(loaded, rows, labels)
    assert note.startswith("The model agrees with scikit-learn on 900 rows"), note
    strange = np.tile(np.linspace(-3, 45, 481, dtype=np.float32)[:, None], (1, 4))
    if name != "bins":
        strange[::7, 0] = strange[::5, 2] = np.nan
    (output,) = run_model(loaded.model, {"features": strange}).values()
    found = 1 / (1 + np.exp(-output[:, 0].astype(float)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a category is not known
        expected = fitted.predict_proba(strange)[:, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([PCA(2)], "step 'pca' is PCA; before a model only"),
        ([encoded(encoder=OneHotEncoder())], "refuses a value that it does not know.*handle_unknown to 'ignore'"),
        ([encoded(encoder=OrdinalEncoder())], "handle_unknown to 'use_encoded_value'"),
        (
            [StandardScaler(), OneHotEncoder(handle_unknown="ignore", sparse_output=False)],
            "encodes what another step has changed",
        ),
        ([encoded(encoder=OneHotEncoder(handle_unknown="ignore", min_frequency=250))], "puts rare categories together"),
        ([SimpleImputer(missing_values=-1)], "takes -1 for missing"),
        ([SimpleImputer(add_indicator=True)], "makes 8 columns where 4 were expected"),
        ([ColumnTransformer([("a", PCA(1), [0, 1])])], "step 'columntransformer, a' is PCA"),
    ],
)
def test_a_step_that_does_more_is_refused(steps: list[Any], says: str) -> None:
    rows, labels = table(missing=0.05 if "indicator" in str(steps) else 0.0)
    fitted = make_pipeline(*steps, LogisticRegression()).fit(rows, labels)
    with pytest.raises(UsageError, match=says):
        load(fitted)


def test_texts_are_refused_with_what_to_do() -> None:
    rows, labels = table(missing=0.0)
    texts = rows.astype(object)
    texts[:, 0] = [f"kind {code:g}" for code in rows[:, 0]]
    fitted = make_pipeline(encoded(), GradientBoostingClassifier(n_estimators=5)).fit(texts, labels)
    with pytest.raises(UsageError, match="encodes texts, and an artifact takes numbers: give the column a number"):
        load(fitted)


def test_a_category_that_goes_the_wrong_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is planted: a missing value goes where an unknown one goes not."""
    from featherweight.core.doors.columns import Columns

    asked = Columns.of_categories
    monkeypatch.setattr(
        Columns, "of_categories", lambda self, column: asked(self, column)[[1, 0, *range(2, len(asked(self, column)))]]
    )
    rows, labels = table()
    fitted = PIPELINES["one-hot and boosting"]().fit(rows, labels)
    with pytest.raises(UsageError, match="do not score as Pipeline does"):
        load(fitted)
