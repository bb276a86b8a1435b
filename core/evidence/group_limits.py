"""Limits that hold in every group of cases ([limits.groups]): none may lose more than the margin.

A group keeps the margin when its bound does, with all bounds of such limits holding together (Bonferroni). A group so
small that its bound could not keep the margin though it lost nothing is not measured, and named; it counts only where
it is shown to lose more, after Holm's correction. One that lost more in these cases, which chance may explain, is named
apart. Sensitivity and specificity are judged at every threshold that the app acts on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featherweight.core.arrays import Texts
from featherweight.core.evidence.metric import Finding, Metric
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured
from featherweight.core.evidence.subgroups import (
    MAX_HELD_VALUES,
    MIN_CASES,
    Subgroup,
    SubgroupFigure,
    compare_subgroups,
    named_values,
    unnamed_values,
)
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
    found = [(name, baseline.predictions.groups[name]) for name in limits.group_columns or baseline.predictions.groups]
    if text := next(_too_many(found), ""):
        return Finding(None, None, text)
    judged = [(row, figure, loss) for row, figure in rows if (loss := _worst(figure)) is not None]
    said = "".join(_left_out([(row, figure) for row, figure in rows if _worst(figure) is None]))
    said += "".join(f" {line}" for one in found for line in unnamed_values(*one, named_values(one[1], held=True)))
    if not judged:
        text = f"{metric.title} cannot be judged in any of {counted(len(groups.rows), 'groups')}.{said}"
        return Finding(None, None, text if rows else f"{metric.title}: the data has no groups of cases.")
    row, figure, worst = max(judged, key=lambda one: one[2])
    number = len({(one.column, one.value) for one, *_ in judged})
    return Finding(
        worst,
        figure.loss,
        f"{metric.title} was compared in {counted(number, 'groups')}; worst is {_name(row, figure)}, where the loss is "
        f"{figure.loss:.4f} and with 95% confidence (in all groups together) at most {worst:.4f}; the limit is "
        f"{limit:.4f}.{said}",
    )


def _too_many(columns: list[tuple[str, Texts]]) -> Iterator[str]:
    for name, values in columns:
        large = int((np.unique(values, return_counts=True)[1] >= MIN_CASES).sum())
        if large > MAX_HELD_VALUES:
            yield (
                f"{name} has {counted(large, 'values')} of {MIN_CASES} cases or more, and a limit of groups is "
                f"judged among {MAX_HELD_VALUES} at most: name the columns that it holds in."
            )


def _worst(figure: SubgroupFigure) -> float | None:
    """The bound of the loss, where the group can show it or is shown to lose more; else None."""
    if figure.low is None or not (figure.can_show or figure.status == "shown worse"):
        return None
    return 0.0 - figure.low


def _left_out(unmeasured: list[tuple[Subgroup, SubgroupFigure]]) -> Iterator[str]:
    lost = [(row, figure) for row, figure in unmeasured if figure.loss > figure.margin]
    if lost:
        worst = sorted(lost, key=lambda one: -one[1].loss)
        named = [f"{_name(row, figure)} {figure.loss:.4f}" for row, figure in worst]
        yield f" Lost more than the limit in so few cases that chance may explain it: {_some(named)}."
    kept = {_name(row): None for row, figure in unmeasured if figure.loss <= figure.margin}
    if kept:
        yield f" Not measured, because so few cases cannot show it: {_some(list(kept))}."


def _name(row: Subgroup, figure: SubgroupFigure | None = None) -> str:
    at = f", threshold of {figure.threshold}" if figure is not None and figure.threshold else ""
    return f"{row.column} {row.value} ({counted(row.cases, 'cases')}{at})"


def _some(named: list[str]) -> str:
    more = len(named) - _NAMED
    return ", ".join(named[:_NAMED]) + (f" and {more} more" if more > 0 else "")
