"""`featherweight fraud train`: from labelled transactions to a folder that `optimize` takes.

Importing this loads no framework: mistakes in options and data are reported before that."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema
from featherweight.apps.fraud.training.calibration import fit_rule, raw_threshold
from featherweight.apps.fraud.training.description import SplitDays, Training
from featherweight.apps.fraud.training.models import CARDS, COLUMNS, HISTORIES
from featherweight.apps.fraud.training.protocol import evaluate
from featherweight.apps.fraud.training.split import Split, SplitRows, find_data, read_parts
from featherweight.core.arrays import Scores
from featherweight.core.digests import atomic_folder
from featherweight.core.errors import UsageError
from featherweight.core.files import atomic_write, check_folder, writing_alone
from featherweight.core.hardware import count_usable_cores
from featherweight.core.progress import progress_bar
from featherweight.core.task import check_packages
from featherweight.core.trees.ensemble import Ensemble

if TYPE_CHECKING:
    from torch import nn


def run_training(
    *,
    data: str,
    reader: str,
    out: Path,
    model: str,
    layout: SplitDays,
    alerts_per_day: float,
    seed: int,
    report_test: bool,
) -> dict[str, Any]:
    """Replay, train, calibrate on the validation days, write the folder; returns what it also writes as metrics.json.

    Raises UsageError and DataError for what was asked and found, OutputError when `out` cannot be written.
    """
    if model not in HISTORIES:
        raise UsageError(f"model {model!r} is not one of {', '.join(HISTORIES)}")
    check_packages("fraud train")
    layout.last_day()
    check_folder(out)
    path = find_data(data, reader)
    with writing_alone(out):
        return _train_into(out, data, path, reader, model, layout, alerts_per_day, seed, report_test=report_test)


def _train_into(
    out: Path,
    data: str,
    path: Path,
    reader: str,
    model: str,
    layout: SplitDays,
    alerts_per_day: float,
    seed: int,
    *,
    report_test: bool,
) -> dict[str, Any]:
    with progress_bar() as bar:
        parts = read_parts(str(path), reader, layout, COLUMNS, lambda done: bar("replaying transactions", done))
        from featherweight.apps.fraud.training.fit import fit, margins
        from featherweight.apps.fraud.training.trained import Trained, write_trained

        settings = (HISTORIES if parts.source == "histories" else CARDS)[model]
        fitted = fit(
            settings,
            parts.train.features,
            parts.train.labels,
            seed=seed,
            threads=count_usable_cores(),
            on_step=lambda done, total: bar(f"fitting {model}", done, total),
        )
    scores = margins(fitted, parts.validation.features)
    rule = fit_rule(scores, parts.validation.labels, days=parts.validation.span_days, alerts_per_day=alerts_per_day)
    training = Training(
        settings=settings,
        layout=layout,
        alerts_per_day=alerts_per_day,
        seed=seed,
        source=f"trained from scratch on {Path(data).name} ({_digest(parts.train)[:16]}), seed {seed}",
    )
    summary = _summarize(model, fitted, parts, rule, scores, report_test=report_test)
    with atomic_folder(out) as folder:
        write_trained(folder, Trained(fitted, _schema(parts, layout), rule, training))
        with atomic_write(folder / "metrics.json") as partial:
            partial.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _schema(parts: Split, layout: SplitDays) -> FeatureSchema:
    legitimate = parts.train.features[parts.train.labels == 0]
    mostly_missing = np.isnan(legitimate).mean(axis=0) > 0.5
    medians = np.nanmedian(np.where(mostly_missing, 0, legitimate), axis=0)
    reference = tuple(
        None if missing else float(median) for missing, median in zip(mostly_missing, medians, strict=True)
    )
    return FeatureSchema(
        source=parts.source, names=parts.names, reference_values=reference, delay_days=float(layout.delay_days)
    )


def _summarize(
    model: str,
    fitted: Ensemble | nn.Module,
    parts: Split,
    rule: DecisionRule,
    validation_scores: Scores,
    *,
    report_test: bool,
) -> dict[str, Any]:
    size = (
        {"trees": len(fitted.roots), "splits": fitted.splits}
        if isinstance(fitted, Ensemble)
        else {"weights": sum(parameter.numel() for parameter in fitted.parameters())}
    )
    from featherweight.apps.fraud.training.fit import margins

    summary: dict[str, Any] = {
        "model": {"kind": model, **size, "columns": len(parts.names)},
        "train": {"transactions": len(parts.train), "frauds": int(parts.train.labels.sum())},
        "validation": _figures(parts.validation, validation_scores, rule),
    }
    if report_test:
        summary["test"] = _figures(parts.test, margins(fitted, parts.test.features), rule)
    return summary


def _figures(part: SplitRows, scores: Scores, rule: DecisionRule) -> dict[str, float]:
    """The protocol's figures and what the rule does."""
    alerts = scores >= raw_threshold(rule)
    figures = msgspec.to_builtins(evaluate(scores, part.days, part.customers, part.labels))
    return {
        **figures,
        "alerts_a_day": float(alerts.sum() / part.span_days),
        "frauds_among_alerts": float(part.labels[alerts].mean()) if alerts.any() else 0.0,
        "frauds_found": float(alerts[part.labels == 1].mean()) if part.labels.any() else 0.0,
    }


def _digest(part: SplitRows) -> str:
    return hashlib.sha256(part.features.tobytes() + part.labels.tobytes()).hexdigest()
