"""What a pipeline or a library does to rows that a program could not do: refused, not left out in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PowerTransformer, StandardScaler

import featherweight

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(300, 3))
LABELS = (ROWS[:, 0] + 0.3 * RNG.normal(size=300) > 0).astype(np.int64)
CODES = RNG.integers(0, 4, (300, 2)).astype(np.float64)


def fitted(*steps: Any, rows: Any = ROWS) -> Any:
    return make_pipeline(*steps).fit(rows, LABELS)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fitted(MinMaxScaler(clip=True), LogisticRegression()), "clip=True"),
        (lambda: fitted(make_pipeline(MinMaxScaler(clip=True)), LogisticRegression()), "clip=True"),
        (lambda: fitted(StandardScaler(), xgboost.XGBClassifier(n_estimators=2, missing=-999.0)), "-999 as missing"),
        (lambda: fitted(PowerTransformer("box-cox"), LogisticRegression(), rows=np.abs(ROWS) + 1), "cannot be asked"),
        (lambda: make_pipeline(StandardScaler(), LogisticRegression()), "is it fitted"),
    ],
)
def test_what_a_program_could_not_do_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(featherweight.UsageError, match=said):
        featherweight.load(make())


def test_categories_that_a_library_numbers_itself_are_refused_unless_they_are_their_numbers() -> None:
    data = lightgbm.Dataset(CODES, LABELS, categorical_feature=[0])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, data, 2)
    booster.pandas_categorical = [[1, 2, 3, 4]]
    with pytest.raises(featherweight.UsageError, match="train on the codes"):
        featherweight.load(booster)
    booster.pandas_categorical = [[0, 1, 2, 3]]
    assert featherweight.load(booster).meaning == "binary"


def test_encoded_columns_alone_are_read_and_labels_are_no_yes_or_no() -> None:
    encoded = fitted(OneHotEncoder(handle_unknown="ignore"), RandomForestClassifier(3, random_state=0), rows=CODES)
    assert featherweight.load(encoded).meaning == "binary"
    several = xgboost.XGBClassifier(n_estimators=2).fit(ROWS, np.stack([LABELS, 1 - LABELS], axis=1))
    assert featherweight.load(several).meaning == "labels"


@pytest.mark.parametrize("stated", [5, "codes", [5], [None], {"x": [0, 1]}])
def test_a_dump_that_states_no_list_of_categories_is_refused(tmp_path: Path, stated: object) -> None:
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(ROWS, LABELS), 2)
    (tmp_path / "m.json").write_text(json.dumps({**booster.dump_model(), "pandas_categorical": stated}))
    with pytest.raises(featherweight.UsageError, match="train on the codes"):
        featherweight.load(str(tmp_path / "m.json"))
