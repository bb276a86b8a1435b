"""The batch job: find -> decode in worker processes -> classify -> journal -> writers.

The main process runs the model while the workers decode; what waits between them is bounded by the pool. Results
enter the journal a batch at a time; the tables and the page are made from the journal when every item is finished, so
they do not depend on how often the job was interrupted, and have the order of the sources, not of the arrival.
"""

from __future__ import annotations

import heapq
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from featherweight.apps.imaging.batch.decode import DecodePool
from featherweight.apps.imaging.classify import Classifier, SealedModel
from featherweight.apps.imaging.frames import Classified, Decoded, Frame, RejectedFrame
from featherweight.apps.imaging.journal import ABSENT, Dropped, Fingerprint, Finished, Journal, Spent, open_journal
from featherweight.apps.imaging.journal_file import FILES as JOURNAL_FILES
from featherweight.apps.imaging.sources.files import Item, find_items, printable
from featherweight.apps.imaging.writers import find_outputs, write_outputs
from featherweight.apps.imaging.writers.page import PAGE_ROWS
from featherweight.apps.imaging.writers.summary import JobSettings, ModelFacts, Seconds, Summary
from featherweight.apps.imaging.writers.thumbnails import render_thumbnail
from featherweight.core.errors import OutputError, UsageError
from featherweight.core.files import check_folder, is_there
from featherweight.core.terminal import counted

FLUSH_S = 1.0
"""A batch that is not full waits at most so long: what is decoded slowly still shows progress and is kept early."""
FLUSH_ITEMS = 256
DROPPED_SHOWN = 20


@dataclass(frozen=True)
class Job:
    """source: a folder, file or list; out: the folder for the results; allow_empty: a source without a file gives
    results without a row; decode_timeout_s: per file."""

    source: Path
    out: Path
    workers: int
    batch: int = 16
    thumbnails: bool = True
    restart: bool = False
    retry_rejected: bool = False
    allow_empty: bool = False
    decode_timeout_s: float = 60.0


@dataclass(frozen=True)
class JobProgress:
    """items: how many the source has; done: how many are finished, `earlier` of them by earlier runs."""

    items: int
    done: int
    earlier: int
    images: int
    rejected: int
    elapsed_s: float

    @property
    def items_per_s(self) -> float:
        """The speed since this run began; 0 at its start."""
        return (self.done - self.earlier) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at that speed; None while nothing is done."""
        return (self.items - self.done) / self.items_per_s if self.items_per_s > 0 else None


def run_job(
    job: Job, model: SealedModel, *, on_progress: Callable[[JobProgress], None], stopping: Callable[[], bool]
) -> Summary | None:
    """Classify what is not yet classified, then write all outputs; None when `stopping` ended it before that.

    Raises UsageError (nothing to classify, the folder holds another job or is in use), OutputError, BackendError;
    ArtifactError for a model that fails when it is tried, which leaves the folder as it was.
    """
    started = _now()
    _check_places(job)
    items = _count_items(job, stopping)
    if stopping():
        return None
    if items == 0 and not job.allow_empty:
        raise UsageError(f"{job.source}: holds no files to classify; --allow-empty makes that a result without rows")
    model.check_tried(batch=job.batch)
    binding = {
        "model": model.chosen.artifact.sha256,
        "source": printable(str(_resolve(job.source))),
        "backend": f"{model.chosen.backend} {model.chosen.program.precision}",
    }
    labels = (model.labels.negative, model.labels.positive)
    outputs = find_outputs(job.out)
    with open_journal(job.out, binding, started, decisions=labels, outputs=outputs, restart=job.restart) as journal:
        if job.retry_rejected:
            journal.forget_rejected()
        with (
            DecodePool(model.preprocess, workers=job.workers, timeout_s=job.decode_timeout_s) as pool,
            model.open(batch=job.batch) as classifier,
        ):
            run = _Run(job, journal, classifier, items, on_progress, stopping)
            finished = run.classify_all(pool)
        if not finished:
            return None
        dropped = journal.drop_unseen(DROPPED_SHOWN)
        journal.keep_thumbnails(PAGE_ROWS if job.thumbnails else 0)
        journal.check(labels)
        summary = _describe(job, model, journal, started, run.items, dropped)
        write_outputs(job.out, journal, summary)
        return summary


@dataclass
class _Run:
    """One run's loop and its counts."""

    job: Job
    journal: Journal
    classifier: Classifier
    total: int
    on_progress: Callable[[JobProgress], None]
    stopping: Callable[[], bool]
    waiting: list[Sequence[Decoded]] = field(default_factory=list)
    in_flight: dict[str, Fingerprint] = field(default_factory=dict)
    never_there: set[str] = field(default_factory=set)
    waiting_s: float = 0.0
    inference_s: float = 0.0
    items: int = 0
    earlier: int = 0
    images: int = 0
    rejected: int = 0

    def __post_init__(self) -> None:
        self._start = self._flushed = time.perf_counter()
        self._highest = _Highest(PAGE_ROWS if self.job.thumbnails else 0, self.journal)

    def classify_all(self, pool: DecodePool) -> bool:
        """True when every item is finished, False when told to stop."""
        decoded = pool.decode(self._unfinished())
        while True:
            start = time.perf_counter()
            results = next(decoded, None)
            self.waiting_s += time.perf_counter() - start
            if results is not None:
                self.waiting.append(results)
            if results is None or self.stopping() or self._is_due():
                self._flush()
            if self.stopping():
                return False
            if results is None:
                self._check_returned()
                return True

    def _check_returned(self) -> None:
        for source in self.in_flight:
            raise OutputError(
                f"{self.job.out}: {counted(len(self.in_flight), 'files')} taken up without a result, {source} for one; "
                "nothing was written, and the same command tries them again"
            )

    def _unfinished(self) -> Iterator[Item]:
        is_list = not self.job.source.is_dir()
        for item in _items(self.job):
            if self.stopping():
                return
            stamp = Fingerprint.of(item.path)
            if self.journal.is_seen(item.source) or self.journal.is_finished(item.source, stamp):
                self.earlier += 1
                continue
            self.in_flight[item.source] = stamp
            # What was found in a folder has been there; what a list names, or a link leads to, perhaps never.
            if stamp == ABSENT and (is_list or item.path.is_symlink()):
                self.never_there.add(item.source)
            yield item

    def _is_due(self) -> bool:
        frames = sum(isinstance(result, Frame) for results in self.waiting for result in results)
        old = time.perf_counter() - self._flushed > FLUSH_S
        return frames >= self.job.batch or len(self.waiting) >= FLUSH_ITEMS or old

    def _flush(self) -> None:
        frames = [result for results in self.waiting for result in results if isinstance(result, Frame)]
        start = time.perf_counter()
        outcomes = iter(self.classifier.classify(frames))
        self.inference_s += time.perf_counter() - start
        finished = []
        for results in self.waiting:
            pairs = [(result, next(outcomes) if isinstance(result, Frame) else result) for result in results]
            finished.append(self._finish(pairs))
        self.items += len(finished)
        wall_s = time.perf_counter() - self._start
        self.journal.commit(finished, Spent(wall_s, self.waiting_s, self.inference_s, self.items))
        self.waiting.clear()
        self._highest.prune()
        self._flushed = time.perf_counter()
        done = self.earlier + self.items
        self.on_progress(JobProgress(self.total, done, self.earlier, self.images, self.rejected, wall_s))

    def _finish(self, pairs: Sequence[tuple[Decoded, Classified]]) -> Finished:
        predictions, rejected, thumbnails = [], [], {}
        for decoded, outcome in pairs:
            if isinstance(outcome, RejectedFrame):
                rejected.append(self._told(outcome))
                continue
            predictions.append(outcome)
            if isinstance(decoded, Frame) and self._highest.admits(outcome.probability):
                thumbnails[outcome.id.frame] = render_thumbnail(decoded.pixels)
        source = pairs[0][0].id.source
        self.images += len(predictions)
        self.rejected += len(rejected)
        self.never_there.discard(source)
        return Finished(source, self.in_flight.pop(source), predictions, rejected, thumbnails)

    def _told(self, rejected: RejectedFrame) -> RejectedFrame:
        """A reader finds that a file is not there; whether it ever was is known here."""
        if rejected.reason != "missing" or rejected.id.source in self.never_there:
            return rejected
        return RejectedFrame(rejected.id, "vanished", "it was there when the job came to it, and is gone")


class _Highest:
    """The highest probabilities so far: only their frames can come onto the page, so only they need thumbnails."""

    def __init__(self, count: int, journal: Journal) -> None:
        self._count, self._journal = count, journal
        self._heap = [prediction.probability for prediction, _ in journal.highest(count)]
        heapq.heapify(self._heap)
        self._admitted = 0

    def admits(self, probability: float) -> bool:
        if self._count == 0:
            return False
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, probability)
        elif probability >= self._heap[0]:
            heapq.heapreplace(self._heap, probability)
        else:
            return False
        self._admitted += 1
        return True

    def prune(self) -> None:
        """Drop overtaken thumbnails now and then: a source that happens to be in rising order admits every frame."""
        if self._admitted > 4 * self._count:
            self._journal.keep_thumbnails(self._count)
            self._admitted = 0


def _check_places(job: Job) -> None:
    """Raise UsageError for results that would lie among the images or in the place of what is read, OutputError for a
    folder that cannot be made: before an archive is looked through."""
    if not is_there(job.source):
        return  # reported when it is looked for
    out, source = _resolve(job.out), _resolve(job.source)
    if out == source and source.is_dir():
        raise UsageError(f"{job.out}: --out is the folder of the images itself; choose another folder for the results")
    if source in _own_files(out):
        raise UsageError(f"{job.source}: is a file that this job itself writes into --out; choose another --out")
    check_folder(job.out, another="another --out")


def _resolve(path: Path) -> Path:
    """Without links. Never raises, not for links in a circle either."""
    return Path(os.path.realpath(path))


def _own_files(out: Path) -> set[Path]:
    return {out / name for name in (*find_outputs(out), *JOURNAL_FILES)}


def _count_items(job: Job, stopping: Callable[[], bool]) -> int:
    count = 0
    for _ in _items(job):
        count += 1
        if stopping():
            break
    return count


def _items(job: Job) -> Iterator[Item]:
    """The source's items without what this job itself wrote into an --out inside the source."""
    out, source = _resolve(job.out), _resolve(job.source)
    if not (out.is_relative_to(source) and os.path.isdir(source)):  # noqa: PTH112  (Path.is_dir raises for long names)
        return find_items(job.source)
    own = _own_files(job.source / out.relative_to(source))
    return (item for item in find_items(job.source) if item.path not in own)


def _describe(
    job: Job, model: SealedModel, journal: Journal, started: str, items_this_run: int, dropped: Dropped
) -> Summary:
    totals = journal.totals()
    return Summary(
        source=printable(str(job.source)),
        out=printable(str(job.out)),
        first_started=totals.started,
        started=started,
        finished=_now(),
        runs=totals.runs,
        items=totals.items,
        items_this_run=items_this_run,
        dropped_items=dropped.items,
        dropped=tuple(dropped.first),
        repeated_instances=len(journal.repeated()),
        images=totals.images,
        rejected=totals.rejected,
        rejected_items=totals.rejected_items,
        decisions={label: totals.decisions.get(label, 0) for label in (model.labels.negative, model.labels.positive)},
        reasons=dict(totals.reasons),
        seconds=Seconds(
            total=round(totals.wall_s, 3),
            waiting=round(totals.waiting_s, 3),
            inference=round(totals.inference_s, 3),
            decode=round(totals.decode_s, 3),
        ),
        items_per_s=round(totals.items_in_runs / totals.wall_s, 2) if totals.wall_s > 0 else 0.0,
        inference_share=round(totals.inference_s / totals.wall_s, 4) if totals.wall_s > 0 else 0.0,
        model=_describe_model(model),
        settings=JobSettings(
            backend=model.chosen.backend,
            precision=model.chosen.program.precision,
            workers=job.workers,
            threads=model.chosen.threads,
            batch=job.batch,
        ),
        versions={name: _version(name) for name in ("featherweight", "numpy", "pydicom", "onnxruntime", "openvino")}
        | {"python": platform.python_version()},
    )


def _describe_model(model: SealedModel) -> ModelFacts:
    artifact = model.chosen.artifact
    manifest = artifact.manifest
    return ModelFacts(
        name=manifest.name,
        sha256=artifact.sha256,
        labels=(model.labels.negative, model.labels.positive),
        threshold=model.decision.threshold,
        prevalence=model.decision.prevalence,
        created=manifest.created.isoformat(timespec="seconds"),
        weights_source=manifest.weights_source,
        missed_limits=manifest.missed_limits,
        notes=manifest.notes,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
