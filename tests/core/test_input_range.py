"""The range of a program's inputs: stated by the evidence that is sealed, kept by the front door."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

import featherweight
from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, encode
from featherweight.core.sealing import _input_range
from featherweight.core.task import SealedFiles
from tests.fakes import TreesTask
from tests.fraud.artifacts import trees_program

NAMES = ("customer_amount_z_30d", "amount", "hour", "terminal_risk_1d_delayed", "is_night", "customer_count_1d")
STATED = (
    "features: any finite number for customer_amount_z_30d; features: 0 or more for amount, customer_count_1d; "
    "features: 0 to 24 for hour; features: 0 to 1 for terminal_risk_1d_delayed, is_night; NaN where a value is missing"
)
RECIPE = """
version = 1
name = "rated"
[source]
task = "rated"
[[step]]
kind = "prune-trees"
ratio = 0.5
calibration_samples = 1000
[measure]
backends = ["onnxruntime"]
repetitions = 5
[limits]
average_precision_loss = 0.05
flip_ratio_max = 0.05
"""


def fraud_files(features: bytes | None = None) -> SealedFiles:
    schema = encode(FeatureSchema(names=NAMES, reference_values=(1.0,) * len(NAMES)))
    rule = DecisionRule(slope=1.0, intercept=0.0, review_threshold=0.5, decline_threshold=0.9, chosen_for="tests")
    files = {"features.json": features or schema, "decision.json": encode(rule)}
    return SealedFiles("fraud", ("legitimate", "fraud"), files, "made up")


class RatedTask(TreesTask):
    """Rows that are sealed as features of the fraud app."""

    def seal(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[SealedFiles, float]:
        return fraud_files(), float(np.quantile(scores, 1 - labels.mean()))


def test_page_and_front_door_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(RECIPE)
    stages: list[str] = []
    outcome = featherweight.optimize(
        "recipe.toml", "model", task=RatedTask(), progress=lambda stage, done, total: stages.append(stage)
    )
    assert stages
    evidence = featherweight.read_evidence("model")
    assert evidence.facts["input range"] == STATED
    assert STATED in evidence.page
    assert STATED in outcome.artifact.documents["CHANGE_RECORD.md"].decode()
    with featherweight.open_model("model") as model:
        assert f"input range: {STATED}" in str(model.describe())
        assert len(model.predict(np.ones((2, len(NAMES))))) == 2
        with pytest.raises(featherweight.TensorError, match="column 'hour': found values from 25 to 25"):
            model.run(np.array([[1, 1, 25, 0, 0, 1]], np.float32))


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        (fraud_files(), STATED),
        (SealedFiles("nobody", ("a", "b"), {}, "made up"), "not stated by the app"),
        (fraud_files(b"{}"), "not stated: features.json"),
    ],
)
def test_a_range_that_is_not_known_is_said_so(sealed: SealedFiles, said: str) -> None:
    """And no candidate is lost by it."""
    best = SimpleNamespace(sealed=sealed, run=SimpleNamespace(program=trees_program(len(NAMES))))
    assert _input_range(cast(Any, best)).startswith(said)


def test_a_recipe_that_is_wrong_is_told_before_the_task_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(RECIPE.replace("ratio = 0.5", "ratio = 2"))
    with pytest.raises(featherweight.RecipeError, match="ratio"):
        featherweight.optimize("recipe.toml", "model", task=RatedTask())
    Path("recipe.toml").write_text(RECIPE)
    with pytest.raises(featherweight.RecipeError, match="rated"):  # no app has this task, and none is given
        featherweight.optimize("recipe.toml", "model")
    with pytest.raises(featherweight.UsageError, match="cannot be read"):
        featherweight.optimize("none.toml", "model", task=RatedTask())
    assert not Path("model").exists()
