"""Models that are run here: an ONNX file on ONNX Runtime, an artifact by its own app's rules; each inspected, and tried
in a process of its own, before this process opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.adapters import Decisions, ModelAdapter, check_ranges
from featherweight.core.arrays import Array, Scores
from featherweight.core.artifact import Artifact
from featherweight.core.backends.base import Session
from featherweight.core.backends.registry import find_backend
from featherweight.core.backends.tried import check_program_tried
from featherweight.core.compare.bounded import is_sane, open_bounded
from featherweight.core.compare.inputs import Inputs
from featherweight.core.compare.outcomes import Decides
from featherweight.core.compare.predicted import Predicted, check_sane
from featherweight.core.errors import ArtifactError, BackendError, DataError, TensorError, UsageError
from featherweight.core.inspection import inspect_program
from featherweight.core.program import Kind, Program
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import DType, Tensors, TensorSpec
from featherweight.core.terminal import counted
from featherweight.core.thresholds import Outcomes

_BACKEND = "onnxruntime"
_MAX_PROGRAM_BYTES = 2 << 30
_BATCH_BYTES = 64 << 20
_BATCH = 256
_DTYPES: Mapping[int, DType] = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 11: "float64"}
"""ONNX's number of a type -> the types that sessions take."""


# ---------------------------------------------------------------------------------------------------- ONNX files


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX file that was read and inspected, and not run yet."""

    path: Path
    program: Program

    def tensors(self, inputs: Inputs) -> Tensors:
        """What it is run on, in the order of the cases. Raises DataError for inputs that do not fit it."""
        return inputs.tensors(self.program.inputs)

    def run(self, inputs: Inputs) -> Predicted:
        """The scores of its one output of one number a case. Raises DataError for a file that is refused or fails, and
        for inputs that do not fit it."""
        path, program = self.path, self.program
        with _file_errors(path):
            check_program_tried(path, _BACKEND, program, batches=(1, _BATCH))
            with find_backend(_BACKEND).open(program) as session:
                output, tensors = _score_output(session), self.tensors(inputs)
                scores = [_flat(session.run(part)[output]) for part in _batches(tensors)]
        return Predicted(
            path.stem,
            f"{path}, sha256 {program.sha256}, on {_BACKEND}",
            _finite(np.concatenate(scores), str(path), inputs),
            program=program,
            sha256=program.sha256,
        )


def open_onnx(path: Path) -> OnnxModel:
    """Raises DataError for a file that cannot be read or is refused."""
    with open_bounded(path, _MAX_PROGRAM_BYTES) as file:
        content = file.read()
    with _file_errors(path):
        return OnnxModel(path, _program(content))


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (BackendError, ArtifactError, TensorError) as error:
        text = str(error).removeprefix(f"{path}: ").replace("; do not use this artifact", "")
        raise DataError(f"{path}: {text}; or run it elsewhere and give a table of its predictions") from error


def _program(content: bytes) -> Program:
    """With what the file says of its inputs and outputs. Raises BackendError."""
    graph: Any = inspect_program(content)["graph"]
    constants = {tensor.get("name", "") for tensor in graph.get("initializer", [])}
    inputs = [value for value in graph.get("input", []) if value.get("name", "") not in constants]
    kind: Kind = "trees" if any(node.get("op_type") == "TreeEnsemble" for node in graph.get("node", [])) else "network"
    outputs = tuple(map(_spec, graph.get("output", [])))
    return Program(content, "fp32", tuple(map(_spec, inputs)), outputs, kind)


def _spec(value: Any) -> TensorSpec:
    name, tensor = value.get("name", ""), value.get("type", {}).get("tensor_type", {})
    dtype = _DTYPES.get(tensor.get("elem_type", 0))
    sizes = [dim.get("dim_value") for dim in tensor.get("shape", {}).get("dim", [])]
    if dtype is None or not sizes or sizes[0] is not None or None in sizes[1:]:
        raise BackendError(
            f"its tensor {name!r} is not of the form that is run here: float32, float64, uint8, int32 or int64, the "
            "first size open (the batch) and the others fixed; export it so"
        )
    return TensorSpec(name, dtype, tuple(sizes))


def _score_output(session: Session) -> str:
    found = [spec.name for spec in session.outputs if spec.dtype == "float32" and spec.shape[1:] in ((), (1,))]
    if len(found) != 1:
        shown = "; ".join(map(str, session.outputs))
        raise BackendError(f"gives {shown}; expected one output of one float32 a case, the score")
    return found[0]


def _batches(tensors: Tensors) -> Iterator[Tensors]:
    cases = len(next(iter(tensors.values())))
    case_bytes = sum(array.nbytes for array in tensors.values()) // cases
    size = max(1, min(_BATCH, _BATCH_BYTES // max(1, case_bytes)))
    for start in range(0, cases, size):
        yield {name: array[start : start + size] for name, array in tensors.items()}


def _flat(output: Array) -> Scores:
    return np.asarray(output, np.float64).reshape(len(output))


def _finite(scores: Scores, source: str, inputs: Inputs) -> Scores:
    wrong = int((~np.isfinite(scores)).sum())
    if wrong:
        raise DataError(
            f"{source}: gives no finite number for {wrong:,} of {counted(len(scores), 'cases')} of {inputs.name}"
        )
    check_sane(scores, source)
    return scores


# ---------------------------------------------------------------------------------------------------- artifacts


@dataclass(frozen=True, eq=False)
class ArtifactModel:
    """An artifact that was read and verified. decides: at which thresholds; None where nothing says it."""

    source: ModelSource
    artifact: Artifact
    adapter: ModelAdapter
    decides: Decides | None

    def tensors(self, inputs: Inputs) -> Tensors:
        """What it is run on, in the order of the cases, before its app prepares them. Raises DataError for inputs that
        do not fit it."""
        if inputs.table is not None:
            names = _columns(self.adapter)
            return dict(zip(names, inputs.columns(names), strict=True))
        if (array := _only_array(inputs, self.specs)) is not None:
            if array.dtype.kind not in "biuf":
                raise DataError(f"{inputs.name}: the array of the cases holds {array.dtype.name}, no numbers")
            return {"cases": array}
        return inputs.tensors(self.specs)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The program's inputs."""
        return tuple(entry.spec() for entry in self.artifact.manifest.inputs)

    def run(self, inputs: Inputs) -> Predicted:
        """Its scores and calibrated probabilities. Raises ArtifactError for a program that fails when it is tried,
        DataError for inputs that do not fit."""
        folder, manifest, decided = self.source.folder, self.artifact.manifest, list[Decisions]()
        with self.source.open(self.artifact, batches=(1, _BATCH)) as opened, _data_errors(folder):
            for part in _prepared(self.adapter, inputs, self.specs):
                decided.append(self.adapter.decide(opened.session.run(part)))
        return Predicted(
            manifest.name,
            f"{folder}, sha256 {self.artifact.sha256}, on {opened.backend} {opened.program.precision}",
            _finite(np.concatenate([one.scores for one in decided]), str(folder), inputs),
            np.concatenate([one.probabilities for one in decided]),
            opened.program,
            manifest.labels if len(manifest.labels) == 2 else None,
            self.artifact.sha256,
        )


def open_artifact(folder: Path) -> ArtifactModel:
    """Raises ArtifactError for one that cannot be trusted, UsageError for one of an app that is not installed."""
    source = ModelSource(folder)
    artifact = source.read()
    if (classes := len(artifact.manifest.labels)) > 2:
        raise UsageError(f"{folder}: decides for one of {classes} classes; models are compared on a yes or no alone")
    adapter = source.open_adapter(artifact)
    if adapter is None:
        raise UsageError(
            f"{folder}: no installed app is called {artifact.manifest.app!r}, so it is not known how its outputs "
            "become scores; give a table of its predictions"
        )
    outcomes: Outcomes | None = getattr(adapter, "outcomes", None)  # an app of another package may be older
    if outcomes is not None:
        return ArtifactModel(source, artifact, adapter, Decides(outcomes.thresholds[0], outcomes))
    threshold = sealed_threshold(artifact)
    return ArtifactModel(source, artifact, adapter, None if threshold is None else Decides(threshold))


@contextmanager
def _data_errors(folder: Path) -> Iterator[None]:
    """What does not fit the model is the data's fault here."""
    try:
        yield
    except TensorError as error:
        raise DataError(f"{folder}: the inputs do not fit the model: {error}") from error


def _prepared(adapter: ModelAdapter, inputs: Inputs, specs: Sequence[TensorSpec]) -> Iterator[Tensors]:
    """By the app where it reads such columns or arrays, else as the program's own inputs."""
    if inputs.table is not None:
        names = _columns(adapter)
        rows = adapter.cases(dict(zip(names, inputs.columns(names), strict=True)))
    elif (array := _only_array(inputs, specs)) is not None:
        rows = adapter.cases(array)
    else:
        tensors = inputs.tensors(specs)
        for part in _batches(tensors):
            check_ranges(part, adapter.ranges)
            yield part
        return
    for start in range(0, len(rows), _BATCH):
        yield adapter.prepare(rows[start : start + _BATCH], start)[0]


def _columns(adapter: ModelAdapter) -> list[str]:
    """That the app reads of a table."""
    return [one.name for one in adapter.ranges if one.name]


def _only_array(inputs: Inputs, specs: Sequence[TensorSpec]) -> Array | None:
    """Of an archive with one array that is not the program's own input: the cases as the app takes them."""
    given = inputs.arrays or {}
    if len(given) != 1 or {spec.name for spec in specs} <= given.keys():
        return None
    (array,) = given.values()
    return np.asarray(array[inputs.order])


def sealed_threshold(artifact: Artifact) -> float | None:
    """On the raw score, as the sealed evidence has it; None where it has none."""
    try:
        document = json.loads(artifact.evidence["evidence.json"])
        found = document[document["decided_on"]]["candidate"]["threshold"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return float(found) if isinstance(found, int | float) and is_sane(found) else None
