"""Parity: one program gives the same decisions however it is run. Measured when an artifact is sealed, on validation
cases and on reference inputs, which travel in the artifact so that a new host can check its own runtimes.

The arithmetic is not the same everywhere: batches and threads change the order of sums, runtimes fuse and round int8
differently, and a processor without VNNI saturates (core.parity.avx2). So scores may differ by a little and decisions
may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import Floats, Integers, Scores
from featherweight.core.artifact import DecisionPoint, ReferenceCases
from featherweight.core.backends.base import Backend, Session
from featherweight.core.errors import BackendError, TensorError
from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.metrics import PARITY
from featherweight.core.evidence.predictions import Parity, ParityRun
from featherweight.core.parity.avx2 import SECONDS, has_avx2_alone, run_on_avx2
from featherweight.core.parity.reproduction import BATCHES, REFERENCE_BATCH, THREADS, run_batches, widest
from featherweight.core.program import Program
from featherweight.core.progress import Progress, silent
from featherweight.core.task import HeldOut, Task
from featherweight.core.tensors import Tensors
from featherweight.core.terminal import counted

CASES = 200
REFERENCE_INPUTS = 32
_DRAWN = 256
_CLEAR = 0.05
"""Least distance of a reference input's score from the threshold, relative to the largest score."""
_ROUNDING = 1e-5
"""A case whose score is nearer to the threshold than this, relative to the largest score, is decided by the order of
additions."""
_SAME = 0.1
"""A score that differs by more than this, relative to the largest, is not the same result, whatever the decisions."""
_MIN_TOLERANCE = 1e-4
_FEW = 0.01
"""Share of the cases, half of which are those nearest to the threshold, whose decisions may change by another runtime's
rounding alone. Such a runtime is reported and not preferred, but it runs the same program, and a host that has no other
may use it."""
_SPARE = 1.5
"""A tolerance is this many times the largest difference among the runs that agree but for rounding."""


@dataclass(frozen=True, eq=False)
class MeasuredParity:
    """parity: for the evidence; reference_cases: to seal; check: failed when the backend that judged the program does
    not agree with itself or with the scores that it was judged by; agreeing: the backends that give its decisions
    here however they are run, this one included; notes: in words, which disagree here, and which would disagree on a
    processor with no more than AVX2."""

    parity: Parity
    reference_cases: ReferenceCases
    check: Check
    agreeing: tuple[str, ...]
    notes: tuple[str, ...]


def measure_parity(
    task: Task,
    held_out: HeldOut,
    program: Program,
    backend: str,
    *,
    scores: Scores,
    threshold: float,
    further_thresholds: Sequence[float] = (),
    backends: Mapping[str, Backend],
    seed: int,
    progress: Progress = silent,
) -> MeasuredParity:
    """Run the program that is to be sealed on every one of `backends` at all of BATCHES and THREADS, and on each
    restricted to AVX2 where that can be done, on up to CASES held-out cases (half of them those nearest to the
    threshold) and on REFERENCE_INPUTS reference inputs.

    backend: where the program was judged; scores: float64 [N], its raw scores of held_out there; threshold: of its
    decisions; further_thresholds: all others that the app acts on. A run that is not possible is in the result with its
    reason. Raises BackendError when the program does not run on `backend` itself.
    """
    chosen = _pick_cases(scores, threshold)
    with backends[backend].open(program) as session:
        drawn = _pick_reference_inputs(task, session, threshold, seed)
        # The reference inputs first: an emulated processor may not get through all cases.
        inputs = {name: np.concatenate([array, held_out.tensors[name][chosen]]) for name, array in drawn.items()}
        outputs = run_batches(session, inputs, REFERENCE_BATCH)
    reference = _Reference(task, program, backend, inputs, outputs, _scores(task, outputs), threshold)
    reference = replace(reference, thresholds=tuple(sorted({threshold, *further_thresholds})))
    seen: list[_Seen] = []
    total = len(backends) * (len(THREADS) + 1)
    plans = [(name, threads) for name in backends for threads in THREADS]
    for done, (name, threads) in enumerate(plans):
        progress("running batches, threads and backends", done, total)
        seen += _repeat(reference, name, backends[name], threads)
    for done, name in enumerate(backends, len(plans)):
        progress("running batches, threads and backends", done, total)
        seen.append(_restrict(reference, name, seen))
    progress("running batches, threads and backends", total, total)
    reference_count = len(next(iter(drawn.values())))
    rejudged, _ = reference.count_flips(reference.scores[reference_count:], scores[chosen])
    return _sum_up(reference, seen, reference_count, rejudged)


@dataclass(frozen=True, eq=False)
class _Reference:
    """The run that all others are compared with; outputs, scores: of `inputs` [n], which begin with the reference
    inputs."""

    task: Task
    program: Program
    backend: str
    inputs: Tensors
    outputs: Tensors
    scores: Scores
    threshold: float
    thresholds: tuple[float, ...] = ()

    @property
    def largest(self) -> float:
        return float(np.abs(self.scores).max()) or 1.0

    def count_flips(self, mine: Floats, scores: Scores) -> tuple[int, int]:
        """Decisions of `scores` [n] that differ from those of `mine`; and further ones that differ by rounding
        alone."""
        if mine.ndim > 1:  # the largest of several scores decides
            changes, sure = mine.argmax(axis=1) != scores.argmax(axis=1), _lead(mine) > _ROUNDING * self.largest
            return int((changes & sure).sum()), int((changes & ~sure).sum())
        at = np.asarray(self.thresholds or (self.threshold,))[:, None]
        clear = np.abs(mine - at) > _ROUNDING * self.largest
        changed = (scores >= at) != (mine >= at)
        clearly = (changed & clear).any(axis=0)
        return int(clearly.sum()), int((changed.any(axis=0) & ~clearly).sum())

    def compare(self, run: ParityRun, outputs: Tensors) -> _Seen:
        """outputs: of all cases or of the first ones. Raises BackendError for a score that is not a number."""
        scores = _scores(self.task, outputs)
        mine = self.scores[: len(scores)]
        flips, rounded = self.count_flips(mine, scores)
        difference = float(np.abs(scores - mine).max())
        same = not flips and difference <= _SAME * self.largest
        if rounded:
            some = counted(rounded, "decisions")
            run = replace(run, reason=f"{some} nearer to the threshold than rounding is not counted as changed")
        if not flips and not same:
            run = replace(run, reason=f"a score differs by more than {_SAME:.0%} of the largest")
        widths = {name: widest(array, self.outputs[name][: len(scores)]) for name, array in outputs.items()}
        return _Seen(replace(run, difference=difference, flips=flips), same, len(scores), widths)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A run; same: whether it gave the same; cases: how many it got through; widths: output -> largest difference."""

    run: ParityRun
    same: bool
    cases: int
    widths: Mapping[str, float]


def _scores(task: Task, outputs: Tensors) -> Floats:
    scores = task.scores(outputs)
    if not np.isfinite(scores).all():
        raise BackendError("the program gives a score that is not a number")
    return scores


def _lead(scores: Floats) -> Floats:
    """float64 [n]: by how much the largest of K scores [n, K] leads the second."""
    second, first = np.sort(scores, axis=1)[:, -2:].T
    return np.asarray(first - second)


def _beyond(scores: Floats, threshold: float) -> tuple[Floats, float]:
    """(one number for each case, 0 and above for one of two decisions, where that begins): of several scores their
    lead, which is 0 where the decision changes."""
    return (scores, threshold) if scores.ndim == 1 else (_lead(scores), 0.0)


def _pick_cases(scores: Scores, threshold: float) -> Integers:
    """Half of those nearest to the threshold, which flip first, and half from all over the range of scores."""
    scores, threshold = _beyond(scores, threshold)
    near = np.argsort(np.abs(scores - threshold), kind="stable")
    rest = near[CASES // 2 :]
    ranked = rest[np.argsort(scores[rest], kind="stable")]
    spread = ranked[np.linspace(0, len(ranked) - 1, min(CASES // 2, len(ranked))).astype(np.int64)]
    return np.concatenate([near[: CASES // 2], spread]).astype(np.int64)


def _pick_reference_inputs(task: Task, session: Session, threshold: float, seed: int) -> Tensors:
    """Reference inputs whose scores spread evenly over the range, none near the threshold, out of _DRAWN candidates."""
    drawn = task.reference_inputs(_DRAWN, seed)
    scores, threshold = _beyond(_scores(task, run_batches(session, drawn, REFERENCE_BATCH)), threshold)
    clear = np.flatnonzero(np.abs(scores - threshold) >= _CLEAR * np.abs(scores).max())
    left: list[int] = clear.tolist() or list(range(len(scores)))
    picked: list[int] = []
    for target in np.linspace(scores[left].min(), scores[left].max(), min(REFERENCE_INPUTS, len(left))):
        nearest = min(left, key=lambda index: abs(float(scores[index] - target)))
        picked.append(nearest)
        left.remove(nearest)
    return {name: array[picked] for name, array in drawn.items()}


def _repeat(reference: _Reference, name: str, backend: Backend, threads: int) -> list[_Seen]:
    """One backend with so many threads, at all BATCHES. Raises BackendError where the program was judged on it."""
    seen: list[_Seen] = []
    try:
        with backend.open(reference.program, threads=threads) as session:
            for batch in BATCHES:
                run = _plan(reference, name, threads, batch)
                seen.append(reference.compare(run, run_batches(session, reference.inputs, batch)))
    except (BackendError, TensorError) as error:
        if name == reference.backend:
            raise
        runs = [_plan(reference, name, threads, batch, str(error)) for batch in BATCHES[len(seen) :]]
        seen += [_Seen(run, False, 0, {}) for run in runs]
    return seen


def _restrict(reference: _Reference, name: str, seen: Sequence[_Seen]) -> _Seen:
    run = replace(_plan(reference, name, 1, REFERENCE_BATCH), instructions="avx2")
    plain = next(
        one for one in seen if (one.run.backend, one.run.threads, one.run.batch) == (name, run.threads, run.batch)
    )
    if not plain.cases or has_avx2_alone():
        return replace(plain, run=replace(plain.run, instructions="avx2"))
    try:
        outputs, cases = run_on_avx2(name, reference.program, reference.inputs, batch=REFERENCE_BATCH)
        found = reference.compare(run, outputs)
    except BackendError as error:
        return _Seen(replace(run, reason=str(error)), False, 0, {})
    if cases == len(reference.scores):
        return found
    partly = f"the first {counted(cases, 'cases')}, as many as an emulated processor does in {SECONDS:g} s"
    reason = "; ".join(filter(None, (partly, found.run.reason)))
    return replace(found, run=replace(found.run, reason=reason))


def _plan(reference: _Reference, name: str, threads: int, batch: int, reason: str = "") -> ParityRun:
    return ParityRun(name, reference.program.precision, threads, batch, "all", None, None, reason)


def _sum_up(reference: _Reference, seen: Sequence[_Seen], reference_count: int, rejudged: int) -> MeasuredParity:
    """rejudged: decisions that differ from those by which the program was judged."""
    alike = [one for one in seen if _same_but_for_rounding(one, reference.largest)]
    scale = {name: float(np.abs(array).max()) or 1.0 for name, array in reference.outputs.items()}
    tolerances = {
        name: max([_MIN_TOLERANCE * scale[name], *(_SPARE * one.widths[name] for one in alike)]) for name in scale
    }
    widest_score = max([0.0, *(one.run.difference or 0.0 for one in alike)])
    parity = Parity(
        replace(_plan(reference, reference.backend, 1, REFERENCE_BATCH), difference=0.0, flips=0),
        tuple(one.run for one in seen),
        len(reference.scores),
        reference_count,
        max(_MIN_TOLERANCE, _SPARE * widest_score / reference.largest),
    )
    sealed = ReferenceCases(
        {name: array[:reference_count] for name, array in reference.inputs.items()},
        {name: array[:reference_count] for name, array in reference.outputs.items()},
        reference.backend,
        reference.program.precision,
        tolerances,
        _find_decision(reference),
    )
    here = [one for one in seen if one.run.instructions == "all"]
    names = dict.fromkeys(one.run.backend for one in here)
    # An artifact should not run on a backend that disagrees at some batch or number of threads.
    agreeing = tuple(name for name in names if all(one.same for one in here if one.run.backend == name))
    return MeasuredParity(parity, sealed, _check(reference, here, rejudged), agreeing, _notes(reference, seen))


def _same_but_for_rounding(one: _Seen, largest: float) -> bool:
    """Whether the run is the same, or differs in a few decisions only."""
    difference, flips = one.run.difference, one.run.flips
    return difference is not None and flips is not None and flips <= _FEW * one.cases and difference <= _SAME * largest


def _find_decision(reference: _Reference) -> DecisionPoint | None:
    """The column of an output that is the score, so that a host without the app can see the decision."""
    if not np.isfinite(reference.threshold) or reference.scores.ndim > 1:
        return _find_largest(reference)
    for name, array in reference.outputs.items():
        if array.ndim == 2:
            columns = np.flatnonzero((array.astype(np.float64) == reference.scores[:, None]).all(axis=0))
            if len(columns):
                return DecisionPoint(output=name, column=int(columns[0]), threshold=float(reference.threshold))
    return None


def _find_largest(reference: _Reference) -> DecisionPoint | None:
    """The output whose largest column is the decision."""
    if reference.scores.ndim > 1:
        for name, array in reference.outputs.items():
            same = array.shape == reference.scores.shape
            if same and (array.argmax(axis=1) == reference.scores.argmax(axis=1)).all():
                return DecisionPoint(output=name, column=0, threshold=0.0, largest=True)
    return None


def _check(reference: _Reference, here: Sequence[_Seen], rejudged: int) -> Check:
    if rejudged:
        text = f"{counted(rejudged, 'decisions')} changed since the program was judged: run again, its scores differ."
        return Check(PARITY, "failed", float(rejudged), 0.0, text, seen=float(rejudged))
    mine = [one for one in here if one.run.backend == reference.backend]
    wrong = [one for one in mine if not one.same]
    flips = max(one.run.flips or 0 for one in mine)
    ways = f"{counted(len(mine), 'ways')} of batches and threads on {reference.backend}, "
    ways += counted(len(reference.scores), "cases")
    if not wrong:
        return Check(PARITY, "passed", 0.0, 0.0, f"The same decisions in all of {ways}.", seen=0.0)
    first = wrong[0].run
    threads, decisions = counted(first.threads, "threads"), counted(first.flips or 0, "decisions")
    found = f"at batch {first.batch} on {threads} {decisions} changed"
    text = f"{len(wrong)} of {ways}, do not give the same: {found}, scores differ by up to {first.difference:.3g}."
    return Check(PARITY, "failed", float(flips), 0.0, text, seen=float(flips))


def _notes(reference: _Reference, seen: Sequence[_Seen]) -> tuple[str, ...]:
    """The notes are read on other hosts, long after."""
    notes = []
    for name in dict.fromkeys(one.run.backend for one in seen):
        mine = [one for one in seen if one.run.backend == name and one.cases and not one.same]
        plain, restricted = (
            max(
                (one for one in mine if one.run.instructions == instructions),
                key=lambda one: (one.run.flips or 0, one.run.difference or 0.0),
                default=None,
            )
            for instructions in ("all", "avx2")
        )
        if plain is not None:
            where = "on the host that sealed it" + (", restricted to AVX2 too" if restricted is not None else "")
            notes.append(_note(name, where, plain, f"the artifact prefers {reference.backend}"))
        elif restricted is not None:
            where = "on processors without AVX-512 and VNNI (restricted to AVX2), though not on the host that sealed it"
            remedy = (
                "check such a host with `featherweight artifact verify`; weights of 8 bits can overflow there, which "
                "weight_bits = 7 in the recipe's step quantize prevents"
            )
            notes.append(_note(name, where, restricted, remedy))
    return tuple(notes)


def _note(name: str, where: str, worst: _Seen, remedy: str) -> str:
    return (
        f"{name} disagrees {where}: {worst.run.flips} of {counted(worst.cases, 'cases')} are decided differently, "
        f"scores differ by up to {worst.run.difference:.3g}; {remedy}"
    )
