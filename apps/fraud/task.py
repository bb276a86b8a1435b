"""What the fraud app lends the optimizer: the trained model, its days, and how a candidate is calibrated and sealed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from torch import Tensor

from apps.fraud.calibration import fit_rule, raw_threshold
from apps.fraud.parts import Part, Parts, read_parts
from apps.fraud.settings import encode
from apps.fraud.train import Batches
from apps.fraud.trained import Trained, read_trained
from core.errors import UsageError
from core.task import HeldOut, Probability, Sealed
from core.tensors import Tensors
from core.trees.ensemble import INPUT, OUTPUT

LABELS = ("legitimate", "fraud")
CALIBRATION_BATCH = 256


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """model: folder of `fraud train`; data: path or catalogue name; reader: handbook, records or ulb; batch: of the
    recovery of networks."""

    model: str
    data: str
    reader: str
    batch: Annotated[int, msgspec.Meta(ge=1)] = 256


class FraudTask:
    """Fulfils core.task.Task for a model with one input of features and one margin."""

    def __init__(self, trained: Trained, parts: Parts, batch: int = 256) -> None:
        self.trained, self.parts, self.batch = trained, parts, batch
        self.baseline = trained.core_model()
        self.positive_threshold = raw_threshold(trained.rule)
        self.baseline_probability: Probability | None = trained.rule.probabilities

    def training_batches(self, epoch: int, seed: int) -> Iterable[tuple[Tensor, Tensor]]:
        train = self.parts.train
        return Batches(train.features, train.labels, epoch, self.batch, seed)

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        features = self.parts.train.features
        order = np.sort(np.random.default_rng(seed).permutation(len(features))[:samples])
        for start in range(0, len(order), CALIBRATION_BATCH):
            yield {INPUT: features[order[start : start + CALIBRATION_BATCH]]}

    def choosing(self) -> HeldOut:
        return _held_out(self.parts.validation)

    def calibrating(self) -> HeldOut:
        return self.choosing()

    def reporting(self) -> HeldOut:
        return _held_out(self.parts.test)

    def scores(self, outputs: Tensors) -> npt.NDArray[np.float64]:
        return outputs[OUTPUT][:, 0].astype(np.float64)

    def seal(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[Sealed, float]:
        training = self.trained.training
        rule = fit_rule(scores, labels, days=self.parts.validation.span_days, alerts_a_day=training.alerts_a_day)
        files = {"features.json": encode(self.trained.schema), "decision.json": encode(rule)}
        return Sealed("fraud", LABELS, files, training.source, rule.probabilities), raw_threshold(rule)


def _held_out(part: Part) -> HeldOut:
    """ids: the place in the data, because what a transaction is called is nobody's business."""
    return HeldOut(tuple(f"transaction {row}" for row in part.rows), {INPUT: part.features}, part.labels)


def open_task(settings: Mapping[str, Any]) -> FraudTask:
    """The task of a recipe's [source], whose keys are those of `SourceSettings`. Raises UsageError, DataError."""
    try:
        source = msgspec.convert(settings, SourceSettings)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"[source] of a fraud recipe: {error}; its keys are {', '.join(SourceSettings.__struct_fields__)}"
        ) from error
    trained = read_trained(Path(source.model))
    parts = read_parts(source.data, source.reader, trained.training.layout, trained.schema.names)
    if parts.names != trained.schema.names:
        raise UsageError(
            f"the model {source.model} was trained on {len(trained.schema.names)} other columns than the reader "
            f"{source.reader!r} gives; name the reader that it was trained with"
        )
    return FraudTask(trained, parts, source.batch)
