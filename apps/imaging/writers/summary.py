"""summary.json: what a job did, in numbers. It is written last, so its presence says that all else is there."""

from __future__ import annotations

from pathlib import Path

import msgspec

from featherweight.apps.imaging.writers.atomic import replace_result
from featherweight.core.terminal import printable


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which model decided."""

    name: str
    """Name of the artifact."""
    sha256: str
    """Digest of the artifact, as `artifact show` prints it."""
    labels: tuple[str, str]
    """Names of the negative and the positive class."""
    threshold: float
    """Probability from which on an image is positive."""
    prevalence: float
    """Share of positives for which the probability is calibrated."""
    created: str
    """When the artifact was sealed."""
    weights_source: str
    """What the weights were trained on."""
    missed_limits: tuple[str, ...]
    """Limits that it misses though it was sealed."""
    notes: tuple[str, ...]
    """Notes that were sealed with it."""


class JobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """With what the job ran."""

    backend: str
    """Runtime of the model."""
    precision: str
    """Precision of the program that ran."""
    workers: int
    """Processes that decode."""
    threads: int
    """Threads of the model."""
    batch: int
    """Images in one run of the model."""


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went, in seconds."""

    total: float
    """Time of the main process."""
    waiting: float
    """Part of `total` spent waiting for decoded images."""
    inference: float
    """Part of `total` spent running the model."""
    decode: float
    """Decoding, summed over the worker processes and over classified images only."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a job did."""

    source: str
    """Where the images came from."""
    out: str
    """The output folder."""
    first_started: str
    """When the first run into this folder began."""
    started: str
    """When this run began."""
    finished: str
    """When this run ended."""
    runs: int
    """Runs that the journal has seen."""
    items: int
    """Files that are finished."""
    items_this_run: int
    """Files that this run finished."""
    images: int
    """Classified frames."""
    rejected: int
    """Rows in the table of what was rejected."""
    rejected_items: int
    """Files with such a row."""
    decisions: dict[str, int]
    """Class to its number of images."""
    reasons: dict[str, int]
    """Reason of rejection to its number of rows."""
    seconds: Seconds
    """Where the time of all runs went."""
    items_per_s: float
    """Files per second, over all runs."""
    inference_share: float
    """Share of the total seconds that the model ran."""
    model: ModelFacts
    """The model that decided."""
    settings: JobSettings
    """How the job ran."""
    versions: dict[str, str]
    """Package to its version."""
    dropped_items: int = 0
    """Files of earlier runs that the source no longer has, whose rows this run took out."""
    dropped: tuple[str, ...] = ()
    """The first of them."""
    repeated_instances: int = 0
    """SOP Instance UIDs that images of more than one file have."""


def encode_summary(summary: Summary) -> bytes:
    """The content of `summary.json`."""
    return printable(msgspec.json.format(msgspec.json.encode(summary), indent=2).decode(), lines=True).encode() + b"\n"


def write_summary(path: Path, summary: Summary) -> None:
    """Raises OutputError when the file cannot be written; it is then as it was."""
    with replace_result(path) as partial:
        partial.write_bytes(encode_summary(summary))
