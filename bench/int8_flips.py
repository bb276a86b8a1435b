"""How many decisions int8 flips, in one run: our quantize step, NNCF's and ONNX Runtime's static quantization with
their defaults, on PneumoniaMNIST for each family of networks of docs/families.md, small and trained here.

    FEATHERWEIGHT_DATA=... python -m bench.int8_flips [--families resnet vit] [--epochs 6]

All get the same network, the same 256 training images for their ranges, and the threshold that is best on the
validation images; flips are counted on validation and test images together (1,148). Each runs where its maker has it
run: ours and ONNX Runtime's on ONNX Runtime, NNCF's on OpenVINO. A family is won by fewer flips than both peers; equal
numbers are ties, and a peer that fails is told apart and wins nothing for us. Networks of other inputs get the images
as these: the LSTM as rows, the text transformer as grey levels of patches, the last one as image and statistics.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import nn
from torch.nn import functional

from bench.timing import show
from featherweight.apps.imaging.training.cases import Cases
from featherweight.apps.imaging.training.public_sets import read_medmnist
from featherweight.core.arrays import Bools, Floats
from featherweight.core.backends.registry import find_backend
from featherweight.core.causes import describe_cause
from featherweight.core.datasets.catalogue import local_copy
from featherweight.core.errors import FeatherweightError
from featherweight.core.export import export, quiet
from featherweight.core.model import Model
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.recover import estimate_batch_norm
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, TensorSpec
from tests.conformance.families import FAMILIES, model_of
from tests.conformance.road import MeanOutput

CALIBRATION = 256
PEERS = ("NNCF", "ONNX Runtime")
OURS = "ours"
OURS_MEASURED = "ours, change_max"
BATCH = 64

Scorer = Callable[[Tensors], Floats]
"""Inputs [N, ...] -> scores [N]."""


def main() -> None:
    """Print the table and who won how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=None, help="training images; all unless given")
    parser.add_argument("--change-max", type=float, default=0.001)
    options = parser.parse_args()
    path = local_copy("pneumoniamnist")
    if path is None:
        raise SystemExit("fetch the data first: featherweight data fetch pneumoniamnist")
    split = read_medmnist(path)
    torch.set_num_threads(1)
    found = {}
    for name in options.families:
        found[name] = flips_of(name, split.train, split.validation, split.test, options)
        print(name, found[name], flush=True)
    columns = [OURS, OURS_MEASURED, *PEERS]
    rows = [[name, row["auc"], *(str(row[column]) for column in columns)] for name, row in found.items()]
    held = len(split.validation) + len(split.test)
    show(f"decisions flipped by int8, of {held:,}", ["family", "AUC of fp32", *columns], rows)
    for ours in (OURS, OURS_MEASURED):
        print(f"{ours}: {verdict(found, ours)}")


def verdict(found: dict[str, dict[str, int | str]], ours: str) -> str:
    """Won, tied and lost families, and those with a peer that failed."""
    counts = dict.fromkeys(("fewer than both", "tie with the better", "more", "a peer failed", "ours failed"), 0)
    for row in found.values():
        mine, peers = row[ours], [row[peer] for peer in PEERS]
        numbers = [peer for peer in peers if isinstance(peer, int)]
        if not isinstance(mine, int):
            counts["ours failed"] += 1
        elif len(numbers) < len(peers):
            counts["a peer failed"] += 1
        else:
            best = min(numbers)
            counts["fewer than both" if mine < best else "tie with the better" if mine == best else "more"] += 1
    return ", ".join(f"{what}: {count}" for what, count in counts.items()) + f"; of {len(found)}"


def flips_of(
    name: str, train: Cases, validation: Cases, test: Cases, options: argparse.Namespace
) -> dict[str, int | str]:
    """Method -> flips, or why there are none."""
    model = model_of(name)
    network = model.module("bench")
    if len(model.outputs[0].shape) > 2:
        network = MeanOutput(network)
    model = Model(network, model.inputs, (TensorSpec("y", "float32", (None, 1)),))
    _train(network, inputs_of(model, train), train.labels, options.epochs, options.images)
    program, _ = export(model)
    held = [inputs_of(model, part) for part in (validation, test)]
    plain = _scorer(program)
    scores = [plain(one) for one in held]
    threshold = _best_threshold(scores[0], validation.labels)
    wanted = np.concatenate(scores) >= threshold
    places = np.random.default_rng(0).permutation(len(train))[:CALIBRATION]
    calibration = {key: array[places] for key, array in inputs_of(model, train).items()}
    makers: dict[str, Callable[[], Scorer]] = {
        OURS: lambda: _ours(program, calibration, QuantizeStep()),
        OURS_MEASURED: lambda: _ours(program, calibration, QuantizeStep(change_max=options.change_max)),
        "NNCF": lambda: _nncf(program, calibration),
        "ONNX Runtime": lambda: _onnxruntime(program, calibration),
    }
    truth = np.concatenate([validation.labels, test.labels])
    found: dict[str, int | str] = {"auc": f"{_auc(np.concatenate(scores), truth):.3f}"}
    for method, make in makers.items():
        found[method] = _flips(make, held, wanted, threshold)
    return found


def _flips(make: Callable[[], Scorer], held: list[Tensors], wanted: Bools, threshold: float) -> int | str:
    try:
        with quiet():
            score = make()
            found = np.concatenate([score(one) for one in held])
    except FeatherweightError as error:
        return f"refused: {error}"[:60]
    except Exception as error:  # noqa: BLE001  (a peer may raise anything, which is told)
        return f"failed: {describe_cause(error)}"[:60]
    return int(((found >= threshold) != wanted).sum()) if np.isfinite(found).all() else "failed: not finite"


def inputs_of(model: Model, cases: Cases) -> Tensors:
    """The images as the network takes them, standardized."""
    images = torch.from_numpy(cases.images).float()[:, None] / 255
    found: Tensors = {}
    for spec in model.inputs:
        if len(spec.shape) == 4:
            side = spec.shape[2] or 28
            sized = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
            array = ((sized - 0.57) / 0.17).expand(-1, spec.shape[1] or 1, -1, -1).numpy()
        elif spec.dtype == "int64":
            patches = functional.adaptive_avg_pool2d(images, (2, 3)).flatten(1)
            array = (patches * 32).clamp(0, 31).long().numpy()
        elif len(spec.shape) == 3:
            sized = functional.adaptive_avg_pool2d(images, (spec.shape[1] or 1, spec.shape[2] or 1))
            array = ((sized[:, 0] - 0.57) / 0.17).numpy()
        else:
            patches = functional.adaptive_avg_pool2d(images, (2, 3)).flatten(1)
            array = ((patches - 0.57) / 0.17).numpy()
        found[spec.name] = np.ascontiguousarray(array)
    return found


def _train(network: nn.Module, inputs: Tensors, labels: np.ndarray, epochs: int, images: int | None) -> None:  # type: ignore[type-arg]
    torch.manual_seed(0)
    count = min(len(labels), images or len(labels))
    given, truth = [torch.from_numpy(array) for array in inputs.values()], torch.from_numpy(labels).float()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    steps = epochs * (count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(2, steps))
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))[:count]
        for start in range(0, count - BATCH + 1, BATCH):
            places = order[start : start + BATCH]
            outputs = network(*(one[places] for one in given))[:, 0]
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(outputs, truth[places]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    # Some families move their BatchNorm statistics by a thousandth a step.
    estimate_batch_norm(network, [(tuple(one[:1024] for one in given), truth[:1024])])
    network.eval()


def _scorer(program: Program) -> Scorer:
    session = find_backend("onnxruntime").open(program)
    return lambda inputs: np.concatenate([session.run(batch)["y"][:, 0] for batch in _batches(inputs)])


def _ours(program: Program, calibration: Tensors, step: QuantizeStep) -> Scorer:
    return _scorer(quantize(program, step, _batches(calibration))[0])


def _nncf(program: Program, calibration: Tensors) -> Scorer:
    import nncf

    core = openvino.Core()
    cases = [{name: array[at : at + 1] for name, array in calibration.items()} for at in range(CALIBRATION)]
    made = nncf.quantize(core.read_model(model=program.content), nncf.Dataset(cases), subset_size=CALIBRATION)
    compiled = core.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return lambda inputs: np.concatenate([compiled(batch)["y"][:, 0].copy() for batch in _batches(inputs)])


def _onnxruntime(program: Program, calibration: Tensors) -> Scorer:
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name) / "fp32.onnx", Path(name) / "int8.onnx"
        source.write_bytes(program.content)
        quantize_static(source, made, _Reader(calibration))
        content = made.read_bytes()
    return _scorer(Program(content, "int8", program.inputs, program.outputs))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, calibration: Tensors) -> None:
        self._left = iter(_batches(calibration))

    def get_next(self) -> Tensors | None:
        return next(self._left, None)


def _batches(inputs: Tensors) -> list[Tensors]:
    count = len(next(iter(inputs.values())))
    return [{name: array[start : start + BATCH] for name, array in inputs.items()} for start in range(0, count, BATCH)]


def _best_threshold(scores: Floats, labels: np.ndarray) -> float:  # type: ignore[type-arg]
    """Where sensitivity and specificity add up to most."""
    found = np.unique(scores)
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    sensitivity = 1 - np.searchsorted(positives, found) / len(positives)
    specificity = np.searchsorted(negatives, found) / len(negatives)
    best = int((sensitivity + specificity).argmax())
    return float((found[max(0, best - 1)] + found[best]) / 2)


def _auc(scores: Floats, labels: np.ndarray) -> float:  # type: ignore[type-arg]
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    below = np.searchsorted(negatives, positives), np.searchsorted(negatives, positives, "right")
    return float((below[0] + below[1]).mean() / 2 / len(negatives))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
