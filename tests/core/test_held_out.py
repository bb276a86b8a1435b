"""Cases that nothing can judge are refused before a model is exported, timed or trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError, FeatherweightError
from core.optimize import optimize
from core.recipe import parse_recipe
from core.task import HeldOut, check_held_out
from core.tensors import Tensors
from tests.core.recipes import recipe_head
from tests.fakes import INPUTS, SquaresTask

STEPS = """
[[step]]
kind = "prune-channels"
ratio = 0.5
[[step]]
kind = "recover"
epochs = 1
"""
RECIPE = recipe_head("squares", "auc_loss = 0.03") + STEPS
CASES = SquaresTask(40).choosing()
MANY = np.arange(40) % 9
WRONG = [
    ({"labels": MANY}, r"9 different labels \(0, 1, 2, 3, 4, 5, 6, 7, 8\), expected 0 and 1"),
    ({"labels": np.stack([CASES.labels, CASES.labels], axis=1)}, r"labels int64 \[40, 2\], expected one whole number"),
    ({"labels": CASES.labels[:, None]}, r"labels int64 \[40, 1\]"),
    ({"labels": CASES.labels * 37.5}, r"labels float64 \[40\]"),
    ({"labels": np.where(CASES.labels == 1, "yes", "no")}, r"labels <U3 \[40\]"),
    ({"labels": CASES.labels - 1}, r"2 different labels \(-1, 0\)"),
    ({"labels": CASES.labels[:0]}, "there are no validation cases"),
    ({"ids": CASES.ids[:39]}, "40 labels but 39 ids"),
    ({"groups": {"site": np.array(["north"] * 41)}}, "40 labels but 41 group 'site'"),
    ({"clusters": np.arange(3)}, "40 labels but 3 clusters"),
    ({"tensors": {"image": CASES.tensors["image"][:7]}}, "40 labels but inputs for 7"),
    ({"tensors": {"image": CASES.tensors["image"][:, :, ::2]}}, "do not fit the model's inputs"),
]


@pytest.mark.parametrize(("changed", "told"), WRONG)
def test_cases_that_cannot_be_judged(changed: dict[str, object], told: str) -> None:
    check_held_out(CASES, INPUTS, "validation")
    with pytest.raises(DataError, match=told):
        check_held_out(replace(CASES, **changed), INPUTS, "validation")  # type: ignore[arg-type]


class NineClasses(SquaresTask):
    def choosing(self) -> HeldOut:
        return replace(super().choosing(), labels=np.arange(self.cases) % 9)


class ManyScores(SquaresTask):
    def scores(self, outputs: Tensors) -> np.ndarray:
        return outputs["logit"].astype(np.float64)


@pytest.mark.parametrize(
    ("task", "told"), [(NineClasses(), "9 different labels"), (ManyScores(), r"\[400, 1\] for 400 cases")]
)
def test_they_are_refused_before_anything_is_trained(task: SquaresTask, told: str, tmp_path: Path) -> None:
    with pytest.raises(FeatherweightError, match=told):
        optimize(parse_recipe(RECIPE), task, tmp_path / "a", work=tmp_path / "work")
    assert not list((tmp_path / "work").glob("recovered-*"))
    if isinstance(task, NineClasses):
        assert not (tmp_path / "work").exists(), "something was exported before the labels were looked at"
