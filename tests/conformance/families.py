"""What each pass makes of the families of classifiers in torchvision, small and with random weights, and of a few other
kinds of networks: it works, or it is refused with a reason before anything is trained.

    python -m tests.conformance.families            # prints the table of docs/families.md
    python -m tests.conformance.families vit swin    # some of its rows
"""

from __future__ import annotations

import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock

from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import FeatherweightError
from featherweight.core.export import export
from featherweight.core.losses import BINARY
from featherweight.core.model import Model
from featherweight.core.parity import avx2
from featherweight.core.passes.prune_channels import prune_channels
from featherweight.core.passes.prune_weights import prune_weights
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.recover import recover
from featherweight.core.passes.steps import PruneChannelsStep, PruneWeightsStep, QuantizeStep, RecoverStep
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.conformance.road import seal_family

COLUMNS = ("export", "prune-channels", "recover", "prune-weights", "quantize", "sealed")
WORKS = "yes"


class UNet(nn.Module):
    """Down once and up again, with what was there before beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up, self.last = nn.ConvTranspose2d(32, 16, 2, stride=2), nn.Conv2d(32, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.first(x))
        found: Tensor = self.last(torch.cat([fine, torch.relu(self.up(torch.relu(self.down(fine))))], dim=1))
        return found


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.layer(x)[0][:, -1])
        return found


class TextTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(32, 32), nn.Linear(32, 1)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.layer(self.table(x)).mean(1))
        return found


class ImageAndTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table = nn.Conv2d(3, 32, 3, stride=2), nn.Linear(6, 32)
        self.middle, self.head = nn.Linear(64, 32), nn.Linear(32, 1)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        both = torch.cat([torch.relu(self.image(image)).mean((2, 3)), torch.relu(self.table(table))], dim=1)
        found: Tensor = self.head(torch.relu(self.middle(both)))
        return found


def _vgg() -> nn.Module:
    network = models.VGG(models.vgg.make_layers([16, "M", 32, "M", 64, "M"], batch_norm=True), 1, dropout=0.0)
    network.classifier = nn.Sequential(nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, 1))
    return network


def _squeezenet() -> nn.Module:
    network = models.squeezenet1_1(num_classes=1, dropout=0.0)
    network.classifier[2] = nn.Identity()  # a ReLU, behind which a logit is never negative
    return network


def _efficientnet() -> nn.Module:
    blocks = [MBConvConfig(1, 3, 1, 32, 16, 1, 1.0, 1.0), MBConvConfig(6, 3, 2, 16, 32, 2, 1.0, 1.0)]
    return models.EfficientNet(blocks, dropout=0.0, num_classes=1, last_channel=64)


def _mobilenet_v3() -> nn.Module:
    block = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [
        block(16, 3, 16, 16, True, "RE", 2),
        block(16, 3, 64, 32, True, "HS", 2),
        block(32, 5, 96, 32, False, "HS", 1),
    ]
    return models.MobileNetV3(blocks, 64, num_classes=1, dropout=0.0)


FAMILIES: Mapping[str, tuple[int, Callable[[], nn.Module]]] = {
    "resnet": (32, lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1)),
    "vgg": (32, _vgg),
    "mobilenet_v2": (32, lambda: models.MobileNetV2(num_classes=1, width_mult=0.25, dropout=0.0)),
    "mobilenet_v3": (32, _mobilenet_v3),
    "mnasnet": (32, lambda: models.MNASNet(0.25, num_classes=1, dropout=0.0)),
    "efficientnet": (32, _efficientnet),
    "regnet": (
        32,
        lambda: models.RegNet(
            BlockParams.from_init_params(depth=4, w_0=16, w_a=16.0, w_m=2.0, group_width=8),
            num_classes=1,
            stem_width=16,
        ),
    ),
    "shufflenet": (32, lambda: models.ShuffleNetV2([1, 1, 1], [24, 48, 96, 192, 256], num_classes=1)),
    "squeezenet": (32, _squeezenet),
    "densenet": (32, lambda: models.DenseNet(16, (2, 2), 32, num_classes=1)),
    "googlenet": (64, lambda: models.GoogLeNet(1, aux_logits=False, init_weights=False, dropout=0.0)),
    "inception": (80, lambda: models.Inception3(1, aux_logits=False, init_weights=False, dropout=0.0)),
    "convnext": (32, lambda: models.ConvNeXt([CNBlockConfig(32, 64, 1), CNBlockConfig(64, None, 1)], num_classes=1)),
    "vit": (32, lambda: models.VisionTransformer(32, 8, 1, 4, 32, 64, num_classes=1)),
    "swin": (32, lambda: models.SwinTransformer([4, 4], 32, [2], [2], [2, 2], num_classes=1)),
    "maxvit": (32, lambda: models.MaxVit((32, 32), 32, 4, [32], [1], 8, 0.0, num_classes=1)),
    "u-net": (16, UNet),
    "lstm": (0, Lstm),
    "text transformer": (0, TextTransformer),
    "image and table": (16, ImageAndTable),
}


def model_of(name: str) -> Model:
    """The family's network with random weights and specs."""
    torch.manual_seed(3)
    side, make = FAMILIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = make().eval()
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "float32", (None, 3, side, side)),)
    if name == "lstm":
        inputs = (TensorSpec("x", "float32", (None, 6, 8)),)
    if name == "text transformer":
        inputs = (TensorSpec("x", "int64", (None, 6)),)
    if name == "image and table":
        inputs = (*inputs, TensorSpec("row", "float32", (None, 6)))
    _draw_zero_layers(network)
    with torch.no_grad():
        shape = network(*(torch.from_numpy(array) for array in drawn(inputs, 2).values())).shape
    return Model(network, inputs, (TensorSpec("y", "float32", (None, *shape[1:])),))


def _draw_zero_layers(network: nn.Module) -> None:
    """Some families begin with a last layer of zeros, behind which nothing that a pass does could be seen."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear) and not module.weight.any():
                module.weight.normal_(0, 0.1)


def drawn(specs: tuple[TensorSpec, ...], cases: int) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """Inputs [cases, ...] by name."""
    rng = np.random.default_rng(cases)
    shapes = {spec.name: [cases if size is None else size for size in spec.shape] for spec in specs}
    return {
        spec.name: rng.integers(0, 32, shapes[spec.name])
        if spec.dtype == "int64"
        else rng.random(shapes[spec.name]).astype(spec.dtype)
        for spec in specs
    }


def try_family(name: str) -> dict[str, str]:
    """Column -> `WORKS`, or why the pass refused this network. What else a pass raises is a fault and comes through."""
    model = model_of(name)
    found: dict[str, str] = {}
    pruned = _told(found, "prune-channels", lambda: prune_channels(model, PruneChannelsStep(0.5, round_to=8))[0])
    program = _told(found, "export", lambda: export(pruned or model)[0])
    if pruned is not None:
        with find_backend("onnxruntime").open(program) as session:  # type: ignore[arg-type]
            assert np.isfinite(session.run(drawn(model.inputs, 3))["y"]).all()
    if program is not None:
        _run_alike(program, model)
    sparse = _told(found, "prune-weights", lambda: prune_weights(model, PruneWeightsStep(0.5))[0])
    teacher = model.module("test")
    inputs = tuple(torch.from_numpy(array) for array in drawn(model.inputs, 4).values())
    targets = torch.zeros(4, *(size or 1 for size in model.outputs[0].shape[1:]))
    _told(
        found,
        "recover",
        lambda: recover(
            pruned or sparse or model,
            RecoverStep(1),
            copy.deepcopy(teacher),
            lambda epoch: [(inputs, targets)],
            stated=BINARY,
        ),
    )
    if program is not None:
        batches = [drawn(model.inputs, 8)]
        int8 = _told(found, "quantize", lambda: quantize(program, QuantizeStep("int8"), batches)[0])
        if int8 is not None:
            with find_backend("onnxruntime").open(int8) as session:
                assert np.isfinite(session.run(drawn(model.inputs, 3))["y"]).all()
    with tempfile.TemporaryDirectory() as folder:
        found["sealed"] = seal_family(model_of(name), Path(folder)) or WORKS
    return {column: found.get(column, "") for column in COLUMNS}


def _run_alike(program: Program, model: Model) -> None:
    """PyTorch's backend runs what the families are made of, as ONNX Runtime does."""
    results = []
    for backend in ("onnxruntime", "torch"):
        with find_backend(backend).open(program) as session:
            results.append(session.run(drawn(model.inputs, 3))["y"])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3, atol=1e-4 * float(np.abs(results[0]).max()))


_Made = TypeVar("_Made")


def _told(found: dict[str, str], column: str, run: Callable[[], _Made]) -> _Made | None:
    try:
        made = run()
    except FeatherweightError as error:
        found[column] = str(error).replace("\n", " ")
        return None
    found[column] = WORKS
    return made


def table(rows: Mapping[str, Mapping[str, str]]) -> str:
    """The rows as markdown, and below it the reasons."""
    lines = [f"| family | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    reasons: list[str] = []
    for name, row in rows.items():
        cells = []
        for column in COLUMNS:
            if row[column] != WORKS and row[column] not in reasons:
                reasons.append(row[column])
            cells.append(WORKS if row[column] == WORKS else f"refused ({reasons.index(row[column]) + 1})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{place}. {reason}" for place, reason in enumerate(reasons, 1))])


if __name__ == "__main__":
    avx2.EMULATOR = "no-emulator-in-tests"  # as tests/conftest.py has it: it takes minutes for each artifact
    wanted = sys.argv[1:] or list(FAMILIES)
    rows = {}
    for family in wanted:
        rows[family] = try_family(family)
        print(f"{family}: {rows[family]}", file=sys.stderr, flush=True)  # noqa: T201
    print(table(rows))  # noqa: T201
