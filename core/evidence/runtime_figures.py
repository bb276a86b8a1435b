"""What the sealed program decides on the test cases by each runtime that may serve it: limits that one runtime kept say
nothing of another, which rounds otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RuntimeFigures:
    """One runtime. auc, average_precision: of the program by it; difference: the largest of a raw score against the
    runtime on which the program was judged; changed: outcomes that differ from that one's; missed: limits on decisions,
    rankings and probabilities that it did not keep; worse: those of them that the judged runtime kept, or missed by
    less; serves: whether an artifact may be served by it; reason: why it has no figures, which are then None."""

    backend: str
    precision: str
    judged: bool
    serves: bool
    auc: float | None = None
    average_precision: float | None = None
    difference: float | None = None
    changed: int | None = None
    missed: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    reason: str = ""

    @property
    def verdict(self) -> str:
        """In a few words, why it may or may not serve."""
        if self.reason:
            return f"no figures on the test cases: {self.reason}"
        if self.worse:
            return f"missed {', '.join(self.worse)} on the test cases, which the judged runtime kept or missed by less"
        return f"missed {', '.join(self.missed)} on the test cases" if self.missed else "kept the limits"
