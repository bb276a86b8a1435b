"""Energy of a decision, always with where the number comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Provenance = Literal["rapl", "nvml", "estimate", "not available"]


@dataclass(frozen=True)
class Energy:
    """Joules of one case. provenance: a counter (rapl, nvml), an estimate from processor time and a stated power, or not
    available: figures of different provenance are never compared. low, high: 95% interval of a counter, or what the
    stated power's own range gives; method: one sentence; None where not available, and method says why."""

    provenance: Provenance
    joules: float | None
    low: float | None
    high: float | None
    method: str
