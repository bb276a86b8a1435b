"""The outcomes of an app as a part of evidence.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from featherweight.core.evidence.outcomes import ClassFigures, OutcomeComparison, ThresholdFigure


def encode_outcomes(found: OutcomeComparison) -> dict[str, Any]:
    """Plain values; thresholds exact, all other numbers with six digits."""
    return {
        "names": list(found.names),
        "moves": [list(row) for row in found.moves],
        "thresholds": [
            {
                "outcome": one.outcome,
                "baseline": one.baseline,
                "candidate": one.candidate,
                "is_decision": one.is_decision,
                "figures": {figure.metric.name: _figure(figure) for figure in one.figures},
            }
            for one in found.thresholds
        ],
        **({"classes": [_of_class(one) for one in found.classes]} if found.classes else {}),
    }


def _of_class(one: ClassFigures) -> dict[str, Any]:
    return {
        "name": one.name,
        "cases": one.cases,
        "figures": {figure.metric.name: _figure(figure) for figure in one.figures},
    }


def _figure(figure: ThresholdFigure) -> dict[str, Any]:
    parts = {"baseline": figure.baseline, "candidate": figure.candidate, "difference": figure.difference}
    return {
        name: None if part is None else {key: float(f"{value:.6g}") for key, value in asdict(part).items()}
        for name, part in parts.items()
    }
