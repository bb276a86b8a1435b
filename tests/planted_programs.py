"""Planted faults: programs that are really broken, in the ways in which compression breaks them, and the gate that they
are put through: the very bench and judge that `optimize` uses.

Networks and trees are trained here, on made-up data; faults are made in the ONNX file, or in what the app seals.
`tests.integration.test_planted_faults` wants every one refused; `bench.gate` counts them for the pages of evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from featherweight.core.errors import BackendError
from featherweight.core.evidence.judge import Check, all_passed
from featherweight.core.program import Program
from featherweight.core.recipe import Recipe, candidates, parse_recipe
from featherweight.core.search.candidates import BuildResult, CandidateBuilder
from featherweight.core.search.measurements import Measurements
from featherweight.core.search.runtimes import find_runtimes
from featherweight.core.search.trial import BuiltCandidate, Evaluator
from featherweight.core.task import HeldOut, SealedFiles
from tests.fakes import SIDE, SquaresTask, TreesTask

RECIPE = """
version = 1
name = "planted"
[source]
task = "planted"
[measure]
backends = ["onnxruntime"]
repetitions = 3
[[step]]
kind = "quantize"
calibration_samples = 256
[limits]
"""
NETWORK = RECIPE + "auc_loss = 0.01\nsensitivity_loss = 0.05\nspecificity_loss = 0.05\nflip_ratio_max = 0.04\n"
TREES = RECIPE + "average_precision_loss = 0.01\ncard_precision_loss = 0.05\nflip_ratio_max = 0.015\n"

Arrays = dict[str, npt.NDArray[Any]]
Fault = Callable[[onnx.ModelProto], None]
Threshold = Callable[[float], float]


def unshifted(threshold: float) -> float:
    return threshold


class SealedSquares(SquaresTask):
    """The baseline's threshold is what its own scores would be sealed with; `shift` plants a fault in a candidate's."""

    shift: Threshold = staticmethod(unshifted)
    drawn = 0
    """Other cases for another number."""

    def _held_out(self, prefix: str, seed: int) -> HeldOut:
        """Squares of all strengths, some all but invisible: where every case is easy, many faults do no harm."""
        generator = np.random.default_rng(seed + 100 * self.drawn)
        labels = generator.integers(0, 2, self.cases)
        inputs = generator.normal(0.4, 0.12, (self.cases, 1, SIDE, SIDE))
        for image, label in zip(inputs, labels, strict=True):
            row, column = generator.integers(2, SIDE - 8, 2)
            image[0, row : row + 6, column : column + 6] += generator.uniform(0.02, 0.14) * label
        ids = tuple(f"{prefix}{index}" for index in range(self.cases))
        return HeldOut(ids, {"image": inputs.clip(0, 1).astype(np.float32)}, labels)

    def seal(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[SealedFiles, float]:
        threshold = float(np.quantile(scores, 1 - labels.mean()))
        return SealedFiles("squares", ("empty", "square"), {}, "made up"), self.shift(threshold)


class SealedRows(TreesTask):
    shift: Threshold = staticmethod(unshifted)
    drawn = 0

    def _held_out(self, prefix: str, seed: int) -> HeldOut:
        return super()._held_out(prefix, seed + 100 * self.drawn)

    def seal(self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[SealedFiles, float]:
        sealed, threshold = super().seal(scores, labels)
        return sealed, self.shift(threshold)


@dataclass(frozen=True)
class Gate:
    """What stands between a candidate and its artifact."""

    recipe: Recipe
    task: SealedSquares | SealedRows
    bench: Evaluator
    built: BuildResult

    def judge(self, program: Program) -> tuple[Check, ...]:
        made = BuiltCandidate(candidates(self.recipe)[0], BuildResult(program, self.built.records))
        (trial,) = self.bench.try_one(made)
        return trial.checks

    def plant(self, fault: Fault, *, into: str) -> Program:
        """The program, fp32 or int8, with the fault in it."""
        program = self.bench.baseline_program if into == "fp32" else self.built.program
        model = onnx.load_from_string(program.content)
        fault(model)
        content = model.SerializeToString()
        assert content != program.content
        return replace(program, content=content)


def open_gate(text: str, task: SealedSquares | SealedRows, work: Path) -> Gate:
    recipe = parse_recipe(text)
    workshop = CandidateBuilder(task, recipe, work)
    runtimes = find_runtimes(recipe.measure, task.baseline.kind)
    measurements = Measurements(recipe, task, runtimes, workshop.ledger, lambda stage, done, total: None)
    bench = Evaluator(recipe, task, measurements, workshop.baseline())
    with runtimes.backends["onnxruntime"].open(bench.baseline_program) as session:
        held_out = task.validation_cases()
        scores = task.scores(session.run(held_out.tensors))
    task.positive_threshold = task.seal(scores, held_out.labels)[1]
    return Gate(recipe, task, bench, workshop.build(candidates(recipe)[0]))


def weights(name: str, change: Callable[[npt.NDArray[Any]], npt.ArrayLike]) -> Fault:
    """A fault in one initializer."""

    def plant(model: onnx.ModelProto) -> None:
        found = next(one for one in model.graph.initializer if one.name == name)
        old = numpy_helper.to_array(found)
        found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(old), dtype=old.dtype), name))

    return plant


def before(name: str, operator: str, *values: float) -> Fault:
    """A further layer between the tensor `name` and all that read it."""

    def plant(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = ["planted" if one == name else one for one in node.input]
        names = [f"planted {place}" for place in range(len(values))]
        for constant, value in zip(names, values, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.float32(value), constant))
        place = next((at for at, node in enumerate(model.graph.node) if name in node.output), -1)
        model.graph.node.insert(place + 1, onnx.helper.make_node(operator, [name, *names], ["planted"]))

    return plant


def after(operator: str, *values: float) -> Fault:
    """A further layer at the end."""

    def plant(model: onnx.ModelProto) -> None:
        name = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["unplanted" if one == name else one for one in node.output]
            node.input[:] = ["unplanted" if one == name else one for one in node.input]
        names = [f"planted {place}" for place in range(len(values))]
        for constant, value in zip(names, values, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.float32(value), constant))
        model.graph.node.append(onnx.helper.make_node(operator, ["unplanted", *names], [name]))

    return plant


def leaves(change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Fault:
    return attribute("leaf_weights", change)


def attribute(name: str, change: Callable[..., npt.NDArray[Any]]) -> Fault:
    """A fault in one list of the tree ensemble."""

    def plant(model: onnx.ModelProto) -> None:
        (found,) = [one for one in model.graph.node[0].attribute if one.name == name]
        if found.type == onnx.AttributeProto.INTS:
            found.ints[:] = [int(value) for value in change(np.array(found.ints))]
        else:
            old = numpy_helper.to_array(found.t)
            found.t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(old), dtype=old.dtype), found.t.name))

    return plant


def at(places: slice, change: Callable[[npt.NDArray[Any]], npt.ArrayLike]) -> Callable[..., npt.NDArray]:
    """Changes only these places of the first axis."""

    def changed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found = values.copy()
        found[places] = change(found[places])
        return found

    return changed


def swapped(features: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Columns 0 and 3 in each other's place."""
    return np.where(features == 0, 3, np.where(features == 3, 0, features))


NETWORK_FAULTS: dict[str, tuple[str, Fault]] = {
    "a layer zeroed": ("fp32", weights("4.weight", np.zeros_like)),
    "the first layer zeroed, int8": ("int8", weights("0.weight_quantized", np.zeros_like)),
    "the channels of a layer reversed": ("fp32", weights("3.conv2.weight", lambda w: w[:, ::-1])),
    "the filters of a layer reversed, int8": ("int8", weights("4.weight_quantized", lambda w: w[::-1])),
    "wrong polarity": ("fp32", after("Neg")),
    "half of the filters lost": ("fp32", weights("0.weight", at(slice(0, 16), np.zeros_like))),
    "weights of a layer four times too large": ("fp32", weights("3.conv1.weight", lambda w: w * 4)),
    "weights of a layer with the wrong sign": ("fp32", weights("4.weight", np.negative)),
    "a bias removed": ("fp32", weights("4.weight_bias", np.zeros_like)),
    "another layer's biases, in reverse": ("fp32", weights("4.weight_bias", lambda b: b[::-1])),
    "the scale of weights doubled in half of the channels, int8": (
        "int8",
        weights("0.weight_scale", at(slice(0, 16), lambda s: s * 2)),
    ),
    "an activation's range a quarter, int8": ("int8", weights("relu_3_scale", lambda s: s / 4)),
    "an activation's zero point shifted, int8": ("int8", weights("relu_2_zero_point", lambda z: z + 40)),
    "the input's zero point shifted, int8": ("int8", weights("image_zero_point", lambda z: z + 140)),
    "activations clipped": ("fp32", before("relu_2", "Clip", 0.0, 0.4)),
    "input in 0..255": ("fp32", before("image", "Mul", 255.0)),
    "input normalized twice": ("fp32", before("image", "Sub", 0.4)),
    "input inverted": ("fp32", before("image", "Neg")),
    "nothing but one answer": ("fp32", after("Mul", 0.0)),
    "not a number": ("fp32", after("Log")),
    "infinite": ("fp32", after("Mul", float("inf"))),
    "the middle layer zeroed, int8": ("int8", weights("3.conv1.weight_quantized", np.zeros_like)),
    "the last layer's weights zeroed": ("fp32", weights("9.weight", np.zeros_like)),
    "the last layer in reverse": ("fp32", weights("9.weight", lambda w: w[:, ::-1])),
    "the last layer's weights without their sign": ("fp32", weights("9.weight", np.abs)),
    "kernels turned by a quarter": ("fp32", weights("0.weight", lambda w: np.rot90(w, 1, (2, 3)) * [[[[-1]]]])),
    "kernels of another layer": ("fp32", weights("3.conv2.weight", lambda w: np.roll(w, 1, axis=0))),
    "filters shifted by one": ("fp32", weights("4.weight", lambda w: np.roll(w, 1, axis=0))),
    "the largest weights of a layer cut off": (
        "fp32",
        weights("4.weight", lambda w: w.clip(*np.quantile(w, [0.35, 0.65]))),
    ),
    "the weights of a layer of two bits": ("fp32", weights("4.weight", lambda w: np.round(w / 0.1) * 0.1)),
    "noise as large as the weights": (
        "fp32",
        weights("3.conv1.weight", lambda w: w + 2 * w.std() * np.random.default_rng(0).normal(size=w.shape)),
    ),
    "nine of ten weights pruned without recovery": (
        "fp32",
        weights("4.weight", lambda w: np.where(np.abs(w) >= np.quantile(np.abs(w), 0.97), w, 0)),
    ),
    "a quarter of the last layer's channels pruned, the surest": (
        "fp32",
        weights("9.weight", lambda w: np.where(np.abs(w) > np.quantile(np.abs(w), 0.5), 0, w)),
    ),
    "the scale of one layer's weights halved, int8": ("int8", weights("3.conv2.weight_scale", lambda s: s / 4)),
    "the last scale wrong in sign, int8": ("int8", weights("9.weight_scale", lambda s: s * 0 + 1e-6)),
    "int8 weights that wrapped around": ("int8", weights("4.weight_quantized", lambda w: w.astype(np.int16) + 90)),
    "int8 weights read as unsigned": ("int8", weights("0.weight_quantized", lambda w: np.abs(w.astype(np.int16)))),
    "the output's range a tenth, int8": ("int8", weights("logit_scale", lambda s: s / 10)),
    "the input's scale doubled, int8": ("int8", weights("image_scale", lambda s: s / 3)),
    "input of another scale": ("fp32", before("image", "Mul", 0.25)),
    "input in the reverse order of bytes": ("fp32", before("image", "Clip", 0.45, 0.5)),
    "input rectified": ("fp32", before("image", "Sub", 0.3)),
    "activations all positive": ("fp32", before("getitem_9", "Abs")),
    "a rectifier upside down": ("fp32", before("relu_1", "Neg")),
    "a residual connection lost": ("fp32", before("getitem_6", "Mul", 0.0)),
    "the sign of the answer lost": ("fp32", after("Abs")),
    "the answer rounded to whole numbers": ("fp32", after("Clip", -0.2, 0.2)),
}

TREE_FAULTS: dict[str, tuple[str, Fault]] = {
    "half of the trees removed": ("fp32", attribute("tree_roots", lambda roots: roots[: len(roots) // 2])),
    "the leaves of a third of the trees negated": ("fp32", leaves(at(slice(0, 150), np.negative))),
    "leaves of some trees shifted at random": (
        "fp32",
        leaves(lambda w: w + np.random.default_rng(0).normal(0, 0.5, len(w)).astype(np.float32)),
    ),
    "leaves in reverse": ("fp32", leaves(lambda w: w[::-1])),
    "wrong polarity": ("fp32", leaves(np.negative)),
    "thresholds of splits shifted": ("fp32", attribute("nodes_splits", lambda splits: splits + 0.7)),
    "thresholds of splits rounded": ("fp32", attribute("nodes_splits", np.round)),
    "columns swapped": ("fp32", attribute("nodes_featureids", swapped)),
    "columns one to the left": ("fp32", attribute("nodes_featureids", lambda ids: (ids + 1) % 6)),
    "yes and no of missing values swapped and columns reversed": (
        "fp32",
        attribute("nodes_featureids", lambda ids: 5 - ids),
    ),
    "leaves of one bit": ("int8", leaves(np.sign)),
    "nothing but one answer": ("fp32", leaves(np.zeros_like)),
    "not a number": ("fp32", leaves(at(slice(0, 1), lambda w: w * np.float32("nan")))),
    "the first tree dropped": ("fp32", attribute("tree_roots", lambda roots: roots[1:])),
    "all but the first five trees dropped": ("fp32", attribute("tree_roots", lambda roots: roots[:5])),
    "every other tree dropped": ("fp32", attribute("tree_roots", lambda roots: roots[::2])),
    "one tree counted many times": (
        "fp32",
        attribute("tree_roots", lambda roots: np.where(np.arange(len(roots)) < 20, roots[0], roots)),
    ),
    "leaves shifted by one": ("fp32", leaves(lambda w: np.roll(w, 1))),
    "leaves of a part of the trees doubled": ("fp32", leaves(at(slice(0, 300), lambda w: w * 4))),
    "leaves of the first trees zeroed": ("fp32", leaves(at(slice(0, 150), np.zeros_like))),
    "leaves all positive": ("fp32", leaves(np.abs)),
    "leaves that are positive lost": ("fp32", leaves(lambda w: np.minimum(w, 0))),
    "leaves that are negative lost": ("fp32", leaves(lambda w: np.maximum(w, 0))),
    "leaves wrapped around": ("fp32", leaves(lambda w: (w + 0.1) % 0.2 - 0.1)),
    "leaves in reverse, int8": ("int8", leaves(lambda w: w[::-1])),
    "half of the leaves zeroed, int8": ("int8", leaves(at(slice(0, 110), np.zeros_like))),
    "leaves of the wrong sign, int8": ("int8", leaves(at(slice(0, 60), np.negative))),
    "thresholds of splits negated": ("fp32", attribute("nodes_splits", np.negative)),
    "thresholds of splits in reverse": ("fp32", attribute("nodes_splits", lambda splits: splits[::-1])),
    "thresholds of splits of the wrong scale": ("fp32", attribute("nodes_splits", lambda splits: splits * 2)),
    "thresholds of splits all zero": ("fp32", attribute("nodes_splits", np.zeros_like)),
    "one column stale": ("fp32", attribute("nodes_featureids", lambda ids: np.where(ids == 0, 4, ids))),
    "two columns taken for one": ("fp32", attribute("nodes_featureids", lambda ids: np.where(ids == 3, 2, ids))),
    "missing values sent the other way": (
        "fp32",
        attribute("nodes_missing_value_tracks_true", lambda ways: 1 - ways),
    ),
    "columns of another order": ("fp32", attribute("nodes_featureids", lambda ids: (ids * 5 + 2) % 6)),
}

SHIFTS: dict[str, Threshold] = {
    "threshold too high": lambda threshold: threshold + 1.0,
    "threshold too low": lambda threshold: threshold - 1.0,
    "threshold of the other sign": lambda threshold: -threshold - 1.5,
    "a probability taken for a threshold on scores": lambda threshold: 1 / (1 + np.exp(-threshold)) + 0.5,
    "a threshold that nothing reaches": lambda threshold: threshold + 100.0,
    "a threshold that everything reaches": lambda threshold: threshold - 100.0,
    "a threshold of another scale": lambda threshold: 3 * threshold + 1.5,
}


def refused(gate: Gate, program: Program) -> bool:
    """Whether it is not sealed: a limit is missed, or it cannot be judged at all."""
    try:
        return not all_passed(gate.judge(program))
    except BackendError:
        return True


def judge_shifted(gate: Gate, shift: Threshold) -> tuple[Check, ...]:
    """The honest program, sealed with a wrong threshold."""
    gate.task.shift = shift
    try:
        return gate.judge(gate.built.program)
    finally:
        gate.task.shift = unshifted


APPS = {"network": NETWORK_FAULTS, "trees": TREE_FAULTS}
"""App -> the faults of its programs; each has those of SHIFTS besides."""


def open_app(app: str, drawn: int, work: Path) -> Gate:
    """drawn: other cases for another number."""
    task: SealedSquares | SealedRows = SealedSquares(cases=1000) if app == "network" else SealedRows()
    task.drawn = drawn
    return open_gate(NETWORK if app == "network" else TREES, task, work)
