"""Whether an artifact gives the predictions that it was sealed for, asked of a fresh process that only has the folder.

The process knows nothing of the network, of torch or of the optimizer: it does what a server does.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.artifact.store import read_artifact
from core.backends.registry import find_backend
from core.errors import ArtifactError, FeatherweightError
from core.processes import run_module
from core.program import Precision
from core.tensors import Tensors

TIMEOUT_S = 300
TOLERANCE = 1e-4
"""Of the largest output: the same runtime on the same file rounds alike, however many cases a batch has."""


def check_artifact(directory: Path, backend: str, precision: Precision, inputs: Tensors, expected: Tensors) -> float:
    """Run the sealed program on `inputs` in a new Python process and compare; returns the largest relative difference.

    Raises ArtifactError when the process fails or the outputs are not `expected`.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **inputs)
    order = json.dumps({"directory": str(directory.absolute()), "backend": backend, "precision": precision})
    stdin = order.encode() + b"\n" + buffer.getvalue()
    what = f"{directory}: the fresh process that runs the artifact"
    stdout = run_module("core.check_artifact", stdin, timeout_s=TIMEOUT_S, what=what, failure=ArtifactError)
    with np.load(io.BytesIO(stdout), allow_pickle=False) as found:
        difference = max(_difference(found[name], array) for name, array in expected.items())
    if not difference <= TOLERANCE:
        raise ArtifactError(
            f"{directory}: opened in a fresh process, the artifact's outputs differ by {difference:.2g} of the largest "
            f"output from those that were judged, more than {TOLERANCE:g}; do not use this artifact"
        )
    return difference


def _difference(found: np.typing.NDArray[np.float32], expected: np.typing.NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def _answer(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """What the fresh process does."""
    order = json.loads(stdin.readline())
    with np.load(io.BytesIO(stdin.read()), allow_pickle=False) as archive:
        inputs = {name: archive[name] for name in archive.files}
    program = read_artifact(order["directory"]).program(order["precision"])
    with find_backend(order["backend"]).open(program) as session:
        outputs = session.run(inputs)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **outputs)
    stdout.write(buffer.getvalue())


if __name__ == "__main__":
    try:
        _answer(sys.stdin.buffer, sys.stdout.buffer)
    except FeatherweightError as failure:
        sys.exit(str(failure))
