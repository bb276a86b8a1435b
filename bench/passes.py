"""Three more ways to a small int8 network, against pruning with recovery: does one of them deserve to be a pass?

    python -m bench.passes --network runs/pneumoniamnist-0 [--ratio 0.875] [--epochs 10] [--seeds 0 1 2]
    python -m bench.passes --network runs/handbook-network --task fraud --data fraud_handbook --reader handbook

Contenders, each with the same epochs over the same batches and the unpruned network as teacher: channels pruned and
recovered (what recipes do), at one ratio or by measured sensitivity (ADR 015); the same with quantization-aware
training in its last epochs; the pruned shape and, for images, a shallower ResNet and a MobileNetV2 trained from scratch
as students; the network factorized (Tucker-2 of convolutions, SVD of linear layers) to about as many MACs, alone and
after milder pruning; for images, ResNet-10 with the weights of the baseline's own blocks, then pruned. Validation cases
only. AUC of the int8 program against the unpruned fp32 one (means over seeds, one-sided 95% bound), against the same
weights in float, mean move of the scores in their standard deviations, and how many times faster than the unpruned fp32
network. What came of it: ADR 016-018.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.fx
import torch_pruning
import torchvision
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional
from torch.nn.utils import parametrize

from bench.timing import median, show
from featherweight.apps.fraud.training.task import open_task as open_fraud
from featherweight.apps.imaging.training.task import open_task as open_imaging
from featherweight.core.arrays import Floats, Labels, Scores
from featherweight.core.backends.registry import find_backend
from featherweight.core.export import export
from featherweight.core.measure.performance import Conditions, measure_interleaved
from featherweight.core.model import Model
from featherweight.core.networks import example_inputs
from featherweight.core.passes.prune_channels import SENSITIVITY_SAMPLES, prune_channels
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.recover import estimate_batch_norm
from featherweight.core.passes.steps import PruneChannelsStep, QuantizeStep
from featherweight.core.program import Program
from featherweight.core.statistics.intervals import Difference, roc_auc_difference
from featherweight.core.task import HeldOut, Task
from featherweight.core.training import Batches, Fit, Schedule, fit

LEARNING_RATE, TEACHER_WEIGHT, TEMPERATURE = 2e-3, 0.9, 2.0
BACKENDS = ("onnxruntime", "openvino")
SCORED_ON = "openvino"
BASELINE = "fp32 baseline"
Entrant = tuple[Model, str]
"""A network before training and how it is trained: "plain" or "aware" of quantization."""
Timed = dict[str, dict[str, float]]
"""Backend -> program -> median milliseconds."""


# ------------------------------------------------------------------------------------------------ training


class Lessons:
    """Batches with the teacher's opinion beside the label, [B, 2]: asked for once, for all contenders of one seed."""

    def __init__(self, task: Task, teacher: Program, seed: int) -> None:
        self.task, self.seed, self.kept = task, seed, dict[int, list[tuple[Tensor, Tensor]]]()
        backend = find_backend(SCORED_ON)
        fast = backend.probe().runs(teacher.kind, "bf16")
        self.teacher = backend.open(replace(teacher, precision="bf16") if fast else teacher, threads=1)
        self.names = teacher.inputs[0].name, teacher.outputs[0].name

    def __call__(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        if epoch not in self.kept:
            self.kept[epoch] = [
                (inputs, torch.cat([targets, self.opinion(inputs)], 1))
                for inputs, targets in self.task.training_batches(epoch, self.seed)
            ]
        return self.kept[epoch]

    def opinion(self, inputs: Tensor) -> Tensor:
        return torch.from_numpy(self.teacher.run({self.names[0]: inputs.numpy()})[self.names[1]].copy())


def distilled(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """`core.passes.recover.distillation_loss` for one logit, with the opinion already there."""
    label, opinion = targets[:, :1], targets[:, 1:]
    hard = functional.binary_cross_entropy_with_logits(outputs, label)
    soft = functional.binary_cross_entropy_with_logits(outputs / TEMPERATURE, (opinion / TEMPERATURE).sigmoid())
    return (1 - TEACHER_WEIGHT) * hard + TEACHER_WEIGHT * TEMPERATURE**2 * soft


def trained(network: nn.Module, lessons: Batches, epochs: Iterable[int], learning_rate: float) -> nn.Module:
    """A trained copy; the epochs' batches are those of these numbers."""
    network, numbers = copy.deepcopy(network).requires_grad_(True), list(epochs)
    estimate_batch_norm(network, lessons(numbers[0]))
    steps = sum(1 for _ in lessons(numbers[0]))
    run = Fit(network, Schedule(len(numbers), steps, learning_rate, mixed_precision=False), distilled)
    return fit(run, lambda epoch: lessons(numbers[epoch]))


# ------------------------------------------------------------------------------------------------ quantization-aware


class FakeActivation(nn.Module):
    """The uint8 grid of `core.passes.quantize`: least to greatest value seen, zero on the grid. Observes first."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.observing = 0.0, 0.0, True

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            self.low, self.high = min(self.low, x.min().item()), max(self.high, x.max().item())
            return x
        scale = max(self.high - self.low, 1e-8) / 255
        return torch.fake_quantize_per_tensor_affine(x, scale, round(-self.low / scale), 0, 255)


class FakeWeight(nn.Module):
    """int8 per output channel, symmetric."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-8) / 127
        return torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale).int(), 0, -127, 127)


def with_fake_quantization(network: nn.Module) -> torch.fx.GraphModule:
    """BatchNorm folded; a FakeActivation where the exported int8 program has QuantizeLinear, weights through
    FakeWeight."""
    traced = torch.fx.symbolic_trace(fuse(copy.deepcopy(network).eval()))
    modules = dict(traced.named_modules())

    def kind(node: torch.fx.Node) -> object:
        return type(modules[str(node.target)]) if node.op == "call_module" else node.target

    relus = (nn.ReLU, functional.relu, torch.relu)
    layers = (nn.Conv2d, nn.Linear)
    makers = (*layers, *relus, nn.AdaptiveAvgPool2d, torch.add, operator.add, operator.iadd)
    for node in list(traced.graph.nodes):
        users = list(node.users)
        feeds_layer = any(kind(user) in layers for user in users) and kind(node) not in (nn.MaxPool2d, torch.flatten)
        folded = len(users) == 1 and kind(users[0]) in relus
        if users and node.op != "output" and (kind(node) in makers or feeds_layer) and not folded:
            name = f"grid_{node.name}"
            traced.add_submodule(name, FakeActivation())
            with traced.graph.inserting_after(node):
                grid = traced.graph.call_module(name, (node,))
            node.replace_all_uses_with(grid, delete_user_cb=lambda user, grid=grid: user is not grid)
    for module in list(traced.modules()):
        if isinstance(module, layers):
            parametrize.register_parametrization(module, "weight", FakeWeight())
    traced.recompile()
    return traced


def quantization_aware(network: nn.Module, task: Task, lessons: Batches, epochs: Iterable[int]) -> nn.Module:
    """A copy trained on the int8 grid of its own calibration, at a tenth of the learning rate."""
    traced = with_fake_quantization(network)
    grids = [module for module in traced.modules() if isinstance(module, FakeActivation)]
    with torch.no_grad():
        for batch in task.calibration_batches(256, 0):
            traced(*(torch.from_numpy(value) for value in batch.values()))
    for grid in grids:
        grid.observing = False
    after = trained(traced, lessons, epochs, LEARNING_RATE / 10)
    for name, module in list(after.named_modules()):
        if isinstance(module, FakeActivation):
            after.set_submodule(name, nn.Identity())
        elif parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    return after.eval()


# ------------------------------------------------------------------------------------------------ other networks


def from_scratch(network: nn.Module) -> nn.Module:
    """The same shape with random weights."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return network


def image_student(model: Model, body: nn.Module) -> Model:
    """`body` behind the baseline's standardization; its first layer takes one channel at stride 1."""
    standardize = copy.deepcopy(next(iter(model.module("student").children())))
    return Model(nn.Sequential(standardize, body).eval(), model.inputs, model.outputs)


def shallow_resnet(model: Model, *, inherit: bool) -> Model:
    """ResNet-10, with random weights or with those of the baseline's blocks that it keeps, the first of each stage."""
    body = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=1)
    body.conv1 = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
    student = image_student(model, body)
    if inherit:
        wanted = student.module("student").state_dict().keys()
        known = model.module("student").state_dict()
        student.module("student").load_state_dict({name: known[name] for name in wanted})
    return student


def mobile_net(model: Model, width: float) -> Model:
    body = torchvision.models.mobilenet_v2(num_classes=1, width_mult=width, dropout=0.0)
    first = body.features[0][0]
    body.features[0][0] = nn.Conv2d(1, first.out_channels, 3, 1, 1, bias=False)
    return image_student(model, body)


def factorized(model: Model, ratio: float, multiple: int = 4) -> Model:
    """Layers as products of thinner ones, ranks `ratio` of their channels: Tucker-2 by HOSVD of the two channel modes
    (Kim et al., ICLR 2016), truncated SVD of linear layers. The first layer and those that would not shrink stay."""
    network = copy.deepcopy(model.module("low-rank"))
    for name, module in list(network.named_modules()):
        thinner = None
        if isinstance(module, nn.Conv2d) and module.groups == 1 and min(module.kernel_size) > 1:
            thinner = _tucker(module, ratio, multiple)
        elif isinstance(module, nn.Conv2d | nn.Linear) and getattr(module, "groups", 1) == 1:
            thinner = _split(module, ratio, multiple)
        if thinner is not None and _weights(thinner) < _weights(module):
            network.set_submodule(name, thinner)
    return Model(network.eval(), model.inputs, model.outputs)


def _rank(channels: int, ratio: float, multiple: int) -> int:
    return min(channels, max(multiple, round(channels * ratio / multiple) * multiple))


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _tucker(layer: nn.Conv2d, ratio: float, multiple: int) -> nn.Module:
    weight = layer.weight.detach()
    outs, ins = _rank(weight.shape[0], ratio, multiple), _rank(weight.shape[1], ratio, multiple)
    left, right = _directions(weight.flatten(1), outs), _directions(weight.transpose(0, 1).flatten(1), ins)
    core = torch.einsum("oihw,op,iq->pqhw", weight, left, right)
    first = nn.Conv2d(layer.in_channels, ins, 1, bias=False)
    middle = nn.Conv2d(ins, outs, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False)
    last = nn.Conv2d(outs, layer.out_channels, 1, bias=layer.bias is not None)
    return _filled(layer, [(first, right.T[:, :, None, None]), (middle, core), (last, left[:, :, None, None])])


def _directions(unfolded: Tensor, rank: int) -> Tensor:
    """The first left singular vectors, [rows, rank]."""
    return torch.linalg.eigh(unfolded @ unfolded.T).eigenvectors.flip(1)[:, :rank]


def _split(layer: nn.Conv2d | nn.Linear, ratio: float, multiple: int) -> nn.Module:
    weight = layer.weight.detach()
    rank = _rank(min(weight.shape[:2]), ratio, multiple)
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    one, two = right[:rank], left[:, :rank] * values[:rank]
    if isinstance(layer, nn.Linear):
        thin = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
        return _filled(layer, [(thin[0], one), (thin[1], two)])
    first = nn.Conv2d(layer.in_channels, rank, 1, layer.stride, bias=False)
    last = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
    return _filled(layer, [(first, one[:, :, None, None]), (last, two[:, :, None, None])])


def _filled(layer: nn.Module, parts: list[tuple[nn.Module, Tensor]]) -> nn.Module:
    for part, weight in parts:
        part.weight = nn.Parameter(weight.contiguous().clone())
    if layer.bias is not None:
        parts[-1][0].bias = nn.Parameter(layer.bias.detach().clone())
    return nn.Sequential(*(part for part, _ in parts))


# ------------------------------------------------------------------------------------------------ the comparison


def macs(model: Model) -> int:
    network = copy.deepcopy(model.module("macs"))
    return int(torch_pruning.utils.count_ops_and_params(network, example_inputs(model))[0])


def nearest(wanted: int, make: Callable[[float], Model], values: Iterable[float]) -> Model:
    """The model with the number of MACs nearest to `wanted`, by ratio."""
    return min(map(make, values), key=lambda model: abs(np.log(macs(model) / wanted)))


def _sensitive(task: Task, options: argparse.Namespace) -> Model:
    step = PruneChannelsStep(options.ratio, options.round_to, "sensitivity")
    return prune_channels(task.baseline, step, task.calibration_batches(SENSITIVITY_SAMPLES, 0))[0]


def contenders(task: Task, options: argparse.Namespace) -> dict[str, Entrant]:
    def pruned(model: Model, ratio: float, multiple: int = options.round_to) -> Model:
        return prune_channels(model, PruneChannelsStep(ratio, multiple))[0]

    base = task.baseline
    small = pruned(base, options.ratio)
    wanted = macs(small)
    milder = pruned(base, 1 - 2 * (1 - options.ratio))
    found = {
        "pruned": (small, "plain"),
        "pruned by sensitivity": (_sensitive(task, options), "plain"),
        "pruned, QAT": (small, "aware"),
        "its shape, student": (Model(from_scratch(small.module("scratch")), base.inputs, base.outputs), "plain"),
    }
    if options.task == "imaging":
        steps = [options.ratio - step / 64 for step in range(9)]
        for name, inherit in (("ResNet-10, student", False), ("ResNet-10, inherited", True)):
            shallow = shallow_resnet(base, inherit=inherit)
            found[name] = (nearest(wanted, lambda r, s=shallow: pruned(s, r, 4), steps), "plain")
        found["MobileNetV2, student"] = (
            nearest(wanted, lambda width: mobile_net(base, width), [0.1, 0.15, 0.2, 0.25, 0.35, 0.5]),
            "plain",
        )
    ranks = [0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
    found["low-rank"] = (nearest(wanted, partial(factorized, base), ranks), "plain")
    found["half pruned, low-rank"] = (nearest(wanted, partial(factorized, milder), ranks), "plain")
    return {name: one for name, one in found.items() if not options.only or name in options.only}


@dataclass(frozen=True)
class Result:
    fp32: Program
    int8: Program
    fp32_scores: Floats
    int8_scores: Floats
    seconds: float


Found = dict[str, list[Result]]


def scores(program: Program, cases: HeldOut, task: Task) -> Scores:
    with find_backend(SCORED_ON).open(program, threads=1) as session:
        return np.concatenate([task.scores(session.run(batch)) for batch in cases.batches(16)])


def run(model: Model, way: str, task: Task, lessons: Lessons, epochs: int) -> Result:
    start = time.perf_counter()
    aware = epochs // 4 if way == "aware" else 0
    network = trained(model.module("bench"), lessons, range(epochs - aware), LEARNING_RATE)
    if aware:
        network = quantization_aware(network, task, lessons, range(epochs - aware, epochs))
    seconds = time.perf_counter() - start
    fp32, _ = export(Model(network, model.inputs, model.outputs))
    int8, _ = quantize(fp32, QuantizeStep(), task.calibration_batches(256, lessons.seed))
    cases = task.validation_cases()
    return Result(fp32, int8, scores(fp32, cases, task), scores(int8, cases, task), seconds)


def latencies(programs: dict[str, Program], cases: HeldOut, repetitions: int) -> Timed:
    """One case, one thread, interleaved."""
    found: Timed = {}
    for backend in BACKENDS:
        with contextlib.ExitStack() as stack:
            opened = {
                name: stack.enter_context(find_backend(backend).open(program, threads=1))
                for name, program in programs.items()
            }
            conditions = {name: Conditions(backend, programs[name].precision, 1) for name in programs}
            timed = measure_interleaved(
                opened, list(itertools.islice(cases.batches(1), 8)), conditions=conditions, repetitions=repetitions
            )
        found[backend] = {name: median(list(one.samples_ms)) for name, one in timed.items()}
    return found


def rows_of(task: Task, models: dict[str, Entrant], found: Found, base: Floats, timed: Timed) -> list[list[str]]:
    labels, rows = task.validation_cases().labels, []
    for name, (model, _) in models.items():
        results = found[name]
        apart = [_apart(base, one.int8_scores, labels) for one in results]
        own = [_apart(one.fp32_scores, one.int8_scores, labels) for one in results]
        moved = [np.abs(one.int8_scores - one.fp32_scores).mean() / one.fp32_scores.std() for one in results]
        rows.append(
            [
                name,
                f"{len(results[0].int8.content):,}",
                f"{macs(model) / 1e3:,.0f}",
                f"{np.mean([difference.estimate for difference in apart]):+.4f}",
                f"{np.mean([difference.low for difference in apart]):+.4f}",
                f"{np.std([difference.estimate for difference in apart]):.4f}",
                f"{np.mean([difference.estimate for difference in own]):+.4f}",
                f"{np.mean(moved):.3f}",
                *(f"{medians[BASELINE] / medians[name]:.2f}x" for medians in timed.values()),
                f"{np.mean([one.seconds for one in results]):.0f}",
            ]
        )
    return rows


def _apart(before: Floats, after: Floats, labels: Labels) -> Difference:
    found = roc_auc_difference(before, after, labels)
    if found is None:
        raise SystemExit("the validation cases are all of one class; there is no AUC")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--task", choices=["imaging", "fraud"], default="imaging")
    parser.add_argument("--data", default="pneumoniamnist")
    parser.add_argument("--reader", default="medmnist")
    parser.add_argument("--ratio", type=float, default=0.875)
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="some contenders, by name")
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    if options.epochs < 4:
        parser.error("--epochs: at least 4, of which the last quarter is quantization-aware")
    torch.set_num_threads(1)
    source = {"data": options.data, "reader": options.reader}
    if options.task == "imaging":
        task: Task = open_imaging({**source, "network": str(options.network), "batch": 64})
    else:
        task = open_fraud({**source, "model": str(options.network)})
    cases = task.validation_cases()
    fp32, _ = export(task.baseline)
    base = scores(fp32, cases, task)
    torch.manual_seed(0)
    models = contenders(task, options)
    found: Found = {name: [] for name in models}
    for seed in options.seeds:
        lessons = Lessons(task, fp32, seed)
        for name, (model, way) in models.items():
            torch.manual_seed(seed)
            one = run(model, way, task, lessons, options.epochs)
            found[name].append(one)
            apart = _apart(base, one.int8_scores, cases.labels)
            print(f"seed {seed}: {name}, {apart.estimate:+.5f} ({apart.low:+.5f}), {one.seconds:.0f} s", flush=True)
    programs = {BASELINE: fp32} | {name: results[0].int8 for name, results in found.items()}
    timed = latencies(programs, cases, options.repetitions)
    columns = ["int8 program", "bytes", "k MACs", "AUC - fp32", "bound", "over seeds", "int8 - float", "moved"]
    show(
        f"{options.network}, {options.epochs} epochs, {len(options.seeds)} seeds; {len(cases.labels)} validation cases",
        [*columns, *BACKENDS, "s"],
        rows_of(task, models, found, base, timed),
    )


if __name__ == "__main__":
    main()
