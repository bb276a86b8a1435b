"""Every threshold that the app acts on is judged, whether the model brings it or it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featherweight
from featherweight.core.bundled import data_directory
from featherweight.core.compare.outcomes import Decides, choose_thresholds, make_alike
from featherweight.core.compare.request import parse_thresholds
from featherweight.core.errors import UsageError
from featherweight.core.thresholds import Outcomes

FRAUD = Decides(0.5, Outcomes(("approve", "review", "decline"), (0.5, 3.0)))


def scored(count: int = 4000):
    generator = np.random.default_rng(0)
    labels = (generator.random(count) < 0.2).astype(int)
    return labels, generator.normal(size=count) + 2.5 * labels


def test_declines_that_all_vanish_are_refused(tmp_path: Path) -> None:
    """No score passes the upper threshold any more; at the lower one nothing changes, and hardly in the ranking."""
    labels, old = scored()
    new = np.minimum(old, 2.99)
    ids = np.arange(len(labels))
    asked = {
        "data": {"id": ids, "y": labels},
        "label": "y",
        "limits": {"auc_loss": 0.05, "sensitivity_loss": 0.01, "flip_ratio_max": 0.01},
        "out": tmp_path / "v",
        "show_test": True,
    }
    before, after = {"id": ids, "score": old}, {"id": ids, "score": new}
    assert featherweight.compare(before, after, threshold=1.5, **asked).passed
    found = featherweight.compare(before, after, threshold={"review": 1.5, "decline": 3.0}, **asked)
    missed = {check.name: check.explanation for check in found.checks if check.status != "passed"}
    assert set(missed) == {"sensitivity_loss", "flip_ratio_max"}
    assert missed["sensitivity_loss"].startswith("At the threshold of decline")
    document = json.loads(found.document.read_text())
    assert document["given"]["outcomes"]["names"] == ["negative", "review", "decline"]


def test_the_declines_of_an_artifact_are_judged(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    model = data_directory() / "models/card-fraud"
    with featherweight.open_model(model) as opened:
        names = [one.name for one in opened.describe().ranges]
        values = np.random.default_rng(2).random((600, len(names)))
        scores = opened.predict(values).scores
    data = {"id": range(600), "y": [0, 1] * 300, **{name: values[:, k] for k, name in enumerate(names)}}
    asked = {"data": data, "label": "y", "limits": {"flip_ratio_max": 0.05}, "out": tmp_path / "v"}
    found = featherweight.compare(model, model, **asked)
    assert found.passed
    document = json.loads(found.document.read_text())
    assert document["given"]["outcomes"]["names"] == ["approve", "review", "decline"]
    assert found.evidence is not None
    decline = found.evidence.validation.baseline.predictions.all_outcomes.thresholds[1]
    vanished = {"id": range(600), "score": np.minimum(scores, decline - 1e-6)}
    with pytest.raises(UsageError, match=r"different outcomes .*: --threshold-a NAME=VALUE|the same names"):
        featherweight.compare(model, vanished, threshold=(None, 0.5), **asked)
    with pytest.raises(UsageError, match="acts on 2 thresholds, and all of them are judged"):
        featherweight.compare(model, vanished, threshold=0.5, **asked)
    own = found.evidence.validation.baseline.predictions.all_outcomes
    table = dict(zip(own.names[1:], own.thresholds, strict=True))
    changed = int((scores >= decline).sum())
    told = featherweight.compare(model, vanished, threshold=(None, table), show_test=True, **asked)
    moves = json.loads(told.document.read_text())["given"]["outcomes"]["moves"]
    assert moves[2][1] == changed


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        (2.0, None, Decides(2.0)),
        (None, FRAUD, FRAUD),
        ({"decline": 4.0, "review": 1.0}, FRAUD, Decides(1.0, Outcomes(("approve", "review", "decline"), (1.0, 4.0)))),
        ({"b": 2.0, "a": 1.0}, None, Decides(1.0, Outcomes(("negative", "a", "b"), (1.0, 2.0)))),
        (None, Decides(7.0), Decides(7.0)),
    ],
)
def test_which_thresholds_are_taken(given, own, expected) -> None:
    assert choose_thresholds("m", "--threshold-a", given, None, own) == expected


def test_the_threshold_in_force_is_for_models_of_one_threshold() -> None:
    assert choose_thresholds("m", "--threshold-a", None, 9.0, Decides(7.0)) == Decides(9.0)
    assert choose_thresholds("m", "--threshold-a", None, 9.0, FRAUD) == FRAUD


@pytest.mark.parametrize(
    ("given", "own"),
    [(1.0, FRAUD), ({"review": 1.0}, FRAUD), ({}, None), ({"negative": 1.0}, None), ({"": 1.0}, None), (None, None)],
)
def test_some_thresholds_of_several_are_not_enough(given, own) -> None:
    with pytest.raises(UsageError, match="threshold"):
        choose_thresholds("m", "--threshold-a", given, None, own)


def test_both_models_act_on_the_same_outcomes() -> None:
    table = Decides(1.0, Outcomes(("negative", "review", "decline"), (1.0, 2.0)))
    first, second = make_alike(FRAUD, table, ("a", "b"))
    assert first.names == second.names == ("approve", "review", "decline")
    with pytest.raises(UsageError, match="a on review, decline and b on positive"):
        make_alike(FRAUD, Decides(1.0), ("a", "b"))
    swapped = Decides(1.0, Outcomes(("negative", "decline", "review"), (1.0, 2.0)))
    with pytest.raises(UsageError, match="rising in the same order"):
        make_alike(FRAUD, swapped, ("a", "b"))


@given(st.dictionaries(st.text("abc=._ ", min_size=1, max_size=5), st.floats(-1e30, 1e30), min_size=1, max_size=4))
def test_named_thresholds_are_read_as_they_are_written(values) -> None:
    names = {name.strip() for name in values}
    texts = [f"{name}={value!r}" for name, value in values.items()]
    if "" in names or len(names) < len(values):
        with pytest.raises(UsageError):
            parse_thresholds("--threshold", texts)
    else:
        assert parse_thresholds("--threshold", texts) == {name.strip(): value for name, value in values.items()}


@given(st.lists(st.text(max_size=12), max_size=3))
def test_any_texts_are_thresholds_or_refused(texts) -> None:
    try:
        parse_thresholds("--threshold", texts)
    except UsageError as error:
        assert "--threshold" in str(error)  # noqa: PT017  (most texts are refused, some are not)
