"""The evidence as JSON, for programs. `evidence.schema.json` beside this file is its published schema; a change that
breaks readers gets a new number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from featherweight.core.evidence import metrics
from featherweight.core.evidence.figures import Band, ProgramFigures
from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.outcomes import compare_outcomes
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.report import (
    CandidateRecord,
    Comparison,
    Evidence,
    FlippedCase,
    Step,
    compared,
    flipped_cases,
    subgroups,
    summarize_latency,
)
from featherweight.core.evidence.reports.case_history import history_as_dict
from featherweight.core.evidence.reports.in_force import encode_kind
from featherweight.core.evidence.reports.outcomes_json import encode_outcomes
from featherweight.core.evidence.reports.planted import encode_gate
from featherweight.core.evidence.reports.population import population_as_dict
from featherweight.core.evidence.reports.words import methods, notes, tells_nothing
from featherweight.core.evidence.subgroups import Subgroup, Subgroups
from featherweight.core.measure.performance import Conditions, Latency, Memory, Throughput
from featherweight.core.target import LabelKind

SCHEMA = "featherweight-evidence/2"
MAX_RECORDED_FLIPS = 250
"""Changed decisions that are listed, those that became wrong first; their number is always whole."""
MAX_SAMPLES = 100
MAX_POINTS = 51
_QUANTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
_WIDTH = 170


def encode_evidence(evidence: Evidence) -> bytes:
    """UTF-8 JSON; the same evidence gives the same bytes. Numbers that are not finite are refused (ValueError)."""
    return _laid_out(evidence_as_dict(evidence), "").encode("utf-8", "backslashreplace") + b"\n"


def evidence_as_dict(evidence: Evidence) -> dict[str, Any]:
    """Plain values only, keys in a fixed order. Numbers have six digits or fewer, but for what decides: thresholds,
    limits and what was found are exact. The split that does not decide has no curves, cases and groups, and what both
    share (timing, size, energy) stands with the one that decides."""
    steps: list[Any] = []
    is_comparison = evidence.kind == "comparison"
    return {
        "schema": SCHEMA,
        "title": evidence.title,
        "created": evidence.created,
        "passed": evidence.passed,
        "forced": evidence.forced,
        "decided_on": evidence.deciding.split,
        "recipe_sha256": evidence.recipe_sha256,
        "labels": list(evidence.labels),
        "limits": {name: evidence.limits.get(name) for name in metrics.limits(_kind(evidence))},
        "unseen_case": evidence.limits.unseen_case,
        "prevalence": evidence.limits.prevalence,
        "group_columns": list(evidence.limits.group_columns),
        "warnings": list(notes(evidence)),
        **encode_kind(evidence),
        "validation": None if is_comparison else _comparison(evidence, evidence.validation),
        **(
            {"given": _comparison(evidence, evidence.validation)}
            if is_comparison and not tells_nothing(evidence)
            else {}
        ),
        "test": None if evidence.test is None else _comparison(evidence, evidence.test),
        "parity": None if evidence.parity is None else _plain(asdict(evidence.parity)),
        "gate": encode_gate(evidence.gate),
        "runtimes": [_plain(asdict(row)) for row in evidence.runtimes],
        "search": None if evidence.search is None else _plain(asdict(evidence.search)),
        "candidates": [_candidate(candidate, steps) for candidate in evidence.candidates],
        "steps": steps,
        "host": dict(evidence.host),
        "versions": dict(evidence.versions),
        "facts": dict(evidence.facts),
        **history_as_dict(evidence),
        **population_as_dict(evidence),
        "method": {
            "interval": 0.95,
            "bootstrap_samples": evidence.bootstrap_samples,
            "seed": evidence.seed,
            "figures": methods(evidence),
        },
    }


def _kind(evidence: Evidence) -> LabelKind:
    return evidence.deciding.baseline.predictions.label_kind


def _comparison(evidence: Evidence, part: Comparison) -> dict[str, Any]:
    before, after = part.baseline.predictions, part.candidate.predictions
    found, flips = compared(evidence, part), flipped_cases(before, after)
    other = None if part is evidence.deciding else evidence.deciding
    return {
        "cases": len(before.ids),
        **_classes(before),
        "checks": [_check(check) for check in part.checks],
        "baseline": _measured(part.baseline, found.baseline, None if other is None else other.baseline),
        "candidate": _measured(part.candidate, found.candidate, None if other is None else other.candidate),
        "differences": {name: None if one is None else _plain(asdict(one)) for name, one in found.differences.items()},
        "flips": {
            "to_positive": sum(case.to_positive for case in flips),
            "to_negative": sum(not case.to_positive for case in flips),
            "became_wrong": sum(case.became_wrong for case in flips),
        },
        "outcomes": encode_outcomes(compare_outcomes(before, after, seed=evidence.seed)),
        "flipped": [] if other else [_flip(case) for case in flips[:MAX_RECORDED_FLIPS]],
        "subgroups": None if other else _subgroups(subgroups(evidence, part)),
    }


def _classes(of: Predictions) -> dict[str, Any]:
    """How many cases each class has."""
    numbers = {name: int(inside.sum()) for name, inside in of.strata}
    if of.label_kind == "binary":
        return {"positives": numbers["positive"], "negatives": numbers["negative"]}
    return {"classes": numbers}


def _flip(case: FlippedCase) -> dict[str, Any]:
    found: dict[str, Any] = _plain(asdict(case), 5)
    return {key: value for key, value in found.items() if key not in ("outcomes", "right") or value is not None}


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "status": check.status,
        "found": check.found,
        "limit": check.limit,
        "explanation": check.explanation,
        "cases_needed": check.cases_needed,
        "cases_needed_as_seen": check.cases_needed_as_seen,
        "cases_least": check.cases_least,
    }


def _subgroups(groups: Subgroups) -> dict[str, Any]:
    return {
        "rows": [{**_group(row), "status": row.status} for row in groups.rows],
        "tests": groups.tests,
        "method": groups.method,
        "notes": list(groups.notes),
    }


def _group(row: Subgroup) -> dict[str, Any]:
    found: dict[str, Any] = _plain(asdict(row), 4)
    return {key: value for key, value in found.items() if key != "positives" or value is not None}


def _decisions(of: Predictions) -> dict[str, Any]:
    """The decisions against the labels; of several classes cases by their label (rows) and decision (columns)."""
    if of.label_kind == "binary":
        return {"threshold": of.threshold, "confusion": asdict(of.confusion)}
    count = len(of.outcome_names)
    table = np.bincount(of.labels * count + of.outcome_places, minlength=count * count).reshape(count, count)
    return {"confusion_matrix": table.tolist()}


def _measured(measured: Measured, figures: ProgramFigures, deciding: Measured | None) -> dict[str, Any]:
    """deciding: the same program on the split that decides, None for that one itself."""
    predictions, curves = measured.predictions, deciding is None
    return {
        "name": measured.name,
        "description": measured.description,
        **_decisions(predictions),
        "metrics": {name: None if one is None else _plain(asdict(one)) for name, one in figures.metrics.items()},
        "roc": _band(figures.roc) if curves else None,
        "precision_recall": _band(figures.precision_recall) if curves else None,
        "reliability": _plain(asdict(figures.reliability), 4) if curves and figures.reliability else None,
        **_costs(measured, deciding),
    }


def _costs(measured: Measured, deciding: Measured | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "latency": measured.latency and _latency(measured.latency),
        "throughput": measured.throughput and _throughput(measured.throughput),
        "memory": measured.memory and _memory(measured.memory),
        "size": measured.size and asdict(measured.size),
        "energy": measured.energy and _plain(asdict(measured.energy)),
        "cost_per_million": _plain(measured.cost_per_million),
    }
    shared = [name for name in found if deciding is not None and getattr(deciding, name) is getattr(measured, name)]
    return {**found, **dict.fromkeys(shared)}


def _throughput(throughput: Throughput) -> dict[str, Any]:
    return {
        "cases_per_s": _plain(throughput.cases_per_s),
        "batch": throughput.batch,
        "elapsed_s": _plain(throughput.elapsed_s),
        "conditions": _conditions(throughput.conditions),
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {
        "used_bytes": memory.used_bytes,
        "peak_bytes": memory.peak_bytes,
        "baseline_bytes": memory.baseline_bytes,
        "batch": memory.batch,
        "conditions": _conditions(memory.conditions),
    }


def _band(band: Band | None) -> dict[str, Any] | None:
    """The band thinned to what a picture needs."""
    if band is None:
        return None
    keep = np.unique(np.linspace(0, len(band.x) - 1, min(len(band.x), MAX_POINTS)).astype(int))
    return {name: np.round(getattr(band, name)[keep], 4).tolist() for name in ("x", "estimate", "low", "high")}


def _latency(latency: Latency) -> dict[str, Any]:
    """samples_ms: every sample in the order taken, or evenly many of them; the quantiles are of all."""
    keep = np.unique(np.linspace(0, len(latency.samples_ms) - 1, MAX_SAMPLES).astype(int))
    return {
        **_plain(asdict(summarize_latency(latency))),
        "quantiles_ms": {str(q): _plain(np.percentile(latency.samples_ms, q)) for q in _QUANTILES},
        "samples_ms": [float(f"{sample:.4g}") for sample in latency.samples_ms[keep]],
        "notes": list(latency.notes),
        "conditions": _conditions(latency.conditions),
    }


def _conditions(conditions: Conditions) -> dict[str, Any]:
    """The host is the document's."""
    return {
        "backend": conditions.backend,
        "precision": conditions.precision,
        "threads": conditions.threads,
        "device": conditions.device,
    }


def _candidate(candidate: CandidateRecord, steps: list[Any]) -> dict[str, Any]:
    """steps: places in the document's list of steps, which candidates share. Only the chosen one keeps its steps' facts
    layer by layer; its checks stand whole with the validation cases."""
    return {
        "name": candidate.name,
        "description": candidate.description,
        "chosen": candidate.chosen,
        "outcome": candidate.outcome,
        "settings": _plain(candidate.settings),
        "steps": [_place(_step(step, whole=candidate.chosen), steps) for step in candidate.steps],
        "checks": [{"name": check.name, "status": check.status, "found": check.found} for check in candidate.checks],
        "threads": candidate.threads,
        "size_bytes": candidate.size_bytes,
        "latency": None if candidate.latency is None else _plain(asdict(candidate.latency)),
        "auc": _plain(candidate.auc),
        "average_precision": _plain(candidate.average_precision),
        "loss": _plain(candidate.loss),
        "on_front": candidate.on_front,
        "advice": candidate.advice,
        "slower_int8": candidate.slower_int8,
    }


def _step(step: Step, *, whole: bool) -> Any:
    plain = _plain(step)
    if not whole and isinstance(plain.get("facts"), dict):
        plain["facts"] = {key: fact for key, fact in plain["facts"].items() if not isinstance(fact, dict | list)}
    return plain


def _place(step: Any, steps: list[Any]) -> int:
    if step not in steps:
        steps.append(step)
    return steps.index(step)


def _plain(value: Any, digits: int = 6) -> Any:
    """Steps and settings come from passes, which may put mappings, tuples and numpy's numbers into them."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {str(key): _plain(part, digits) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, Sequence):
        return [_plain(part, digits) for part in value]
    item = getattr(value, "item", None)
    return _plain(item(), digits) if callable(item) else str(value)


def _laid_out(value: Any, indent: str) -> str:
    """What fits stands on one line, and so do plain lists however long: a person can read it, and it stays small."""
    flat = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ": "))
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))
    if not value or not nested or len(indent) + len(flat) <= _WIDTH:
        return flat
    inner = indent + " "
    joined = f",\n{inner}"
    if isinstance(value, dict):
        rows = (f"{json.dumps(key, ensure_ascii=False)}: {_laid_out(part, inner)}" for key, part in value.items())
        return f"{{\n{inner}{joined.join(rows)}\n{indent}}}"
    return f"[\n{inner}{joined.join(_laid_out(part, inner) for part in value)}\n{indent}]"
