"""Evidence: everything that was compared, in one value.

The optimizer fills an Evidence from raw samples and predictions; JSON, page, model card and change record take their
figures from here, so they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from featherweight.core.arrays import Floats
from featherweight.core.evidence.class_predictions import ClassPredictions
from featherweight.core.evidence.figures import BOUND_SAMPLES, Compared, compare
from featherweight.core.evidence.in_force import InForce
from featherweight.core.evidence.judge import Check, all_passed
from featherweight.core.evidence.metric import pair
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.planted_result import GateTrial, NoTrial
from featherweight.core.evidence.predictions import Measured, Parity, Predictions, changed_outcomes
from featherweight.core.evidence.runtime_figures import RuntimeFigures
from featherweight.core.evidence.subgroups import Subgroups, compare_subgroups
from featherweight.core.measure.performance import Latency
from featherweight.core.population import DataStatement, SplitPopulation
from featherweight.core.record.chain import Chain
from featherweight.core.record.plan import PlanFollowed
from featherweight.core.record.splits import SplitsFound
from featherweight.core.record.uses import CaseUses
from featherweight.core.statistics import intervals as s

Step = Mapping[str, object]
"""What one pass did: `name`, `settings` and `facts`, the last two being mappings of plain values."""


@dataclass(frozen=True)
class LatencySummary:
    """Milliseconds of one run of `batch` cases."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    batch: int


def summarize_latency(latency: Latency) -> LatencySummary:
    """Quantiles of the raw samples."""
    found = s.quantiles(latency.samples_ms)
    return LatencySummary(found.p50, found.p95, found.p99, len(latency.samples_ms), latency.batch)


@dataclass(frozen=True)
class CandidateRecord:
    """One candidate that was tried, chosen or not. settings: its choices among the recipe's (`{"prune.ratio": 0.5}`);
    steps: its lineage, in order; latency and checks are those on the validation cases; reason: why it was not chosen
    where the checks alone do not say so (it could not be built, or it passed and another was faster)."""

    name: str
    settings: Mapping[str, object]
    steps: tuple[Step, ...] = ()
    checks: tuple[Check, ...] = ()
    size_bytes: int | None = None
    latency: LatencySummary | None = None
    auc: float | None = None
    average_precision: float | None = None
    chosen: bool = False
    reason: str = ""
    threads: int = 1
    loss: float | None = None
    """The point loss of the figure that the recipe limits first (AUC, average precision), against the baseline."""
    on_front: bool = False
    """No other candidate is at once as fast, as small and as good, and better in one of these."""
    advice: str = ""
    """What would let it pass, where it missed a limit."""
    slower_int8: str = ""
    """Why int8 is slower here than the same in fp32, where it is; names the operators."""
    description: str = ""
    """What the short `name` stands for: the steps and where it runs."""

    @property
    def outcome(self) -> str:
        """One line: chosen, or why not."""
        missed = [check.name for check in self.checks if check.status != "passed"]
        parts = ["chosen"] if self.chosen else []
        parts += [f"missed {', '.join(missed)}"] if missed else []
        parts += [self.reason] if self.reason else []
        return "; ".join(parts) or "passed, not chosen"


@dataclass(frozen=True)
class Search:
    """How the candidates were found. budget_s: None when all of the recipe's were tried; tried: in this and in earlier
    runs; kept: of them, those taken from earlier runs; skipped: names of those not tried, with the reason."""

    budget_s: float | None
    elapsed_s: float
    tried: int
    kept: int
    skipped: tuple[tuple[str, str], ...] = ()
    stopped: str = ""


@dataclass(frozen=True)
class Comparison:
    """Baseline and candidate on the same cases. split: `validation`, where the choice was made, so that its figures are
    a little too good; `test`, which was run once, after the choice; or `given`, to compare two models on."""

    split: Literal["validation", "test", "given"]
    baseline: Measured
    candidate: Measured
    checks: tuple[Check, ...]
    population: SplitPopulation | None = None
    places: tuple[int, ...] | None = None
    """Of its cases among the task's, where copies were left out."""


@dataclass(frozen=True)
class Evidence:
    """title: the artifact's name; created: ISO 8601, UTC; host: names and values; versions: package -> version;
    facts: further lines for the page (data set, source of the weights); forced: sealed though a limit was missed;
    runtimes: the sealed program on the test cases by each runtime, empty where none was sealed."""

    title: str
    created: str
    limits: Limits
    validation: Comparison
    test: Comparison | None
    candidates: tuple[CandidateRecord, ...]
    labels: tuple[str, ...] = ("negative", "positive")
    host: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    recipe_sha256: str = ""
    forced: bool = False
    bootstrap_samples: int = 2000
    seed: int = 0
    search: Search | None = None
    parity: Parity | None = None
    gate: GateTrial | NoTrial | None = None
    """Planted faults on the validation cases: what these limits would notice."""
    runtimes: tuple[RuntimeFigures, ...] = ()
    uses: CaseUses | None = None
    """The record of this use of the test cases and of those before it."""
    withheld: tuple[str, ...] = ()
    """Limits that were missed on test cases whose figures are not told: `test` is None then."""
    splits: SplitsFound | None = None
    plan: PlanFollowed | None = None
    chain: Chain | None = None
    reasons: tuple[tuple[str, str], ...] = ()
    """Limit -> why its margin is what it is, as the recipe says."""
    kind: Literal["optimization", "comparison"] = "optimization"
    """A comparison of two models as they are has `validation` alone, which holds the given cases; no candidates."""
    in_force: InForce | None = None
    """What changes at a threshold that a site keeps, where that was asked."""
    notes: tuple[str, ...] = ()
    """What a reader must be told beside what the figures show."""
    statement: DataStatement = field(default_factory=DataStatement)
    recipe_text: str = ""
    """The recipe as it is rendered, whose digest is `recipe_sha256`."""
    objective: str = ""
    """Which of the candidates that kept all limits was wanted, in words; empty: the fastest."""

    @property
    def deciding(self) -> Comparison:
        """The comparison whose checks decide: the test cases', or without any the validation cases'."""
        return self.test or self.validation

    @property
    def passed(self) -> bool:
        """Whether every check passed, on the validation and the test cases."""
        kept = all(all_passed(part.checks) for part in (self.validation, self.test) if part is not None)
        return kept and not self.withheld

    @property
    def chosen(self) -> CandidateRecord | None:
        """The candidate that was sealed; None where none was."""
        return next((candidate for candidate in self.candidates if candidate.chosen), None)

    @property
    def unchanged(self) -> bool:
        """What was chosen is the baseline itself: it was exported, and no pass did anything to it."""
        steps = self.chosen.steps if self.chosen is not None else ()
        return bool(steps) and all(step["name"] == "export" for step in steps)


def compared(evidence: Evidence, part: Comparison) -> Compared:
    """All figures of one split's comparison; the same call again costs nothing."""
    before, after = part.baseline.predictions, part.candidate.predictions
    unseen = evidence.limits.unseen(pair(before, after, samples=BOUND_SAMPLES, seed=evidence.seed))
    return compare(before, after, samples=evidence.bootstrap_samples, seed=evidence.seed, unseen=unseen)


def subgroups(evidence: Evidence, part: Comparison) -> Subgroups:
    """The comparison's cases by their columns, with what is lost in each."""
    before, after = part.baseline.predictions, part.candidate.predictions
    return compare_subgroups(before, after, evidence.limits, seed=evidence.seed)


@dataclass(frozen=True)
class FlippedCase:
    """A case whose decision changed; the values are probabilities, or raw scores where there are none; of several
    classes the probabilities of the case's own one. to_positive: to a higher outcome, or a later class; outcomes:
    before and after, of an app with more than two, or of classes; right: whether each of both decided for the case's
    own class, None where there are not several classes."""

    id: str
    label: int
    baseline: float
    candidate: float
    to_positive: bool
    outcomes: tuple[str, str] | None = None
    right: tuple[bool, bool] | None = None

    @property
    def became_wrong(self) -> bool:
        """Whether the baseline was right, or nearer to it: of several classes both may be wrong."""
        return not self.now_right and (self.right is None or self.right[0])

    @property
    def now_right(self) -> bool:
        """Whether the candidate decides as the label says, or nearer to it."""
        if self.right is not None:
            return self.right[1]
        return self.to_positive == (self.label == 1)


def flipped_cases(baseline: Predictions, candidate: Predictions) -> tuple[FlippedCase, ...]:
    """Every case whose decision changed: those that became wrong first, the largest change first."""
    flips, names = changed_outcomes(baseline, candidate), baseline.outcome_names
    classes = baseline.label_kind == "multi-class"
    was, now = baseline.outcome_places, candidate.outcome_places
    named = len(names) > 2
    before, after = shown_values(baseline, candidate)
    cases = [
        FlippedCase(
            baseline.ids[i],
            int(baseline.labels[i]),
            float(before[i]),
            float(after[i]),
            to_positive,
            (names[was[i]], names[now[i]]) if named else None,
            (bool(baseline.right[i]), bool(candidate.right[i])) if classes else None,
        )
        for group, to_positive in ((flips.to_positive, True), (flips.to_negative, False))
        for i in group
    ]
    return tuple(
        sorted(
            cases,
            key=lambda case: (not case.became_wrong, case.now_right, -abs(case.candidate - case.baseline), case.id),
        )
    )


def shown_values(baseline: Predictions, candidate: Predictions) -> tuple[Floats, Floats]:
    """What a reader compares case by case: probabilities where both programs have them, raw scores otherwise; of
    several classes the probability of the case's own one."""
    if isinstance(baseline, ClassPredictions) and isinstance(candidate, ClassPredictions):
        return baseline.of_truth, candidate.of_truth
    if baseline.probabilities is not None and candidate.probabilities is not None:
        return baseline.probabilities, candidate.probabilities
    return baseline.scores, candidate.scores


def shown_threshold(predictions: Predictions, values: Floats) -> float:
    """The threshold on the scale that is shown: scores carry it over to probabilities, which rise with them."""
    if values is predictions.scores:
        return float(np.clip(predictions.threshold, values.min(), values.max()))
    order = np.argsort(predictions.scores, kind="stable")
    return float(np.interp(predictions.threshold, predictions.scores[order], values[order]))
