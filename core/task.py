"""Task: what an app provides to the optimizer. Core never imports an app; it loads the task that a recipe names by its
entry point (group `featherweight.tasks`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from featherweight.core.arrays import Array, Bools, Clusters, Floats, Integers, Labels, Octets, Scores, Texts
from featherweight.core.errors import DataError, MissingExtraError, TensorError
from featherweight.core.population import DataStatement
from featherweight.core.target import Binary, Classes, Target
from featherweight.core.tensors import Tensors, TensorSpec, check_tensors
from featherweight.core.terminal import counted
from featherweight.core.thresholds import Outcomes

if TYPE_CHECKING:
    from torch import Tensor

    from featherweight.core.losses import TaskLoss
    from featherweight.core.model import Model


@dataclass(frozen=True)
class Alerts:
    """A desk that looks at the `per_day` clusters (cards) with the highest score of every day.

    days: int64 [N]; eligible: bool [N], cases that can still raise an alert (not of a card known to be compromised).
    """

    days: Integers
    eligible: Bools
    per_day: int


@dataclass(frozen=True)
class HeldOut:
    """Labelled cases that no weight was fitted on; the threshold and the calibration only on those of
    `calibration_cases`.

    ids: one text per case; tensors: the program's inputs for all cases; labels: int64 [N], as `target` says: 1 is
    positive, or the place of the class; groups: what is known of the cases, column -> value of each case, str [N]
    (site, device, sex, amount band ...); clusters: int64 [N], cases of one cluster (patient, card) depend on each other
    and are resampled together; alerts: where precision among the day's alerts is asked for, which needs clusters;
    cross_clusters: int64 [N], clusters of a second kind that cut across the first (terminals across cards);
    cluster_noun, cross_cluster_noun: what a reader calls the clusters of either kind, in the plural ("patients").
    """

    ids: tuple[str, ...]
    tensors: Tensors
    labels: Labels
    groups: Mapping[str, Texts] = field(default_factory=dict)
    clusters: Clusters | None = None
    alerts: Alerts | None = None
    cross_clusters: Clusters | None = None
    cluster_noun: str = "clusters"
    cross_cluster_noun: str = "cross clusters"
    target: Target = field(default_factory=Binary)

    def batches(self, size: int) -> Iterator[Tensors]:
        """The inputs in batches of up to `size` cases, in order."""
        for start in range(0, len(self.labels), size):
            yield {name: array[start : start + size] for name, array in self.tensors.items()}


def check_held_out(cases: HeldOut, inputs: Sequence[TensorSpec], part: str) -> None:
    """Raise DataError for cases that cannot be judged: now, not after hours of search. One label a case: 0 or 1, or
    the place of its class. part: what the cases are, for the message."""
    labels = np.asarray(cases.labels)
    if isinstance(cases.target, Classes):
        _check_classes(labels, cases.target, part)
    elif labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise DataError(
            f"the {part} cases have labels {labels.dtype} {list(labels.shape)}, expected one whole number for each "
            "case, 0 or 1; of several findings the task has to choose the one that is judged"
        )
    count = len(labels)
    if not count:
        raise DataError(f"there are no {part} cases")
    values = np.unique(labels)
    if isinstance(cases.target, Binary) and not np.isin(values, [0, 1]).all():
        shown = ", ".join(str(value) for value in values[:10]) + (", ..." if len(values) > 10 else "")
        raise DataError(
            f"the {part} cases have {len(values)} different labels ({shown}), expected 0 and 1: only yes or no is "
            "judged; a task with several classes has to say which of them is positive"
        )
    per_case = {"ids": len(cases.ids), **{f"group {name!r}": len(found) for name, found in cases.groups.items()}}
    kinds = {"clusters": cases.clusters, "cross clusters": cases.cross_clusters}
    per_case |= {name: len(found) for name, found in kinds.items() if found is not None}
    wrong = [f"{found} {name}" for name, found in per_case.items() if found != count]
    if wrong:
        raise DataError(
            f"the {part} cases have {counted(count, 'labels')} but {', '.join(wrong)}; expected one for each case"
        )
    try:
        size = check_tensors(cases.tensors, inputs)
    except TensorError as error:
        raise DataError(f"the {part} cases do not fit the model's inputs: {error}") from error
    if size != count:
        raise DataError(
            f"the {part} cases have {counted(count, 'labels')} but inputs for {size}; expected one for each case"
        )


def _check_classes(labels: Array, target: Classes, part: str) -> None:
    """Every class needs a case: without one nothing is known of it, and no mean over the classes either."""
    count = len(target.names)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"the {part} cases have labels {labels.dtype} {list(labels.shape)}, expected one whole number for each "
            "case, the place of its class; several findings of one case are not judged"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise DataError(
            f"the {part} cases have labels from {int(labels.min())} to {int(labels.max())}, expected places among the "
            f"{count} classes: 0 to {count - 1}"
        )
    missing = [name for place, name in enumerate(target.names) if not (labels == place).any()]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(f"the {part} cases hold none of {counted(len(missing), 'classes')}: {shown}")


Probability = Callable[[Floats], Floats]
"""Raw scores [N] to probabilities [N] of the positive class, or of K classes [N, K] to [N, K]."""


@dataclass(frozen=True)
class SealedFiles:
    """What the app seals beside the programs.

    files: name -> bytes, opaque to core; probability: raw scores -> calibrated probabilities, where the app has them;
    outcomes: where the app acts on more than one threshold, all of them, the decision's among them.
    """

    app: str
    labels: tuple[str, ...]
    files: Mapping[str, bytes]
    weights_source: str
    probability: Probability | None = None
    outcomes: Outcomes | None = None


HeldOutName = Literal["validation", "test"]


@dataclass(frozen=True)
class CaseView:
    """What a person looks at to judge one case. image: uint8 [H, W] or [H, W, 3], where the case is one; columns: name
    -> text. Patient and cardholder data: it goes to the page of cases beside the artifact, never into it."""

    columns: Mapping[str, str]
    image: Octets | None = None


class Task(Protocol):
    """A model and the labelled cases that it is judged on: all that the optimizer knows of them. Write a class with
    these attributes and methods; `optimize` takes an object of it. The apps' own are in `apps/*/training/task.py`.

    >>> import featherweight
    >>> task: featherweight.Task = my_task
    >>> cases = task.validation_cases()
    >>> {name: array.shape for name, array in cases.tensors.items()}, cases.labels.shape
    ({'features': (2000, 6)}, (2000,))
    """

    baseline: Model
    positive_threshold: float
    """The baseline's decision threshold on the score of `scores`; 0 where the largest score of several decides."""
    baseline_probability: Probability | None
    """The baseline's own calibration, where it has one."""

    def training_batches(
        self, epoch: int, seed: int
    ) -> Iterable[tuple[Tensor | tuple[Tensor, ...], Tensor | tuple[Tensor, ...]]]:
        """(inputs, targets) for one epoch of recovery; the same for the same (epoch, seed). Of a network with several
        inputs or outputs each is a tuple, in their order. Asked by the step `recover` alone, so a task whose model is
        trees need not have any."""
        ...

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        """Training inputs, unlabelled, in small batches: for the ranges of activations, and of trees for what each part
        of them does to the score. Fewer than `samples` where there are fewer."""
        ...

    def validation_cases(self) -> HeldOut:
        """Validation cases: candidates are compared and chosen on these."""
        ...

    def calibration_cases(self) -> HeldOut:
        """What `seal` is fitted on: the validation cases too, as they are or in several views each."""
        ...

    def test_cases(self) -> HeldOut:
        """Test cases: run once, for the candidate that is sealed."""
        ...

    def scores(self, outputs: Tensors) -> Scores:
        """Raw scores [N] (a logit, say) of a program's outputs, larger is more positive; of classes [N, K]."""
        ...

    def reference_inputs(self, count: int, seed: int) -> Tensors:
        """Reference inputs [count]: synthetic, about as varied as real ones. Some of them travel in the artifact, so
        that another host can repeat the parity check. They should compress well."""
        ...

    def show(self, part: HeldOutName, indices: Sequence[int]) -> Sequence[CaseView]:
        """Views of the cases at these places of `validation_cases` or `test_cases`."""
        ...

    def seal(self, scores: Scores, labels: Labels) -> tuple[SealedFiles, float]:
        """Calibrate on a candidate's scores of `calibration_cases`; returns the app's files and a threshold on raw
        scores (0 where the largest of several decides). scores: float64 [N] or [N, K]; labels: int64 [N]."""
        ...

    def seal_unchanged(self) -> SealedFiles:
        """The app's files with the baseline's own calibration and `positive_threshold`, for recipes that do not
        recalibrate."""
        ...


@runtime_checkable
class StatesLoss(Protocol):
    """A task that says what its network is trained for. Only the step `recover` asks. A task that does not say it is
    taken for what its targets show beyond doubt (core.losses.infer_loss), or refused."""

    def training_loss(self) -> TaskLoss | tuple[TaskLoss, ...]:
        """The loss for the targets of `training_batches`: core.losses has BINARY, CLASSES and VALUES. One for each of
        several outputs; UNLABELLED for those without targets."""
        ...


@runtime_checkable
class StatesOutcomes(Protocol):
    """A task whose app acts on more than one threshold (approve, review, decline): all of them are judged. What it
    seals with a candidate has the candidate's (`SealedFiles.outcomes`). A task that does not say it has one,
    `positive_threshold`."""

    baseline_outcomes: Outcomes
    """The baseline's, on the score of `scores`; `positive_threshold` is one of its thresholds."""


@runtime_checkable
class DigestsData(Protocol):
    """A task that tells one state of its training data from another. What a search keeps lies under it, so that files
    that changed in place make new results; without it only the [source] table tells data apart."""

    def training_digest(self) -> str:
        """The same for the same inputs and labels of `training_batches` and `calibration_batches`."""
        ...


@runtime_checkable
class KeepsFirstModel(Protocol):
    """A task whose baseline came from an earlier change, and that still has what the first model of the chain gave:
    losses are then bound against it on the same cases, in place of a sum."""

    def first_scores(self) -> tuple[Scores, float]:
        """The first model's raw scores [N] of the cases of `test_cases`, and its decision threshold."""
        ...


@runtime_checkable
class StatesNotes(Protocol):
    """A task that decided something itself which whoever uses the model must be told: that the split was drawn, say."""

    notes: tuple[str, ...]
    """Each a sentence; the artifact and the command line repeat them."""


SplitName = Literal["training", "validation", "test"]


@runtime_checkable
class StatesSplits(Protocol):
    """A task that gives what is needed to see that its splits are different cases: copies and patients that are in two
    of them are refused. Of a task that does not, a sample of the training inputs is compared, and no patients."""

    def training_inputs(self) -> Iterator[Tensors]:
        """Every training input once, as the program takes them, in batches."""
        ...

    def split_clusters(self, split: SplitName) -> Sequence[str] | None:
        """Whose each case of the split is, in a text that is the same in all splits: of which patient, say. None where
        the same may be in several, as cards are where the splits are days."""
        ...


@runtime_checkable
class StatesData(Protocol):
    """A task that says what its model is for, who set the labels and what it was trained on. The evidence repeats it;
    of a task that does not, it says that nothing is stated."""

    def data_statement(self) -> DataStatement:
        """Asked once, when the evidence is written."""
        ...


class TaskFactory(Protocol):
    """An app's entry point: settings of a recipe in, the task out."""

    def __call__(self, settings: Mapping[str, Any]) -> Task:
        """`settings` is the recipe's [source] table. Raises UsageError or DataError."""
        ...


def check_packages(purpose: str) -> None:
    """Raise MissingExtraError where torch is not installed: before data are read, and without importing it."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "train", purpose)
