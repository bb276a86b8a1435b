"""[limits] with its table of groups, prevalence and columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featherweight.core.errors import RecipeError, UsageError
from featherweight.core.evidence.metrics import Limits
from featherweight.core.recipe import parse_recipe, read_limits, render_recipe
from featherweight.core.recipe.limits import parse_limits

HEAD = 'version = 1\nname = "x"\n[source]\ntask = "fraud"\n[[step]]\nkind = "quantize"\nprecision = "int8"\n[limits]\n'


def test_groups_and_prevalence_are_read_and_rendered_back():
    text = (
        HEAD
        + "auc_min = 0.9\nppv_loss = 0.1\nprevalence = 0.02\n[limits.groups]\nauc_loss = 0.05\ncolumns = ['site']\n"
    )
    recipe = parse_recipe(text, "recipe.toml")
    expected = Limits(auc_min=0.9, ppv_loss=0.1, prevalence=0.02, group_columns=("site",), **{"groups.auc_loss": 0.05})
    assert recipe.limits == expected
    assert parse_recipe(render_recipe(recipe), "again").limits == expected


REASONS = (
    '[reasons]\n"groups.auc_loss" = "why in groups"\nauc_loss = "why"\n',
    '[reasons]\nauc_loss = "why"\n[reasons.groups]\nauc_loss = "why in groups"\n',
    '[reasons]\nauc_loss = "why"\ngroups.auc_loss = "why in groups"\n',
)


@pytest.mark.parametrize("reasons", REASONS)
def test_reasons_of_limits_on_groups_are_read_and_rendered_back(reasons: str):
    recipe = parse_recipe(HEAD + "auc_loss = 0.01\n[limits.groups]\nauc_loss = 0.05\n" + reasons)
    assert dict(recipe.reasons) == {"auc_loss": "why", "groups.auc_loss": "why in groups"}
    again = parse_recipe(render_recipe(recipe))
    assert (again, again.sha256) == (recipe, recipe.sha256)


def test_a_limit_that_is_set_twice_is_refused(tmp_path: Path):
    path = tmp_path / "limits.toml"
    path.write_text("[limits]\nauc_loss = 0.01\n[limits.groups]\nauc_loss = 0.02\nsensitivity_loss = 0.1\n")
    for given in ({"groups.auc_loss": 0.5}, {"groups": {"auc_loss": 0.5}}, {"auc_loss": 0.5}):
        with pytest.raises(UsageError, match=r"auc_loss' is set in .* and on its own; set it once"):
            read_limits(path, given)
    found = read_limits(path, {"groups": {"columns": ["site"]}, "groups.brier_loss": 0.1})
    assert dict(found) == {
        "auc_loss": 0.01,
        "groups.auc_loss": 0.02,
        "groups.sensitivity_loss": 0.1,
        "groups.brier_loss": 0.1,
    }
    assert found.group_columns == ("site",)
    twice = '"groups.auc_loss" = 0.5\n[limits.groups]\nauc_loss = 0.02\n'
    with pytest.raises(RecipeError) as told:
        parse_recipe(HEAD + twice)
    assert [fault.key for fault in told.value.faults] == ["limits.groups.auc_loss"]
    path.write_text(f"[limits]\n{twice}")
    with pytest.raises(RecipeError, match="set it once"):
        read_limits(path, {})


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("groups = 1", "limits.groups"),
        ("groups.latency_ratio_min = 2", "limits.groups.latency_ratio_min"),
        ("groups.auc_loss = 'x'", "limits.groups.auc_loss"),
        ("groups.auc_loss = 0.1\ngroups.columns = 'site'", "limits.groups.columns"),
        ("ppv_loss = 0.1", "limits.ppv_loss"),
        ("ppv_loss = 0.1\nprevalence = 2", "limits.prevalence"),
        ("auc_mn = 0.1", "limits.auc_mn"),
    ],
)
def test_each_fault_is_told_by_its_key(lines: str, key: str):
    with pytest.raises(RecipeError) as told:
        parse_recipe(HEAD + lines + "\n", "recipe.toml")
    assert [fault.key for fault in told.value.faults] == [key]


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["auc_loss", "prevalence", "latency_ratio_min"])
def test_numbers_that_no_float_holds_are_refused_in_a_sentence(name: str, sign: int, digits: int) -> None:
    limits, faults = parse_limits({name: sign * 10**digits})
    assert str(faults[0]) == f"limits.{name}: found a number of too many digits, expected a number"
    assert name not in limits
    with pytest.raises(UsageError, match=f"the limit {name} is a number of too many digits"):
        Limits(**{name: sign * 10**digits})


def test_limits_of_the_api_are_numbers() -> None:
    for wrong in ("0.01", True, [0.01]):
        with pytest.raises(TypeError, match="the limit auc_loss is of the type"):
            Limits(auc_loss=wrong)  # type: ignore[arg-type]
    assert Limits(auc_loss=np.float32(0.5))["auc_loss"] == 0.5
    assert [fault.key for fault in Limits(auc_loss=float("nan"), sensitivity_loss=float("inf")).faults()] == [
        "limits.auc_loss",
        "limits.sensitivity_loss",
    ]
