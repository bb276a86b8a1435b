"""What a plan holds, and what of it was run otherwise."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from featherweight.core.evidence.reports.case_history import plan_notes
from featherweight.core.evidence.reports.control_plan import render_control_plan
from featherweight.core.looking import make_plan
from featherweight.core.recipe import parse_recipe
from featherweight.core.record.cases import describe_cases
from featherweight.core.record.plan import Plan, PlanFollowed, encode_plan, plan_differences, read_plan
from featherweight.core.record.splits import SplitsFound
from featherweight.core.record.uses import Begun, History, Planned, append_use, now
from tests.core.recipes import recipe_head

CASES = describe_cases([bytes([number]) * 32 for number in range(40)])
OTHERS = describe_cases([bytes([number]) * 32 for number in range(100, 140)])
SPLITS = SplitsFound({"training": CASES, "validation": CASES, "test": CASES}, {}, None, {})
LIMITS = """auc_loss = 0.01
ppv_loss = 0.1
prevalence = 0.01
groups.sensitivity_loss = 0.1
groups.columns = ["site"]
"""


def planned(text: str) -> Plan:
    return make_plan(parse_recipe(text), SPLITS, History())


RECIPE = recipe_head("rows", LIMITS) + '[reasons]\nauc_loss = "as two readers differ"\n'


DECISION = "[decision]\nrecalibrate = false\n"


@pytest.mark.parametrize(
    ("again", "told"),
    [
        (RECIPE, []),
        (RECIPE.replace("prevalence = 0.01", "prevalence = 0.5"), ["prevalence: planned 0.01, run with 0.5"]),
        (RECIPE.replace('"site"', '"sex"'), ["groups.columns: planned site, run with sex"]),
        (RECIPE.replace('groups.columns = ["site"]\n', ""), ["groups.columns: planned site, run with none"]),
        (RECIPE.replace("auc_loss = 0.01", "auc_loss = 0.02"), ["auc_loss: planned 0.01, run with 0.02"]),
        (RECIPE.replace("two readers", "three readers"), ["auc_loss: the reason for its margin was changed"]),
        (RECIPE + DECISION, ["the recipe in what the plan does not say"]),
        (
            RECIPE.replace("auc_loss = 0.01", "auc_loss = 0.02") + DECISION,
            ["auc_loss: planned 0.01, run with 0.02", "the recipe in what the plan does not say"],
        ),
    ],
)
def test_what_was_run_otherwise_is_told_and_nothing_else(again: str, told: list[str]) -> None:
    found = plan_differences(planned(RECIPE), planned(again))
    assert len(found) == len(told)
    for one, expected in zip(found, told, strict=True):
        assert one.startswith(expected)


def test_a_plan_is_read_again_and_an_older_one_too(tmp_path: Path) -> None:
    plan, path = planned(RECIPE), tmp_path / "plan.json"
    path.write_bytes(encode_plan(plan))
    assert read_plan(path)[0] == plan
    older = {key: one for key, one in msgspec.to_builtins(plan).items() if key not in ("settings", "rest_sha256")}
    path.write_bytes(msgspec.json.encode(older))
    found = read_plan(path)[0]
    assert (found.settings, found.rest_sha256) == ({}, "")
    assert "prevalence: planned none, run with 0.01" in plan_differences(found, plan)


def test_a_change_control_plan_has_what_the_limits_rest_on() -> None:
    text = render_control_plan(planned(RECIPE), "0" * 64)
    assert "Criteria in groups hold in those of: site." in text
    assert "at a share of positive cases of 0.01." in text


def test_training_cases_have_no_number_of_positives() -> None:
    """Their labels are not asked for; an earlier plan says 0, and is shown alike."""
    counted = describe_cases([bytes([number]) * 32 for number in range(40)], np.arange(40) % 2)
    splits = SplitsFound({"training": CASES, "validation": counted, "test": counted}, {}, None, {})
    plan = make_plan(parse_recipe(RECIPE), splits, History())
    assert msgspec.json.decode(encode_plan(plan))["splits"]["training"]["positives"] is None
    earlier = msgspec.structs.replace(
        plan, splits={**plan.splits, "training": msgspec.structs.replace(CASES, positives=0)}
    )
    for one in (plan, earlier):
        lines = render_control_plan(one, "0" * 64).splitlines()
        assert any(line.startswith("| training | 40 | not counted |") for line in lines)
        assert any(line.startswith("| test | 40 | 20 |") for line in lines)


def test_several_plans_before_the_first_use_are_told(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    for digit, cases in (("1", CASES), ("2", OTHERS), ("3", CASES), ("3", CASES), ("4", CASES)):
        append_use(path, Planned(at=now(), cases=cases, recipe="rows", plan=digit * 64))
    use = Begun(
        at=now(), use="a", cases=CASES, recipe="rows", recipe_sha256="", limits={}, candidate="c1", artifact="a"
    )  # fmt: skip
    append_use(path, use)
    history = append_use(path, Planned(at=now(), cases=CASES, recipe="rows", plan="5" * 64))
    assert history.plans_before_use(CASES) == ("1" * 64, "3" * 64, "4" * 64)
    assert history.plans_before_use(OTHERS) == ("2" * 64,)
    [told] = plan_notes(PlanFollowed(planned(RECIPE), "3" * 64, True, (), 2, 3))
    assert (
        told
        == "3 plans were written for these test cases before their first use on record; this is the second of them."
    )
    assert plan_notes(PlanFollowed(planned(RECIPE), "2" * 64, True, ())) == []
