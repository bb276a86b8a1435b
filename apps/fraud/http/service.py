"""What the endpoints do, without HTTP: score, apply labels, keep the state, let another artifact take over.

Everything runs on the event loop's thread: a decision takes microseconds, less than handing it to another thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.policy import fall_back, mark
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import CONFLICT, LIMIT, NEW
from featherweight.apps.fraud.features.store import Store
from featherweight.apps.fraud.http.forms import LabelRequest, LabelsAnswer, ScoreRequest
from featherweight.apps.fraud.monitoring.metrics import ScoringMetrics
from featherweight.apps.fraud.plausible import AHEAD_MS, read_clock_ms, refuse_time
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.arrays import FeatureRow, FeatureRows
from featherweight.core.errors import FeatherweightError, OutputError
from featherweight.core.terminal import counted

CHUNK_ROWS: Final = 64
"""So many rows of a batch are decided before others have their turn."""
PENDING_ROWS: Final = 20_000
"""Rows that wait in batches; more are turned away: they could not be decided within a few tenths of a second."""
TICK_S: Final = 0.1
SYNC_S: Final = 0.2
EXPIRE_S: Final = 300.0
JOURNAL_BYTES: Final = 64 << 20
"""From here on a snapshot is written, which takes a moment: some 400,000 transactions, read again in seconds."""
log = logging.getLogger("featherweight.fraud")


class RequestRefusedError(FeatherweightError):
    """The service does not do what it was asked, and has counted nothing of it."""


class InvalidEventError(RequestRefusedError):
    """A transaction or label is not what it should be. index: its place among those that were given together, None
    where it came alone or all of them are meant; field: of it, empty where it is meant itself."""

    def __init__(self, reason: str, field: str = "", index: int | None = None) -> None:
        super().__init__(reason)
        self.field, self.index = field, index


class OverloadedError(RequestRefusedError):
    """Too much waits already: the same may be asked again later."""


class StateUnavailableError(RequestRefusedError):
    """The state cannot be written just now: the same may be asked again later."""


class Service:
    """Owned by one thread. store: None keeps histories in memory only."""

    def __init__(
        self,
        live: LiveModel,
        store: Store | None,
        *,
        max_histories: int = LIMIT,
        now_ms: Callable[[], int] = read_clock_ms,
    ) -> None:
        """max_histories: as FeatureEngine's limit, where there is no store; now_ms: the clock that says which times are
        believed."""
        self.live = live
        self.store = store
        engine = store.engine if store else FeatureEngine(live.scorer.schema.delay_days, max_histories)
        self.pipeline = Pipeline(live.scorer, engine)
        self.pending_rows = 0
        self.fault = ""
        """Why the state cannot be kept just now, or empty."""
        self.metrics = ScoringMetrics(self._gauges(), lambda: self.pipeline.scorer.model)
        self._now_ms = now_ms
        self._told_evictions = False
        self._rows = np.zeros((CHUNK_ROWS, len(CATALOGUE)), np.float32)

    def score(self, request: ScoreRequest, due: float) -> Decision:
        """One transaction. due: when the decision must be there, in time.perf_counter's seconds; later, the policy for
        when no score can be had decides. Raises RequestRefusedError."""
        pipeline = self.pipeline
        reason = refuse_time(request.time_ms, self._now_ms() + AHEAD_MS)
        if reason is not None:
            raise InvalidEventError(reason, "time_ms")
        if isinstance(request.features, dict):
            row = self._given(request.features)
            decision = pipeline.scorer.decide(request, row) if time.perf_counter() <= due else self._fall_back(request)
        else:
            self._check_stateful("features")
            if self.store is not None:
                self._keep(self.store, [request])
            if time.perf_counter() <= due:
                decision = pipeline.process(request)
            else:
                known = pipeline.engine.advance(request)
                decision = mark(self._fall_back(request), known, late=pipeline.engine.late)
        self.metrics.decided(decision)
        return decision

    async def score_batch(self, requests: Sequence[ScoreRequest], due: float) -> list[Decision]:
        """In order; every CHUNK_ROWS other requests have their turn. Raises RequestRefusedError before anything is
        counted, unless meanwhile a disk fills up, or an artifact takes over whose columns are not those given."""
        given, names = self._check_batch(requests), self.pipeline.scorer.schema.names
        self._admit(len(requests))
        decisions: list[Decision] = []
        try:
            for start in range(0, len(requests), CHUNK_ROWS):
                if start:
                    await asyncio.sleep(0)
                    if self.pipeline.scorer.schema.names != names:  # another artifact has taken over meanwhile
                        given, names = self._check_batch(requests), self.pipeline.scorer.schema.names
                decisions += self._score_chunk(
                    requests[start : start + CHUNK_ROWS], given[start : start + CHUNK_ROWS], due
                )
        finally:
            self.pending_rows -= len(requests)
        return decisions

    def apply_labels(self, labels: Sequence[LabelRequest]) -> LabelsAnswer:
        """Raises RequestRefusedError."""
        self._check_stateful()
        self._check_times(labels)
        if self.store is not None:
            self._keep(self.store, labels)
        known = Counter(self.pipeline.apply_label(label) for label in labels)
        unknown, applied = known[NEW], len(labels) - known[NEW]
        self.metrics.labels["yes"] += applied
        self.metrics.labels["no"] += unknown
        self.metrics.label_conflicts += known[CONFLICT]
        return LabelsAnswer(learned=applied, unknown=unknown, conflicts=known[CONFLICT])

    async def keep_up(self) -> None:
        """What has its time: another artifact, bytes brought to the disk, snapshots. Runs until cancelled."""
        synced = expired = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            if self.live.poll():
                self.pipeline.scorer = self.live.scorer
            now = time.monotonic()
            if self.store is not None and now - synced >= SYNC_S:
                synced = now
                await self._attempt_sync(self.store)
            if now - expired >= EXPIRE_S:
                expired = now
                self.pipeline.engine.expire()
            self._tell_evictions()
            if self.store is not None and (self.store.journal_bytes > JOURNAL_BYTES or self.store.removed):
                self._attempt_snapshot(self.store)

    def close(self) -> None:
        """Write what the next start needs."""
        if self.store is not None:
            self._attempt_snapshot(self.store)
            self.store.close()
        self.live.close()

    def _gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        engine, store = self.pipeline.engine, self.store
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "customers": ("Customers with a history.", lambda: len(engine.customers)),
            "terminals": ("Terminals with a history.", lambda: len(engine.terminals)),
            "histories_bytes": ("Memory of all histories.", lambda: engine.used_bytes),
            "histories_evicted": (
                "Histories forgotten, least recently used, beyond --max-histories.",
                lambda: engine.evicted,
            ),
            "pending_rows": ("Rows of batches that wait.", lambda: self.pending_rows),
            "artifact_swaps": ("Artifacts that took over.", lambda: self.live.swaps),
            "artifacts_refused": ("Artifacts that were refused.", lambda: self.live.refused),
            "unready": ("1 while the state cannot be written.", lambda: float(bool(self.fault))),
        }
        if store is not None:
            gauges["journal_bytes"] = ("What the next start would have to read again.", lambda: store.journal_bytes)
        return gauges

    def _score_chunk(
        self, requests: Sequence[ScoreRequest], given: Sequence[FeatureRow | None], due: float
    ) -> list[Decision]:
        stateful = [request for request, row in zip(requests, given, strict=True) if row is None]
        if self.store is not None and stateful:
            self._keep(self.store, stateful)
        engine, scorer, catalogue, known, late = self.pipeline.engine, self.pipeline.scorer, self._rows, [], []
        for index, (request, row) in enumerate(zip(requests, given, strict=True)):
            known.append(engine.advance(request) if row is None else NEW)
            catalogue[index] = engine.row
            late.append(row is None and engine.late)
        if time.perf_counter() > due:
            decisions = [self._fall_back(request) for request in requests]
        else:
            rows = self._fill(catalogue[: len(requests)], given)
            decisions = scorer.decide_batch(list(requests), rows, [False] * len(requests))
        if any(known) or any(late):
            decisions = [
                mark(decision, what, late=was_late)
                for decision, what, was_late in zip(decisions, known, late, strict=True)
            ]
        for decision in decisions:
            self.metrics.decided(decision)
        return decisions

    def _fill(self, catalogue: FeatureRows, given: Sequence[FeatureRow | None]) -> FeatureRows:
        """The program's columns: out of the catalogue's, or as they were given."""
        scorer = self.pipeline.scorer
        if all(row is None for row in given):
            return catalogue[:, scorer.columns]
        return np.stack([catalogue[i, scorer.columns] if row is None else row for i, row in enumerate(given)])

    def _check_batch(self, requests: Sequence[ScoreRequest]) -> list[FeatureRow | None]:
        self._check_times(requests)
        given: list[FeatureRow | None] = []
        for index, request in enumerate(requests):
            if isinstance(request.features, dict):
                given.append(self._given(request.features, index))
            else:
                self._check_stateful("features", index)
                given.append(None)
        return given

    def _given(self, features: dict[str, float | None], index: int | None = None) -> FeatureRow:
        names = self.pipeline.scorer.schema.names
        if len(features) != len(names) or any(name not in features for name in names):
            absent = [name for name in names if name not in features]
            what = f"lacks {', '.join(absent[:5])}" if absent else f"has {counted(len(features), 'values')}"
            raise InvalidEventError(f"features: {what}; the model takes {', '.join(names)}", "features", index)
        return np.array([np.nan if features[name] is None else features[name] for name in names], np.float32)

    def _check_times(self, events: Sequence[Transaction | Label]) -> None:
        latest_ms = self._now_ms() + AHEAD_MS
        for index, event in enumerate(events):
            reason = refuse_time(event.time_ms, latest_ms)
            if reason is not None:
                raise InvalidEventError(reason, "time_ms", index)

    def _check_stateful(self, field: str = "", index: int | None = None) -> None:
        schema = self.pipeline.scorer.schema
        if schema.source == "given":
            raise InvalidEventError(
                f"features: the model keeps no histories; give its columns {', '.join(schema.names)}", field, index
            )

    def _admit(self, rows: int) -> None:
        if self.pending_rows + rows > PENDING_ROWS and self.pending_rows:
            raise OverloadedError(f"{counted(self.pending_rows, 'rows')} waiting; try again later")
        self.pending_rows += rows

    def _fall_back(self, request: ScoreRequest) -> Decision:
        return fall_back(request, self.pipeline.scorer.rule, self.pipeline.scorer.model)

    def _keep(self, store: Store, events: Sequence[ScoreRequest] | Sequence[LabelRequest]) -> None:
        try:
            store.record(events)
            self.fault = ""
        except OutputError as error:
            self._complain(error)
            raise StateUnavailableError("the state cannot be written; nothing was counted") from error

    async def _attempt_sync(self, store: Store) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, store.sync)
        except OutputError as error:
            self._complain(error)

    def _attempt_snapshot(self, store: Store) -> None:
        """One that cannot be written is logged; the journal has everything all the same."""
        try:
            store.snapshot()
        except OutputError as error:
            self._complain(error)

    def _tell_evictions(self) -> None:
        if self.pipeline.engine.evicted and not self._told_evictions:
            self._told_evictions = True
            log.warning(
                "there are more customers or terminals than --max-histories: those not seen for the longest time are "
                "forgotten from now on (featherweight_histories_evicted counts them)"
            )

    def _complain(self, error: OutputError) -> None:
        if self.fault != str(error):
            log.error("%s", error)
        self.fault = str(error)
