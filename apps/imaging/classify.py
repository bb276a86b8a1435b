"""Session + frames -> predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from apps.imaging.frames import Frame, Prediction
from apps.imaging.settings import Decision, Preprocess, decode_decision, decode_preprocess
from core.artifact.manifest import Manifest
from core.artifact.store import Artifact, open_fastest, read_artifact
from core.backends.base import Session
from core.errors import ArtifactError, UsageError
from core.tensors import TensorSpec


@dataclass(frozen=True)
class Labels:
    negative: str
    positive: str


class Classifier:
    """A sealed model, opened. One thread at a time.

    Every call of the session gets exactly `batch` rows, the last ones padding where frames lack: runtimes choose
    kernels by the batch's size, so that an image's last bits could depend on how many others were at hand (onnxruntime
    and openvino, fp32, differ by some 1e-6 there). With one size, an image's probability depends on its pixels alone.
    """

    def __init__(
        self, session: Session, preprocess: Preprocess, decision: Decision, labels: Labels, *, batch: int
    ) -> None:
        self._session = session
        self.preprocess, self.decision, self.labels = preprocess, decision, labels
        self.batch = batch
        self._input, self._output = session.inputs[0].name, session.outputs[0].name
        self._rows = np.zeros((batch, 1, preprocess.side, preprocess.side), dtype=np.float32)

    def classify(self, frames: Sequence[Frame]) -> list[Prediction]:
        """One prediction a frame, in order; inference_ms is the frame's equal part of its batch's time.

        Raises BackendError when the runtime fails.
        """
        predictions: list[Prediction] = []
        for start in range(0, len(frames), self.batch):
            predictions += self._classify_batch(frames[start : start + self.batch])
        return predictions

    def _classify_batch(self, frames: Sequence[Frame]) -> list[Prediction]:
        for row, frame in enumerate(frames):
            self._rows[row, 0] = frame.pixels
        start = time.perf_counter()
        logits = self._session.run({self._input: self._rows})[self._output]
        inference_ms = (time.perf_counter() - start) * 1000 / len(frames)
        return [
            self._predict(frame, float(logit), inference_ms)
            for frame, logit in zip(frames, logits[: len(frames), 0], strict=True)
        ]

    def _predict(self, frame: Frame, logit: float, inference_ms: float) -> Prediction:
        probability = self.decision.probability(logit)
        positive = probability >= self.decision.threshold
        label = self.labels.positive if positive else self.labels.negative
        return Prediction(frame.id, probability, label, frame.decode_ms, inference_ms)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class SealedModel:
    """An imaging artifact, read and checked, not yet opened."""

    artifact: Artifact
    preprocess: Preprocess
    decision: Decision
    labels: Labels

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def sha256(self) -> str:
        return self.artifact.sha256

    def open(self, *, threads: int, batch: int, backend: str | None) -> Classifier:
        """Raises BackendError, BackendUnavailableError."""
        session = open_fastest(self.artifact, threads=threads, backend=backend)
        return Classifier(session, self.preprocess, self.decision, self.labels, batch=batch)


def read_model(directory: Path) -> SealedModel:
    """Raises ArtifactError for what cannot be trusted or is not an imaging model, UsageError for another app's."""
    artifact = read_artifact(directory)
    manifest = artifact.manifest
    if manifest.app != "imaging":
        raise UsageError(f"{directory}: is a model of the app {manifest.app!r}, not of imaging; name another --model")
    missing = {"preprocess.json", "decision.json"} - artifact.sealed.keys()
    if missing:
        raise ArtifactError(f"{directory}: lacks {', '.join(sorted(missing))}; make the artifact again")
    preprocess = decode_preprocess(artifact.sealed["preprocess.json"])
    decision = decode_decision(artifact.sealed["decision.json"])
    _check_specs(
        directory,
        tuple(entry.spec() for entry in manifest.inputs),
        tuple(entry.spec() for entry in manifest.outputs),
        preprocess.side,
    )
    if len(manifest.labels) != 2:
        raise ArtifactError(f"{directory}: found the labels {manifest.labels}, expected two: negative, positive")
    return SealedModel(artifact, preprocess, decision, Labels(*manifest.labels))


def _check_specs(
    directory: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], side: int
) -> None:
    shapes = [(spec.dtype, spec.shape) for spec in (*inputs, *outputs)]
    if len(inputs) != 1 or shapes != [("float32", (None, 1, side, side)), ("float32", (None, 1))]:
        found = "; ".join(str(spec) for spec in (*inputs, *outputs))
        raise ArtifactError(
            f"{directory}: the program has {found}; its preprocess.json asks for one float32 input [N, 1, {side}, {side}] "
            "and one float32 output [N, 1]; make the artifact again"
        )
