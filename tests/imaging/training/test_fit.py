from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from featherweight.apps.imaging.sealed import Preprocess, encode
from featherweight.apps.imaging.training.calibration import fit_decision
from featherweight.apps.imaging.training.cases import Cases
from featherweight.apps.imaging.training.command import stages_for
from featherweight.apps.imaging.training.description import NETWORKS
from featherweight.apps.imaging.training.fit import Epoch, TrainSettings, augment, calibration_views, predict, train
from featherweight.apps.imaging.training.network import build
from featherweight.apps.imaging.training.trained import Description, Trained, read_trained, write_trained
from featherweight.core.errors import DataError, OutputError


@pytest.fixture(scope="module")
def blobs() -> Cases:
    """Images with a bright left half (1) or a bright upper half (0): easy, and not to be told apart by their mean."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 96).astype(np.int64)
    images = generator.integers(0, 60, (96, 32, 32), dtype=np.uint8)
    images[labels == 1, :, :16] += 120
    images[labels == 0, :16, :] += 120
    names = tuple(map(str, range(96)))
    return Cases(images, labels, names, names)


SETTINGS = TrainSettings(network="compact", side=32, stages=((32, 4),), batch=16, learning_rate=3e-3, mirror=False)


class InterruptedRunError(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_weights(blobs: Cases, tmp_path: Path) -> None:
    whole = train(blobs, SETTINGS, tmp_path / "whole.safetensors")

    def stop(epoch: int, loss: float, network: nn.Module) -> None:
        if epoch == 2:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        train(blobs, SETTINGS, tmp_path / "cut.safetensors", on_epoch=stop)
    epochs: list[int] = []
    resumed = train(blobs, SETTINGS, tmp_path / "cut.safetensors", on_epoch=lambda epoch, *_: epochs.append(epoch))
    assert epochs == [3, 4]
    np.testing.assert_allclose(predict(resumed, blobs.images), predict(whole, blobs.images), atol=1e-3)


def test_a_checkpoint_of_other_settings_is_refused(blobs: Cases, tmp_path: Path) -> None:
    one = TrainSettings(network="compact", side=32, stages=((32, 1),), batch=16)
    train(blobs, one, tmp_path / "c.safetensors")
    with pytest.raises(DataError, match="other settings"):
        train(blobs, SETTINGS, tmp_path / "c.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"garbage")
    with pytest.raises(DataError, match="not a readable checkpoint"):
        train(blobs, SETTINGS, tmp_path / "c.safetensors")


def test_training_learns(blobs: Cases, tmp_path: Path) -> None:
    logits = predict(train(blobs, SETTINGS, tmp_path / "c.safetensors"), blobs.images)
    assert ((logits > np.median(logits)) == (blobs.labels == 1)).mean() > 0.9


def test_batches_repeat_for_the_same_epoch_only(blobs: Cases) -> None:
    def first(epoch: int) -> torch.Tensor:
        return next(iter(Epoch(blobs, epoch, batch=8, side=32, seed=1)))[0]

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))
    whole = Epoch(blobs, 0, batch=20, side=16, seed=1)
    assert [images.shape for images, _ in whole] == [(20, 1, 16, 16)] * len(whole) == [(20, 1, 16, 16)] * 4


def test_views_stay_grey_levels() -> None:
    views = augment(torch.rand(16, 1, 40, 40), torch.Generator().manual_seed(0))
    assert views.shape == (16, 1, 40, 40)
    assert 0 <= views.min() <= views.max() <= 1
    assert torch.isfinite(views).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_one_logit(name: str) -> None:
    assert build(name).eval()(torch.zeros(2, 1, 64, 64)).shape == (2, 1)


@pytest.mark.parametrize(("side", "epochs"), [(28, 30), (96, 5), (224, 16), (224, 3), (128, 7)])
def test_stages_end_at_full_size_and_spend_all_epochs(side: int, epochs: int) -> None:
    stages = stages_for(side, epochs)
    assert sum(count for _, count in stages) == epochs
    assert stages[-1][0] == side
    assert [s for s, _ in stages] == sorted(s for s, _ in stages)


def test_a_trained_network_survives_the_disk(tmp_path: Path) -> None:
    network = build("compact", mean=0.4, std=0.2).eval()
    decision = fit_decision(np.array([-1.0, -0.5, 0.7, 1.0]), np.array([0, 0, 1, 1]))
    description = Description(network="compact", side=32, mean=0.4, std=0.2, labels=("normal", "ill"), source="a test")
    write_trained(tmp_path / "t", Trained(network, description, Preprocess(side=32), decision))
    again = read_trained(tmp_path / "t")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(predict(network, images), predict(again.network, images))
    assert (again.description, again.decision) == (description, decision)
    assert again.model().inputs[0].shape == (None, 1, 32, 32)


@pytest.mark.parametrize("damage", ["missing", "truncated", "decision", "flipped", "other decision", "binary", "pipe"])
def test_a_damaged_folder_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    decision = fit_decision(np.array([-1.0, -0.5, 0.7, 1.0]), np.array([0, 0, 1, 1]))
    description = Description(network="compact", side=32, mean=0.4, std=0.2, labels=("normal", "ill"), source="a test")
    write_trained(tmp_path, Trained(build("compact"), description, Preprocess(side=32), decision))
    if damage == "missing":
        (tmp_path / "weights.safetensors").unlink()
    elif damage == "truncated":
        (tmp_path / "weights.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:5000])
    elif damage == "flipped":
        content = bytearray((tmp_path / "weights.safetensors").read_bytes())
        content[-100] ^= 0x40
        (tmp_path / "weights.safetensors").write_bytes(content)
    elif damage == "other decision":
        other = fit_decision(np.array([-2.0, -1.5, 0.1, 1.0]), np.array([0, 0, 1, 1]))
        (tmp_path / "decision.json").write_bytes(encode(other))
    elif damage == "binary":
        (tmp_path / "preprocess.json").write_bytes(b"\xff\xfe")
    elif damage == "pipe":
        (tmp_path / "weights.safetensors").unlink()
        os.mkfifo(tmp_path / "weights.safetensors")
    else:
        (tmp_path / "decision.json").write_text("{}")
    with pytest.raises(DataError, match="train"):
        read_trained(tmp_path)


def test_a_network_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    decision = fit_decision(np.array([-1.0, -0.5, 0.7, 1.0]), np.array([0, 0, 1, 1]))
    description = Description(network="compact", side=32, mean=0.4, std=0.2, labels=("normal", "ill"), source="a test")
    trained = Trained(build("compact"), description, Preprocess(side=32), decision)
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "weights.safetensors").mkdir(parents=True)
    for place in ("file", "folder"):
        with pytest.raises(OutputError, match="the network cannot be written"):
            write_trained(tmp_path / place, trained)
    with pytest.raises(OutputError, match="the checkpoint cannot be written"):
        train(
            Cases(np.zeros((8, 32, 32), np.uint8), np.arange(8) % 2, tuple("abcdefgh"), tuple("abcdefgh")),
            replace(SETTINGS, batch=4),
            tmp_path / "file" / "c.safetensors",
        )


@pytest.mark.parametrize("change", ["flipped", "epoch", "no epoch", "tensors", "pipe", "link"])
def test_a_checkpoint_that_was_changed_is_refused(change: str, blobs: Cases, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    train(blobs, SETTINGS, path)
    with safe_open(path, framework="pt") as archive:
        metadata, tensors = archive.metadata(), {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    if change == "flipped":
        content = bytearray(path.read_bytes())
        content[-100] ^= 0x40
        path.write_bytes(content)
    elif change in ("pipe", "link"):
        path.unlink()
        os.mkfifo(path) if change == "pipe" else path.symlink_to(tmp_path / "nowhere")
    else:
        metadata.pop("sha256")  # as versions before wrote it
        metadata |= {"epoch": "99"} if change == "epoch" else {}
        metadata.pop("epoch") if change == "no epoch" else None
        save_file(dict(list(tensors.items())[3:]) if change == "tensors" else tensors, path, metadata)
    with pytest.raises(DataError, match=r"checkpoint.*delete it to start over"):
        train(blobs, SETTINGS, path)


def test_calibration_sees_every_case_as_it_is_and_varied(blobs: Cases) -> None:
    views = calibration_views(blobs)
    assert len(views) == 2 * len(blobs)
    np.testing.assert_array_equal(views.images[: len(blobs)], blobs.images)
    assert (views.images[len(blobs) :] != blobs.images).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(views.labels, np.tile(blobs.labels, 2))
    np.testing.assert_array_equal(views.images, calibration_views(blobs).images)


def test_no_augmentation_leaves_the_image() -> None:
    images = torch.rand(8, 1, 40, 40) * 0.9 + 0.05
    views = augment(images, torch.Generator().manual_seed(0), mirror=False, strength=0)
    np.testing.assert_allclose(views.numpy(), images.numpy(), atol=1e-4)


def test_training_can_start_from_given_weights(blobs: Cases, tmp_path: Path) -> None:
    taught = train(blobs, SETTINGS, tmp_path / "a.safetensors")
    slow = TrainSettings(network="compact", side=32, stages=((32, 1),), batch=16, learning_rate=1e-6, start="a")
    again = train(blobs, slow, tmp_path / "b.safetensors", start=taught)
    for before, after in zip(taught.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-4, rtol=0)
