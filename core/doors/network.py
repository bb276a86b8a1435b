"""Trained modules of torch, as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from featherweight.core.arrays import Array
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.errors import UsageError
from featherweight.core.model import Model
from featherweight.core.networks import check_not_scripted, run_network
from featherweight.core.tensors import DType, TensorSpec

_DTYPES: Mapping[torch.dtype, DType] = {
    torch.float32: "float32",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.uint8: "uint8",
}
_INPUT_DTYPES: Mapping[str, DType] = {"u1": "uint8", "i4": "int32", "i8": "int64"}


def read_module(network: nn.Module, example: Mapping[str, Array]) -> LoadedModel:
    """A trained module, which is run on a few cases to see what it gives. example: name -> [n, ...], in the order in
    which the module takes them. Raises UsageError where it does not run on them."""
    check_not_scripted(network, "load")
    network = network.cpu().float().eval()
    names = _input_names(list(example))
    specs = tuple(
        TensorSpec(name, _input_dtype(array), (None, *array.shape[1:]))
        for name, array in zip(names, example.values(), strict=True)
    )
    inputs = [
        torch.from_numpy(np.ascontiguousarray(array[:2], np.dtype(spec.dtype)))
        for spec, array in zip(specs, example.values(), strict=True)
    ]
    outputs = run_network(network, tuple(inputs), "load")
    return LoadedModel(Model(network, specs, _output_specs(outputs)), type(network).__name__)


def _input_names(given: Sequence[str]) -> list[str]:
    """Those of the arrays, where they have some."""
    return ["input" if not name else f"input_{name}" if name.isdigit() else name for name in given]


def _input_dtype(array: Array) -> DType:
    """Floats and truths are float32 to a network, whole numbers stay what they are."""
    return _INPUT_DTYPES.get(array.dtype.str[1:], "float32")


def _output_specs(outputs: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    specs = []
    for place, output in enumerate(outputs):
        name = "output" if len(outputs) == 1 else f"output_{place}"
        if output.dtype not in _DTYPES or output.ndim < 1 or len(output) != 2:
            raise UsageError(
                f"load: for 2 cases the network gives {str(output.dtype).removeprefix('torch.')} {list(output.shape)}; "
                "expected float32 with the cases first, [2, ...]"
            )
        specs.append(TensorSpec(name, _DTYPES[output.dtype], (None, *output.shape[1:])))
    return tuple(specs)
