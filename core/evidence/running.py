"""Limits that are no loss of a metric: changed decisions, speed and size. Entries of the table in
`core.evidence.metrics`, each with what judges it."""

from __future__ import annotations

import numpy as np

from featherweight.core.evidence.metric import ANY, BINARY, CLASSES, Asked, Finding, Limit, Metric
from featherweight.core.evidence.predictions import Measured, Predictions, changed_outcomes, outcome_table
from featherweight.core.statistics.resampling import median_ratio
from featherweight.core.statistics.share_bounds import share_upper_bound
from featherweight.core.terminal import counted

_NAMED = 3
"""Kinds of changes between classes that are named."""


def judge_flips(baseline: Measured, candidate: Measured, asked: Asked) -> Finding:
    """Any change of outcome counts; held against the limit is the upper bound of their share."""
    before, after = baseline.predictions, candidate.predictions
    flips, cases = changed_outcomes(before, after), len(before.ids)
    seen = flips.count / cases
    found = share_upper_bound(before.outcome_places != after.outcome_places, before.cluster_kinds)
    if before.label_kind == "multi-class":
        return _judge_classes(before, after, found, asked)
    names = before.outcome_names
    up, down = ("positive", "negative") if len(names) == 2 else ("a higher outcome", "a lower one")
    moves = f" ({'; '.join(_moves(before, after))})" if len(names) > 2 and flips.count else ""
    return Finding(
        found,
        seen,
        f"{flips.count} of {counted(cases, 'decisions')} changed ({seen:.2%}): {len(flips.to_positive)} to {up}, "
        f"{len(flips.to_negative)} to {down}{moves}; with 95% confidence at most {found:.2%}, and the limit is "
        f"{asked.limit:.2%}.",
    )


def _judge_classes(before: Predictions, after: Predictions, found: float, asked: Asked) -> Finding:
    changed, cases = int((before.outcome_places != after.outcome_places).sum()), len(before.ids)
    seen, most = changed / cases, _moves(before, after)[:_NAMED]
    moves = f", most often {'; '.join(most)}" if most else ""
    return Finding(
        found,
        seen,
        f"{changed} of {counted(cases, 'decisions')} changed ({seen:.2%}){moves}; with 95% confidence at most "
        f"{found:.2%}, and the limit is {asked.limit:.2%}.",
    )


def _moves(before: Predictions, after: Predictions) -> list[str]:
    """Between which outcomes, most cases first."""
    names, table = before.outcome_names, outcome_table(before, after)
    moved = [(table[i, j], f"{names[i]} to {names[j]}") for i in range(len(names)) for j in range(len(names)) if i != j]
    return [f"{name} {count:,}" for count, name in sorted(moved, key=lambda move: -move[0]) if count]


def judge_latency(baseline: Measured, candidate: Measured, asked: Asked) -> Finding:
    if baseline.latency is None or candidate.latency is None:
        return Finding(None, None, "Latency was not measured for both programs.")
    before, after = baseline.latency, candidate.latency
    if before.batch != after.batch:
        text = f"Latency was measured at batch {before.batch} and {after.batch}, which cannot be compared."
        return Finding(None, None, text)
    ratio = median_ratio(before.samples_ms, after.samples_ms, seed=asked.seed)
    return Finding(
        ratio.low,
        ratio.estimate,
        f"{ratio.estimate:.2f} times as fast (median {np.median(before.samples_ms):.3g} ms to "
        f"{np.median(after.samples_ms):.3g} ms at batch {after.batch}, {counted(len(after.samples_ms), 'runs')}); 95% "
        f"interval {ratio.low:.2f} to {ratio.high:.2f}, whose lower end must reach {asked.limit:g}.",
    )


def judge_size(baseline: Measured, candidate: Measured, asked: Asked) -> Finding:
    if baseline.size is None or candidate.size is None:
        return Finding(None, None, "The size was not measured for both programs.")
    before, after = baseline.size, candidate.size
    found = before.compressed_bytes / after.compressed_bytes
    return Finding(
        found,
        found,
        f"{found:.2f} times smaller as shipped ({before.compressed_bytes:,} bytes to {after.compressed_bytes:,}); "
        f"unpacked {before.bytes:,} to {after.bytes:,}; the limit is {asked.limit:g}.",
    )


CHANGED_DECISIONS = Metric(
    name="changed_decisions",
    title="Changed decisions",
    phrase="changed decisions",
    reads="decisions",
    labels=BINARY | CLASSES,
    direction="lower",
    limit=Limit(
        "flip_ratio_max",
        "max",
        "Changed decisions",
        "share",
        judge_flips,
        meaning="Largest share of cases, 0..1, whose decision differs from the baseline's.",
    ),
)
LATENCY = Metric(
    name="latency",
    title="Latency",
    phrase="latency",
    unit="milliseconds",
    reads="running",
    labels=ANY,
    direction="lower",
    counted=None,
    limit=Limit(
        "latency_ratio_min",
        "min",
        "Times as fast",
        "times",
        judge_latency,
        meaning="Smallest speed-up: the baseline's median latency over the candidate's. 2.0 is twice as fast.",
    ),
)
SIZE = Metric(
    name="size",
    title="Size",
    phrase="size",
    unit="bytes",
    reads="running",
    labels=ANY,
    direction="lower",
    counted=None,
    limit=Limit(
        "size_ratio_min",
        "min",
        "Times smaller",
        "times",
        judge_size,
        meaning="Smallest reduction: the baseline's size as shipped over the candidate's. 2.0 is half the size.",
    ),
)
PARITY = Metric(  # no recipe sets it: what is sealed must always agree with itself (core.parity)
    name="parity",
    title="Decisions that change with batch or threads",
    phrase="decisions that change with batch or threads",
    unit="decisions",
    reads="decisions",
    labels=ANY,
    direction="lower",
    counted=None,
    limit=Limit("parity", "max", "Decisions that change with batch or threads", "count", in_recipes=False),
)
