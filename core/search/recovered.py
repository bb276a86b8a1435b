"""Networks that `recover` trained, and trainings that are not at their end, as files of the working folder: whoever
starts a killed search again trains nothing twice."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from featherweight.core.files import atomic_write, write_errors
from featherweight.core.model import Model, StepRecord
from featherweight.core.passes.recover import Checkpoint
from featherweight.core.passes.steps import RecoverStep
from featherweight.core.state_file import UNREADABLE, encode_state, read_state

_UNREADABLE = (*UNREADABLE, OSError, TypeError, RuntimeError)


def write_recovered(path: Path, model: Model, record: StepRecord) -> None:
    """Raises OutputError."""
    _write(path, model.module("recover").state_dict(), dict(record.facts))


def read_recovered(path: Path, pruned: Model, step: RecoverStep) -> tuple[Model, StepRecord] | None:
    """The kept network, or None when there is none that can be read and fits; then it is trained again."""
    if not path.is_file():
        return None
    network = copy.deepcopy(pruned.module(step.kind))
    try:
        tensors, facts = _read(path)
        network.load_state_dict(tensors)
    except _UNREADABLE:
        return None
    return Model(network.eval(), pruned.inputs, pruned.outputs), StepRecord(step.kind, asdict(step), facts)


class RecoverCheckpoints:
    """Fulfils core.passes.recover.Checkpoints: one file, gone when the training is at its end. Its name says what is
    trained on what and by which code, so that no other training takes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Checkpoint | None:
        """See Checkpoints."""
        if not self._path.is_file():
            return None
        try:
            tensors, facts = _read(self._path)
            return Checkpoint(tuple(map(float, facts["losses"])), tensors)
        except _UNREADABLE:
            return None

    def write(self, checkpoint: Checkpoint) -> None:
        """See Checkpoints."""
        _write(self._path, checkpoint.tensors, {"losses": checkpoint.losses})

    def remove(self) -> None:
        """Once its network is kept. Raises OutputError."""
        with write_errors(self._path, "the checkpoint cannot be removed"):
            self._path.unlink(missing_ok=True)


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    with atomic_write(path, "the recovered network cannot be kept", make_folder=True) as partial:
        partial.write_bytes(encode_state(tensors, {"facts": json.dumps(dict(facts))}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises what `_UNREADABLE` names, for contents that are not those that were written too."""
    tensors, metadata = read_state(path)
    return tensors, json.loads(metadata["facts"])
