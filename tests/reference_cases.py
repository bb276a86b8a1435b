"""ReferenceCases for artifacts of tests: drawn inputs and what ONNX Runtime gives for them, or a little more."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featherweight.core.artifact import (
    Artifact,
    Contents,
    DecisionPoint,
    Preference,
    ReferenceCases,
    read_artifact,
    write_artifact,
)
from featherweight.core.backends.registry import find_backend
from featherweight.core.parity.reproduction import run_batches

COUNT = 16


def seal_reference_cases(directory: Path, *, shift: float = 0.0, seed: int = 0) -> Artifact:
    """Write the artifact again, with reference inputs; shift: added to the outputs that are sealed, as if they came
    from another program."""
    artifact = read_artifact(directory)
    program, m = artifact.programs[0], artifact.manifest
    generator = np.random.default_rng(seed)
    inputs = {
        spec.name: generator.uniform(size=(COUNT, *(size or 1 for size in spec.shape[1:]))).astype(spec.dtype)
        for spec in program.inputs
    }
    with find_backend("onnxruntime").open(program) as session:
        found = run_batches(session, inputs, 8)
    name = program.outputs[0].name
    outputs = {name: found[name] + np.float32(shift)}
    middle = float(np.sort(found[name][:, 0])[COUNT // 2 - 1 : COUNT // 2 + 1].mean())
    decision = DecisionPoint(output=name, column=0, threshold=middle)
    reference = ReferenceCases(inputs, outputs, "onnxruntime", program.precision, {name: 1e-3}, decision)
    contents = Contents(
        name=m.name,
        app=m.app,
        labels=m.labels,
        programs=artifact.programs,
        sealed=artifact.sealed,
        evidence=artifact.evidence,
        documents=artifact.documents,
        weights_source=m.weights_source,
        versions=m.versions,
        preferences=m.preferences or [Preference(backend="onnxruntime", precision=program.precision)],
        reference_cases=reference,
    )
    return write_artifact(directory, contents)
