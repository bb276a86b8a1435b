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

from featherweight.core.adapters import ModelAdapter, check_ranges, open_adapter
from featherweight.core.arrays import Array, Indices, Scores
from featherweight.core.artifact import Artifact
from featherweight.core.backends.base import Session
from featherweight.core.backends.registry import find_backend
from featherweight.core.backends.tried import check_program_tried
from featherweight.core.compare.archives import read_arrays
from featherweight.core.compare.cases import Cases
from featherweight.core.compare.predicted import Predicted
from featherweight.core.compare.tables import Table, open_bounded, read_table
from featherweight.core.errors import (
    ArtifactError,
    BackendError,
    DataError,
    TensorError,
    UsageError,
)
from featherweight.core.inspection import inspect_program
from featherweight.core.program import Kind, Program
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import DType, Tensors, TensorSpec
from featherweight.core.terminal import counted

_BACKEND = "onnxruntime"
_MAX_PROGRAM_BYTES = 2 << 30
_BATCH_BYTES = 64 << 20
_BATCH = 256
_DTYPES: Mapping[int, DType] = {1: "float32", 2: "uint8", 6: "int32", 7: "int64"}
"""ONNX's number of a type -> the types that sessions take."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the models are run on. arrays: name -> [rows, ...], table: columns; one of them is None. order: of each case
    its place among the rows. features: the columns of an input [N, F] that has no names of its own."""

    name: str
    arrays: Mapping[str, Array] | None
    table: Table | None
    order: Indices
    features: tuple[str, ...] = ()

    def tensors(self, specs: Sequence[TensorSpec]) -> Tensors:
        """All of a program's inputs, in the order of the cases. Raises DataError."""
        return {spec.name: self._tensor(spec, len(specs)) for spec in specs}

    def _tensor(self, spec: TensorSpec, inputs: int) -> Array:
        if self.arrays is not None:
            if spec.name not in self.arrays:
                raise DataError(
                    f"{self.name}: there is no array {spec.name!r}; found {', '.join(sorted(self.arrays)[:20])}"
                )
            return self._fitting(self.arrays[spec.name][self.order], spec)
        table = self.table
        if table is None:
            raise TypeError("neither arrays nor a table")
        if len(spec.shape) == 2 and inputs == 1 and self.features:
            if spec.shape[1] not in (None, len(self.features)):
                raise DataError(f"--features names {counted(len(self.features), 'columns')}; the program takes {spec}")
            columns = [table.numbers(name, may_lack=True) for name in self.features]
            return self._fitting(np.stack(columns, axis=1)[self.order], spec)
        if len(spec.shape) == 1 or spec.shape[1:] == (1,):
            values = table.numbers(spec.name, may_lack=True)[self.order]
            return self._fitting(values.reshape(len(values), *spec.shape[1:]), spec)
        raise DataError(
            f"{self.name}: the program takes {spec}, which no column is; name the columns in order by --features, or "
            "give an archive of arrays by --inputs (numpy.savez)"
        )

    def _fitting(self, values: Array, spec: TensorSpec) -> Array:
        wanted = np.dtype(spec.dtype)
        if wanted.kind in "iu":
            low, high = np.iinfo(wanted).min, np.iinfo(wanted).max
            whole = np.isfinite(values) & (values == np.floor(values)) & (values >= low) & (values <= high)
            if not whole.all():
                raise DataError(f"{self.name}: input {spec.name!r} takes {spec.dtype}; found other numbers")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, wanted)


def open_inputs(source: Path | Table, cases: Cases, id_column: str, features: tuple[str, ...]) -> Inputs:
    """Raises DataError for what cannot be read or has not the ids of the cases."""
    if isinstance(source, Table) or source.suffix.lower() != ".npz":
        table = source if isinstance(source, Table) else read_table(source)
        return Inputs(table.name, None, table, cases.place(table.texts(id_column), table.name), features)
    arrays = read_arrays(source)
    ids = arrays.pop(id_column, None)
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise DataError(f"{source}: there is no array {id_column!r} of the cases' ids beside the inputs")
    rows = {name: len(array) for name, array in arrays.items() if array.ndim}
    if not rows or set(rows.values()) != {len(ids)} or len(rows) < len(arrays):
        raise DataError(f"{source}: the arrays have not one row for each of the {len(ids):,} ids")
    return Inputs(str(source), arrays, None, cases.place([str(one).strip() for one in ids.tolist()], str(source)))


# ---------------------------------------------------------------------------------------------------- ONNX files


def run_onnx(path: Path, inputs: Inputs) -> Predicted:
    """The scores of an ONNX file with one output of one number a case. Raises DataError for a file that cannot be read,
    is refused or fails, and for inputs that do not fit it."""
    with open_bounded(path, _MAX_PROGRAM_BYTES) as file:
        content = file.read()
    try:
        program = _program(content)
        check_program_tried(path, _BACKEND, program, batches=(1, _BATCH))
        with find_backend(_BACKEND).open(program) as session:
            output = _score_output(session)
            tensors = inputs.tensors(session.inputs)
            scores = [_flat(session.run(part)[output]) for part in _batches(tensors)]
    except (BackendError, ArtifactError, TensorError) as error:
        text = str(error).removeprefix(f"{path}: ").replace("; do not use this artifact", "")
        raise DataError(f"{path}: {text}; or run it elsewhere and give a table of its predictions") from error
    return Predicted(
        path.stem,
        f"{path}, sha256 {program.sha256}, on {_BACKEND}",
        _finite(np.concatenate(scores), str(path), inputs),
        program=program,
    )


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
            f"its tensor {name!r} is not of the form that is run here: float32, uint8, int32 or int64, the first size "
            "open (the batch) and the others fixed; export it so"
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
    return scores


# ---------------------------------------------------------------------------------------------------- artifacts


def run_artifact(folder: Path, inputs: Inputs) -> Predicted:
    """An artifact's scores, calibrated probabilities and the threshold that its evidence was decided at. Raises
    ArtifactError for one that cannot be trusted, DataError for inputs that do not fit it."""
    source = ModelSource(folder)
    artifact = source.read()
    manifest = artifact.manifest
    specs = tuple(entry.spec() for entry in manifest.inputs)
    try:
        adapter = open_adapter(manifest.app, manifest.labels, artifact.sealed, specs)
    except ArtifactError as error:
        raise ArtifactError(f"{folder}: {error}") from error
    if adapter is None:
        raise UsageError(
            f"{folder}: no installed app is called {manifest.app!r}, so it is not known how its outputs become scores; "
            "give a table of its predictions"
        )
    with source.open(artifact, batches=(1, _BATCH)) as opened, _data_errors(folder):
        decided = [adapter.decide(opened.session.run(part)) for part in _prepared(adapter, inputs, specs)]
    scores = np.concatenate([one.scores for one in decided])
    return Predicted(
        manifest.name,
        f"{folder}, sha256 {artifact.sha256}, on {opened.backend} {opened.program.precision}",
        _finite(scores, str(folder), inputs),
        np.concatenate([one.probabilities for one in decided]),
        sealed_threshold(artifact),
        opened.program,
        manifest.labels if len(manifest.labels) == 2 else None,
    )


@contextmanager
def _data_errors(folder: Path) -> Iterator[None]:
    """What does not fit the model is the data's fault here."""
    try:
        yield
    except TensorError as error:
        raise DataError(f"{folder}: the inputs do not fit the model: {error}") from error


def _prepared(adapter: ModelAdapter, inputs: Inputs, specs: Sequence[TensorSpec]) -> Iterator[Tensors]:
    """By the app where it reads such columns or arrays, else as the program's own inputs."""
    own = {spec.name for spec in specs}
    given = inputs.arrays if inputs.arrays is not None else {}
    if inputs.table is not None:
        names = [one.name for one in adapter.ranges if one.name]
        rows = adapter.cases({name: inputs.table.numbers(name, may_lack=True)[inputs.order] for name in names})
    elif own <= given.keys() or len(given) != 1:
        tensors = inputs.tensors(specs)
        for part in _batches(tensors):
            check_ranges(part, adapter.ranges)
            yield part
        return
    else:
        (array,) = given.values()
        rows = adapter.cases(array[inputs.order])
    for start in range(0, len(rows), _BATCH):
        yield adapter.prepare(rows[start : start + _BATCH], start)[0]


def sealed_threshold(artifact: Artifact) -> float | None:
    """On the raw score, as the sealed evidence has it; None where it has none."""
    try:
        document = json.loads(artifact.evidence["evidence.json"])
        found = document[document["decided_on"]]["candidate"]["threshold"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return float(found) if isinstance(found, int | float) and np.isfinite(found) else None
