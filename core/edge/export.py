"""`featherweight artifact export`: an artifact's program as another runtime's file, in a folder with the app's sealed
files and `export.json`, which says where it came from and how well it agrees. All of it or nothing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.artifact import Artifact, read_artifact
from featherweight.core.artifact.manifest import DecisionPoint
from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.backends.tried import check_tried
from featherweight.core.edge.base import Target
from featherweight.core.edge.run import run_file
from featherweight.core.edge.targets import find_target
from featherweight.core.errors import LimitError, UsageError
from featherweight.core.files import check_folder, write_errors, writing_alone
from featherweight.core.program import Precision, Program
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.terminal import counted

FACTS = "export.json"
CASES = 32
INPUT_BYTES = 1 << 30
"""The most that random inputs may take."""
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "int8": 0.02}
"""Tolerance relative to the largest output, where the artifact seals none of its own: reordered float32 sums; an int8
step or two of the last layer."""


@dataclass(frozen=True)
class Agreement:
    """The exported file against the artifact's own program on ONNX Runtime, on the same inputs, one at a time.

    inputs: in words; difference, tolerance: of each output, in its own unit; decision_flips: decisions that are
    others, None where the artifact does not say where its decision is seen; order_flips: pairs in another order.
    """

    inputs: str
    cases: int
    difference: Mapping[str, float]
    tolerance: Mapping[str, float]
    decision_flips: int | None
    order_flips: int

    @property
    def passed(self) -> bool:
        """Whether every output is within its tolerance and no decision changed."""
        within = all(self.difference[name] <= self.tolerance[name] for name in self.tolerance)
        return within and not self.decision_flips


@dataclass(frozen=True)
class Exported:
    """directory: holds `file`, `export.json` and `sealed/`; facts: what `export.json` says."""

    directory: Path
    file: str
    bytes: int
    agreement: Agreement
    facts: Mapping[str, Any]


def export_artifact(directory: Path | str, target: str, out: Path | str) -> Exported:
    """Write the new folder `out`.

    Raises UsageError for a target or program that does not fit, or a folder that is not new or that another process
    writes at this moment, MissingExtraError, ArtifactError, LimitError when the exported file does not agree with the
    artifact's program, OutputError.
    """
    to, chosen = Path(out), find_target(target)
    _check_new(to)
    check_folder(to)
    artifact = read_artifact(directory)
    program = _program(artifact)
    chosen.check(program)
    with writing_alone(to):
        _check_new(to)  # another export may have ended just now
        return _export_into(to, artifact, program, chosen)


def _check_new(out: Path) -> None:
    if os.path.lexists(out):
        raise UsageError(f"{out} is there already; remove it or choose another folder")


def _export_into(to: Path, artifact: Artifact, program: Program, chosen: Target) -> Exported:
    inputs, described = _inputs(artifact, program)
    check_tried(artifact, OnnxRuntime.name, program, batches=(1,))
    expected = _expected(program, inputs)
    content = chosen.encode(program)
    with write_errors(to, "the export cannot be written"):
        to.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".partial", dir=to.parent))
        try:
            (partial / chosen.file).write_bytes(content)
            found = run_file(chosen, partial / chosen.file, inputs, program.inputs, program.outputs)
            agreement = _compare(artifact, program, expected, found, described)
            _check_agrees(chosen, agreement)
            facts = _facts(artifact, program, chosen, content, agreement)
            _write_rest(partial, artifact, facts)
            partial.rename(to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Exported(to, chosen.file, len(content), agreement, facts)


def _program(artifact: Artifact) -> Program:
    """The one that was sealed as fastest; bf16 is the fp32 file, which every target keeps in float32."""
    first = next((choice.precision for choice in artifact.manifest.preferences), artifact.programs[0].precision)
    program = artifact.program(first)
    return replace(program, precision="fp32") if first == "bf16" else program


def _inputs(artifact: Artifact, program: Program) -> tuple[Tensors, str]:
    reference = artifact.reference_cases()
    if reference is not None:
        return reference.inputs, f"{reference.count} reference inputs"
    if (size := CASES * sum(4 * math.prod(size or 1 for size in spec.shape) for spec in program.inputs)) > INPUT_BYTES:
        raise UsageError(
            f"{artifact.directory}: {CASES} inputs of its program would take {size} bytes: too large to try"
        )
    generator = np.random.default_rng(0)
    return {spec.name: _random(spec, generator) for spec in program.inputs}, f"{CASES} random inputs, seed 0"


def _random(spec: TensorSpec, generator: np.random.Generator) -> Array:
    """Images of blocks in various contrasts; rows whose columns reach from hundredths to thousands."""
    shape = [CASES, *(size or 1 for size in spec.shape[1:])]
    if len(shape) < 4:
        values = generator.normal(size=shape) * np.power(10, generator.uniform(-2, 3, shape))
        return values.astype(spec.dtype)
    height, width = (-(-size // 8) for size in shape[2:4])
    coarse = generator.random([*shape[:2], height, width]).repeat(8, 2).repeat(8, 3)
    contrast = generator.random([CASES, 1, 1, 1])
    return (coarse[:, :, : shape[2], : shape[3]] * contrast).astype(spec.dtype)


def _expected(program: Program, inputs: Tensors) -> Tensors:
    cases = len(next(iter(inputs.values())))
    with OnnxRuntime().open(program) as session:
        found = [session.run({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(cases)]
    return {spec.name: np.concatenate([outputs[spec.name] for outputs in found]) for spec in program.outputs}


def _compare(artifact: Artifact, program: Program, expected: Tensors, found: Tensors, inputs: str) -> Agreement:
    reference = artifact.reference_cases()
    relative = TOLERANCE[program.precision]
    tolerance = {name: relative * max(1.0, float(np.abs(array).max())) for name, array in expected.items()}
    return Agreement(
        inputs=inputs,
        cases=len(next(iter(expected.values()))),
        difference={name: largest_difference(found[name], array) for name, array in expected.items()},
        tolerance=tolerance if reference is None else dict(reference.tolerances),
        decision_flips=None if reference is None else _decision_flips(expected, found, reference.decision),
        order_flips=sum(count_order_flips(expected[name], found[name]) for name in expected),
    )


def largest_difference(found: Array, expected: Array) -> float:
    """Infinite where the shapes differ or a value found is not a number. found, expected: of any shape."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found.astype(np.float64) - expected).max())


def _decision_flips(expected: Tensors, found: Tensors, decision: DecisionPoint | None) -> int | None:
    if decision is None:
        return None
    if decision.largest:
        places = [decision.decide(tensors[decision.output]) for tensors in (expected, found)]
        return int((places[0] != places[1]).sum())
    columns = (tensors[decision.output][:, decision.column] for tensors in (expected, found))
    before, after = (column >= decision.threshold for column in columns)
    return int((before != after).sum())


def count_order_flips(expected: Array, found: Array) -> int:
    """Pairs of cases, over all columns, of which the larger became the smaller. Arrays [N, ...]."""
    flips = 0
    for one, other in zip(expected.reshape(len(expected), -1).T, found.reshape(len(found), -1).T, strict=True):
        before, after = (np.sign(column[:, None] - column[None, :]) for column in (one, other))
        flips += int((before * after < 0).sum()) // 2
    return flips


def _check_agrees(target: Target, agreement: Agreement) -> None:
    if agreement.passed:
        return
    found = agreement.difference
    worst = ", ".join(f"{name} {found[name]:.3g} (allowed {most:.3g})" for name, most in agreement.tolerance.items())
    flips = f"; {counted(agreement.decision_flips, 'decisions')} otherwise" if agreement.decision_flips else ""
    raise LimitError(
        f"{target.name}: the exported file does not agree with the artifact's program on {agreement.inputs}: largest "
        f"difference of {worst}{flips}; nothing was written"
    )


def _facts(
    artifact: Artifact, program: Program, target: Target, content: bytes, agreement: Agreement
) -> dict[str, Any]:
    manifest = artifact.manifest
    packages = ("featherweight", "numpy", "onnxruntime", *target.packages)
    return {
        "schema": "featherweight-export/1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": target.name,
        "file": {"name": target.file, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "precision": program.precision,
        "inputs": [asdict(spec) for spec in program.inputs],
        "outputs": [asdict(spec) for spec in program.outputs],
        "labels": list(manifest.labels),
        "notes": list(target.notes),
        "source": {
            "artifact": manifest.name,
            "artifact_sha256": artifact.sha256,
            "app": manifest.app,
            "program_sha256": program.sha256,
            "program_bytes": len(program.content),
            "weights_source": manifest.weights_source,
            "forced": manifest.forced,
        },
        "agreement": {**asdict(agreement), "against": "the artifact's program on onnxruntime"},
        "versions": {name: importlib.metadata.version(name) for name in dict.fromkeys(packages)},
    }


def _write_rest(folder: Path, artifact: Artifact, facts: Mapping[str, Any]) -> None:
    for name, content in artifact.sealed.items():
        path = folder / "sealed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    folder.chmod(0o755)
