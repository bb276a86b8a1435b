"""`featherweight imaging train`: from labelled images to a folder that `optimize` takes.

Importing this loads no framework: mistakes in options and data are reported before that."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherweight.apps.imaging.sealed import DecisionRule, Preprocess
from featherweight.apps.imaging.training.calibration import fit_decision, raw_threshold
from featherweight.apps.imaging.training.cases import Cases, Split
from featherweight.apps.imaging.training.description import NETWORKS, SMALL_SIDE, WEIGHTS, Description, read_description
from featherweight.apps.imaging.training.layouts import find_data, read_split
from featherweight.core.arrays import Labels, Scores
from featherweight.core.digests import atomic_folder, file_digest
from featherweight.core.errors import UsageError
from featherweight.core.files import atomic_write, check_folder, is_file, write_errors, writing_alone
from featherweight.core.progress import progress_bar
from featherweight.core.task import check_packages

if TYPE_CHECKING:
    from torch import nn

    from featherweight.apps.imaging.training.fit import TrainSettings

CHECKPOINT, LOG = "checkpoint.safetensors", "training.csv"


def stages_for(side: int, epochs: int) -> tuple[tuple[int, int], ...]:
    """(side, epochs) of progressive resizing: half of the epochs at half size, a quarter at 0.7, the rest at full size.

    Images under SMALL_SIDE have nothing to spare and train at full size throughout.
    """
    if side < SMALL_SIDE or epochs < 4:
        return ((side, epochs),)
    half, quarter = epochs // 2, epochs // 4
    return ((side // 2, half), (round(side * 0.7 / 16) * 16, quarter), (side, epochs - half - quarter))


def metrics(logits: Scores, labels: Labels, decision: DecisionRule) -> dict[str, float]:
    """AUC, accuracy and balanced accuracy at the decision's threshold; counts. logits: float64 [N]; labels: int64
    [N]."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    positive = logits >= raw_threshold(decision)
    return {
        "cases": len(labels),
        "positives": int(labels.sum()),
        "auc": float(roc_auc_score(labels, logits)),
        "accuracy": float((positive == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, positive)),
        "sensitivity": float(positive[labels == 1].mean()),
        "specificity": float((~positive[labels == 0]).mean()),
    }


def run_training(
    *,
    data: str,
    reader: str,
    out: Path,
    network: str,
    side: int,
    epochs: int,
    batch: int,
    learning_rate: float,
    labels: tuple[str, str],
    seed: int,
    split_seed: int,
    report_test: bool,
    augmentation: float = 1.0,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train (or go on), calibrate on validation, write the folder; returns what it also writes as metrics.json.

    Until all is whole it lies in a hidden folder beside `out`, with the checkpoint from which the same call goes on.
    """
    if network not in NETWORKS:
        raise UsageError(f"network {network!r} is not one of {', '.join(NETWORKS)}")
    if start is not None:
        _check_start(start, network)
    check_packages("imaging train")
    check_folder(out)
    path = find_data(data, reader)
    split = read_split(str(path), reader, side=side, seed=split_seed)
    from featherweight.apps.imaging.training.fit import TrainSettings

    settings = TrainSettings(
        network=network,
        side=side,
        stages=stages_for(side, epochs),
        batch=batch,
        learning_rate=learning_rate,
        augmentation=augmentation,
        start="" if start is None else file_digest(start / WEIGHTS),
        seed=seed,
    )
    source = (
        f"trained {'from scratch' if start is None else f'from weights {settings.start[:16]}'} on "
        f"{Path(data).name} ({_digest(split.train)[:16]}), seed {seed}, split seed {split_seed}"
    )
    with writing_alone(out), atomic_folder(out, keep=CHECKPOINT) as folder:
        with write_errors(folder):
            if is_file(out / LOG) and not is_file(folder / LOG):
                shutil.copy(out / LOG, folder / LOG)
        return _train_into(folder, out, split, settings, start, labels, source, report_test=report_test)


def _train_into(
    folder: Path,
    out: Path,
    split: Split,
    settings: TrainSettings,
    start: Path | None,
    labels: tuple[str, str],
    source: str,
    *,
    report_test: bool,
) -> dict[str, Any]:
    """All that will be in `out` into `folder`, from the checkpoint that is there or, of an earlier run, in `out`."""
    from featherweight.apps.imaging.training.fit import calibration_views, predict
    from featherweight.apps.imaging.training.trained import Trained, read_trained, write_trained

    beginning = None if start is None else read_trained(start).network
    trained_network = _train_with_progress(split, settings, folder, out, beginning)
    views = calibration_views(split.validation)
    scores = predict(trained_network, views.images)
    decision = fit_decision(scores, views.labels)
    description = Description(
        network=settings.network,
        side=settings.side,
        mean=float(split.train.images.mean() / 255),
        std=float(split.train.images.std() / 255),
        labels=labels,
        source=source,
    )
    write_trained(folder, Trained(trained_network, description, Preprocess(side=settings.side), decision))
    summary: dict[str, Any] = {"network": settings.network, "seed": settings.seed, "train_cases": len(split.train)}
    summary["validation"] = metrics(scores[: len(split.validation)], split.validation.labels, decision)
    if report_test:
        summary["test"] = metrics(predict(trained_network, split.test.images), split.test.labels, decision)
    with atomic_write(folder / "metrics.json") as partial:
        partial.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _check_start(folder: Path, network: str) -> None:
    description, *_ = read_description(folder)
    if description.network != network:
        raise UsageError(f"--init-from {folder} holds a {description.network}, not a {network}; name the same network")


def _train_with_progress(
    split: Split, settings: TrainSettings, folder: Path, out: Path, start: nn.Module | None
) -> nn.Module:
    from sklearn.metrics import roc_auc_score

    from featherweight.apps.imaging.training.fit import predict, train

    with write_errors(folder), progress_bar(transient=False) as bar, (folder / LOG).open("a", newline="") as log:
        writer = csv.writer(log)

        def on_step(done: int, total: int, loss: float) -> None:
            bar("training", done, total, f"loss {loss:.3f}")

        def on_epoch(epoch: int, loss: float, network: nn.Module) -> None:
            auc = roc_auc_score(split.validation.labels, predict(network, split.validation.images))
            writer.writerow([epoch, f"{loss:.5f}", f"{auc:.5f}"])
            log.flush()
            bar.say(f"epoch {epoch}: loss {loss:.4f}, validation AUC {auc:.4f}")

        return train(
            split.train,
            settings,
            folder / CHECKPOINT,
            earlier=out / CHECKPOINT,
            start=start,
            on_step=on_step,
            on_epoch=on_epoch,
        )


def _digest(cases: Cases) -> str:
    return hashlib.sha256(cases.images.tobytes() + cases.labels.tobytes()).hexdigest()
