"""Makes the programs of a recipe's candidates. Chains that begin alike share that beginning; recovered networks and
finished programs are kept on disk, so that a second run makes nothing twice."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
import torch_pruning
from torch import nn

from featherweight.core.causes import describe_cause
from featherweight.core.errors import UsageError
from featherweight.core.export import export
from featherweight.core.losses import TaskLoss
from featherweight.core.model import Model, StepRecord
from featherweight.core.networks import example_inputs
from featherweight.core.passes.prune_channels import SENSITIVITY_SAMPLES, prune_channels
from featherweight.core.passes.prune_trees import prune_trees
from featherweight.core.passes.prune_weights import prunable_weights, prune_weights
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.quantize_trees import check_precision
from featherweight.core.passes.recover import find_loss, loss_names, recover
from featherweight.core.passes.steps import (
    PruneChannelsStep,
    PruneTreesStep,
    PruneWeightsStep,
    QuantizeStep,
    RecoverStep,
    Step,
)
from featherweight.core.program import Program
from featherweight.core.progress import Progress, silent
from featherweight.core.recipe import Candidate, Recipe, describe
from featherweight.core.search.deciding import deciding_code, digest_modules
from featherweight.core.search.ledger import Entry, Ledger
from featherweight.core.search.recovered import RecoverCheckpoints, read_recovered, write_recovered
from featherweight.core.search.strategy import Cost
from featherweight.core.task import DigestsData, StatesLoss, Task
from featherweight.core.training import as_tuple
from featherweight.core.trees.onnx_file import encode_trees


@dataclass(frozen=True)
class BuildResult:
    """A candidate's program and what each pass did to make it. plain: of an int8 network, the same before it was
    quantized: where int8 is slower, that one takes its place. Trees do the same work whatever their leaves are."""

    program: Program
    records: tuple[StepRecord, ...]
    plain: Program | None = None


@dataclass(frozen=True)
class _Stage:
    """A model after the first steps of a chain."""

    model: Model
    records: tuple[StepRecord, ...] = ()
    sparse: bool = False


class CandidateBuilder:
    """Builds a recipe's candidates. work: the folder of recovered networks and of the ledger; it may not exist yet."""

    def __init__(self, task: Task, recipe: Recipe, work: Path, progress: Progress = silent) -> None:
        self._task, self._seed, self.work, self._progress = task, recipe.seed, work, progress
        self._source = {"task": recipe.source.task, **dict(recipe.source.settings)}
        self._stages: dict[tuple[Step, ...], _Stage] = {(): _Stage(task.baseline)}
        self._exported: dict[tuple[Step, ...], BuildResult] = {}
        self._stated = _stated_loss(task)
        self._origin = {
            "baseline": _digest_baseline(task.baseline),
            "source": self._source,
            "data": task.training_digest() if isinstance(task, DigestsData) else "",
            "loss": loss_names(self._stated or ()),
            "seed": self._seed,
        }
        self.kind, self.ledger = task.baseline.kind, Ledger(work / "ledger", deciding_code(task))

    def build(self, candidate: Candidate) -> BuildResult:
        """Raises what the passes raise: UsageError for a model that a step cannot treat, DataError without data."""
        return self._kept(candidate.steps)

    def begin(self, candidate: Candidate) -> None:
        """What is done to the model before anything is trained or exported. Raises UsageError for a model that these
        steps cannot treat."""
        steps = candidate.steps
        if self.ledger.find("built", self.ledger_key(steps)) is not None:
            return
        for step in steps:
            if isinstance(step, QuantizeStep) and self.kind == "trees":
                check_precision(step)
        places = (place for place, step in enumerate(steps) if isinstance(step, RecoverStep | QuantizeStep))
        self._stage(steps[: next(places, len(steps))])

    def check_lessons(self) -> None:
        """Raise UsageError or DataError now when the task's training batches are not what `recover` trains with."""
        if self.ledger.find("lessons", self._origin) is None:
            found = find_loss(self._task.baseline, self._task.training_batches(0, self._seed), self._stated)
            self.ledger.keep("lessons", self._origin, Entry({"loss": loss_names(found)}))

    def baseline(self) -> Program:
        """The unpruned model as an fp32 program."""
        return self._kept(()).program

    def cost(self, candidate: Candidate) -> Cost:
        """What speed and size depend on, before anything is trained. Raises what the passes raise."""
        key = self.ledger_key(candidate.steps)
        kept = self.ledger.find("cost", key)
        if kept is None:
            untrained = tuple(step for step in candidate.steps if not isinstance(step, RecoverStep | QuantizeStep))
            kept = Entry(_count(self._stage(untrained).model))
            self.ledger.keep("cost", key, kept)
        work, size = kept.facts["work"], kept.facts["bytes"]
        for step in candidate.steps:
            if isinstance(step, QuantizeStep):
                in_float = min(1.0, step.float_operators / max(1, kept.facts["layers"]))
                share = in_float + (1 - in_float) / 4
                of_work, of_size = _SHARES[step.precision]
                work, size = (
                    work * (share if of_work is None else of_work),
                    size * (share if of_size is None else of_size),
                )
        effort = sum(step.epochs for step in candidate.steps if isinstance(step, RecoverStep))
        return Cost(work, size, effort)

    def _kept(self, steps: tuple[Step, ...]) -> BuildResult:
        key = self.ledger_key(steps)
        kept = self.ledger.find("built", key)
        if kept is not None:
            return _decode_built(kept, self._task.baseline)
        built = self._build(steps)
        self.ledger.keep("built", key, _encode_built(built))
        return built

    def ledger_key(self, steps: tuple[Step, ...]) -> dict[str, object]:
        """What fixes the program that these steps lead to."""
        chain = [{"kind": step.kind, **asdict(step)} for step in steps]
        return {**self._origin, "steps": chain}

    def _build(self, steps: tuple[Step, ...]) -> BuildResult:
        last = steps[-1] if steps else None
        if isinstance(last, QuantizeStep):
            plain = self._export(steps[:-1])
            batches = self._task.calibration_batches(last.calibration_samples, self._seed)
            program, record = quantize(plain.program, last, batches)
            slower = program.precision == "int8" and program.kind == "network"
            return BuildResult(program, (*plain.records, record), plain.program if slower else None)
        return self._export(steps)

    def _export(self, steps: tuple[Step, ...]) -> BuildResult:
        if steps not in self._exported:
            stage = self._stage(steps)
            program, record = export(stage.model)
            self._exported[steps] = BuildResult(program, (*stage.records, record))
        return self._exported[steps]

    def _stage(self, steps: tuple[Step, ...]) -> _Stage:
        if steps not in self._stages:
            before = self._stage(steps[:-1])
            model, record = self._apply(before, steps)
            if not isinstance(steps[-1], RecoverStep):
                _check_removed(steps[-1], before.model, model)
            sparse = before.sparse or isinstance(steps[-1], PruneWeightsStep)
            self._stages[steps] = _Stage(model, (*before.records, record), sparse)
        return self._stages[steps]

    def _apply(self, before: _Stage, steps: tuple[Step, ...]) -> tuple[Model, StepRecord]:
        match steps[-1]:
            case PruneChannelsStep() as step:
                batches = self._task.calibration_batches(SENSITIVITY_SAMPLES, self._seed)
                return prune_channels(before.model, step, batches)
            case PruneWeightsStep() as step:
                return prune_weights(before.model, step)
            case PruneTreesStep() as step:
                batches = self._task.calibration_batches(step.calibration_samples, self._seed)
                return prune_trees(before.model, step, batches)
            case RecoverStep() as step:
                return self._recover(before, step, steps)
            case QuantizeStep():
                raise AssertionError("quantize is the last step and works on the exported program")
            case _ as never:
                assert_never(never)

    def _recover(self, before: _Stage, step: RecoverStep, steps: tuple[Step, ...]) -> tuple[Model, StepRecord]:
        teacher = self._task.baseline.module(step.kind)
        lineage = [describe(one) for one in steps]
        key = {**self.ledger_key(steps), "made by": self.ledger.made_by}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        kept = self.work / f"recovered-{digest[:16]}.safetensors"
        found = read_recovered(kept, before.model, step)
        if found is not None:
            self._progress(f"{' > '.join(lineage)} (kept from an earlier run)", 1, 1)
            return found
        torch.manual_seed(self._seed)
        unfinished = RecoverCheckpoints(self.work / f"recovering-{digest[:16]}.safetensors")
        model, record = recover(
            before.model,
            step,
            teacher,
            lambda epoch: self._task.training_batches(epoch, self._seed),
            stated=self._stated,
            keep_zeros=before.sparse,
            on_step=lambda done, total, loss: self._progress(" > ".join(lineage), done, total),
            checkpoints=unfinished,
        )
        write_recovered(kept, model, record)
        unfinished.remove()
        return model, record


_SHARES: Mapping[str, tuple[float | None, float | None]] = {
    "int8": (None, None),
    "int8-dynamic": (None, None),
    "int8-weights": (1.0, None),
    "fp16-weights": (1.0, 0.5),
    "bf16": (0.5, 1.0),
}
"""Precision -> which share of the work and of the bytes is left; None: a quarter of what is not in float."""


def _stated_loss(task: Task) -> tuple[TaskLoss, ...] | None:
    if not isinstance(task, StatesLoss):
        return None
    found: object = task.training_loss()
    losses = as_tuple(found)
    if not losses or not all(isinstance(loss, TaskLoss) for loss in losses):
        raise UsageError(
            f"the task's training_loss() returns {found!r}, expected BINARY, CLASSES or VALUES of "
            "featherweight.core.losses, one for each output"
        )
    return losses


def _check_removed(step: Step, before: Model, after: Model) -> None:
    """Raise UsageError for a pruning that removed nothing: its candidate would be called pruned and be none."""
    if _left(before) == _left(after):
        raise UsageError(f"{step.kind}: {describe(step)} removes nothing of this model; ask for more or leave it out")


def _left(model: Model) -> tuple[int, int]:
    """(splits, trees), or (parameters, those of them in matrices and kernels that are not zero)."""
    if model.kind == "trees":
        ensemble = model.ensemble("prune")
        return ensemble.splits, len(ensemble.roots)
    network = model.module("prune")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, sum(int((weight != 0).sum()) for weight in prunable_weights(network))


def _count(model: Model) -> dict[str, float]:
    """work: multiply-accumulates of a case, of trees their nodes; bytes: in fp32, zeros packed away; layers: that
    multiply."""
    if model.kind == "trees":
        ensemble = model.ensemble("cost")
        return {"work": len(ensemble.feature), "bytes": len(encode_trees(ensemble)), "layers": 0}
    network = model.module("cost")
    try:
        macs, parameters = torch_pruning.utils.count_ops_and_params(copy.deepcopy(network), example_inputs(model))
    except MemoryError:
        raise
    except Exception as error:  # of layers that the counter does not know
        raise UsageError(f"the work of {type(network).__name__} cannot be counted ({describe_cause(error)})") from error
    layers = sum(isinstance(module, nn.Linear | nn.modules.conv._ConvNd) for module in network.modules())
    zeros = sum(int((weight == 0).sum()) for weight in prunable_weights(network))
    return {"work": float(macs), "bytes": 4.0 * (parameters - zeros), "layers": layers}


def _encode_built(built: BuildResult) -> Entry:
    programs = {"program": built.program} | ({} if built.plain is None else {"plain": built.plain})
    facts = {"precision": built.program.precision, "records": [asdict(record) for record in built.records]}
    return Entry(facts, {name: np.frombuffer(program.content, np.uint8) for name, program in programs.items()})


def _decode_built(entry: Entry, model: Model) -> BuildResult:
    contents = {name: array.tobytes() for name, array in entry.arrays.items()}
    program = Program(contents["program"], entry.facts["precision"], model.inputs, model.outputs, model.kind)
    plain = Program(contents["plain"], "fp32", model.inputs, model.outputs) if "plain" in contents else None
    return BuildResult(program, tuple(StepRecord(**record) for record in entry.facts["records"]), plain)


def _digest_baseline(model: Model) -> str:
    if model.kind == "trees":
        return hashlib.sha256(encode_trees(model.ensemble("ledger"))).hexdigest()
    return _digest_network(model.module("ledger"))


def _digest_network(network: nn.Module) -> str:
    # The same weights give other outputs where the layers' settings or the code between them differ.
    layers = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(network))
    code = digest_modules(type(module).__module__ for module in network.modules())
    digest = hashlib.sha256(f"{layers}\n{code}\n".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
