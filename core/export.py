"""Model to Program: one small ONNX file, checked against the network or the trees that it came from."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from featherweight.core.arrays import Floats32
from featherweight.core.causes import describe_cause
from featherweight.core.errors import BackendError, FeatherweightError, UsageError
from featherweight.core.model import Model, StepRecord
from featherweight.core.networks import check_network, check_not_scripted, run_network
from featherweight.core.onnx_network import OnnxNetwork
from featherweight.core.onnx_network.cleaning import slim
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors
from featherweight.core.trees.comparison import RELATIVE, threshold_rows
from featherweight.core.trees.ensemble import Ensemble
from featherweight.core.trees.onnx_file import encode_trees
from featherweight.core.trees.predict import predict

OPSET = 20
"""What ONNX Runtime 1.23 and OpenVINO 2026 both read, with uint8 QuantizeLinear."""

TOLERANCE = 1e-3
"""Largest difference of an output, relative to its largest value, that reordered float32 sums explain."""


def export(model: Model) -> tuple[Program, StepRecord]:
    """The model as an fp32 program whose first dimension is free.

    The exporter's rules fold BatchNorm into the convolutions; trees become one TreeEnsemble; a foreign ONNX file whose
    weights nobody changed is given as it came. Some inputs run through model and program, of trees rows at the
    thresholds and beside them; the largest difference is recorded. Raises UsageError when the network does not give
    what its specs say or torch cannot export it, BackendError when the program does not give the model's outputs.
    """
    opset = OPSET
    if isinstance(model.network, OnnxNetwork) and model.network.is_untouched():
        program, difference, opset = _original(model.network, model)
        tolerance = TOLERANCE
    elif isinstance(model.network, Ensemble):
        program = Program(encode_trees(model.network), "fp32", model.inputs, model.outputs, "trees")
        difference, tolerance = _trees_difference(model.network, program), RELATIVE
    else:
        check_not_scripted(model.network, "export")
        network = _plain_copy(model.network)
        check_network(Model(network, model.inputs, model.outputs), "export")
        program = Program(_exported(network, model), "fp32", model.inputs, model.outputs)
        difference, tolerance = _difference(network, program), TOLERANCE
    if not difference <= tolerance:
        raise BackendError(
            f"export: the program's outputs differ from the model's by {difference:.2g} of their largest value, "
            f"more than {tolerance:g}; the model does something that the export does not keep"
        )
    facts = {"file_bytes": len(program.content), "opset": opset, "max_relative_difference": difference}
    return program, StepRecord("export", {}, facts)


def _original(network: OnnxNetwork, model: Model) -> tuple[Program, float, int]:
    """A file that came as ONNX goes on as it came: (program, its difference from the module, opset). Raises UsageError
    where the model calls its tensors something else."""
    if model.inputs != network.inputs or model.outputs != network.outputs:
        found = ", ".join(map(str, (*network.inputs, *network.outputs)))
        raise UsageError(f"export: the ONNX file has the tensors {found}; the model's specs say otherwise")
    file = network.file
    return Program(file.program, file.precision, file.inputs, file.outputs), file.difference, file.opset


def _plain_copy(network: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(network).cpu().float().eval()
    except MemoryError:
        raise
    except Exception as error:  # a module may hold anything
        raise UsageError(f"export: {type(network).__name__} cannot be copied: {describe_cause(error)}") from error


def _exported(network: nn.Module, model: Model) -> bytes:
    try:
        return _to_onnx(network, model)
    except (FeatherweightError, MemoryError):
        raise
    except Exception as error:  # the exporter runs the network's code and raises whatever that does
        reason = describe_cause(error)
        raise UsageError(f"export: {type(network).__name__} cannot become an ONNX program: {reason}") from error


def _to_onnx(network: nn.Module, model: Model) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    example = tuple(
        torch.full([2 if size is None else size for size in spec.shape], 0.5).to(getattr(torch, spec.dtype))
        for spec in model.inputs
    )
    shapes = tuple({0: batch} if spec.shape and spec.shape[0] is None else None for spec in model.inputs)
    with quiet(), torch.no_grad():
        exported = torch.onnx.export(
            network,
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[spec.name for spec in model.inputs],
            output_names=[spec.name for spec in model.outputs],
            dynamic_shapes=shapes,
            optimize=True,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = onnx.shape_inference.infer_shapes(slim(exported.model_proto))
    onnx.checker.check_model(proto)
    content: bytes = slim(proto).SerializeToString()
    return content


def _difference(network: nn.Module, program: Program) -> float:
    generator = np.random.default_rng(0)
    inputs: Tensors = {
        spec.name: generator.random([2 if size is None else size for size in spec.shape]).astype(spec.dtype)
        for spec in program.inputs
    }
    found = _run(program, inputs)
    wanted = run_network(network, tuple(torch.from_numpy(inputs[spec.name]) for spec in program.inputs), "export")
    return max(
        float(np.abs(have - want.numpy()).max() / max(1.0, float(want.abs().max())))
        for have, want in zip(found, wanted, strict=True)
    )


def _trees_difference(ensemble: Ensemble, program: Program) -> float:
    rows = threshold_rows(ensemble, 1024)
    expected = predict(ensemble, rows).reshape(len(rows), -1)
    (found,) = _run(program, {program.inputs[0].name: rows})
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def _run(program: Program, inputs: Tensors) -> list[Floats32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(program.content, options, providers=["CPUExecutionProvider"])
        return list(session.run([spec.name for spec in program.outputs], dict(inputs)))
    except MemoryError:
        raise
    except Exception as error:  # the runtime's own classes have no parent of their own
        raise BackendError(
            f"export: ONNX Runtime does not run the exported program: {describe_cause(error)}"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries that print and log for their own developers from the terminal; errors still raise."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "")]
    levels = [logger.level for logger in noisy]
    out = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        warnings.simplefilter("ignore")
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)
