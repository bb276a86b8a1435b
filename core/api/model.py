"""An artifact, opened: arrays in, predictions out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.adapters import (
    InputRange,
    ModelAdapter,
    check_ranges,
    describe_ranges,
)
from featherweight.core.api.evidence import SealedEvidence, parse_evidence
from featherweight.core.api.notebook import render_description, render_predictions
from featherweight.core.arrays import Array, Probabilities, Scores, Texts
from featherweight.core.artifact import Artifact
from featherweight.core.backends.base import Session
from featherweight.core.backends.fastest import BATCHES
from featherweight.core.closing import Closing
from featherweight.core.errors import BackendError, UsageError
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import Tensors, TensorSpec, check_tensors
from featherweight.core.terminal import counted

_BATCH_BYTES = 64 << 20
"""Maximum size of the inputs of one run: a batch of large images has fewer cases than one of rows."""
_NAMED = 10
"""Cases that a message names."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of N cases, in the order in which they were given.

    scores: float64 [N], the program's raw scores, larger is more positive (log-odds before calibration);
    probabilities: float64 [N], calibrated probabilities of the label `positive`, strictly between 0 and 1;
    decisions: str [N], what the artifact's sealed thresholds make of them; positive: the label that the probabilities
    are of; notes: one text a case, empty where there is nothing to say (`read as dark; an image of 12 bits?`). Of
    several classes scores and probabilities are [N, K], in the order of `labels`, which is empty else, and the most
    probable one is decided for; `positive` is empty.

    >>> import featherweight, numpy
    >>> with featherweight.open("data/models/chest-xray") as model:
    ...     predictions = model.predict(numpy.zeros((3, 100, 80), numpy.uint8))
    >>> len(predictions), predictions.positive, predictions.decisions.shape
    (3, 'pneumonia', (3,))
    >>> bool((0 < predictions.probabilities).all() and (predictions.probabilities < 1).all())
    True
    """

    scores: Scores
    probabilities: Probabilities
    decisions: Texts
    positive: str
    notes: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        found, counts = np.unique(self.decisions, return_counts=True)
        told = ", ".join(f"{count} {name}" for name, count in zip(found.tolist(), counts.tolist(), strict=True))
        return f"<Predictions of {counted(len(self), 'cases')}: {told}>"

    def _repr_html_(self) -> str:
        return render_predictions(self)


@dataclass(frozen=True)
class ModelDescription:
    """What an open model is.

    folder: of the artifact; name, app: as sealed; sha256: the manifest's digest, which fixes every byte of the
    artifact; labels: of its classes; inputs, outputs: of the program, None is the batch; ranges: the values that the
    inputs may have, empty where the app states none; backend, precision, threads: what it runs on here.

    >>> import featherweight
    >>> with featherweight.open("data/models/chest-xray", backend="onnxruntime") as model:
    ...     description = model.describe()
    >>> print(description)  # doctest: +ELLIPSIS
    chest-xray: a model of the app imaging
      input: image: float32 [N, 1, 224, 224]
      input range: image: 0 to 1 (grey level, 0 is black and 1 is white)
      output: logit: float32 [N, 1]
      labels: normal, pneumonia
      runs on: onnxruntime, int8, threads 1
      sha256: ...
    >>> description.inputs[0].shape
    (None, 1, 224, 224)
    """

    folder: Path
    name: str
    app: str
    sha256: str
    labels: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ranges: tuple[InputRange, ...]
    backend: str
    precision: str
    threads: int

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Names and values, for people."""
        return (
            *(("input", str(spec)) for spec in self.inputs),
            ("input range", describe_ranges(self.ranges) or "not stated"),
            *(("output", str(spec)) for spec in self.outputs),
            ("labels", ", ".join(self.labels)),
            ("runs on", f"{self.backend}, {self.precision}, threads {self.threads}"),
            ("sha256", self.sha256),
        )

    def __str__(self) -> str:
        lines = (f"  {name}: {value}" for name, value in self.rows)
        return "\n".join([f"{self.name}: a model of the app {self.app}", *lines])

    def _repr_html_(self) -> str:
        return render_description(str(self).partition("\n")[0], self.rows)


class OpenModel(Closing):
    """A model that `open` opened: call it with arrays, in a `with` block or with `close` after, one thread at a time.

    >>> import featherweight, numpy
    >>> with featherweight.open("data/models/chest-xray") as model:
    ...     predictions = model.predict([numpy.zeros((300, 200), numpy.uint8), numpy.zeros((512, 512), numpy.uint16)])
    ...     outputs = model.run(numpy.zeros((1, 1, 224, 224), numpy.float32))
    >>> predictions.decisions.shape, outputs["logit"].shape
    ((2,), (1, 1))
    """

    def __init__(
        self, artifact: Artifact, session: Session, adapter: ModelAdapter | None, description: ModelDescription
    ) -> None:
        self._artifact, self._session, self._adapter = artifact, session, adapter
        self._description = description
        case_bytes = sum(_case_bytes(spec) for spec in session.inputs)
        self._batch = max(1, min(BATCHES[-1], _BATCH_BYTES // max(1, case_bytes)))

    def __call__(self, arrays: Any) -> Predictions:
        """`predict`, for a model that is opened and called in one line.

        >>> import featherweight, numpy
        >>> len(featherweight.open("data/models/chest-xray")(numpy.zeros((3, 100, 80), numpy.uint8)))
        3
        """
        return self.predict(arrays)

    def predict(self, arrays: Any) -> Predictions:
        """What the model says of N cases, by the app's own preprocessing, calibration and thresholds.

        arrays: for an imaging model grey images, as one array [N, H, W] or a sequence of arrays [H, W] of any sizes:
        uint8 (0 is black, 255 is white), uint16 (65535 is white) or floats from 0 to 1. Light is dense tissue; what a
        DICOM file says of rescale, window and inversion has to be applied before. For a fraud model rows of features:
        an array [N, F] in the order of `describe().ranges`, or a dict (or table) of name -> values [N]; NaN where a
        value is missing.

        Raises TensorError for another type or shape, and for values outside of the stated range, which it names;
        BackendError when the model gives a score that is not a number, or is closed; UsageError where no installed app
        knows how to run this model on arrays (`run` does without).

        >>> import featherweight, numpy
        >>> model = featherweight.open("data/models/chest-xray")
        >>> model.predict(numpy.full((1, 64, 64), 255.0))
        Traceback (most recent call last):
        featherweight.core.errors.TensorError: image: found values from 255 to 255, first in case 0; expected 0 to 1 \
(grey level, 0 is black and 1 is white); are these 8-bit values, 0 to 255? Divide them by 255
        >>> model.close()
        """
        if self._adapter is None:
            raise UsageError(
                f"{self._description.folder}: no installed app is called {self._description.app!r}, so it is not known "
                "how arrays become this model's inputs; install it, or give the program's own inputs to `run`"
            )
        cases = self._adapter.cases(arrays)
        parts = [self._predict(self._adapter, cases, start) for start in range(0, len(cases), self._batch)]
        found = Predictions(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.decisions for part in parts]),
            parts[0].positive,
            tuple(note for part in parts for note in part.notes),
            parts[0].labels,
        )
        wrong = np.flatnonzero(~np.isfinite(found.scores).reshape(len(found), -1).all(axis=1))
        if len(wrong):
            named = ", ".join(map(str, wrong[:_NAMED].tolist())) + (", ..." if len(wrong) > _NAMED else "")
            raise BackendError(
                f"the model gives no finite number for {len(wrong)} of {counted(len(cases), 'cases')} ({named}); "
                "leave them out"
            )
        return found

    def _predict(self, adapter: ModelAdapter, cases: Any, start: int) -> Predictions:
        tensors, notes = adapter.prepare(cases[start : start + self._batch], start)
        decided = adapter.decide(self._session.run(tensors))
        answers = decided.scores, decided.probabilities, decided.decisions, decided.positive
        return Predictions(*answers, notes, decided.labels)

    def run(self, tensors: Tensors | Array) -> Tensors:
        """The program's raw outputs, without the app's preprocessing, calibration and thresholds.

        tensors: input name -> array of the declared type and shape (`describe().inputs`), all with the same number of
        cases N; or the one array, where the program has one input. Returns output name -> array [N, ...].

        Raises TensorError for another type or shape, and for values outside of the stated range; BackendError when the
        runtime fails, or the model is closed.

        >>> import featherweight, numpy
        >>> with featherweight.open("data/models/chest-xray") as model:
        ...     outputs = model.run({"image": numpy.zeros((2, 1, 224, 224), numpy.float32)})
        >>> {name: array.shape for name, array in outputs.items()}
        {'logit': (2, 1)}
        """
        inputs = self._session.inputs
        if not isinstance(tensors, Mapping):
            if len(inputs) != 1:
                raise UsageError(f"the program has {len(inputs)} inputs; give a dict: name -> array")
            tensors = {inputs[0].name: tensors}
        check_tensors(tensors, inputs)
        check_ranges(tensors, self._description.ranges)
        return self._session.run(tensors)

    @cached_property
    def evidence(self) -> SealedEvidence:
        """What was measured and judged when the model was made. Raises ArtifactError where no evidence is sealed.

        >>> import featherweight
        >>> with featherweight.open("data/models/card-fraud") as model:
        ...     model.evidence.passed, model.evidence.forced
        (False, True)
        """
        return parse_evidence(self._artifact)

    def describe(self) -> ModelDescription:
        """What the model is: inputs with their ranges, outputs, labels, and what it runs on here.

        >>> import featherweight
        >>> with featherweight.open("data/models/card-fraud") as model:
        ...     description = model.describe()
        >>> description.ranges[0].name, str(description.ranges[0]), description.labels
        ('amount', '0 or more', ('legitimate', 'fraud'))
        """
        return self._description

    def close(self) -> None:
        """Free the runtime's memory; a second call does nothing. Evidence and description stay.

        >>> import featherweight
        >>> model = featherweight.open("data/models/chest-xray")
        >>> model.close()
        """
        self._session.close()

    def __repr__(self) -> str:
        described = self._description
        return f"<OpenModel {described.name} ({described.app}) on {described.backend} {described.precision}>"

    def _repr_html_(self) -> str:
        return self._description._repr_html_()


def open_model(
    folder: str | PathLike[str], *, backend: str | None = None, threads: int = 1, verify: bool = False
) -> OpenModel:
    """Open an artifact: read it, check every digest, and open the program that is fastest here.

    folder: of the artifact; backend: `onnxruntime`, `openvino`, `native` or `torch`, the artifact's fastest here unless
    given; threads: of the runtime, from 1 on; verify: run the sealed reference inputs first, and refuse a model whose
    decisions on this host are not those that were sealed.

    Raises WrongModelError where no artifact is, ArtifactError for one that cannot be trusted (DigestError: bytes that
    were changed), fails when it is tried or, with `verify`, disagrees with its reference outputs; UsageError for an
    unknown backend or threads below 1; BackendUnavailableError when nothing here runs it.

    >>> import featherweight, numpy
    >>> model = featherweight.open("data/models/chest-xray")
    >>> model.predict(numpy.zeros((2, 300, 200), numpy.uint8))  # doctest: +ELLIPSIS
    <Predictions of 2 cases: ...>
    >>> model.evidence
    <SealedEvidence chest-xray: not passed, sealed by force, 4 of 5 limits kept on 618 test cases>
    >>> model.close()
    """
    if threads < 1:
        raise UsageError(f"threads = {threads}; expected at least 1")
    source = ModelSource(Path(folder), backend, threads, verify)
    artifact = source.read()
    manifest = artifact.manifest
    inputs = tuple(entry.spec() for entry in manifest.inputs)
    adapter = source.open_adapter(artifact)
    opened = source.open(artifact)
    description = ModelDescription(
        folder=Path(folder),
        name=manifest.name,
        app=manifest.app,
        sha256=artifact.sha256,
        labels=manifest.labels,
        inputs=inputs,
        outputs=tuple(entry.spec() for entry in manifest.outputs),
        ranges=() if adapter is None else adapter.ranges,
        backend=opened.backend,
        precision=opened.program.precision,
        threads=threads,
    )
    return OpenModel(artifact, opened.session, adapter, description)


open = open_model
"""As `featherweight.open` it is the usual name; `open_model` is for whoever imports it where `open` is Python's."""


def _case_bytes(spec: TensorSpec) -> int:
    return math.prod(size or 1 for size in spec.shape) * np.dtype(spec.dtype).itemsize
