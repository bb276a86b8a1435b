"""Trees in ONNX files that a converter wrote (skl2onnx, onnxmltools): TreeEnsembleClassifier and -Regressor.

A converter's operators for trees mean more than their text says (what two classes of one weight give, say), so nothing
is believed: ONNX Runtime is asked for the sum of the leaves, at the thresholds, and for what the whole file makes of
it. What stands before the trees, a scaler or an imputer, is taken up into their thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from featherweight.core.arrays import Array, FeatureRows, Probabilities
from featherweight.core.backends.foreign import run_foreign
from featherweight.core.causes import describe_cause
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.scores import probabilities
from featherweight.core.doors.thresholds import before_transform
from featherweight.core.doors.tree_attributes import OPERATORS, UnfitError, read_attributes
from featherweight.core.errors import DataError, UsageError
from featherweight.core.model import trees_model
from featherweight.core.tensors import TensorSpec
from featherweight.core.terminal import counted
from featherweight.core.trees.comparison import check_same_scores, threshold_rows
from featherweight.core.trees.ensemble import INPUT, Ensemble

_BEFORE: Final = {"Add", "Cast", "Clip", "Concat", "Div", "Identity", "Imputer", "Mul", "Scaler", "Sub"}
"""What may stand before the trees: it treats each column for itself."""
_AFTER: Final = {"Cast", "Concat", "Identity", "Mul", "Normalizer", "Sigmoid", "Sub", "ZipMap"}
"""What may stand behind them; that it leaves the probability what it is, is seen."""
_MAX_OPERATORS: Final = 2000
_TOLERANCE: Final = 1e-5
_HINT: Final = "load what it was converted from (LightGBM's text, XGBoost's JSON, the scikit-learn object)"

_DAMAGED: Final = (IndexError, LookupError, ValueError, TypeError, OverflowError, AttributeError)


@dataclass(frozen=True)
class _Program:
    """model: the file, with one input [N, F] and the probability as its only output; trees: its node; columns: the
    names of its inputs, where each column was one."""

    model: onnx.ModelProto
    trees: onnx.NodeProto
    features: int
    columns: tuple[str, ...]


def read_converted_trees(path: Path, content: bytes) -> LoadedModel:
    """The trees of such a file, compared with ONNX Runtime at their thresholds.

    Raises UsageError for a file that does more than its trees do, of another number of classes, or whose trees do not
    say what ONNX Runtime says; DataError for one that is damaged.
    """
    try:
        program = _program(content)
        ensemble, classes = read_attributes(program.trees, program.features, sigmoid=_has_sigmoid(program.model))
        whole = program.model.SerializeToString(deterministic=True)
        run_foreign(whole, [TensorSpec(program.model.graph.input[0].name, "float32", (None, program.features))], (3, 8))
        trees = _compared(program, ensemble, whole)
    except UnfitError as error:
        raise UsageError(f"{path}: {error}; {_HINT}") from error
    except (DataError, UsageError) as error:
        raise type(error)(f"{path}: {error}") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: its operators are not as ONNX writes them ({describe_cause(error)})") from error
    session = _open(whole)
    return LoadedModel(
        trees_model(trees),
        f"ONNX {program.trees.op_type}",
        "ONNX Runtime",
        lambda inputs: _chances(session, np.asarray(inputs[INPUT], np.float32)),
        program.columns,
        classes,
    )


def holds_converted_trees(content: bytes) -> bool:
    """Whether the bytes are an ONNX file with a converter's operator for trees."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return False
    return any(node.op_type in OPERATORS for node in model.graph.node)


# ------------------------------------------------------------------------------------------------- the file


def _program(content: bytes) -> _Program:
    model = onnx.load_model_from_string(content)
    graph = model.graph
    found = [node for node in graph.node if node.op_type in OPERATORS]
    if len(found) != 1:
        raise UnfitError(f"has {len(found)} ensembles of trees, whose answers are put together")
    if len(graph.node) > _MAX_OPERATORS or model.functions or graph.sparse_initializer:
        raise UnfitError("holds more than trees and what scales or fills in their columns")
    _drop_labels(graph)
    _check_operators(graph, found[0])
    columns = _join_columns(graph, found[0])
    features = _features(graph)
    for tensor in graph.initializer:
        sizes = {1, features}
        if tensor.data_location == onnx.TensorProto.EXTERNAL or np.prod(tensor.dims, dtype=float) not in sizes:
            raise UnfitError(f"holds the constant {tensor.name[:100]!r}, which is no number, nor one for each column")
    del graph.value_info[:], model.metadata_props[:], model.training_info[:]
    return _Program(model, found[0], features, columns)


def _drop_labels(graph: onnx.GraphProto) -> None:
    """Of the outputs, only the probability stays, as an array."""
    maps = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ZipMap"}
    floats = [value.name for value in graph.output if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    names = [*(maps[value.name] for value in graph.output if value.name in maps), *floats]
    if len(names) != 1:
        raise UnfitError(f"has {counted(len(names), 'outputs')} of float32 numbers; expected one, the probability")
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.output[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    graph.output.append(onnx.helper.make_tensor_value_info(names[0], onnx.TensorProto.FLOAT, None))


def _check_operators(graph: onnx.GraphProto, trees: onnx.NodeProto) -> None:
    """In order: what is before the trees, the trees, what is behind them."""
    behind: set[str] = set()
    for node in graph.node:
        if node.op_type == trees.op_type:
            behind.update(node.output)
            continue
        after = bool(behind.intersection(node.input))
        behind.update(node.output if after else ())
        if node.op_type not in (_AFTER if after else _BEFORE) or node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            where = "behind" if after else "before"
            raise UnfitError(f"has the operator {node.op_type[:100]!r} {where} its trees, which is not read there")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise UnfitError(f"has a graph within its operator {node.op_type!r}")


def _join_columns(graph: onnx.GraphProto, trees: onnx.NodeProto) -> tuple[str, ...]:
    """Of a file with an input for each column, one input; their names."""
    if len(graph.input) < 2:
        return ()
    names = [value.name for value in graph.input]
    joins = [node for node in graph.node if node.op_type == "Concat" and set(node.input) <= set(names)]
    shapes = [value.type.tensor_type.shape.dim for value in graph.input]
    if (
        len(joins) != 1
        or sorted(joins[0].input) != sorted(names)
        or any(len(s) != 2 or s[1].dim_value != 1 for s in shapes)
    ):
        raise UnfitError("has several inputs, which are not the columns of one table")
    (join,) = joins
    columns, name = tuple(join.input), join.output[0]
    graph.node.remove(join)
    del graph.input[:]
    graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", len(columns)]))
    return columns


def _features(graph: onnx.GraphProto) -> int:
    (value,) = graph.input
    kind = value.type.tensor_type
    shape = [size.dim_value for size in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 2 or not 1 <= shape[1] < 1 << 20:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise UnfitError(f"takes {name} {shape}; expected float [N, F] (convert it with FloatTensorType)")
    return int(shape[1])


# ------------------------------------------------------------------------------------------------- the comparison


def _compared(program: _Program, ensemble: Ensemble, whole: bytes) -> Ensemble:
    """The trees for the file's own input, which say what ONNX Runtime says: the sum of the leaves, and the
    probability."""
    name = program.trees.input[0]
    if name != program.model.graph.input[0].name:
        columns = _open(_cut(program.model, name, None))
        ensemble = before_transform(ensemble, lambda rows: _run(columns, rows))
    sums = _open(_cut(program.model, program.trees.output[-1], program.trees.op_type))
    check_same_scores(ensemble, lambda rows: _run(sums, rows)[:, -1], "ONNX Runtime")
    rows = np.nan_to_num(threshold_rows(ensemble, 1024), posinf=1e30, neginf=-1e30, nan=np.nan)
    stated = _chances(_open(whole), rows)
    raw = _run(sums, rows)[:, -1].astype(np.float64)
    expected = raw if ensemble.output == "probability" else probabilities(raw)
    if not (np.abs(stated - expected) <= _TOLERANCE).all():
        raise UnfitError("changes the probability of its trees by what stands behind them")
    return ensemble


def _cut(model: onnx.ModelProto, output: str, operator: str | None) -> bytes:
    """The file up to one of its tensors. operator: whose sum is not made a probability."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    graph, needed, kept = cut.graph, {output}, list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    for node in graph.node:
        if node.op_type == operator:
            others = [attribute for attribute in node.attribute if attribute.name != "post_transform"]
            del node.attribute[:]
            node.attribute.extend(others)
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    content: bytes = cut.SerializeToString(deterministic=True)
    return content


def _has_sigmoid(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "Sigmoid" for node in model.graph.node)


def _open(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes have no parent of their own
        raise UnfitError(f"is not run by ONNX Runtime ({describe_cause(error)})") from error


def _run(session: Any, rows: Array) -> FeatureRows:
    (given,) = session.get_inputs()
    (found,) = session.run(None, {given.name: np.ascontiguousarray(rows, np.float32)})
    return np.asarray(found, np.float32)


def _chances(session: Any, rows: FeatureRows) -> Probabilities:
    """float64 [N]: what the whole file gives, the second of two columns."""
    found = _run(session, rows).astype(np.float64)
    if found.ndim != 2 or found.shape[1] not in (1, 2) or not ((found >= 0) & (found <= 1)).all():
        raise UnfitError(f"gives {list(found.shape)} numbers, not all from 0 to 1; expected probabilities")
    return np.asarray(found[:, -1])
