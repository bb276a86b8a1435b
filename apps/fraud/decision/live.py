"""The artifact that decides now, and how another takes over while the stream goes on."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from featherweight.apps.fraud.decision.scorer import Scorer, open_scorer
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.errors import ArtifactError, BackendError, FeatherweightError
from featherweight.core.serving import ModelSource

LOOK_EVERY_S = 1.0
log = logging.getLogger("featherweight.fraud")

FolderState = frozenset[tuple[str, int, int, int]]
"""The state of every file of a folder: name, number, time of change, size."""


class LiveModel:
    """Watches an artifact's folder. Owned by one thread, which calls `poll` between two decisions: what is decided
    before it returns is decided by one artifact, what comes after by the other, and nothing twice or not at all.

    A new artifact is opened and tried in a thread of its own, so that decisions go on meanwhile. It takes over only
    when it is whole, of this app, needs no other histories than those that are kept, and gives finite scores;
    otherwise one line in the log says why not, and the old one serves on.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Raises what `open_scorer` raises: there is no old artifact yet that could serve."""
        self.swaps = 0
        self.refused = 0
        self._closing = self._outdated = False
        self._open = partial(open_checked, source, stopping=lambda: self._closing or self._outdated)
        self._directory, self._every_s = source.folder, look_every_s
        self._seen = self._settled = read_folder_state(source.folder)
        self.scorer: Scorer = self._open()
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="artifact")
        self._opening: Future[Scorer] | None = None
        self._asked = False
        self._complaint = ""
        self._next_look = time.monotonic() + look_every_s

    def request_reload(self) -> None:
        """Open the folder's artifact at the next `poll`, changed or not. Safe in a signal handler."""
        self._asked = True

    def poll(self) -> bool:
        """True when another artifact decides from now on. Cheap: it looks at the folder once a second."""
        opening = self._opening
        if opening is not None and opening.done():
            return self._replace_scorer(opening)
        if opening is not None and self._outdated:
            return False  # the folder is looked at again when that has ended
        if (self._asked or time.monotonic() >= self._next_look) and self._is_due():
            if opening is None:
                self._outdated = False
                self._opening = self._opener.submit(self._open, self.scorer)
            else:
                # What is being tried stands there no more: it is given up, and the next one has its turn.
                self._outdated = self._asked = True
        return False

    def close(self) -> None:
        """Ends what is being tried, too: a program without end does not hold up ours."""
        self._closing = True
        self._opener.shutdown(wait=True)
        if self._opening is not None and self._opening.exception() is None:
            self._opening.result().close()
        self._opening = None
        self.scorer.close()

    def _is_due(self) -> bool:
        """Whether a reload was requested, or the folder has changed and stood still since the last look: a copy of an
        artifact file by file is given the time to end."""
        self._next_look = time.monotonic() + self._every_s
        now, before = read_folder_state(self._directory), self._seen
        self._seen = now
        due = self._asked or (now == before and now != self._settled)
        if due:
            self._settled, self._asked = now, False
        return due

    def _replace_scorer(self, opening: Future[Scorer]) -> bool:
        self._opening = None
        error = opening.exception()
        if error is not None and self._outdated:
            return False
        if error is not None:
            # Whatever went wrong with what came new, the one that serves is not touched by it.
            self._refuse(str(error) if isinstance(error, FeatherweightError) else f"{type(error).__name__}: {error}")
            return False
        fresh, old, self._complaint = opening.result(), self.scorer, ""
        if fresh.model == old.model:
            fresh.close()
            return False
        self.scorer = fresh
        self.swaps += 1
        old.close()
        log.info("%s decides from now on, no longer %s", fresh.model, old.model)
        return True

    def _refuse(self, complaint: str) -> None:
        self.refused += 1
        if complaint != self._complaint:
            log.error("the new artifact is refused and %s decides on: %s", self.scorer.model, complaint)
        self._complaint = complaint


def read_folder_state(directory: Path) -> FolderState:
    """What changes when anything in the folder does; empty where there is no folder."""
    found = []
    try:
        for folder, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118  (once a second, for as long as the process lives)
                state = os.stat(path)  # noqa: PTH116
                found.append((path, state.st_ino, state.st_mtime_ns, state.st_size))
    except OSError:
        return frozenset()  # replaced while we looked: the next look is soon
    return frozenset(found)


def open_checked(
    source: ModelSource,
    serving: Scorer | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Scorer:
    """Open an artifact, see that it can take over from `serving`, and run it once. Raises what `open_scorer` raises."""
    scorer = open_scorer(source, stopping=stopping)
    try:
        if serving is not None:
            check_histories(scorer, serving)
        try_out(scorer)
    except FeatherweightError:
        scorer.close()
        raise
    return scorer


def check_histories(scorer: Scorer, serving: Scorer) -> None:
    """Raise ArtifactError unless the histories kept for `serving` are those that `scorer` needs."""
    new, old = scorer.schema, serving.schema
    if new.source != old.source:
        raise ArtifactError(
            f"{scorer.model}: its features are of the source {new.source!r}, those of {serving.model} of "
            f"{old.source!r}; start again with the new artifact"
        )
    if new.source == "histories" and new.delay_days != old.delay_days:
        raise ArtifactError(
            f"{scorer.model}: delay_days is {new.delay_days:g}, but the histories are kept with {old.delay_days:g}; "
            "start again with the new artifact and empty histories"
        )


def try_out(scorer: Scorer) -> None:
    """Score the reference values in every way: a single row, a batch, with reasons. Raises BackendError when a score is
    not finite or the ways disagree."""
    row = np.array(scorer.schema.reference_values, np.float32)
    score = scorer.score(row)
    if not math.isfinite(score):
        raise BackendError(f"{scorer.model}: the score of the reference values is {score}; expected a finite number")
    scorer.explain(row, score)
    trial = Transaction(transaction_id="trial", customer_id="trial", terminal_id="trial", time_ms=0, amount=0.0)
    one, two = scorer.decide_batch([trial, trial], np.stack([row, row]), [False, False])
    if one != two or one.outcome != scorer.decide(trial, row).outcome:
        raise BackendError(f"{scorer.model}: one row scored three times gives different decisions")
