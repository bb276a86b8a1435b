"""Small fitted models of every kind, and the rows that they were fitted on."""

from __future__ import annotations

import functools
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import xgboost
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

FEATURES = 5


@functools.cache
def rows_and_labels(missing: float = 0.05) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    rows = generator.normal(3, 2, size=(1200, FEATURES)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] / 3 + generator.normal(0, 1, 1200) > 6).astype(np.int64)
    rows[generator.random(rows.shape) < missing] = np.nan
    return rows, labels


def _with_number_for_missing() -> Any:
    rows, labels = rows_and_labels()
    model = xgboost.XGBClassifier(n_estimators=12, max_depth=3, missing=-999.0, n_jobs=1)
    return model.fit(np.nan_to_num(rows, nan=-999.0), labels)


def _stopped_early() -> Any:
    rows, labels = rows_and_labels()
    model = xgboost.XGBClassifier(n_estimators=80, learning_rate=0.8, max_depth=5, early_stopping_rounds=3, n_jobs=1)
    model.fit(rows[:700], labels[:700], eval_set=[(rows[700:], labels[700:])], verbose=False)
    assert model.best_iteration < len(model.get_booster().get_dump()) - 1
    return model


def _booster() -> Any:
    rows, labels = rows_and_labels()
    names = [f"c{place}" for place in range(FEATURES)]
    data = lightgbm.Dataset(rows, labels, feature_name=names)
    return lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 12)


MODELS: dict[str, Any] = {
    "LightGBM Booster": _booster,
    "LGBMClassifier": lambda: lightgbm.LGBMClassifier(n_estimators=12, verbosity=-1, n_jobs=1).fit(*rows_and_labels()),
    "XGBClassifier": lambda: xgboost.XGBClassifier(n_estimators=12, max_depth=3, n_jobs=1).fit(*rows_and_labels()),
    "XGBClassifier that stopped early": _stopped_early,
    "XGBClassifier that reads a number as missing": _with_number_for_missing,
    "random forest": lambda: RandomForestClassifier(20, max_depth=5, random_state=0).fit(*rows_and_labels(0)),
    "extra trees": lambda: ExtraTreesClassifier(20, max_depth=5, random_state=0).fit(*rows_and_labels(0)),
    "decision tree": lambda: DecisionTreeClassifier(max_depth=6, random_state=0).fit(*rows_and_labels(0)),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=12).fit(*rows_and_labels(0)),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=12).fit(*rows_and_labels()),
    "logistic regression": lambda: LogisticRegression().fit(*rows_and_labels(0)),
    "SGD of log loss": lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(
        *rows_and_labels(0)
    ),
    "network": lambda: make_pipeline(
        StandardScaler(), MLPClassifier((8,), tol=10, n_iter_no_change=3, random_state=0)
    ).fit(*rows_and_labels(0)),
    "support vectors": lambda: make_pipeline(StandardScaler(), LinearSVC()).fit(*rows_and_labels(0)),
    "imputed and scaled regression": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(
        *rows_and_labels()
    ),
    "imputed and scaled boosting": lambda: make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), GradientBoostingClassifier(n_estimators=12)
    ).fit(*rows_and_labels()),
    "scaled LGBMClassifier": lambda: make_pipeline(
        MinMaxScaler(), lightgbm.LGBMClassifier(n_estimators=12, verbosity=-1, n_jobs=1)
    ).fit(*rows_and_labels()),
    "imputed forest": lambda: make_pipeline(
        SimpleImputer(), RandomForestClassifier(20, max_depth=5, random_state=0)
    ).fit(*rows_and_labels()),
}
NO_MISSING = {
    "decision tree",
    "network",
    "random forest",
    "extra trees",
    "gradient boosting",
    "logistic regression",
    "SGD of log loss",
    "support vectors",
}


def calibrated() -> Any:
    """Histogram boosting with Platt's calibration behind it."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    rows, labels = rows_and_labels()
    inner = HistGradientBoostingClassifier(max_iter=12).fit(rows[:600], labels[:600])
    return CalibratedClassifierCV(FrozenEstimator(inner), method="sigmoid").fit(rows[600:], labels[600:])


MODELS["calibrated boosting"] = calibrated
