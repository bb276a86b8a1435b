"""What ONNX Runtime makes of a file that somebody else wrote: run in a process that may crash, hang or take too much.

The check of a file's bytes (core.inspection) bounds what it may hold; how much memory and time its shapes ask for shows
itself only when it runs.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import BinaryIO

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.backends.tried import ONE_CORE, TIME_S, case_bytes, limits_for
from featherweight.core.causes import describe_cause
from featherweight.core.errors import UsageError
from featherweight.core.processes import answer_stream, run_module
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.terminal import counted

_OUTPUT_BYTES = 256 << 20
"""Maximum size of all outputs of a batch of a few cases."""


def draw_inputs(specs: Sequence[TensorSpec], batch: int) -> Tensors:
    """Inputs [batch, ...] for a comparison: numbers from 0 to 1 in even rows, normal ones in odd rows, and 0 or 1 where
    whole numbers are asked for, which are valid places in any table."""
    rng = np.random.default_rng(batch)
    drawn: dict[str, Array] = {}
    for spec in specs:
        shape = [batch if size is None else size for size in spec.shape]
        if spec.dtype == "float32":
            values = rng.random(shape)
            if shape:
                values[1::2] = rng.standard_normal(values[1::2].shape)
            drawn[spec.name] = np.asarray(values, np.float32)
        else:
            drawn[spec.name] = np.asarray(rng.integers(0, 2, shape), spec.dtype)
    return drawn


def run_foreign(
    content: bytes, inputs: Sequence[TensorSpec], batches: Sequence[int], *, at_a_time: int | None = None
) -> list[dict[str, Array]]:
    """ONNX Runtime's outputs by name for `draw_inputs` of each of these batches. at_a_time: cases of a run, for a file
    that takes no other number; the outputs of a batch's runs are joined.

    Raises UsageError where the runtime does not run the file, or would take too much to run it.
    """
    order = {"inputs": [asdict(spec) for spec in inputs], "batches": list(batches), "at_a_time": at_a_time}
    stdout = run_module(
        "featherweight.core.backends.foreign",
        json.dumps(order).encode() + b"\n" + content,
        timeout_s=TIME_S,
        what="the ONNX file: the process that tried it on ONNX Runtime",
        failure=UsageError,
        environment=ONE_CORE,
        limits=limits_for(len(content), max(batches) * case_bytes(inputs), TIME_S),
    )
    try:
        with np.load(io.BytesIO(stdout), allow_pickle=False) as archive:
            answer = json.loads(bytes(archive["answer"]).decode())
            if answer["fault"]:
                raise UsageError(f"the ONNX file: ONNX Runtime does not run it ({answer['fault']})")
            return [
                {name: archive[f"{place}_{index}"] for index, name in enumerate(answer["outputs"])}
                for place in range(len(batches))
            ]
    except (zipfile.BadZipFile, zlib.error, ValueError, LookupError, EOFError) as error:
        raise UsageError(
            f"the ONNX file: the process that tried it on ONNX Runtime gave no answer ({error})"
        ) from error


def _run(stdin: BinaryIO) -> tuple[list[str], dict[str, Array]]:
    """What the process does: (names of the outputs, "batch's place_output's place" -> output)."""
    import onnxruntime

    order = json.loads(stdin.readline())
    specs = [TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in order["inputs"]]
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(stdin.read(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found: dict[str, Array] = {}
    for place, batch in enumerate(order["batches"]):
        inputs = draw_inputs(specs, batch)
        size = order["at_a_time"] or batch
        runs = [
            session.run(names, {name: array[start : start + size] for name, array in inputs.items()})
            for start in range(0, batch, size)
        ]
        outputs = runs[0] if len(runs) == 1 else [np.concatenate(parts) for parts in zip(*runs, strict=True)]
        if sum(output.nbytes for output in outputs) > _OUTPUT_BYTES:
            raise ValueError(f"its outputs for {counted(batch, 'cases')} have more than {_OUTPUT_BYTES} bytes")
        found |= {f"{place}_{index}": output for index, output in enumerate(outputs)}
    return names, found


if __name__ == "__main__":
    with answer_stream() as stream:
        fault, outputs, arrays = "", list[str](), dict[str, Array]()
        try:
            outputs, arrays = _run(sys.stdin.buffer)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (the runtime's own classes have no parent of their own)
            fault = describe_cause(error) or "no reason given"
        told = np.frombuffer(json.dumps({"fault": fault, "outputs": outputs}).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, answer=told, **arrays)  # type: ignore[arg-type]
        stream.write(buffer.getvalue())
