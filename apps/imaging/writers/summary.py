"""summary.json: what a job did, in numbers. It is written last, so its presence says that all else is there."""

from __future__ import annotations

from pathlib import Path

import msgspec

from featherweight.apps.imaging.writers.atomic import replace_result
from featherweight.core.terminal import printable


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which model decided."""

    name: str
    sha256: str
    labels: tuple[str, str]
    """Negative, positive."""
    threshold: float
    prevalence: float
    created: str
    weights_source: str
    missed_limits: tuple[str, ...]
    notes: tuple[str, ...]


class JobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """With what the job ran."""

    backend: str
    precision: str
    workers: int
    threads: int
    batch: int


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """total, waiting (for decoded images) and inference are the main process's; decode is the sum over the worker
    processes and over classified images only."""

    total: float
    waiting: float
    inference: float
    decode: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """items: files that are finished; images: classified frames; started, finished: this run's; first_started, seconds
    and rates: over all runs that the journal has seen; inference_share: of the total seconds. dropped_items: files of
    earlier runs that the source no longer has, whose rows this run took out (dropped: the first of them);
    repeated_instances: SOP Instance UIDs that images of more than one file have."""

    source: str
    out: str
    first_started: str
    started: str
    finished: str
    runs: int
    items: int
    items_this_run: int
    images: int
    rejected: int
    rejected_items: int
    decisions: dict[str, int]
    reasons: dict[str, int]
    seconds: Seconds
    items_per_s: float
    inference_share: float
    model: ModelFacts
    settings: JobSettings
    versions: dict[str, str]
    dropped_items: int = 0
    dropped: tuple[str, ...] = ()
    repeated_instances: int = 0


def encode_summary(summary: Summary) -> bytes:
    """The content of `summary.json`."""
    return printable(msgspec.json.format(msgspec.json.encode(summary), indent=2).decode(), lines=True).encode() + b"\n"


def write_summary(path: Path, summary: Summary) -> None:
    """Raises OutputError when the file cannot be written; it is then as it was."""
    with replace_result(path) as partial:
        partial.write_bytes(encode_summary(summary))
