"""Limits that are no loss of a metric: changed decisions, speed and size, each judged to a Finding."""

from __future__ import annotations

import numpy as np

from featherweight.core.evidence.metric import Finding
from featherweight.core.evidence.predictions import Measured
from featherweight.core.statistics.intervals import flipped_decisions
from featherweight.core.statistics.resampling import median_ratio
from featherweight.core.terminal import counted


def judge_flips(baseline: Measured, candidate: Measured, limit: float, seed: int) -> Finding:
    before, after = baseline.predictions, candidate.predictions
    flips, cases = flipped_decisions(before.decisions, after.decisions), len(before.ids)
    found = flips.count / cases
    return Finding(
        found,
        found,
        f"{flips.count} of {counted(cases, 'decisions')} changed ({found:.2%}): {len(flips.to_positive)} to positive, "
        f"{len(flips.to_negative)} to negative; the limit is {limit:.2%}.",
    )


def judge_latency(baseline: Measured, candidate: Measured, limit: float, seed: int) -> Finding:
    if baseline.latency is None or candidate.latency is None:
        return Finding(None, None, "Latency was not measured for both programs.")
    before, after = baseline.latency, candidate.latency
    if before.batch != after.batch:
        text = f"Latency was measured at batch {before.batch} and {after.batch}, which cannot be compared."
        return Finding(None, None, text)
    ratio = median_ratio(before.samples_ms, after.samples_ms, seed=seed)
    return Finding(
        ratio.low,
        ratio.estimate,
        f"{ratio.estimate:.2f} times as fast (median {np.median(before.samples_ms):.3g} ms to "
        f"{np.median(after.samples_ms):.3g} ms at batch {after.batch}, {counted(len(after.samples_ms), 'runs')}); 95% "
        f"interval {ratio.low:.2f} to {ratio.high:.2f}, whose lower end must reach {limit:g}.",
    )


def judge_size(baseline: Measured, candidate: Measured, limit: float, seed: int) -> Finding:
    if baseline.size is None or candidate.size is None:
        return Finding(None, None, "The size was not measured for both programs.")
    before, after = baseline.size, candidate.size
    found = before.compressed_bytes / after.compressed_bytes
    return Finding(
        found,
        found,
        f"{found:.2f} times smaller as shipped ({before.compressed_bytes:,} bytes to {after.compressed_bytes:,}); "
        f"unpacked {before.bytes:,} to {after.bytes:,}; the limit is {limit:g}.",
    )
