"""`featherweight predict`: a table in, a table of scores out, in bounded memory; started again it goes on.

Each part of the input (a row group of Parquet) becomes a file in a hidden folder beside the output; when all are there
they are joined and the folder goes. Reading, scoring and writing run beside each other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.apps.custom.adapter import CustomAdapter
from featherweight.apps.custom.rows import BATCH_ROWS, open_source, prepare
from featherweight.apps.custom.sealed import ClassRule, DecisionRule
from featherweight.core.arrays import Array, Floats, Probabilities, Scores
from featherweight.core.doors.scores import raw_scores
from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import atomic_write, read_errors, write_errors, writing_alone
from featherweight.core.platt import LARGEST_LOGIT
from featherweight.core.progress import Progress, silent
from featherweight.core.serving import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

    from featherweight.core.backends.base import Session

OWN_COLUMNS = ("score", "probability", "decision", "reason")
"""Of several classes there are further ones: `own_columns`."""
_VERSION = 1
_NEAR = 1e-9
"""Probabilities this near to the threshold are computed as the app itself does, to the last bit."""


@dataclass(frozen=True)
class PredictJob:
    """model: the artifact's folder; data: the table; keep: its columns that are carried over."""

    model: Path
    data: Path
    out: Path
    keep: tuple[str, ...] = ()
    backend: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class PredictSummary:
    """decisions: how often each; reasons: why rows were not scored, and how many."""

    out: Path
    rows: int
    backend: str
    decisions: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Rows that were not scored."""
        return sum(self.reasons.values())


def run_predict(job: PredictJob, progress: Progress = silent) -> PredictSummary:
    """Score every row of the table. Rows that cannot be scored stay in their places, with a reason and no score.

    Raises ArtifactError for a model that cannot be trusted, WrongModelError for one of another app, UsageError for one
    that takes no table, DataError for a table that does not fit, OutputError.
    """
    source = ModelSource(job.model, job.backend, job.threads)
    artifact = source.read(app="custom")
    manifest = artifact.manifest
    adapter = CustomAdapter(manifest.labels, artifact.sealed, [entry.spec() for entry in manifest.inputs])
    if not adapter.schema.columns:
        raise UsageError(f"{job.model}: takes arrays without names of columns; open it by featherweight.open")
    twice = sorted(set(job.keep) & set(own_columns(adapter)))
    if twice:
        raise UsageError(f"column {twice[0]!r} cannot be carried over: the output has one of its own by this name")
    if job.out.suffix.lower() not in (".parquet", ".pq", ".csv"):
        raise UsageError(f"{job.out}: expected a name that ends with .parquet or .csv")
    table = open_source(job.data, tuple(dict.fromkeys((*job.keep, *adapter.schema.columns))))
    with writing_alone(job.out), source.open(artifact, batches=(1, BATCH_ROWS)) as opened:
        folder = _open_folder(job, artifact.sha256)
        done = 0
        for number, batches in enumerate(table.parts()):
            path = folder / f"{number:06}.parquet"
            if path.exists():
                done += _count_rows(path)
            else:
                for rows in _write_part(path, batches, adapter, opened.session, job.keep):
                    done += rows
                    progress("scoring", done, table.rows or done)
        return _join(folder, job, opened.backend)


def _open_folder(job: PredictJob, sha256: str) -> Path:
    """Where parts lie, emptied where they are of another job: another model, input or columns."""
    folder = job.out.with_name(f".{job.out.name}.parts")
    found = job.data.stat()
    stated = [_VERSION, sha256, str(job.data.absolute()), found.st_size, found.st_mtime_ns, job.keep, BATCH_ROWS]
    identity = hashlib.sha256(json.dumps(stated).encode()).hexdigest()
    mark = folder / "job"
    with write_errors(folder):
        if folder.exists() and not (mark.is_file() and mark.read_text() == identity):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(mark) as partial:
        partial.write_text(identity)
    return folder


def _write_part(
    path: Path, batches: Iterator[pa.RecordBatch], adapter: CustomAdapter, session: Session, keep: tuple[str, ...]
) -> Iterator[int]:
    """Writes the part, and gives the rows of each batch as they are written: two batches are on their way at a time."""

    with atomic_write(path) as partial, ThreadPoolExecutor(1, "scoring") as pool:
        writer: Any = None
        pending: deque[Future[pa.RecordBatch]] = deque()

        def write() -> int:
            nonlocal writer
            scored = pending.popleft().result()
            writer = writer or _parquet_writer(partial, scored.schema)
            writer.write_batch(scored)
            return int(scored.num_rows)

        try:
            for batch in batches:
                pending.append(pool.submit(score_batch, batch, adapter, session, keep))
                if len(pending) > 2:
                    yield write()
            while pending:
                yield write()
            if writer is None:  # a part without rows
                partial.touch()
        finally:
            if writer is not None:
                writer.close()


def score_batch(
    batch: pa.RecordBatch, adapter: CustomAdapter, session: Session, keep: tuple[str, ...]
) -> pa.RecordBatch:
    """The kept columns of a batch, and what the model says of each row."""
    import pyarrow as pa

    prepared = prepare(batch, adapter.schema, session.inputs[0].dtype)
    scores = raw_scores(session.run({session.inputs[0].name: prepared.rows}), adapter.schema.score)
    fit = prepared.fit & np.isfinite(scores).reshape(len(scores), -1).all(axis=1)
    reasons = np.where(prepared.fit & ~fit, "the model gives no finite number", prepared.reasons)
    unfit = ~fit
    numbers, places = _answers(np.where(fit if scores.ndim == 1 else fit[:, None], scores, 0.0), adapter)
    names = pa.array(adapter.labels)
    columns = {
        **{name: batch.column(name) for name in keep},
        **{name: pa.array(values, mask=unfit) for name, values in numbers.items()},
        "decision": pa.DictionaryArray.from_arrays(pa.array(places, mask=unfit), names),
        "reason": pa.array(reasons, pa.string(), mask=fit) if unfit.any() else pa.nulls(len(fit), pa.string()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def own_columns(adapter: CustomAdapter) -> tuple[str, ...]:
    """Of several classes `probability` is that of the decision, and each class has one of its own."""
    if not isinstance(adapter.rule, ClassRule):
        return OWN_COLUMNS
    return "probability", *map(_class_column, adapter.labels), "decision", "reason"


def _class_column(label: str) -> str:
    return f"probability of {label}"


def _answers(scores: Scores, adapter: CustomAdapter) -> tuple[dict[str, Floats], Array]:
    """(columns of numbers [N], places of the labels that are decided for, int8 or int16 [N])."""
    rule = adapter.rule
    if isinstance(rule, ClassRule):
        adapter.check_classes(scores)
        chances, places = rule.probabilities(scores), scores.argmax(axis=1)
        each = {_class_column(label): chances[:, place] for place, label in enumerate(adapter.labels)}
        return {"probability": chances[np.arange(len(places)), places], **each}, places.astype(np.int16)
    of_one = _chances(scores, rule)
    return {"score": scores, "probability": of_one}, (of_one >= rule.threshold).astype(np.int8)


def _chances(scores: Scores, rule: DecisionRule) -> Probabilities:
    """As the sealed rule gives them for scores [N], at once for all; beside the threshold one by one, so that every
    decision is the app's own."""
    logits = np.clip(rule.slope * scores + rule.intercept, -LARGEST_LOGIT, LARGEST_LOGIT)
    chances = 1 / (1 + np.exp(-logits))
    near = np.flatnonzero(np.abs(chances - rule.threshold) < _NEAR)
    chances[near] = rule.probabilities(scores[near])
    return np.asarray(chances)


def _count_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return 0 if not path.stat().st_size else int(pq.ParquetFile(path).metadata.num_rows)


def _join(folder: Path, job: PredictJob, backend: str) -> PredictSummary:
    """All parts as one table, in their order; then the folder goes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    decisions, reasons, rows = Counter[str](), Counter[str](), 0
    writer: Any = None
    with (
        read_errors(folder, "a part cannot be read", "remove the folder, and start again", also=(pa.ArrowException,)),
        atomic_write(job.out) as partial,
    ):
        for path in sorted(folder.glob("*.parquet")):
            if not path.stat().st_size:
                continue
            for batch in pq.ParquetFile(path, read_dictionary=["decision", "reason"]).iter_batches(1 << 16):
                rows += batch.num_rows
                _count(decisions, batch.column("decision"))
                _count(reasons, batch.column("reason"))
                if writer is None:
                    is_csv = job.out.suffix.lower() == ".csv"
                    plain = pa.schema([pa.field(one.name, _plain(one.type)) for one in batch.schema])
                    writer = csv.CSVWriter(partial, plain) if is_csv else _parquet_writer(partial, plain)
                writer.write_batch(batch.cast(plain))
        if writer is None:
            raise DataError(f"{job.data}: holds no rows")
        writer.close()
    shutil.rmtree(folder, ignore_errors=True)
    return PredictSummary(job.out, rows, backend, dict(decisions), dict(reasons))


def _parquet_writer(path: Path, schema: Any) -> Any:
    """Without dictionaries of numbers: scores hardly ever repeat, and looking for that takes most of the writing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [one.name for one in schema if not (pa.types.is_floating(one.type) or pa.types.is_integer(one.type))]
    return pq.ParquetWriter(path, schema, use_dictionary=texts)


def _plain(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _count(counts: Counter[str], column: Any) -> None:
    for one in column.drop_null().value_counts().to_pylist():
        counts[str(one["values"])] += one["counts"]


def carried_columns(data: Path, keep: tuple[str, ...]) -> tuple[str, ...]:
    """What is carried over: what is named, or a column `id` where there is one."""
    if keep or not os.path.isfile(data):  # noqa: PTH113  (never raises)
        return keep
    try:
        open_source(data, ("id",))
    except DataError:
        return ()
    return ("id",)
