"""Any user's model and data as a task of the optimizer.

Importing this loads no framework: mistakes in a recipe's [source] are reported before that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from featherweight.apps.custom.decision import fit_class_rule, fit_rule, own_class_rule, own_rule
from featherweight.apps.custom.reference import draw_like
from featherweight.apps.custom.sealed import ClassRule, DecisionRule, Schema, encode
from featherweight.core.arrays import Labels, Scores
from featherweight.core.doors.scores import ScoreForm, raw_scores
from featherweight.core.errors import UsageError
from featherweight.core.population import DataStatement, describe_split
from featherweight.core.recipe.commented import RecipeExample
from featherweight.core.task import CaseView, HeldOut, HeldOutName, SealedFiles, SplitName
from featherweight.core.tensors import Tensors, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from featherweight.core.doors.binding import BoundData, Cases
    from featherweight.core.doors.data import Data
    from featherweight.core.doors.loaded import LoadedModel
    from featherweight.core.losses import TaskLoss

_BATCH = 256
_HALF = 0.5
_MAX_COLUMNS = 60
"""Columns of a case that are shown."""


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of [source] in a recipe for a model of one's own."""

    model: str
    """The model: LightGBM's text (.txt), XGBoost's .json or .ubj, an ONNX file, or module:name for an object in your
    own module of the current folder: a fitted model, a torch module, or a function that returns one."""
    data: str
    """The labelled cases: a CSV or Parquet file, a folder of pictures with a labels.csv (path, label, and if there are
    such split, patient and groups), or module:name for a featherweight.Data in your own module."""
    label: str = "label"
    """Column of the truth: 0 and 1, or two names; of several classes 0, 1, 2 ... or their names."""
    positive: str = ""
    """The label of the positive class. Empty: 1, or the model's own second class."""
    classes: tuple[str, ...] = ()
    """Of more than two classes their labels in the order of the model's outputs. Empty: as the model names them, or
    0, 1, 2 ..."""
    split: str = ""
    """Column that says train, validation or test. Empty: 60, 20 and 20 of a hundred are drawn, with the clusters
    together and the labels shared out; whether the model was fitted on them is then not known."""
    cluster: str = ""
    """Column of whom a case belongs to (patient, card): such cases depend on each other."""
    groups: tuple[str, ...] = ()
    """Columns of groups (site, device) in which results are told apart. They are no features."""
    id: str = ""
    """Column of what a case is called in the evidence; no patient's name. Empty: the number of its row."""
    features: tuple[str, ...] = ()
    """The model's columns, in its order. Empty: those that the model names, or all columns that mean nothing else."""
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] = _HALF
    """The model's own probability from which on a case is positive. Candidates get the threshold at which as many
    validation cases are positive. Of several classes the most probable one is decided for, without a threshold."""
    output: str = ""
    """Which of several outputs is the answer."""
    form: str = ""
    """What the answer is: logit, probability, logits or probabilities (of two classes or more). Empty: as its numbers
    look."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    """Random seed of the split that is drawn."""
    batch: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 64
    """Cases in one training step of `recover`; networks only."""
    purpose: str = ""
    """What the model is for, in one line, for the evidence."""
    reference_standard: str = ""
    """Who or what decided which label a case has, for the evidence."""
    reference_source: str = ""
    """Where the reference standard is stated: a publication, a protocol."""


RECIPE = RecipeExample(Path(__file__).parent / "recipes" / "new.toml", SourceSettings)
"""For `featherweight recipe new custom`."""


class CustomTask:
    """Fulfils core.task.Task for a model that decides yes or no, or for one of several classes. notes: what was decided
    here and must be told."""

    def __init__(self, loaded: LoadedModel, data: BoundData, source: SourceSettings) -> None:
        from featherweight.core.doors.rows import baseline_scores, check_categories, check_rows, run_model
        from featherweight.core.doors.scores import infer_score

        self.loaded, self.data, self.source = loaded, data, source
        self.baseline = loaded.model
        validation = data.parts["validation"]
        some = {name: array[:_BATCH] for name, array in validation.tensors.items()}
        self.score: ScoreForm = infer_score(
            run_model(loaded.model, some), loaded.model.outputs, source.output, source.form, len(data.names)
        )
        check_categories(loaded, data)
        self.notes = (*data.notes, *loaded.notes, *check_rows(loaded, self.score, data.exact, data.rounded))
        scores = baseline_scores(loaded, self.score, validation.tensors)
        self._own: DecisionRule | ClassRule = self._own_rule(scores, validation.labels)
        self.positive_threshold = _threshold(self._own)
        self.baseline_probability = self._own.probabilities
        self._positive_share = float((scores >= self.positive_threshold).mean())
        tensors = [array for part in data.parts.values() for array in part.tensors.values()]
        missing = any(bool(np.isnan(array).any()) for array in tensors if array.dtype.kind == "f")
        self.schema = Schema(
            columns=data.columns,
            categories=loaded.categories,
            missing=loaded.model.kind == "trees" or missing,
            missing_value=loaded.missing_value,
            score=self.score,
        )

    def _own_rule(self, scores: Scores, labels: Labels) -> DecisionRule | ClassRule:
        if len(self.data.names) == 2:
            calibration = None if self.loaded.recalibrates else self.loaded.calibration
            return own_rule(scores, labels, self.source.threshold, calibration)
        if self.source.threshold != _HALF:
            raise UsageError("threshold: of several classes the most probable one is decided for; leave it out")
        return own_class_rule(scores, labels, recalibrates=self.loaded.recalibrates)

    def training_batches(self, epoch: int, seed: int) -> Iterable[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
        """See Task."""
        import torch

        train = self.data.parts["training"]
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        size = min(self.source.batch, len(train))
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            inputs = tuple(torch.from_numpy(train.tensors[spec.name][index]) for spec in self.baseline.inputs)
            # Of several outputs one is the answer; the others have no labels.
            none, truth = torch.zeros(size, 0), self._targets(train.labels[index])
            yield inputs, tuple(truth if self._answers(spec) else none for spec in self.baseline.outputs)

    def _answers(self, spec: TensorSpec) -> bool:
        return spec.name == self.score.output

    def _targets(self, labels: Labels) -> Tensor:
        import torch

        truth = torch.from_numpy(labels)
        if self.score.form == "logits":
            return truth
        (spec,) = filter(self._answers, self.baseline.outputs)
        return truth.float().view(-1, *(1 for _ in spec.shape[1:]))

    def training_loss(self) -> tuple[TaskLoss, ...]:
        """See Task."""
        from featherweight.core.losses import BINARY, CLASSES, UNLABELLED

        if self.score.is_probability:
            raise UsageError(
                f"recover: the network's output {self.score.output!r} is a probability, which is not trained with; "
                "give the network without its last sigmoid or softmax"
            )
        loss = CLASSES if self.score.form == "logits" else BINARY
        return tuple(loss if self._answers(spec) else UNLABELLED for spec in self.baseline.outputs)

    def training_digest(self) -> str:
        """See Task."""
        from featherweight.core.tensors import digest_tensors

        train = self.data.parts["training"]
        return digest_tensors({**train.tensors, "labels of the cases": train.labels})

    def training_inputs(self) -> Iterator[Tensors]:
        """See StatesSplits."""
        train = self.data.parts["training"]
        for start in range(0, len(train), _BATCH):
            yield {name: array[start : start + _BATCH] for name, array in train.tensors.items()}

    def split_clusters(self, split: SplitName) -> Sequence[str] | None:
        """See StatesSplits."""
        return self.data.parts[split].clusters

    def data_statement(self) -> DataStatement:
        """See core.task.StatesData."""
        train, names, target = self.data.parts["training"], self.data.names, self.data.target
        told = describe_split(train.labels, train.cluster_numbers(), train.groups, train.tensors, target.names)
        stated = self.source.reference_standard
        if not stated and self.data.label_meaning:
            stated = f"{self.data.label_meaning}; who decided it, and how, is not stated"
        apart = f"tells {names[1]} from {names[0]}" if len(names) == 2 else f"tells apart {', '.join(names)}"
        purpose = self.source.purpose or apart
        return DataStatement(purpose, stated, self.source.reference_source, told)

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        """See Task."""
        train = self.data.parts["training"]
        order = np.sort(np.random.default_rng(seed).permutation(len(train))[:samples])
        size = _BATCH if self.baseline.kind == "trees" else 8
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield {name: array[index] for name, array in train.tensors.items()}

    def validation_cases(self) -> HeldOut:
        """See Task."""
        return self._part("validation").held_out(self.data.cluster_noun, self.data.target)

    def calibration_cases(self) -> HeldOut:
        """See Task: the validation cases."""
        return self.validation_cases()

    def test_cases(self) -> HeldOut:
        """See Task."""
        return self._part("test").held_out(self.data.cluster_noun, self.data.target)

    def scores(self, outputs: Tensors) -> Scores:
        """float64 [N]: the program's answer as log-odds; of several classes their logits [N, K]."""
        return raw_scores(outputs, self.score)

    def reference_inputs(self, count: int, seed: int) -> Tensors:
        """Each value drawn from the training values at its place: cases that nobody has had."""
        train = self.data.parts["training"]
        return draw_like(train.tensors, train.labels, count, seed)

    def show(self, part: HeldOutName, indices: Sequence[int]) -> list[CaseView]:
        """See Task: the columns of each case, or its picture."""
        cases = self._part(part)
        return [self._view(cases, index) for index in indices]

    def _view(self, cases: Cases, index: int) -> CaseView:
        columns = {name: str(values[index]) for name, values in cases.groups.items()}
        for name, array in cases.tensors.items():
            found = array[index]
            if found.ndim == 1 and len(found) <= _MAX_COLUMNS:
                names = self.data.columns or [f"{name} {place}" for place in range(len(found))]
                columns |= {one: f"{value:.6g}" for one, value in zip(names, found.tolist(), strict=True)}
            elif found.ndim == 3 and found.shape[0] in (1, 3):
                low, high = float(np.nanmin(found)), float(np.nanmax(found))
                grey = np.nan_to_num((found - low) / max(high - low, 1e-12)) * 255
                image = np.moveaxis(grey.astype(np.uint8), 0, -1)
                return CaseView(columns, image[:, :, 0] if image.shape[2] == 1 else image)
        return CaseView(columns)

    def _part(self, name: SplitName) -> Cases:
        return self.data.parts[name]

    def seal(self, scores: Scores, labels: Labels) -> tuple[SealedFiles, float]:
        """See Task. scores: float64 [N] or [N, K]; labels: int64 [N]."""
        if len(self.data.names) > 2:
            return self._sealed(fit_class_rule(scores, labels))
        return self._sealed(fit_rule(scores, labels, self._positive_share))

    def seal_unchanged(self) -> SealedFiles:
        """See Task: the baseline's own decision."""
        return self._sealed(self._own)[0]

    def _sealed(self, rule: DecisionRule | ClassRule) -> tuple[SealedFiles, float]:
        files = {"schema.json": encode(self.schema), "decision.json": encode(rule)}
        sealed = SealedFiles("custom", self.data.names, files, self.loaded.source, rule.probabilities)
        return sealed, _threshold(rule)


def _threshold(rule: DecisionRule | ClassRule) -> float:
    """On the raw score; 0 where the largest of several decides."""
    return rule.score_at(rule.threshold) if isinstance(rule, DecisionRule) else 0.0


def open_task(settings: Mapping[str, Any]) -> CustomTask:
    """The task of a recipe's [source], whose keys are those of `SourceSettings`. Raises UsageError, DataError."""
    source = read_settings(settings)
    return make_task(source.model, open_data(source), source)


def read_settings(settings: Mapping[str, Any]) -> SourceSettings:
    """Raises UsageError for a key that is not known, or a value that it cannot have."""
    try:
        return msgspec.convert(settings, SourceSettings)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"[source] of a custom recipe: {error}; its keys are {', '.join(SourceSettings.__struct_fields__)}"
        ) from error


def open_data(source: SourceSettings) -> Data:
    """The cases that [source] names. Raises UsageError, DataError."""
    from featherweight.core.doors.data import Data
    from featherweight.core.doors.user_module import import_object, names_object

    if names_object(source.data) and not Path(source.data).exists():
        found = import_object(source.data)
        if not isinstance(found, Data):
            raise UsageError(
                f"{source.data}: is {type(found).__name__}; expected a featherweight.Data, or a function that returns "
                "one"
            )
        return found
    return Data.read(
        source.data,
        label=source.label,
        split=source.split,
        cluster=source.cluster,
        groups=source.groups,
        id=source.id,
        features=source.features,
        positive=source.positive or None,
        classes=source.classes,
    )


def make_task(model: Any, data: Data, source: SourceSettings) -> CustomTask:
    """The task of a model and data at hand. model: what `featherweight.load` takes. Raises UsageError, DataError."""
    from featherweight.core.doors.binding import InputForm, bind
    from featherweight.core.doors.load import load
    from featherweight.core.doors.scores import MEANINGS

    loaded = load(model, example=data.example)
    if loaded.meaning not in ("binary", "classes"):
        raise UsageError(
            f"{loaded.source}: gives {MEANINGS[loaded.meaning]}, and only yes or no, or one of several classes, is "
            "judged"
        )
    form = InputForm(loaded.model.inputs, loaded.columns, loaded.classes, loaded.missing_value)
    return CustomTask(loaded, bind(data, form, source.seed), source)
