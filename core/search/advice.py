"""Which candidates are on the Pareto front, and what would let those pass that missed a limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.metrics import LATENCY, PARITY, SIZE
from featherweight.core.evidence.report import CandidateRecord, Step
from featherweight.core.terminal import counted


def mark_front(records: Sequence[CandidateRecord]) -> list[CandidateRecord]:
    """on_front is set for those that no other beats: none is at once as fast, as small and loses as little, and better
    in one of these."""
    points = [_point(record) for record in records]
    known = [point for point in points if point is not None]
    return [
        replace(record, on_front=point is not None and not any(_beats(other, point) for other in known))
        for record, point in zip(records, points, strict=True)
    ]


def advise(records: Sequence[CandidateRecord], *, spent: bool = False) -> list[CandidateRecord]:
    """advice is set for those that missed a limit. spent: the budget was, before all were tried."""
    return [replace(record, advice=" ".join(dict.fromkeys(_advice(record, records, spent)))) for record in records]


def _point(record: CandidateRecord) -> tuple[float, float, float] | None:
    if record.latency is None or record.size_bytes is None or record.loss is None:
        return None
    # Backends add in different orders: what that does to a loss puts no candidate on the front.
    return record.latency.p50_ms, record.size_bytes, round(record.loss, 4)


def _beats(other: tuple[float, ...], point: tuple[float, ...]) -> bool:
    return other != point and all(theirs <= mine for theirs, mine in zip(other, point, strict=True))


def _advice(record: CandidateRecord, records: Sequence[CandidateRecord], spent: bool) -> Iterator[str]:
    for check in record.checks:
        if check.status == "passed":
            continue
        kept = [other for other in records if _keeps(other, check.metric)]
        nearest = min(kept, key=lambda other: (_missed(other), _p50(other)), default=None)
        if check.metric is LATENCY:
            yield _faster(check, nearest)
        elif check.metric is SIZE:
            yield _smaller(record, check, nearest)
        elif check.metric is PARITY:
            yield "Name another backend, on which it may decide the same however it is run."
        else:
            if check.cases_needed_as_seen is not None:
                cases = f"{check.cases_needed_as_seen:,} {check.metric.cases}"
                yield f"About {cases} would show that its loss is inside {check.name}, if it is as it was seen."
            yield _better(record, check, nearest, spent)


def _faster(check: Check, nearest: CandidateRecord | None) -> str:
    if nearest is not None:
        return f"Faster: {nearest.name} kept {check.name}."
    return f"None was {check.limit:g} times as fast: prune more, name another backend, or ask for less."


def _smaller(record: CandidateRecord, check: Check, nearest: CandidateRecord | None) -> str:
    if nearest is not None:
        return f"Smaller: {nearest.name} kept {check.name}."
    more = "prune more" if _has(record, "quantize") else "quantize, prune more"
    return f"None was {check.limit:g} times as small: {more}, or ask for less."


def _better(record: CandidateRecord, check: Check, nearest: CandidateRecord | None, spent: bool) -> str:
    """Advice on a limit on what may be lost. Where there was no time for the candidates that were asked for, the advice
    is more time, not longer training."""
    if check.status == "not measured":
        return f"{check.name} needs held-out cases that can tell."
    if nearest is not None:
        amount, less = _pruned(record), _pruned(nearest)
        if amount is not None and less is not None and less < amount:
            return f"Prune less: {less:g} kept {check.name}."
        if _epochs(nearest) > _epochs(record):
            return f"Recover longer: {counted(round(_epochs(nearest)), 'epochs')} kept {check.name}."
        return f"{nearest.name} kept {check.name}."
    ways = []
    if spent:
        ways.append("give the search more time (its budget was spent; the same command goes on)")
    if (amount := _pruned(record)) is not None:
        ways.append(f"prune less than {amount:g}")
        if _epochs(record) and not spent:
            ways.append(f"recover longer than {counted(round(_epochs(record)), 'epochs')}")
        elif not _epochs(record) and not _has(record, "prune-trees"):
            ways.append("recover after pruning")
    if _has(record, "quantize"):
        ways.append("leave out the quantization")
    return f"None kept {check.name}: {', or '.join([*ways, 'allow more'])}."


def _keeps(record: CandidateRecord, metric: Metric) -> bool:
    return any(check.metric is metric and check.status == "passed" for check in record.checks)


def _missed(record: CandidateRecord) -> int:
    return sum(check.status != "passed" for check in record.checks)


def _p50(record: CandidateRecord) -> float:
    return float("inf") if record.latency is None else record.latency.p50_ms


def _has(record: CandidateRecord, kind: str) -> bool:
    return any(step["name"] == kind for step in record.steps)


def _pruned(record: CandidateRecord) -> float | None:
    """The ratio of the first step that prunes."""
    found = [_number(step, "ratio", "sparsity") for step in record.steps if str(step["name"]).startswith("prune")]
    return next(iter(found), None)


def _epochs(record: CandidateRecord) -> float:
    return sum(_number(step, "epochs") or 0.0 for step in record.steps)


def _number(step: Step, *names: str) -> float | None:
    settings = step["settings"]
    found = [settings.get(name) for name in names] if isinstance(settings, Mapping) else []
    return next((float(value) for value in found if isinstance(value, int | float)), None)
