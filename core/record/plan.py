"""The plan of a comparison: what will be judged, by which margins and why, on which cases. Written before any test case
is run; its digest stands in the record of uses, so that its age does not rest on what it says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from featherweight.core.errors import DataError
from featherweight.core.files import open_regular, read_errors
from featherweight.core.keys import decode_unambiguous
from featherweight.core.record.cases import CaseSet
from featherweight.core.task import SplitName

_MAX_BYTES = 1 << 20


class Margin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit: its value, what it is of, and why it is what it is."""

    limit: float
    title: str
    reason: str


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """steps: the recipe's, in words; unseen_case: as in [limits]; settings: what else [limits] says, such as the
    prevalence and the columns of groups; earlier_uses: of the test cases, on record when the plan was written;
    rest_sha256: of the recipe without what the plan itself says; empty in older plans."""

    schema: Literal["featherweight-plan/1"] = "featherweight-plan/1"
    created: str
    recipe: str
    recipe_sha256: str
    task: str
    steps: tuple[str, ...]
    backends: tuple[str, ...]
    seed: int
    limits: dict[str, Margin]
    unseen_case: str
    splits: dict[SplitName, CaseSet]
    earlier_uses: int
    settings: dict[str, float | str | tuple[str, ...]] = {}
    rest_sha256: str = ""


@dataclass(frozen=True)
class PlanFollowed:
    """A plan beside what was run. in_time: written down in the record before any use of the test cases; None where the
    record does not have it. differences: sentences. place, of: its place among the plans that were written for these
    cases before their first use, from 1, and how many these are: who writes several can choose among them."""

    plan: Plan
    sha256: str
    in_time: bool | None
    differences: tuple[str, ...]
    place: int = 1
    of: int = 1


def encode_plan(plan: Plan) -> bytes:
    """JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def digest_plan(content: bytes) -> str:
    """SHA-256 of the file, in hex."""
    return hashlib.sha256(content).hexdigest()


def read_plan(path: Path) -> tuple[Plan, str]:
    """The plan and its digest. Raises DataError."""
    with read_errors(path, "the plan cannot be read"), open_regular(path) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise DataError(f"{path}: found more than {_MAX_BYTES:,} bytes, which no plan needs")
    try:
        return decode_unambiguous(content, Plan), digest_plan(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: not a plan ({error}); write one with: featherweight evidence plan RECIPE --out plan.json"
        ) from error


def plan_differences(plan: Plan, run: Plan) -> tuple[str, ...]:
    """What was run otherwise than planned. run: the plan that would be written now."""
    lines = [_changed_limit(name, plan.limits, run.limits) for name in {**plan.limits, **run.limits}]
    for name in {**plan.settings, **run.settings}:
        planned, now = _setting(plan.settings.get(name)), _setting(run.settings.get(name))
        lines.append(f"{name}: planned {planned}, run with {now}" if planned != now else "")
    for what, before, after in (
        ("seed", plan.seed, run.seed),
        ("assumption of the unseen case", plan.unseen_case, run.unseen_case),
        ("steps", "; ".join(plan.steps), "; ".join(run.steps)),
        ("backends", ", ".join(plan.backends), ", ".join(run.backends)),
    ):
        lines.append(f"the {what}: planned {before}, run {after}" if before != after else "")
    for split in {**plan.splits, **run.splits}:
        one, other = plan.splits.get(split), run.splits.get(split)
        if one is None or other is None or one.sha256 != other.sha256:
            lines.append(f"the {split} cases or their labels: planned {_cases(one)}, run {_cases(other)}")
    found = tuple(filter(None, lines))
    if plan.rest_sha256:
        is_other = plan.rest_sha256 != run.rest_sha256
    else:  # an older plan, which only says that the recipe is another one
        is_other = not found and plan.recipe_sha256 != run.recipe_sha256
    rest = "the recipe in what the plan does not say, such as its source, how it measures or decides"
    return (*found, rest) if is_other else found


def _changed_limit(name: str, planned: Mapping[str, Margin], run: Mapping[str, Margin]) -> str:
    before, after = planned.get(name), run.get(name)
    if before is not None and after is not None and before.limit == after.limit:
        return "" if before.reason == after.reason else f"{name}: the reason for its margin was changed"
    return f"{name}: planned {_limit(before)}, run with {_limit(after)}"


def _limit(margin: Margin | None) -> str:
    return "no limit" if margin is None else f"{margin.limit:g}"


def _setting(value: float | str | tuple[str, ...] | None) -> str:
    return "none" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)


def _cases(found: CaseSet | None) -> str:
    return "none" if found is None else f"{found.cases:,} with the digest {found.sha256[:12]}"
