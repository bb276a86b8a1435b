"""Session + frames -> predictions."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featherweight.apps.imaging.frames import Classified, Frame, Prediction, RejectedFrame
from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, decode_decision, decode_preprocess
from featherweight.core.backends.base import Session
from featherweight.core.closing import Closing
from featherweight.core.errors import ArtifactError
from featherweight.core.serving import ChosenProgram, ModelSource
from featherweight.core.tensors import TensorSpec


@dataclass(frozen=True)
class ClassNames:
    """What the two decisions are called."""

    negative: str
    positive: str


class Classifier(Closing):
    """A sealed model, opened. One thread at a time.

    Every call of the session gets exactly `batch` rows, the last ones padding where frames lack: runtimes choose (and
    compile) kernels by the batch's size. With one size nothing is compiled twice, and an image's probability depends on
    its pixels alone. Measured on an AVX-512 CPU, onnxruntime and openvino gave the same bits at batch sizes 1, 7 and 16
    in any order and company, fp32 and int8; the padding keeps that so where a runtime's kernels differ by size.
    """

    def __init__(
        self, session: Session, preprocess: Preprocess, decision: DecisionRule, labels: ClassNames, *, batch: int
    ) -> None:
        self._session = session
        self.preprocess, self.decision, self.labels = preprocess, decision, labels
        self.batch = batch
        self._input, self._output = session.inputs[0].name, session.outputs[0].name
        self._rows = np.zeros((batch, 1, preprocess.side, preprocess.side), dtype=np.float32)

    def classify(self, frames: Sequence[Frame]) -> list[Classified]:
        """One result a frame, in order; inference_ms is the frame's equal part of its batch's time.

        A frame for which the model gives no number is rejected. Raises BackendError when the runtime fails.
        """
        results: list[Classified] = []
        for start in range(0, len(frames), self.batch):
            results += self._classify_batch(frames[start : start + self.batch])
        return results

    def _classify_batch(self, frames: Sequence[Frame]) -> list[Classified]:
        for row, frame in enumerate(frames):
            self._rows[row, 0] = frame.pixels
        start = time.perf_counter()
        logits = self._session.run({self._input: self._rows})[self._output]
        inference_ms = (time.perf_counter() - start) * 1000 / len(frames)
        return [
            self._predict(frame, float(logit), inference_ms)
            for frame, logit in zip(frames, logits[: len(frames), 0], strict=True)
        ]

    def _predict(self, frame: Frame, logit: float, inference_ms: float) -> Classified:
        if not math.isfinite(logit):
            return RejectedFrame(
                frame.id, "no-number", f"the model gave {logit} for this image; is it blank or damaged?"
            )
        probability = self.decision.probability(logit)
        positive = probability >= self.decision.threshold
        label = self.labels.positive if positive else self.labels.negative
        return Prediction(frame.id, probability, label, frame.decode_ms, inference_ms, frame.notes)

    def close(self) -> None:
        """Give the runtime's memory back."""
        self._session.close()


@dataclass(frozen=True)
class SealedModel:
    """An imaging artifact, read and checked, with the program that is to run; not yet opened."""

    chosen: ChosenProgram
    preprocess: Preprocess
    decision: DecisionRule
    labels: ClassNames

    def check_tried(self, *, batch: int) -> None:
        """Before it is opened, and before anything is written. Raises ArtifactError for a program that fails."""
        self.chosen.check_tried(batches=(batch,))

    def open(self, *, batch: int) -> Classifier:
        """What `check_tried` has seen. Raises BackendError."""
        return Classifier(self.chosen.open().session, self.preprocess, self.decision, self.labels, batch=batch)


def read_model(source: ModelSource) -> SealedModel:
    """Read an imaging artifact, and choose the program that is to run.

    Raises ArtifactError for what cannot be trusted or does not fit the app, and what `ModelSource.read` and `choose`
    raise.
    """
    artifact = source.read("imaging")
    manifest, directory = artifact.manifest, source.folder
    missing = {"preprocess.json", "decision.json"} - artifact.sealed.keys()
    if missing:
        raise ArtifactError(f"{directory}: lacks {', '.join(sorted(missing))}; make the artifact again")
    if len(manifest.labels) != 2 or len(set(manifest.labels)) != 2:
        found = f"found the labels {manifest.labels}"
        raise ArtifactError(f"{directory}: {found}, expected two that differ: negative, positive")
    preprocess = decode_preprocess(artifact.sealed["preprocess.json"])
    inputs = tuple(entry.spec() for entry in manifest.inputs)
    outputs = tuple(entry.spec() for entry in manifest.outputs)
    _check_specs(directory, inputs, outputs, preprocess.side)
    return SealedModel(
        chosen=source.choose(artifact),
        preprocess=preprocess,
        decision=decode_decision(artifact.sealed["decision.json"]),
        labels=ClassNames(*manifest.labels),
    )


def _check_specs(directory: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], side: int) -> None:
    shapes = [(spec.dtype, spec.shape) for spec in (*inputs, *outputs)]
    if len(inputs) != 1 or shapes != [("float32", (None, 1, side, side)), ("float32", (None, 1))]:
        found = "; ".join(str(spec) for spec in (*inputs, *outputs))
        raise ArtifactError(
            f"{directory}: the program has {found}; its preprocess.json asks for one float32 input "
            f"[N, 1, {side}, {side}] and one float32 output [N, 1]; make the artifact again"
        )
