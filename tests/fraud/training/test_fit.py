from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score
from torch import nn

from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema
from featherweight.apps.fraud.synthetic import write_synthetic
from featherweight.apps.fraud.training import models as models
from featherweight.apps.fraud.training.command import run_training
from featherweight.apps.fraud.training.description import SplitDays, Training, read_training
from featherweight.apps.fraud.training.fit import average, fit, margins
from featherweight.apps.fraud.training.models import (
    Forest,
    HistGradientBoosting,
    LightGBM,
    Logistic,
    ModelSettings,
    Network,
    XGBoost,
)
from featherweight.apps.fraud.training.split import Split, read_parts
from featherweight.apps.fraud.training.trained import Trained, read_trained, write_trained
from featherweight.core.errors import DataError, FeatherweightError, OutputError, UsageError
from featherweight.core.trees.ensemble import Ensemble
from featherweight.core.trees.predict import predict

COLUMNS = 4
SMALL: dict[str, ModelSettings] = {
    "xgboost": XGBoost(members=2, trees=8, depth=3),
    "lightgbm": LightGBM(members=2, trees=8, leaves=6),
    "forest": Forest(trees=8, depth=4, max_features=2),
    "hist-gradient-boosting": HistGradientBoosting(members=2, trees=8, leaves=6),
    "logistic": Logistic(),
    "network": Network(width=8, layers=1, epochs=4, batch=64, learning_rate=0.02),
}
LAYOUT = SplitDays(train_days=6, delay_days=3, validation_days=5, test_days=4)


def draw(count: int = 1500, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Fraud where column 0 is high; column 1 is often missing, 2 is noise of another scale, 3 is never there."""
    generator = np.random.default_rng(seed)
    features = generator.normal(0, 1, (count, COLUMNS)).astype(np.float32)
    labels = (features[:, 0] + 0.3 * generator.normal(size=count) > 1).astype(np.int64)
    features[generator.random(count) < 0.6, 1] = np.nan
    features[:, 2] *= 1e4
    features[:, 3] = np.nan
    return features, labels


def test_the_settings_are_the_closed_set() -> None:
    assert SMALL.keys() == models.HISTORIES.keys() == models.CARDS.keys()
    for name, settings in (models.HISTORIES | models.CARDS).items():
        assert type(settings) is type(SMALL[name])


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_learns_survives_the_disk_and_repeats(kind: str, tmp_path: Path) -> None:
    features, labels = draw()
    fitted = fit(SMALL[kind], features, labels, seed=3)
    fresh, truth = draw(seed=1)
    scores = margins(fitted, fresh)
    assert np.isfinite(scores).all()
    assert roc_auc_score(truth, scores) > 0.95
    np.testing.assert_array_equal(margins(fit(SMALL[kind], features, labels, seed=3), fresh), scores)

    trained = trained_with(fitted, SMALL[kind])
    write_trained(tmp_path, trained)
    again = read_trained(tmp_path)
    assert (again.schema, again.rule, again.training) == (trained.schema, trained.rule, trained.training)
    np.testing.assert_array_equal(margins(again.model, fresh), scores)
    assert again.core_model().inputs[0].shape == (None, COLUMNS)
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob("*.pkl"))


def trained_with(fitted: Ensemble | nn.Module, settings: ModelSettings) -> Trained:
    training = Training(settings=settings, layout=LAYOUT, alerts_per_day=10, seed=3, source="a test")
    schema = FeatureSchema(source="given", names=tuple("abcd"), reference_values=(0.0, 0.0, 0.0, None))
    rule = DecisionRule(slope=1, intercept=0, review_threshold=0.5, decline_threshold=0.9, chosen_for="a test")
    return Trained(fitted, schema, rule, training)


def test_an_average_gives_the_mean_margin() -> None:
    features, labels = draw()
    members = [fit(XGBoost(members=1, trees=5), features, labels, seed=seed) for seed in (1, 2, 3)]
    trees = [member for member in members if isinstance(member, Ensemble)]
    wanted = np.mean([predict(member, features) for member in trees], axis=0)
    np.testing.assert_allclose(predict(average(trees), features), wanted, atol=1e-5)
    assert np.abs(wanted - predict(trees[0], features)).max() > 1e-2


def test_one_class_is_no_training_set() -> None:
    features, _ = draw(50)
    for labels in (np.zeros(50, np.int64), np.ones(50, np.int64)):
        with pytest.raises(DataError, match=r"50 transactions, (0|50) of them fraud"):
            fit(Logistic(), features, labels)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("trees.safetensors", b"garbage"),
        ("trees.safetensors", None),
        ("decision.json", b"{}"),
        ("features.json", b'{"names": ["a"], "typical": [0]}'),
        ("training.json", b"[]"),
        ("training.json", None),
        ("decision.json", b"\xff\xfe"),
        ("training.json", b"[" * 100_000),
        ("features.json", None),
    ],
)
def test_a_damaged_folder_is_one_clear_error(file: str, content: bytes | None, tmp_path: Path) -> None:
    settings = XGBoost(members=1, trees=2)
    write_trained(tmp_path, trained_with(fit(settings, *draw(200)), settings))
    read_trained(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=r"train it again|fraud train"):
        read_trained(tmp_path)


def test_files_of_two_trainings_are_not_one_model(tmp_path: Path) -> None:
    """As a process leaves them that is killed while it writes over an earlier model."""
    settings = XGBoost(members=1, trees=2)
    trained = trained_with(fit(settings, *draw(200)), settings)
    write_trained(tmp_path / "a", trained)
    rule = DecisionRule(slope=1, intercept=0, review_threshold=0.6, decline_threshold=0.9, chosen_for="another")
    write_trained(tmp_path / "b", Trained(fit(settings, *draw(300)), trained.schema, rule, trained.training))
    for name in ("trees.safetensors", "decision.json"):
        shutil.copytree(tmp_path / "a", tmp_path / "mixed", dirs_exist_ok=True)
        shutil.copy(tmp_path / "b" / name, tmp_path / "mixed")
        with pytest.raises(DataError, match=f"{name} is not the file that was written with the others"):
            read_trained(tmp_path / "mixed")


def test_a_model_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    for settings in (XGBoost(members=1, trees=2), Network(epochs=1)):
        trained = trained_with(fit(settings, *draw(200)), settings)
        (tmp_path / "decision.json").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="the model cannot be written"):
            write_trained(tmp_path, trained)
        assert not list(tmp_path.glob(".*.partial"))


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_synthetic(folder, 100, 100, 28, seed=0, form="parquet")
    return folder


def test_the_parts_lie_apart_by_the_delay(cards: Path) -> None:
    parts = read_parts(str(cards), "records", LAYOUT, models.COLUMNS)
    spans = [(part.days.min(), part.days.max()) for part in (parts.train, parts.validation, parts.test)]
    last = spans[2][1]
    assert spans == [(last - 20, last - 15), (last - 11, last - 7), (last - 3, last)]
    assert parts.train.features.shape == (len(parts.train), len(models.COLUMNS))
    known = set(parts.train.customers[parts.train.labels == 1].tolist())
    assert known
    assert not known & set(parts.test.customers.tolist())


@pytest.mark.parametrize(
    ("layout", "reader", "error", "told"),
    [
        (SplitDays(train_days=90), "records", DataError, "the data begins on 2018-04-01, but 90 training days"),
        (SplitDays(until="2019-01-01"), "records", DataError, r"the data ends on 2018-04-28, before --until"),
        (SplitDays(until="soon"), "records", UsageError, "'soon' is not a day"),
        (LAYOUT, "csv", UsageError, "one of handbook, records, ulb"),
        (LAYOUT, "handbook", DataError, "cannot be read|not a sound"),
    ],
)
def test_what_cannot_be_split_is_told_in_words(
    cards: Path, layout: SplitDays, reader: str, error: type[FeatherweightError], told: str
) -> None:
    with pytest.raises(error, match=told):
        read_parts(str(cards), reader, layout, models.COLUMNS)


def test_a_row_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text("")
    (tmp_path / "transactions.jsonl").write_text('{"transaction_id": 5}\n')
    with pytest.raises(DataError, match=r"transactions.jsonl:1: has no field customer_id"):
        read_parts(str(tmp_path), "records", LAYOUT, models.COLUMNS)
    (tmp_path / "labels.jsonl").unlink()
    with pytest.raises(DataError, match=r"no labels.jsonl, no labels.csv, no labels.parquet"):
        read_parts(str(tmp_path), "records", LAYOUT, models.COLUMNS)


def test_the_command_trains_and_reports(cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.HISTORIES, "lightgbm", SMALL["lightgbm"])
    summary = run_training(
        data=str(cards),
        reader="records",
        out=tmp_path / "model",
        model="lightgbm",
        layout=LAYOUT,
        alerts_per_day=5,
        seed=0,
        report_test=True,
    )
    assert summary["validation"]["alerts_a_day"] == pytest.approx(5, abs=1)  # few small trees give ties
    assert summary["validation"]["roc_auc"] > 0.6
    assert summary.keys() == {"model", "train", "validation", "test"}
    assert json.loads((tmp_path / "model" / "metrics.json").read_text()) == summary
    trained = read_trained(tmp_path / "model")
    assert trained.schema.names == models.COLUMNS
    assert trained.schema.reference_values[models.COLUMNS.index("terminal_fraud_streak_days")] is None
    assert msgspec.json.decode((tmp_path / "model" / "training.json").read_bytes())["settings"]["type"] == "lightgbm"
    parts: Split = read_parts(str(cards), "records", trained.training.layout, trained.schema.names)
    figures = margins(trained.model, parts.test.features)
    assert roc_auc_score(parts.test.labels, figures) == pytest.approx(summary["test"]["roc_auc"])


def test_a_folder_whose_name_is_too_long_holds_no_model() -> None:
    with pytest.raises(DataError, match=r"no training\.json"):
        read_training(Path("x" * 5000))
