"""What the evidence itself shows to be worse, limited or not: sentences for the top of the page, evidence.json, the
model card and the console. A limit that was kept says nothing of a figure that it does not hold, nor does a whole that
is good of a group that pays for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.core.arrays import Probabilities
from featherweight.core.evidence import metrics
from featherweight.core.evidence.figures import Compared
from featherweight.core.evidence.group_tests import SMALL_GROUP
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.metrics import CALIBRATION_ERROR, Limits
from featherweight.core.evidence.outcomes import OutcomeComparison
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.evidence.subgroups import Subgroup, SubgroupFigure, Subgroups
from featherweight.core.statistics.intervals import Interval, roc_auc
from featherweight.core.terminal import counted

MAX_NAMED = 5
"""Figures or groups that one note names; it counts the others, and the page has them all."""
NOTHING = 0.00005
"""A smaller loss is 0.0000 in every table."""
_LESS_RANKED = 0.005
"""So much AUC may be lost from the scores to the probabilities by ties at the ends, before a note says so."""
_NARROW = 0.1
"""Probabilities that are spread over less than this part of the baseline's range have lost what they told."""


@dataclass(frozen=True)
class _Loss:
    """what: the figure, at which threshold or in which group, in words; loss: above 0, as it was seen; weight: what
    notes are ordered by."""

    what: str
    loss: float
    weight: float


def worse_notes(
    baseline: Predictions,
    candidate: Predictions,
    found: Compared,
    groups: Subgroups,
    limits: Limits,
    outcomes: OutcomeComparison | None = None,
) -> tuple[str, ...]:
    """Sentences on every figure that these cases show to be worse, overall or in a group: first what is shown, then
    what chance may explain. Bounded: a note names MAX_NAMED and counts the others. outcomes: what the app does at all
    of its thresholds."""
    shown, doubted = _overall(found, limits)
    for at, loss in _at_thresholds(outcomes, limits):
        (shown if at else doubted).append(loss)
    lines = [*_uninformative(baseline, candidate), *_vanished(outcomes), *_vanished_in_groups(candidate, groups)]
    lines += _line("Shown to be worse than the baseline (95% confidence, each figure by itself)", shown, "figures")
    lines += _group_line("Shown to be worse in groups (corrected for their number)", groups, _is_shown)
    lines += _line("Worse than the baseline in these cases, which chance may explain", doubted, "figures")
    lines += _group_line("Worse in groups by what these cases show, which chance may explain", groups, _is_doubted)
    return tuple(lines)


# ---------------------------------------------------------------------------------------------------- the whole


def _overall(found: Compared, limits: Limits) -> tuple[list[_Loss], list[_Loss]]:
    """The losses that are shown, and those that chance may explain."""
    shown: list[_Loss] = []
    doubted: list[_Loss] = []
    for name, difference in found.differences.items():
        if difference is None or -difference.estimate < NOTHING:
            continue
        metric, loss, least = metrics.metric_named(name), -difference.estimate, found.losses_at_least.get(name)
        one = _loss(metric, _change(metric, loss), loss, least, limits)
        (shown if least is not None and least > 0 else doubted).append(one)
    before, after = (one.metrics.get(CALIBRATION_ERROR.name) for one in (found.baseline, found.candidate))
    if before is not None and after is not None and after.estimate - before.estimate >= NOTHING:
        loss = after.estimate - before.estimate
        (shown if _apart(before, after) else doubted).append(_Loss(_change(CALIBRATION_ERROR, loss), loss, loss))
    return shown, doubted


def _loss(metric: Metric, what: str, loss: float, least: float | None, limits: Limits) -> _Loss:
    more = [f"at least by {least:.4f}"] if least is not None and least > 0 else []
    more += ["no limit is on it"] if limits.of(metric) is None else []
    return _Loss(what + (f" ({', '.join(more)})" if more else ""), loss, loss)


def _at_thresholds(outcomes: OutcomeComparison | None, limits: Limits) -> Iterator[tuple[bool, _Loss]]:
    """Whether it is shown, and the loss, at each threshold but the decision's, which the whole has."""
    for at in () if outcomes is None else outcomes.thresholds:
        for figure in () if at.is_decision else at.figures:
            if figure.difference is None or -figure.difference.estimate < NOTHING:
                continue
            loss, least = -figure.difference.estimate, figure.loss_at_least
            what = f"at the threshold of {at.outcome} {_change(figure.metric, loss)}"
            yield least is not None and least > 0, _loss(figure.metric, what, loss, least, limits)


def _vanished(outcomes: OutcomeComparison | None) -> Iterator[str]:
    """An outcome that the baseline leads to and the candidate never."""
    if outcomes is None:
        return
    for place, name in enumerate(outcomes.names):
        before, after = sum(outcomes.moves[place]), sum(row[place] for row in outcomes.moves)
        if before and not after:
            yield f"The candidate leads no case to {name}, the baseline {counted(before, 'cases')}."


def _apart(before: Interval, after: Interval) -> bool:
    """Intervals of dependent figures that do not meet show a difference; those that do may too."""
    return after.low > before.high


def _change(metric: Metric, loss: float) -> str:
    return f"{metric.phrase} {'fell' if metric.direction == 'higher' else 'rose'} by {loss:.4f}"


def _line(head: str, losses: Sequence[_Loss], things: str) -> list[str]:
    if not losses:
        return []
    order = sorted(losses, key=lambda one: -one.weight)
    rest = len(order) - MAX_NAMED
    more = f"; and {counted(rest, f'more {things}')}, which the page has" if rest > 0 else ""
    return [f"{head}: {'; '.join(one.what for one in order[:MAX_NAMED])}{more}."]


# ---------------------------------------------------------------------------------------------------- groups

_Meant = Callable[[SubgroupFigure], bool]


def _vanished_in_groups(candidate: Predictions, groups: Subgroups) -> list[str]:
    """Outcomes that it leads to elsewhere: of those that vanished from all cases the whole tells."""
    names = candidate.outcome_names
    elsewhere = {names[place] for place in np.unique(candidate.outcome_places)}
    losses = [
        _Loss(f"{row.column} {row.value}: {name}, the baseline {counted(cases, 'cases')}", cases, cases)
        for row in groups.rows
        for name, cases in row.vanished.items()
        if name in elsewhere
    ]
    return _line("The candidate leads no case of a group to an outcome", losses, "outcomes of groups")


def _is_shown(figure: SubgroupFigure) -> bool:
    return figure.status == "shown worse"


def _is_doubted(figure: SubgroupFigure) -> bool:
    return not _is_shown(figure) and -(figure.difference or 0.0) >= max(NOTHING, figure.margin)


def _group_line(head: str, groups: Subgroups, is_meant: _Meant) -> list[str]:
    losses = [_in_group(row, figure) for row, figure in _figures(groups, is_meant)]
    return _line(head, losses, "figures of groups")


def _figures(groups: Subgroups, is_meant: _Meant) -> Iterator[tuple[Subgroup, SubgroupFigure]]:
    for row in groups.rows:
        for figure in row.figures:
            if is_meant(figure):
                yield row, figure


def _in_group(row: Subgroup, figure: SubgroupFigure) -> _Loss:
    """Ordered by the loss in standard errors of a figure of so many cases: one case lost of three is no sign, and a
    tenth of 400 is one."""
    metric, loss = metrics.metric_named(figure.name), -(figure.difference or 0.0)
    positives = row.cases if row.positives is None else row.positives
    cases = {"all": min(positives, row.cases - positives) or row.cases, "positive": positives}
    count = cases.get(metric.counted or "all", row.cases - positives)
    few = ", few" if count < SMALL_GROUP else ""
    at = f" at the threshold of {figure.threshold}" if figure.threshold else ""
    what = f"{row.column} {row.value} ({counted(row.cases, 'cases')}{few}):{at} {_change(metric, loss)}"
    return _Loss(what, loss, loss * max(1, count) ** 0.5)


# ---------------------------------------------------------------------------------------------------- probabilities


def _uninformative(baseline: Predictions, candidate: Predictions) -> Iterator[str]:
    """Probabilities that are all about one number are well calibrated, and worth nothing; none are not even that."""
    before, after = baseline.probabilities, candidate.probabilities
    if after is None:
        if before is not None:
            yield (
                "The baseline has probabilities and the candidate none: whoever reads them has no more than a score, "
                "and nothing is said of calibration."
            )
        return
    if baseline.label_kind != "binary":
        return
    ranked, scored = (roc_auc(values, candidate.labels) for values in (after, candidate.scores))
    spread = float(np.ptp(after))
    if spread == 0 and len(after) > 1:
        yield (
            f"All probabilities of the candidate are one number ({after[0]:.4f}): they no longer tell cases apart, "
            "however small their calibration error is."
        )
    elif ranked is not None and scored is not None and ranked < scored - _LESS_RANKED:
        yield (
            f"The candidate's probabilities tell the classes apart less than its scores do (AUC {ranked:.4f} against "
            f"{scored:.4f}): the calibration lost or turned the order of cases."
        )
    elif before is not None and _spread(after) < _NARROW * _spread(before):
        yield (
            f"The candidate's probabilities lie closer together than a tenth of the baseline's do (spread "
            f"{_spread(after):.4f} against {_spread(before):.4f}): they hardly tell cases apart, however small their "
            "calibration error is."
        )


def _spread(values: Probabilities) -> float:
    """Standard deviation."""
    return float(np.std(values))
