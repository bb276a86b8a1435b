"""Limits that hold in every group of cases ([limits.groups]): none may lose more than the margin.

A group keeps the margin when its bound does, with all bounds of the table of groups holding together (Bonferroni). A
group so small that its bound could not keep the margin though it lost nothing is not measured, and named; it counts
only where it is shown to lose more, after Holm's correction."""

from __future__ import annotations

from featherweight.core.evidence.metric import Finding, Metric
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured
from featherweight.core.evidence.subgroups import Subgroup, SubgroupFigure, compare_subgroups
from featherweight.core.terminal import counted

_NAMED = 3


def judge_in_groups(
    baseline: Measured, candidate: Measured, metric: Metric, limits: Limits, limit: float, *, seed: int
) -> Finding:
    """metric: of the whole. found: the largest bound of a loss among the groups that can show it."""
    groups = compare_subgroups(baseline.predictions, candidate.predictions, limits, seed=seed)
    rows = [
        (row, figure)
        for row in groups.rows
        for figure in row.figures
        if figure.name == metric.name and (not limits.group_columns or row.column in limits.group_columns)
    ]
    missing = [name for name in limits.group_columns if name not in baseline.predictions.groups]
    if missing:
        known = ", ".join(baseline.predictions.groups) or "none"
        text = f"The data has no column {', '.join(missing)} to group cases by; it has {known}."
        return Finding(None, None, text)
    judged = [(row, figure, loss) for row, figure in rows if (loss := _worst(figure)) is not None]
    unmeasured = [row for row, figure in rows if _worst(figure) is None]
    left_out = f" Not measured, because so few cases cannot show it: {_names(unmeasured)}." if unmeasured else ""
    if not judged:
        text = f"{metric.title} cannot be judged in any of {counted(len(rows), 'groups')}.{left_out}"
        return Finding(None, None, text if rows else f"{metric.title}: the data has no groups of cases.")
    row, figure, worst = max(judged, key=lambda one: one[2])
    seen = -(figure.difference or 0.0)
    return Finding(
        worst,
        seen,
        f"{metric.title} was compared in {counted(len(judged), 'groups')}; worst is {row.column} {row.value} "
        f"({counted(row.cases, 'cases')}), where the loss is {seen:.4f} and with 95% confidence (in all groups "
        f"together) at most {worst:.4f}; the limit is {limit:.4f}.{left_out}",
    )


def _worst(figure: SubgroupFigure) -> float | None:
    """The bound of the loss; what was lost where the group is small and shown to lose more; else None."""
    if figure.low is None or not (figure.can_show or figure.status == "shown worse"):
        return None
    return 0.0 - figure.low


def _names(rows: list[Subgroup]) -> str:
    named = [f"{row.column} {row.value} ({counted(row.cases, 'cases')})" for row in rows[:_NAMED]]
    return ", ".join(named) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")
