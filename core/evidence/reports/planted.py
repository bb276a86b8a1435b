"""What planted faults told of the gate, for the page, evidence.json and the model card."""

from __future__ import annotations

from typing import Any

import msgspec

from featherweight.core.evidence import metrics
from featherweight.core.evidence.planted_result import GateTrial, NoTrial, PlantedResult
from featherweight.core.evidence.program_faults import read_program_faults
from featherweight.core.terminal import counted

_FINDINGS = {
    "caught": "caught",
    "let through": "let through",
    "allowed": "passes: no more than the limits allow",
    "refused though allowed": "refused, though the limits would allow it",
    "no limit looks at it": "passes: no limit looks at what gets worse",
}


def encode_gate(trial: GateTrial | NoTrial | None) -> dict[str, Any] | None:
    """Plain values for evidence.json."""
    if trial is None:
        return None
    programs = msgspec.to_builtins(read_program_faults())
    if isinstance(trial, NoTrial):
        return {"no_trial": trial.reason, "programs": programs}
    return {
        "cases": trial.cases,
        "of_cases": trial.of,
        "caught": trial.caught,
        "should_be_caught": trial.should_be_caught,
        "false_refusals": trial.false_refusals,
        "harmless_draws": trial.harmless_draws,
        "refuses_a_copy": trial.refuses_a_copy,
        "always_caught": [one.name for one in trial.found("caught")],
        "others": [_result(one) for one in trial.faults if one.finding != "caught"],
        "harmless": [_result(one) for one in trial.harmless],
        "not_planted": list(trial.not_planted),
        "programs": programs,
    }


def _result(one: PlantedResult) -> dict[str, Any]:
    return {
        "name": one.name,
        "finding": one.finding,
        "limit": one.limit or None,
        "loss": float(f"{one.loss:.4g}"),
        "refused": one.refused,
        "draws": one.draws,
        **({"unlimited": one.unlimited, "unlimited_loss": float(f"{one.unlimited_loss:.4g}")} if one.unlimited else {}),
    }


def gate_sentence(trial: GateTrial | NoTrial) -> str:
    """How many planted faults the limits refuse, and how many harmless candidates."""
    if isinstance(trial, NoTrial):
        return f"No fault was planted to see: {trial.reason}."
    if trial.refuses_a_copy:
        return (
            f"Planted faults show nothing here: on {_cases(trial)} the limits refuse even an exact copy of the "
            "baseline, so that they refuse every fault too."
        )
    beyond, through = len(trial.beyond), len(trial.found("let through"))
    said = (
        f"{counted(len(trial.faults), 'faults')} planted into the baseline's answers on "
        f"{_cases(trial)}: of {beyond} that harm more than a limit allows, {trial.caught} of "
        f"{counted(trial.should_be_caught, 'judgements')} were refusals"
    )
    said += f" ({counted(through, 'faults')} let through at least once)." if through else "."
    if near := trial.just_beyond:
        refused, judged = sum(one.refused for one in near), sum(one.draws for one in near)
        said += f" Of those made to harm little more than a limit allows, {refused} of {judged}."
    if blind := len(trial.found("no limit looks at it")):
        said += f" {blind} more {'does' if blind == 1 else 'do'} harm at which no limit looks."
    return f"{said} {_false_refusals(trial)}"


def _cases(trial: GateTrial) -> str:
    used = counted(trial.cases, "validation cases")
    return used if trial.cases == trial.of else f"{used} of {trial.of:,}"


def _false_refusals(trial: GateTrial) -> str:
    if not trial.harmless:
        return "The limits are so narrow that no candidate counts as harmless."
    return f"Of {trial.harmless_draws} judgements of harmless candidates {trial.false_refusals} were refusals."


def gate_part(trial: GateTrial | NoTrial | None, cluster_noun: str) -> dict[str, Any] | None:
    """What `_planted.html.j2` shows. cluster_noun: what the clusters of these cases are called."""
    if trial is None:
        return None
    programs = read_program_faults().describe()
    if isinstance(trial, NoTrial) or trial.refuses_a_copy:
        return {"sentence": gate_sentence(trial), "programs": programs, "tried": False}
    return {
        "sentence": gate_sentence(trial),
        "programs": programs,
        "tried": True,
        "rows": [{**row, "name": row["name"].replace("clusters", cluster_noun)} for row in _rows(trial)],
        "caught": [one.name.replace("clusters", cluster_noun) for one in trial.found("caught")],
        "not_planted": [name.replace("clusters", cluster_noun) for name in trial.not_planted],
    }


def _rows(trial: GateTrial) -> list[dict[str, str]]:
    """Those that were not always caught: first what was let through, the largest harm first."""
    order = {"let through": 0, "no limit looks at it": 1, "allowed": 2, "refused though allowed": 3}
    shown = [one for one in trial.faults if one.finding != "caught"]
    return [_row(one) for one in sorted(shown, key=lambda one: (order[one.finding], -one.unlimited_loss))]


def _row(one: PlantedResult) -> dict[str, str]:
    limits = metrics.limits()
    damage, allowed = "none to what is limited", ""
    if one.limit and one.loss > 0:
        rule = limits[one.limit][1]
        damage, allowed = f"{rule.title}: {rule.describe(one.loss)}", rule.describe(one.allowed)
    finding = _FINDINGS[one.finding]
    if one.finding == "let through":
        finding = f"refused in {one.refused} of {one.draws} judgements"
    elif one.finding == "no limit looks at it":
        unlimited = metrics.metric_named(one.unlimited)
        finding += f" ({unlimited.phrase} worse by {one.unlimited_loss:.4f})"
    return {"name": one.name, "imitates": one.imitates, "damage": damage, "allowed": allowed, "finding": finding}
