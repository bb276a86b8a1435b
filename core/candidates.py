"""Makes the programs of a recipe's candidates. Chains that begin alike share that beginning, and a recovered network
is kept on disk, so that a second run trains nothing twice."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import assert_never

import safetensors
import safetensors.torch
import torch
from torch import nn

from core.errors import OutputError
from core.export import export
from core.model import Model, StepRecord
from core.passes.prune_channels import SENSITIVITY_SAMPLES, prune_channels
from core.passes.prune_trees import prune_trees
from core.passes.prune_weights import prune_weights
from core.passes.quantize import quantize
from core.passes.recover import recover
from core.passes.steps import PruneChannelsStep, PruneTreesStep, PruneWeightsStep, QuantizeStep, RecoverStep, Step
from core.program import Program
from core.recipe import Candidate, Recipe, describe
from core.task import Task

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""


def silent(stage: str, done: int, total: int) -> None:
    """The Progress that shows nothing."""


@dataclass(frozen=True)
class Built:
    """A candidate's program and what each pass did to make it."""

    program: Program
    records: tuple[StepRecord, ...]


@dataclass(frozen=True)
class _Stage:
    """A model after the first steps of a chain."""

    model: Model
    records: tuple[StepRecord, ...] = ()
    sparse: bool = False


class Workshop:
    """Builds a recipe's candidates. work: the folder where recovered networks are kept; it may not exist yet."""

    def __init__(self, task: Task, recipe: Recipe, work: Path, progress: Progress = silent) -> None:
        self._task, self._seed, self._work, self._progress = task, recipe.seed, work, progress
        self._source = {"task": recipe.source.task, **dict(recipe.source.settings)}
        self._stages: dict[tuple[Step, ...], _Stage] = {(): _Stage(task.baseline)}
        self._exported: dict[tuple[Step, ...], Built] = {}

    def build(self, candidate: Candidate) -> Built:
        """Raises what the passes raise: UsageError for a model that a step cannot treat, DataError without data."""
        steps = candidate.steps
        last = steps[-1] if steps else None
        if isinstance(last, QuantizeStep):
            plain = self._export(steps[:-1])
            batches = self._task.calibration_batches(last.calibration_samples, self._seed)
            program, record = quantize(plain.program, last, batches)
            return Built(program, (*plain.records, record))
        return self._export(steps)

    def baseline(self) -> Program:
        """The unpruned model as an fp32 program."""
        return self._export(()).program

    def _export(self, steps: tuple[Step, ...]) -> Built:
        if steps not in self._exported:
            stage = self._stage(steps)
            program, record = export(stage.model)
            self._exported[steps] = Built(program, (*stage.records, record))
        return self._exported[steps]

    def _stage(self, steps: tuple[Step, ...]) -> _Stage:
        if steps not in self._stages:
            before = self._stage(steps[:-1])
            model, record = self._apply(before, steps)
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
        kept = self._work / f"recovered-{self._key(teacher, steps)[:16]}.safetensors"
        found = _read_recovered(kept, before.model, step)
        if found is not None:
            self._progress(f"{' > '.join(lineage)} (kept from an earlier run)", 1, 1)
            return found
        torch.manual_seed(self._seed)
        model, record = recover(
            before.model,
            step,
            teacher,
            lambda epoch: self._task.training_batches(epoch, self._seed),
            keep_zeros=before.sparse,
            on_step=lambda done, total, loss: self._progress(" > ".join(lineage), done, total),
        )
        _write_recovered(kept, model, record)
        return model, record

    def _key(self, origin: nn.Module, steps: tuple[Step, ...]) -> str:
        """Fixes the network that these steps lead to: the weights they start from, the data's order and themselves."""
        chain = [{"kind": step.kind, **_stated(step)} for step in steps]
        key = {"origin": _digest_network(origin), "source": self._source, "seed": self._seed, "steps": chain}
        text = json.dumps(key, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _stated(step: Step) -> dict[str, object]:
    """The fields that differ from their defaults, so that a step which learns something new keeps its old keys."""
    return {item.name: getattr(step, item.name) for item in fields(step) if getattr(step, item.name) != item.default}


def _digest_network(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write_recovered(path: Path, model: Model, record: StepRecord) -> None:
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.module("recover").state_dict().items()
    }
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, partial, metadata={"facts": json.dumps(dict(record.facts))})
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: the recovered network cannot be kept: {error}") from error


def _read_recovered(path: Path, pruned: Model, step: RecoverStep) -> tuple[Model, StepRecord] | None:
    """The kept network, or None when there is none that can be read and fits; then it is trained again."""
    if not path.is_file():
        return None
    network = copy.deepcopy(pruned.module(step.kind))
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError):
        return None
    return Model(network.eval(), pruned.inputs, pruned.outputs), StepRecord(step.kind, asdict(step), facts)
