"""The one table of metrics and limits. Recipes are parsed by it; checks, evidence.json, the page, the model card, the
change record and the console are filled from it: no other code knows a metric by name. A new one is an entry here, its
place in `METRICS`, what it computes in `binary.py`, and its row in docs/evidence.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from featherweight.core.errors import Fault
from featherweight.core.evidence import binary as b
from featherweight.core.evidence.absolute import (
    AUC_FLOOR,
    AVERAGE_PRECISION_FLOOR,
    CALIBRATION_IN_THE_LARGE,
    CALIBRATION_SLOPE,
    NEGATIVE_PREDICTIVE_VALUE,
    POSITIVE_PREDICTIVE_VALUE,
)
from featherweight.core.evidence.class_metrics import (
    CLASS_BRIER_SCORE,
    COHEN_KAPPA,
    MACRO_AUC,
    MACRO_AVERAGE_PRECISION,
    MACRO_RECALL,
    TOP_1_ACCURACY,
    TOP_K_ACCURACY,
    TOP_LABEL_CALIBRATION_ERROR,
)
from featherweight.core.evidence.metric import BINARY as BINARY
from featherweight.core.evidence.metric import CLASSES, Limit, Metric, Pair, limit_value
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.evidence.running import CHANGED_DECISIONS as CHANGED_DECISIONS
from featherweight.core.evidence.running import LATENCY as LATENCY
from featherweight.core.evidence.running import PARITY as PARITY
from featherweight.core.evidence.running import SIZE as SIZE
from featherweight.core.statistics.loss_bounds import Unseen, least_bound
from featherweight.core.target import LabelKind

UnseenCase = Literal["as-seen", "lost", "lost-where-possible"]
"""What a recipe says of the case that its cases do not hold (core.statistics.loss_bounds): it is no worse than the
worst that was seen, or lost altogether, or the second where the cases are enough to keep the margins so, and else the
first."""
GROUPS: Final = "groups"
"""The table of [limits] that holds in every group of cases."""
UNSEEN_CASES: Final[tuple[UnseenCase, ...]] = get_args(UnseenCase)

AUC = Metric(
    name="auc",
    title="AUC",
    phrase="AUC",
    note="area under the ROC curve",
    reads="ranking",
    labels=BINARY,
    each=CLASSES,
    estimate=b.auc,
    interval=b.auc_interval,
    own_losses=b.auc_losses,
    method=b.auc_method,
    limit=Limit("auc_loss", "loss", "Loss of AUC", meaning="Largest loss of the area under the ROC curve."),
)
AVERAGE_PRECISION = Metric(
    name="average_precision",
    title="Average precision",
    phrase="average precision",
    reads="ranking",
    labels=BINARY,
    each=CLASSES,
    estimate=b.average_precision,
    interval=b.average_precision_interval,
    own_losses=b.average_precision_losses,
    method=b.average_precision_method,
    limit=Limit(
        "average_precision_loss", "loss", "Loss of average precision", meaning="Largest loss of average precision."
    ),
)
CARD_PRECISION = Metric(
    name="card_precision",
    title="Card precision",
    phrase="card precision",
    note="share of the day's alerts that are right",
    reads="ranking",
    labels=BINARY,
    estimate=b.card_precision,
    interval=b.card_precision_interval,
    own_losses=b.card_precision_losses,
    method=b.card_precision_method,
    limit=Limit(
        "card_precision_loss",
        "loss",
        "Loss of card precision",
        meaning="Largest loss of card precision: the mean share of compromised cards among each day's alerts.",
    ),
    lacks="the data names no cards, none compromised, or no desk of alerts",
    in_groups=False,  # a desk looks at the cards of all groups
)
ACCURACY = Metric(
    name="accuracy",
    title="Accuracy",
    phrase="accuracy",
    reads="decisions",
    labels=BINARY,
    estimate=lambda of: b.share_right(of, b.everywhere(of)),
    interval=lambda pair, side: b.share_right_interval(pair.side(side), b.everywhere(pair.baseline)),
    difference=lambda pair: b.share_right_difference(pair, b.everywhere(pair.baseline)),
    needed=lambda pair, _, margin: b.needed_of_share(pair, b.everywhere(pair.baseline), margin),
    method=b.share_method,
)
BALANCED_ACCURACY = Metric(
    name="balanced_accuracy",
    title="Balanced accuracy",
    phrase="balanced accuracy",
    reads="decisions",
    labels=BINARY,
    estimate=b.balanced_accuracy,
    interval=b.balanced_accuracy_interval,
    method=lambda of, samples: "from the intervals of sensitivity and specificity (Zou and Donner)",
)
SENSITIVITY = Metric(
    name="sensitivity",
    title="Sensitivity",
    phrase="sensitivity",
    reads="decisions",
    labels=BINARY,
    each=CLASSES,
    counted="positive",
    estimate=lambda of: b.share_right(of, b.among_positives(of)),
    interval=lambda pair, side: b.share_right_interval(pair.side(side), b.among_positives(pair.baseline)),
    difference=lambda pair: b.share_right_difference(pair, b.among_positives(pair.baseline)),
    needed=lambda pair, _, margin: b.needed_of_share(pair, b.among_positives(pair.baseline), margin),
    method=b.share_method,
    limit=Limit(
        "sensitivity_loss",
        "loss",
        "Loss of sensitivity",
        meaning="Largest loss of sensitivity: the share of positive cases that are decided positive.",
    ),
)
SPECIFICITY = Metric(
    name="specificity",
    title="Specificity",
    phrase="specificity",
    reads="decisions",
    labels=BINARY,
    each=CLASSES,
    counted="negative",
    estimate=lambda of: b.share_right(of, b.among_negatives(of)),
    interval=lambda pair, side: b.share_right_interval(pair.side(side), b.among_negatives(pair.baseline)),
    difference=lambda pair: b.share_right_difference(pair, b.among_negatives(pair.baseline)),
    needed=lambda pair, _, margin: b.needed_of_share(pair, b.among_negatives(pair.baseline), margin),
    method=b.share_method,
    limit=Limit(
        "specificity_loss",
        "loss",
        "Loss of specificity",
        meaning="Largest loss of specificity: the share of negative cases that are decided negative.",
    ),
)
BRIER_SCORE = Metric(
    name="brier_score",
    title="Brier score",
    phrase="Brier score",
    note="smaller is better",
    reads="probabilities",
    labels=BINARY,
    each=CLASSES,
    direction="lower",
    estimate=b.brier_score,
    interval=b.brier_interval,
    own_losses=b.brier_losses,
    method=b.brier_method,
    limit=Limit(
        "brier_loss",
        "loss",
        "Loss of Brier score",
        meaning="Largest rise of the Brier score, the mean squared error of the calibrated probabilities.",
    ),
)
CALIBRATION_ERROR = Metric(  # without an estimate of its own: what chance adds is only known from resamples
    name="calibration_error",
    title="Expected calibration error",
    phrase="expected calibration error",
    note="smaller is better",
    reads="probabilities",
    labels=BINARY,
    direction="lower",
    interval=b.calibration_error_interval,
    method=lambda of, samples: b.CALIBRATION_ERROR_METHOD,
)


def _in_groups(metric: Metric) -> Metric:
    """The limit of [limits.groups] on this metric: no group of cases may lose more."""
    if metric.limit is None:
        raise TypeError(f"{metric.name} has no limit, so that it can have none in groups")
    return Metric(
        name=f"{metric.name}_in_groups",
        title=f"{metric.title} in groups",
        phrase=f"{metric.phrase} in groups",
        unit=metric.unit,
        direction=metric.direction,
        reads=metric.reads,
        labels=metric.labels,
        limit=Limit(
            f"{GROUPS}.{metric.limit.name}",
            "loss",
            f"{metric.limit.title} in any group",
            metric.limit.unit,
            meaning=f"{metric.limit.meaning.rstrip('.')}, in any group of cases that can show it.",
        ),
        in_groups=False,
        whole=metric,
    )


METRICS: tuple[Metric, ...] = (
    AUC,
    AVERAGE_PRECISION,
    CARD_PRECISION,
    ACCURACY,
    BALANCED_ACCURACY,
    SENSITIVITY,
    SPECIFICITY,
    BRIER_SCORE,
    CALIBRATION_ERROR,
    POSITIVE_PREDICTIVE_VALUE,
    NEGATIVE_PREDICTIVE_VALUE,
    AUC_FLOOR,
    AVERAGE_PRECISION_FLOOR,
    CALIBRATION_IN_THE_LARGE,
    CALIBRATION_SLOPE,
    MACRO_AUC,
    MACRO_AVERAGE_PRECISION,
    TOP_1_ACCURACY,
    MACRO_RECALL,
    COHEN_KAPPA,
    TOP_K_ACCURACY,
    CLASS_BRIER_SCORE,
    TOP_LABEL_CALIBRATION_ERROR,
    *(_in_groups(one) for one in (AUC, AVERAGE_PRECISION, SENSITIVITY, SPECIFICITY, BRIER_SCORE, TOP_1_ACCURACY)),
    CHANGED_DECISIONS,
    LATENCY,
    SIZE,
    PARITY,
)
"""In the order of a report."""


def figures(labels: LabelKind) -> tuple[Metric, ...]:
    """Metrics that are reported for each program with an interval, for labels of this kind."""
    return tuple(metric for metric in METRICS if metric.interval is not None and labels in metric.labels)


def limits(labels: LabelKind | None = None) -> dict[str, tuple[Metric, Limit]]:
    """The key of a recipe's [limits] -> its metric and itself, of all that a recipe may set; labels: those that can be
    judged on labels of this kind alone."""
    known = (one for one in METRICS if labels is None or one.is_for(labels))
    return {one.limit.name: (one, one.limit) for one in known if one.limit is not None and one.limit.in_recipes}


def main_ranking(labels: LabelKind) -> Metric:
    """The figure of a ranking that is told where the recipe limits none."""
    return AUC if labels == "binary" else MACRO_AUC


def ranking_estimate(metric: Metric, of: Predictions) -> float | None:
    """AUC or average precision of one program; of several classes the mean of theirs."""
    means = {AUC.name: MACRO_AUC, AVERAGE_PRECISION.name: MACRO_AVERAGE_PRECISION}
    metric = means.get(metric.name, metric) if of.label_kind in metric.each else metric
    return None if metric.estimate is None else metric.estimate(of)


def metric_named(name: str) -> Metric:
    """The metric of the table with this key in evidence.json."""
    return next(metric for metric in METRICS if metric.name == name)


@dataclass(frozen=True, init=False)
class Limits(Mapping[str, float]):
    """What a candidate must keep: those of the table that a recipe sets, in the table's order. What is not set asks
    nothing. `Limits(auc_loss=0.005)`; recipes embed it as [limits].

    Losses are non-inferiority margins in the metric's own unit (0.005 of AUC): a candidate passes when the one-sided
    95% bound of its loss against the baseline, paired on the same cases, stays inside the margin. A data set too small
    to tell therefore fails. Ratios are baseline over candidate: 2.0 is twice as fast, or half the size.

    unseen_case: what the bounds of rankings assume of the case that was not seen; prevalence: that predictive values
    are judged at; group_columns: whose groups the limits `groups.NAME` hold in, all columns where it is empty.
    """

    values_set: tuple[tuple[str, float], ...]
    unseen_case: UnseenCase
    prevalence: float | None
    group_columns: tuple[str, ...]

    def __init__(
        self,
        *,
        unseen_case: UnseenCase = "as-seen",
        prevalence: float | None = None,
        group_columns: tuple[str, ...] = (),
        **values: float | None,
    ) -> None:
        """None asks nothing. Raises TypeError for a limit that the table does not have, and as `limit_value`."""
        object.__setattr__(self, "unseen_case", unseen_case)
        object.__setattr__(self, "prevalence", None if prevalence is None else limit_value("prevalence", prevalence))
        object.__setattr__(self, "group_columns", group_columns)
        known = limits()
        if unknown := values.keys() - known.keys():
            raise TypeError(f"there is no limit {', '.join(sorted(unknown))}; known: {', '.join(known)}")
        found = ((name, values.get(name)) for name in known)
        held = tuple((name, limit_value(name, value)) for name, value in found if value is not None)
        object.__setattr__(self, "values_set", held)

    def __getitem__(self, name: str) -> float:
        return dict(self.values_set)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(name for name, _ in self.values_set)

    def __len__(self) -> int:
        return len(self.values_set)

    def of(self, metric: Metric) -> float | None:
        """The metric's limit, None where it is not set."""
        return None if metric.limit is None else self.get(metric.limit.name)

    def in_group(self, metric: Metric, column: str) -> float | None:
        """What the metric may lose in a group of this column: by [limits.groups], else by its limit on all cases."""
        limit = None if metric.limit is None else self.get(f"{GROUPS}.{metric.limit.name}")
        return limit if self.holds_in_groups(metric, column) else self.of(metric)

    def holds_in_groups(self, metric: Metric, column: str) -> bool:
        """Whether a limit of [limits.groups] is on this metric in the groups of this column."""
        columns = self.group_columns or (column,)
        return column in columns and metric.limit is not None and f"{GROUPS}.{metric.limit.name}" in self

    def settings(self) -> dict[str, float | str | tuple[str, ...]]:
        """What a recipe's [limits] says, without what it need not say."""
        unseen = {} if self.unseen_case == "as-seen" else {"unseen_case": self.unseen_case}
        said: dict[str, float | str | tuple[str, ...]] = {**dict(self.values_set), **unseen}
        if self.prevalence is not None:
            said["prevalence"] = self.prevalence
        if self.group_columns:
            said[f"{GROUPS}.columns"] = self.group_columns
        return said

    def unseen(self, pair: Pair) -> Unseen:
        """What is assumed on these cases. "lost-where-possible" is "lost" where the cases are enough to keep every
        limited margin so, if nothing is lost."""
        if self.unseen_case != "lost-where-possible":
            return self.unseen_case
        limited = [(metric, limit) for metric in METRICS if (limit := self.of(metric)) is not None]
        own = [(metric, limit) for metric, limit in limited if metric.own_losses is not None]
        owns = [(one.own_losses(metric), limit) for metric, limit in own for one in pair.pairs_of(metric)]
        possible = [own is not None and least_bound(own) <= limit for own, limit in owns]
        return "lost" if possible and all(possible) else "as-seen"

    def faults(self) -> tuple[Fault, ...]:
        """Every value that makes no sense, keyed `limits.NAME`; the recipe's parser reports them with its own."""
        known = limits()
        found = ((name, known[name][1].fault(value)) for name, value in self.values_set)
        return (*(Fault(f"limits.{name}", text) for name, text in found if text is not None), *self._misfits())

    def _misfits(self) -> Iterator[Fault]:
        predictive = [name for name in ("ppv_loss", "npv_loss") if name in self]
        if predictive and self.prevalence is None:
            yield Fault(f"limits.{predictive[0]}", "needs the prevalence that it is judged at: set limits.prevalence")
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            yield Fault("limits.prevalence", f"found {self.prevalence}, expected a number between 0 and 1")
        elif self.prevalence is not None and not predictive:
            yield Fault("limits.prevalence", "nothing is judged at it; set limits.ppv_loss or limits.npv_loss")
        if self.group_columns and not any(name.startswith(f"{GROUPS}.") for name in self):
            yield Fault(f"limits.{GROUPS}.columns", "no limit holds in them; set one, such as limits.groups.auc_loss")
