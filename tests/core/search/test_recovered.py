"""A training that was killed goes on after its last checkpoint, and ends with the weights of an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import featherweight.core.passes.recover as recovery
from featherweight.core.model import Model, StepRecord
from featherweight.core.passes.recover import recover
from featherweight.core.passes.steps import RecoverStep
from featherweight.core.search.recovered import RecoverCheckpoints, read_recovered, write_recovered
from tests.fakes import INPUTS, OUTPUTS, SquaresTask, small_network

EPOCHS = 3


class KilledError(Exception):
    """As by a signal, in the middle of an epoch."""


def trained(checkpoints: RecoverCheckpoints, kill_at: int | None = None) -> tuple[Model, StepRecord, list[int]]:
    """With dropout, so that the random numbers matter too. The places of the steps that were done."""
    torch.manual_seed(1)
    model = Model(nn.Sequential(small_network(), nn.Dropout(0.3)).eval(), INPUTS, OUTPUTS)
    task, done = SquaresTask(), list[int]()

    def stepped(step: int, total: int, loss: float) -> None:
        done.append(step)
        if step == kill_at:
            raise KilledError

    torch.manual_seed(0)
    found, record = recover(
        model, RecoverStep(epochs=EPOCHS), task.baseline.module("test"), lambda epoch: task.training_batches(epoch, 0),
        on_step=stepped, checkpoints=checkpoints,
    )  # fmt: skip
    return found, record, done


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "CHECKPOINT_EVERY_S", 0.0)
    whole, told, steps = trained(RecoverCheckpoints(tmp_path / "whole.safetensors"))
    assert steps[-1] == EPOCHS * 10

    kept = RecoverCheckpoints(tmp_path / "work" / "killed.safetensors")
    with pytest.raises(KilledError):
        trained(kept, kill_at=14)
    again, record, steps = trained(kept)
    assert steps == list(range(11, EPOCHS * 10 + 1)), "the first epoch was done"
    for name, tensor in whole.module("test").state_dict().items():
        assert torch.equal(tensor, again.module("test").state_dict()[name]), name
    assert record == told

    kept.remove()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_damaged_checkpoint_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "CHECKPOINT_EVERY_S", 0.0)
    path = tmp_path / "killed.safetensors"
    with pytest.raises(KilledError):
        trained(RecoverCheckpoints(path), kill_at=14)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert trained(RecoverCheckpoints(path), kill_at=None)[2][0] == 1


def test_quick_trainings_write_no_checkpoint(tmp_path: Path) -> None:
    trained(RecoverCheckpoints(tmp_path / "none.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_a_kept_network_comes_back_and_one_of_another_shape_does_not(tmp_path: Path) -> None:
    model = Model(small_network().eval(), INPUTS, OUTPUTS)
    path = tmp_path / "recovered.safetensors"
    write_recovered(path, model, StepRecord("recover", {}, {"steps": 3}))
    found = read_recovered(path, model, RecoverStep(1))
    assert found is not None
    assert found[1].facts == {"steps": 3}
    assert read_recovered(path, Model(nn.Linear(2, 1), INPUTS, OUTPUTS), RecoverStep(1)) is None
