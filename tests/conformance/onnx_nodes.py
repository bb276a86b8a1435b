"""ONNX's own node tests (`onnx.backend.test`) as programs: one node each, with inputs and what has to come out."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
import onnx.backend.test.case.node as node_cases
import pytest
from onnx import TensorProto, helper, numpy_helper

from featherweight.core.inspection.operators import OPERATORS, SHAPING
from featherweight.core.program import Program
from featherweight.core.tensors import DType, TensorSpec

FOLDER = Path(str(node_cases.__file__)).parent
NEWEST = 22
"""Cases are written for the newest opset, which no exporter writes yet and most operators do not need: what they have
is tried in this one, where its rules accept it."""
LAST = 26
"""The newest opset that the interpreter reads."""
FIXED = {**SHAPING, "Pad": (1, 2, 3), "Dropout": (1, 2), "CumSum": (1,), "Trilu": (1,)}
"""Operator -> inputs that are constants in programs."""
_FILES = {"And": "and_", "Not": "not_", "Or": "or_", "Xor": "xor_"}


@dataclass(frozen=True)
class NodeCase:
    """One node with what goes in and what has to come out."""

    name: str
    program: Program
    inputs: dict[str, npt.NDArray[Any]]
    outputs: dict[str, npt.NDArray[Any]]
    tolerance: tuple[float, float]


def operators() -> list[str]:
    """Those that programs may use and that ONNX has tests of."""
    return sorted(name for name in OPERATORS[""] if any((FOLDER / f"{stem}.py").is_file() for stem in _stems(name)))


def _stems(operator: str) -> list[str]:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operator).lstrip("_")
    found = [_FILES.get(operator, operator.lower()), snake]
    if operator.startswith("Reduce"):
        found.append(f"reduce_{operator[6:].lower()}")
    return [
        *found,
        *(
            f"reduce_{tail}"
            for tail in ("log_sum", "log_sum_exp")
            if f"reduce{tail.replace('_', '')}" == operator.lower()
        ),
    ]


@functools.cache
def cases_of(operator: str) -> tuple[Sequence[NodeCase], int]:
    """The operator's cases, and how many have types that no program takes."""
    kept: list[Any] = node_cases._NodeTestCases
    before = len(kept)
    with warnings.catch_warnings(), np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        # Most operators are told as functions of simpler ones too, which takes ten times as long.
        patch.setattr(node_cases, "function_testcase_helper", _no_functions)
        warnings.simplefilter("ignore")
        for stem in _stems(operator):
            if (FOLDER / f"{stem}.py").is_file():
                importlib.import_module(f"onnx.backend.test.case.node.{stem}")
    for case in kept[before:]:
        _loaded[case.model.graph.node[0].op_type].append(case)
    found = [_case(case) for case in _loaded[operator] if len(case.model.graph.node) == 1]
    return [case for case in found if case is not None], sum(case is None for case in found)


def _no_functions(
    node: onnx.NodeProto, input_types: Any, name: str, opset_imports: Any = None
) -> tuple[list[Any], int]:
    versions = {entry.domain: entry.version for entry in opset_imports or []}
    version = versions.get(node.domain, onnx.defs.onnx_opset_version())
    return [], onnx.defs.get_schema(node.op_type, version, node.domain).since_version


_loaded: dict[str, list[Any]] = defaultdict(list)


def _case(case: Any) -> NodeCase | None:
    node, graph = case.model.graph.node[0], case.model.graph
    kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    arrays = [array for side in case.data_sets[0] for array in side]
    if not all(isinstance(array, np.ndarray | np.generic) for array in arrays) or not set(kinds) <= {1, 2, 6, 7, 9}:
        return None
    made = _Builder(node)
    for value, array in zip(graph.input, case.data_sets[0][0], strict=True):
        made.take(value.name, np.asarray(array))
    for value, array in zip(graph.output, case.data_sets[0][1], strict=True):
        made.give(value.name, np.asarray(array))
    version = case.model.opset_import[0].version
    since = int(onnx.defs.get_schema(node.op_type, version).since_version)
    program = made.program(max(11, min(version, NEWEST if since <= NEWEST or since > LAST else since)))
    return None if program is None else NodeCase(case.name, program, made.inputs, made.outputs, (case.rtol, case.atol))


class _Builder:
    """Truth values go in and out as uint8, as programs have no others."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._nodes: list[onnx.NodeProto] = [node]
        self._constants: list[onnx.TensorProto] = []
        self._fixed = {node.input[place] for place in FIXED.get(node.op_type, ()) if place < len(node.input)}
        self.inputs: dict[str, npt.NDArray[Any]] = {}
        self.outputs: dict[str, npt.NDArray[Any]] = {}

    def take(self, name: str, array: npt.NDArray[Any]) -> None:
        if name in self._fixed:
            self._constants.append(numpy_helper.from_array(array, name))
        elif array.dtype == np.bool_:
            self._nodes.insert(0, helper.make_node("Cast", [f"{name}_in"], [name], to=TensorProto.BOOL))
            self.inputs[f"{name}_in"] = array.astype(np.uint8)
        else:
            self.inputs[name] = array

    def give(self, name: str, array: npt.NDArray[Any]) -> None:
        if array.dtype == np.bool_:
            self._nodes.append(helper.make_node("Cast", [name], [f"{name}_out"], to=TensorProto.UINT8))
            self.outputs[f"{name}_out"] = array.astype(np.uint8)
        else:
            self.outputs[name] = array

    def program(self, opset: int) -> Program | None:
        sides = [[(name, array) for name, array in side.items()] for side in (self.inputs, self.outputs)]
        if not all(str(array.dtype) in get_args(DType) and array.size for side in sides for _, array in side):
            return None
        if not all(sides):
            return None
        values = [
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in side
            ]
            for side in sides
        ]
        graph = helper.make_graph(self._nodes, "node", *values, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            return None
        specs = [tuple(TensorSpec(name, str(array.dtype), array.shape) for name, array in side) for side in sides]  # type: ignore[arg-type]
        return Program(model.SerializeToString(), "fp32", specs[0], specs[1])
