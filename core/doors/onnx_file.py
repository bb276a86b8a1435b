"""ONNX files: networks, trees that this featherweight wrote, and trees that a converter wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.arrays import Array, Probabilities
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.onnx_trees import holds_converted_trees, read_converted_trees
from featherweight.core.doors.scores import infer_score, probabilities, raw_scores
from featherweight.core.errors import BackendError, DataError, UsageError
from featherweight.core.inspection import inspect_program
from featherweight.core.model import Model, trees_model
from featherweight.core.onnx_network import read_onnx_network
from featherweight.core.trees.onnx_file import decode_trees


def read_onnx(path: Path, content: bytes) -> LoadedModel:
    """Inspected before any runtime sees it. Raises DataError for a file that holds what no program may."""
    if holds_converted_trees(content):
        return read_converted_trees(path, content)
    try:
        graph: Any = inspect_program(content)["graph"]
        operators = {node.get("op_type", "") for node in graph.get("node", [])}
    except BackendError as error:
        raise DataError(f"{path}: {error}") from error
    if "TreeEnsemble" in operators:
        return _trees(path, content)
    network = read_onnx_network(content)
    return LoadedModel(
        Model(network, network.inputs, network.outputs), "ONNX network", "ONNX Runtime", _reference(content)
    )


def _trees(path: Path, content: bytes) -> LoadedModel:
    try:
        model = trees_model(decode_trees(content))
        return LoadedModel(model, "ONNX trees", meaning="binary" if model.outputs[0].shape[1] == 1 else "classes")
    except BackendError as error:
        raise UsageError(
            f"{path}: holds a TreeEnsemble that another program wrote, which is not read; load what it was converted "
            "from (LightGBM's text, XGBoost's JSON, the scikit-learn object)"
        ) from error


def _reference(content: bytes) -> Any:
    """What ONNX Runtime says of the file, by the form of score that its outputs show."""

    def reference(inputs: Mapping[str, Array]) -> Probabilities:
        import onnxruntime

        from featherweight.core.tensors import TensorSpec

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        fed = {one.name: np.asarray(inputs[one.name], _NUMPY[one.type]) for one in session.get_inputs()}
        names = [one.name for one in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, fed), strict=True))
        specs = [
            TensorSpec(name, "float32", (None, *array.shape[1:]))
            for name, array in outputs.items()
            if array.dtype == np.float32
        ]
        wide = [spec.shape[1] for spec in specs if len(spec.shape) == 2 and (spec.shape[1] or 0) > 2]
        score = infer_score(outputs, specs, classes=wide[0] or 2 if len(wide) == len(specs) == 1 else 2)
        return probabilities(raw_scores(outputs, score))

    return reference


_NUMPY: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
}
