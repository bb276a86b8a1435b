"""A comparison's own parts of JSON and page: what kind of evidence it is, and what changes at a threshold in force."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from featherweight.core.evidence.in_force import Cheapest, CostComparison, FigureName, InForce, KeptFigure, Reproduced
from featherweight.core.evidence.report import Evidence
from featherweight.core.evidence.reports.svg import MINUS, Axes, line, picture, point
from featherweight.core.statistics.intervals import Interval

_TITLES: dict[FigureName, str] = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "alarms_per_1000": "Alarms per 1,000 cases",
}
_COUNTED: dict[FigureName, str] = {"sensitivity": "positive cases", "specificity": "negative cases"}
_CURVE_POINTS = 51


def encode_kind(evidence: Evidence) -> dict[str, Any]:
    """Of evidence.json; nothing for an optimization, whose document stays as it was."""
    if evidence.kind == "optimization":
        return {}
    return {"kind": evidence.kind, "in_force": None if evidence.in_force is None else _encode(evidence.in_force)}


def _encode(found: InForce) -> dict[str, Any]:
    return {
        "threshold": found.threshold,
        "prevalence": found.prevalence,
        "prevalence_stated": found.stated,
        "figures": [{**_rounded(asdict(one)), "shown": one.shown} for one in found.figures],
        # Thresholds are exact, so that they can be set.
        "reproduced": [{**_rounded(asdict(one)), "threshold": asdict(one.threshold)} for one in found.reproduced],
        "costs": None if found.costs is None else _encode_costs(found.costs),
    }


def _encode_costs(found: CostComparison) -> dict[str, Any]:
    keep = np.unique(np.linspace(0, len(found.thresholds) - 1, _CURVE_POINTS).astype(int))
    return {
        **asdict(found.costs),
        "baseline": _six(found.baseline),
        "candidate": _six(found.candidate),
        "difference": _rounded(asdict(found.difference)),
        "cheapest_baseline": asdict(found.cheapest_baseline),
        "cheapest_candidate": asdict(found.cheapest_candidate),
        "curve": {
            "threshold": [_six(value) for value in found.thresholds[keep]],
            "baseline": [_six(value) for value in found.baseline_curve[keep]],
            "candidate": [_six(value) for value in found.candidate_curve[keep]],
        },
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return _six(value) if isinstance(value, float) else value


def _six(value: float) -> float:
    return float(f"{value:.6g}")


# ---------------------------------------------------------------------------------------------------- the page


@dataclass(frozen=True)
class Row:
    """Cells of a table; finding: in words."""

    title: str
    cells: tuple[str, ...]
    finding: str = ""


@dataclass(frozen=True)
class InForcePart:
    """What the page's template shows."""

    threshold: str
    basis: str
    figures: tuple[Row, ...]
    reproduced: tuple[Row, ...]
    costs: str
    picture: Markup | None


def describe_in_force(evidence: Evidence) -> InForcePart | None:
    """None where it was not asked."""
    found = evidence.in_force
    if found is None:
        return None
    share = "as stated" if found.stated else "as among these cases"
    return InForcePart(
        threshold=f"{found.threshold:.6g}",
        basis=f"Alarms{' and costs' if found.costs else ''} are counted for a prevalence of "
        f"{found.prevalence:.3%} ({share}).",
        figures=tuple(map(_figure_row, found.figures)),
        reproduced=tuple(map(_reproduced_row, found.reproduced)),
        costs="" if found.costs is None else _cost_words(found.costs),
        picture=None if found.costs is None else cost_chart(found.costs, found.threshold),
    )


def _figure_row(one: KeptFigure) -> Row:
    digits = 1 if one.name == "alarms_per_1000" else 4
    cells = tuple(_interval(found, digits) for found in (one.baseline, one.candidate))
    difference = one.difference
    if difference.estimate == 0 and not one.shown:
        finding = "none was seen"
    elif one.shown:
        finding = "shown to be lower" if difference.estimate < 0 else "shown to be higher"
    elif one.cases_needed is None:
        finding = "not shown"
    else:
        finding = f"not shown; about {one.cases_needed:,} {_COUNTED[one.name]} would, in four of five, were it as seen"
    return Row(_TITLES[one.name], (*cells, _interval(difference, digits, signed=True)), finding)


def _reproduced_row(one: Reproduced) -> Row:
    threshold = f"{one.threshold.estimate:.6g} [{one.threshold.low:.6g}, {one.threshold.high:.6g}]"
    cells = f"{one.sensitivity:.4f}", f"{one.specificity:.4f}", f"{one.alarms_per_1000:.1f}"
    return Row(f"{_TITLES[one.name]} as before", (threshold, *cells))


def _interval(found: Interval, digits: int, *, signed: bool = False) -> str:
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    estimate, low, high = (
        form.format(value + 0.0).replace("-", MINUS) for value in (found.estimate, found.low, found.high)
    )
    return f"{estimate} [{low}, {high}]"


def _cost_words(found: CostComparison) -> str:
    def cheapest(name: str, best: Cheapest) -> str:
        where = "where no case is called positive" if best.threshold is None else f"at {best.threshold:.6g}"
        return f"{name} costs least {where} ({best.cost:,.4g})"

    difference, seen = found.difference, f"{found.difference.estimate:+,.4g}".replace("-", MINUS)
    ends = ", ".join(f"{value:+,.4g}".replace("-", MINUS) for value in (difference.low, difference.high))
    first, second = found.cheapest_baseline, found.cheapest_candidate
    return (
        f"With a cost of {found.costs.missed:g} for a missed case and {found.costs.alarm:g} for a false alarm, 1,000 "
        f"cases cost {found.baseline:,.4g} with the baseline and {found.candidate:,.4g} with the candidate at the "
        f"threshold in force: {seen} [{ends}]. {cheapest('The baseline', first)}, {cheapest('the candidate', second)}; "
        "both minima are a little too low, since they were found on these cases."
    )


def cost_chart(found: CostComparison, threshold: float) -> Markup:
    """What 1,000 cases cost over the threshold, by both programs; the dashed line is the threshold in force."""
    low, high = float(found.thresholds[0]), float(found.thresholds[-1])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    most = max(float(found.baseline_curve.max()), float(found.candidate_curve.max()), math.ulp(1.0))
    axes = Axes((low, high), (0, 1.05 * most), left=64, width=378)
    parts = [axes.draw("threshold", "cost of 1,000 cases")]
    parts.append(line("threshold", axes.x(threshold), axes.top, axes.x(threshold), axes.bottom))
    curves = (
        ("baseline", found.baseline_curve, found.cheapest_baseline),
        ("candidate", found.candidate_curve, found.cheapest_candidate),
    )
    for kind, curve, best in curves:
        parts.append(axes.path(kind, found.thresholds, curve))
        if best.threshold is not None and low <= best.threshold <= high:
            parts.append(point(kind, axes.x(best.threshold), axes.y(best.cost), f"least, at {best.threshold:.6g}"))
    return picture("Cost of 1,000 cases at each threshold, baseline and candidate", parts)
