"""An exported file, run in its own runtime by a fresh process that has nothing but the file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from featherweight.core.edge.base import Target
from featherweight.core.edge.targets import find_target
from featherweight.core.errors import BackendError, FeatherweightError
from featherweight.core.processes import answer_stream, run_module
from featherweight.core.tensors import Tensors, TensorSpec

TIMEOUT_S = 600


def run_file(
    target: Target, path: Path, inputs: Tensors, given: Sequence[TensorSpec], wanted: Sequence[TensorSpec]
) -> Tensors:
    """The file's outputs for `inputs` [N, ...], one case at a time in a new Python process. Raises BackendError when
    the process fails."""
    buffer = io.BytesIO()
    np.savez(buffer, *(inputs[spec.name] for spec in given), allow_pickle=False)  # a tensor may be called "file"
    specs = [[[spec.name, spec.dtype, spec.shape] for spec in part] for part in (given, wanted)]
    order = json.dumps({"target": target.name, "path": str(path.absolute()), "specs": specs})
    stdin = order.encode() + b"\n" + buffer.getvalue()
    what = f"{target.name}: the fresh process that runs {path.name}"
    stdout = run_module("featherweight.core.edge.run", stdin, timeout_s=TIMEOUT_S, what=what, failure=BackendError)
    with np.load(io.BytesIO(stdout), allow_pickle=False) as found:
        return {spec.name: found[f"arr_{index}"] for index, spec in enumerate(wanted)}


def _answer(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """What the fresh process does."""
    order = json.loads(stdin.readline())
    given, wanted = ([TensorSpec(n, kind, tuple(shape)) for n, kind, shape in part] for part in order["specs"])
    with np.load(io.BytesIO(stdin.read()), allow_pickle=False) as archive:
        inputs = {spec.name: archive[f"arr_{index}"] for index, spec in enumerate(given)}
    run = find_target(order["target"]).open(Path(order["path"]), given, wanted)
    cases = len(next(iter(inputs.values())))
    found = [run({name: array[case : case + 1] for name, array in inputs.items()}) for case in range(cases)]
    buffer = io.BytesIO()
    joined = [np.concatenate([outputs[spec.name] for outputs in found]) for spec in wanted]
    np.savez(buffer, *joined, allow_pickle=False)
    stdout.write(buffer.getvalue())


if __name__ == "__main__":
    with answer_stream() as stream:
        try:
            _answer(sys.stdin.buffer, stream)
        except FeatherweightError as failure:
            sys.exit(str(failure))
