"""The fraud app's side of `featherweight optimize`, from its recipe's [source] to a sealed artifact that scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featherweight.apps.fraud.sealed import decode_rule
from featherweight.apps.fraud.synthetic import write_synthetic
from featherweight.apps.fraud.training import models as models
from featherweight.apps.fraud.training.calibration import raw_threshold
from featherweight.apps.fraud.training.command import run_training
from featherweight.apps.fraud.training.description import SplitDays
from featherweight.apps.fraud.training.fit import margins
from featherweight.apps.fraud.training.models import LightGBM, ModelSettings, Network
from featherweight.apps.fraud.training.split import READERS, Split, read_parts
from featherweight.apps.fraud.training.task import REFERENCES, FraudTask, open_task
from featherweight.apps.fraud.training.trained import read_trained
from featherweight.core.artifact.store import read_artifact
from featherweight.core.errors import DataError, UsageError
from featherweight.core.evidence.judge import Limits
from featherweight.core.optimize import optimize
from featherweight.core.passes.steps import PruneTreesStep, QuantizeStep, Step
from featherweight.core.recipe import Choices, Measure, Recipe, Source, read_recipe
from featherweight.core.record.training import training_notes
from featherweight.core.serving import ModelSource

RECIPES = Path("apps/fraud/recipes")
LAYOUT = SplitDays(train_days=8, delay_days=3, validation_days=5, test_days=5)
SOURCE = {"model": "nowhere", "data": "nothing", "reader": "records"}


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_synthetic(folder, 150, 150, 30, seed=0, form="parquet")
    return folder


@pytest.fixture(scope="module")
def parts(cards: Path) -> Split:
    return read_parts(str(cards), "records", LAYOUT, models.COLUMNS)


def train(cards: Path, out: Path, kind: str, settings: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.HISTORIES, kind, settings)
    run_training(
        data=str(cards),
        reader="records",
        out=out,
        model=kind,
        layout=LAYOUT,
        alerts_per_day=8,
        seed=0,
        report_test=True,
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"modell": "x"}, "unknown field `modell`"),
        ({"model": 5}, r"Expected `str`, got `int` - at `\$.model`"),
        ({"batch": 0}, r"`int` >= 1 - at `\$.batch`"),
    ],
)
def test_mistakes_in_source_name_the_key(change: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_task({**SOURCE, **change})
    with pytest.raises(UsageError, match="missing required field `data`; its keys are model, data, reader, batch"):
        open_task({"model": "nowhere", "reader": "records"})
    with pytest.raises(DataError, match=r"no training\.json; .* fraud train --data \S+ --format \S+ --out \S+$"):
        open_task(SOURCE)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_are_sound(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.source.task == "fraud"
    assert not recipe.card or Path(recipe.card).is_file()


def test_a_sealed_model_scores_as_it_was_judged(
    cards: Path, parts: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "model", tmp_path / "artifact"
    train(cards, folder, "lightgbm", LightGBM(members=2, trees=15, leaves=8), monkeypatch)
    task = FraudTask(read_trained(folder), parts, notes=training_notes(folder))
    steps: tuple[Step, ...] = (PruneTreesStep(ratio=0.3), QuantizeStep(precision="int8"))
    recipe = Recipe(
        "test",
        Source("fraud", tuple(sorted(SOURCE.items()))),
        tuple(Choices(step) for step in steps),
        Measure(backends=("onnxruntime",), repetitions=3),
        Limits(flip_ratio_max=0.2),
    )
    optimize(recipe, task, out, work=tmp_path / "work")
    artifact = read_artifact(out)
    told = json.loads(artifact.evidence["evidence.json"])["warnings"]
    assert task.notes
    assert set(task.notes) <= set(told) & set(artifact.manifest.notes), "training told figures of the test cases"
    assert artifact.sealed["features.json"] == (folder / "features.json").read_bytes()
    rule = decode_rule(artifact.sealed["decision.json"])
    assert rule.chosen_for.startswith("8 alerts a day")
    with ModelSource(out).open(artifact) as opened:
        scores = opened.session.run({"features": parts.validation.features})["score"][:, 0].astype(np.float64)
    assert (scores >= raw_threshold(rule)).sum() == pytest.approx(40, abs=6)  # leaves in int8 make ties
    assert np.corrcoef(scores, margins(task.trained.model, parts.validation.features))[0, 1] > 0.98


def test_what_the_task_provides(cards: Path, parts: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(cards, tmp_path, "network", Network(width=8, layers=1, epochs=6, batch=64, learning_rate=0.02), monkeypatch)
    task = FraudTask(read_trained(tmp_path), parts, batch=100, reference=REFERENCES["records"])
    first, again, other = (next(iter(task.training_batches(epoch, 0)))[0] for epoch in (0, 0, 1))
    assert first.shape == (100, len(models.COLUMNS))
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)

    batches = [batch["features"] for batch in task.calibration_batches(300, seed=1)]
    assert sum(map(len, batches)) == 300
    rows = {row.tobytes() for row in parts.train.features}
    assert all(row.tobytes() in rows for batch in batches for row in batch)

    reference = task.reference_inputs(64, seed=1)["features"]
    assert np.array_equal(reference, task.reference_inputs(64, seed=1)["features"], equal_nan=True)
    assert not rows & {row.tobytes() for row in reference}, "a reference input is somebody's transaction"
    for drawn, trained in zip(reference.T, parts.train.features.T, strict=True):
        assert np.isin(np.nan_to_num(drawn), np.nan_to_num(trained)).all()

    validation, test = task.validation_cases(), task.test_cases()
    assert np.array_equal(validation.clusters, parts.validation.customers)
    assert validation.alerts is not None
    assert (validation.cluster_noun, validation.cross_cluster_noun) == ("cards", "terminals")
    stated = task.data_statement()
    assert stated.reference_standard == REFERENCES["records"][0]
    assert "not stated" in stated.reference_standard, "nobody knows who labelled one's own files"
    assert stated.training is not None
    assert stated.training.cases == len(parts.train)
    assert stated.training.positives == int((parts.train.labels == 1).sum())
    assert set(REFERENCES) == set(READERS)
    assert validation.alerts.per_day == 8
    assert np.array_equal(validation.alerts.days, parts.validation.days)
    amounts, bands = parts.validation.features[:, models.COLUMNS.index("amount")], validation.groups["amount"]
    assert np.array_equal(bands == "10 to 50", (amounts >= 10) & (amounts < 50))
    assert np.array_equal(bands == "below 10", amounts < 10)
    (view,) = task.show("test", [3])
    assert view.columns["amount"] == f"{parts.test.features[3, models.COLUMNS.index('amount')]:.6g}"
    assert not set(validation.ids) & set(test.ids)
    scores = margins(task.trained.model, parts.validation.features)
    np.testing.assert_allclose(task.scores({"score": scores[:, None]}), scores)
    sealed, threshold = task.seal(scores, parts.validation.labels)
    assert (scores >= threshold).sum() == 40
    assert decode_rule(sealed.files["decision.json"]) == task.trained.rule
    assert threshold == pytest.approx(task.positive_threshold)
    assert decode_rule(task.seal_unchanged().files["decision.json"]) == task.trained.rule


def test_another_form_of_data_is_refused(cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(cards, tmp_path, "logistic", models.Logistic(), monkeypatch)
    task = open_task({"model": str(tmp_path), "data": str(cards), "reader": "records"})
    assert len(task.validation_cases().labels) == len(task.parts.validation)
    given = replace(task.parts, names=("a", "b"))
    monkeypatch.setattr("featherweight.apps.fraud.training.task.read_parts", lambda *_: given)
    with pytest.raises(UsageError, match="trained on 19 other columns"):
        open_task({"model": str(tmp_path), "data": str(cards), "reader": "ulb"})
