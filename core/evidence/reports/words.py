"""The sentences and names that the page, the model card and the change record share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featherweight.core.evidence import metrics
from featherweight.core.evidence.judge import MAX_NAMED, Check, all_passed, warnings
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.outcomes import compare_outcomes
from featherweight.core.evidence.predictions import Parity, ParityRun
from featherweight.core.evidence.report import (
    CandidateRecord,
    Comparison,
    Evidence,
    FlippedCase,
    Search,
    compared,
    subgroups,
)
from featherweight.core.evidence.reports.case_history import history_notes
from featherweight.core.evidence.worse import worse_notes
from featherweight.core.measure.energy import Provenance
from featherweight.core.terminal import counted

PROVENANCES: dict[Provenance, str] = {
    "rapl": "counted by the processor, RAPL",
    "nvml": "counted by the GPU, NVML",
    "estimate": "estimated from processor time",
    "not available": "not available",
}


@dataclass(frozen=True)
class Headline:
    """The verdict at the top of the page: whether all limits were kept, and what was missed."""

    good: bool
    text: str
    detail: str


def headline(evidence: Evidence) -> Headline:
    """The verdict on the candidate that was sealed."""
    parts = [part for part in (evidence.test, evidence.validation) if part is not None]
    missed = [(part.split, check) for part in parts for check in part.checks if check.status != "passed"]
    splits = " and on ".join(f"the {part.split} cases" for part in parts)
    count = len(evidence.deciding.checks)
    if evidence.withheld:
        names = ", ".join(metrics.limits()[name][1].title for name in evidence.withheld if name in metrics.limits())
        if evidence.kind == "comparison":
            told = (
                "By how much is not told, so that nothing is tuned on them; --show-test tells, and the record says so."
            )
            return Headline(False, "Not passed", f"Limits not kept on the given cases: {names}. {told}")
        told = "By how much is not told, so that nothing is tuned on them; what follows is of the validation cases."
        return Headline(False, "Not passed", f"Limits not kept on the test cases: {names or 'see the record'}. {told}")
    if not count:
        return Headline(False, "Not judged", "No limit is set, so nothing was decided; the figures follow.")
    if not missed:
        limits = "the limit" if count == 1 else f"all {count} limits"
        if evidence.unchanged:
            told = "The model was not optimized: what was sealed is the baseline itself, and no step of the recipe is "
            return Headline(True, "Unchanged", f"{told}in it. It kept {limits} on {splits}. {basis(evidence)}")
        return Headline(True, "Passed", f"The candidate kept {limits} on {splits}. {basis(evidence)}")
    names = "; ".join(f"{check.rule.title} ({split}: {check.status})" for split, check in missed)
    forced = " It was sealed all the same, because that was asked for by force." if evidence.forced else ""
    return Headline(False, "Not passed", f"Limits not kept: {names}.{forced} {basis(evidence)}")


def purpose_sentence(evidence: Evidence) -> str:
    """What the model is for, in one line: as the task says, or what its labels say."""
    said = evidence.statement.purpose or f"decides between {between(evidence.labels)}"
    return said[:1].upper() + said[1:].rstrip(".")


def basis(evidence: Evidence) -> str:
    """What the verdict rests on."""
    part = evidence.deciding
    cases = f"{len(part.baseline.predictions.ids):,} {part.split} cases"
    if part.split == "test":
        cases += ", run once in this run, after the choice was made"
    return f"Decided on {cases} ({numbers(evidence, part)})."


def between(labels: Sequence[str]) -> str:
    """The classes in words: `normal and pneumonia`; of many the first ones."""
    shown = [*labels[:MAX_NAMED], *([counted(len(labels) - MAX_NAMED, "more")] if len(labels) > MAX_NAMED else [])]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def numbers(evidence: Evidence, part: Comparison) -> str:
    """How many cases each class has; of several classes their number, and the rarest."""
    of = part.baseline.predictions
    if of.label_kind != "binary":
        name, rarest = min(of.strata, key=lambda named: int(named[1].sum()))
        return f"{len(of.strata)} classes; the rarest is {name} with {int(rarest.sum()):,}"
    negative, positive = evidence.labels
    return f"{of.confusion.positives:,} {positive}, {of.confusion.negatives:,} {negative}"


def changed_words(flips: Sequence[FlippedCase]) -> str:
    """Of changed decisions: how many became wrong, how many right, and how many are as wrong as before."""
    wrong, right = sum(case.became_wrong for case in flips), sum(case.now_right for case in flips)
    still = len(flips) - wrong - right
    return f"{wrong} became wrong, {right} became right" + (f", {still} are wrong before and now" if still else "")


def _is_told(evidence: Evidence, metric: Metric) -> bool:
    return evidence.deciding.baseline.predictions.label_kind in metric.labels


CURVES = {"roc": "ROC curve", "precision_recall": "Precision-recall curve"}
"""What a report has beside the metrics of the table, by its key among the methods."""


def figure_titles() -> dict[str, str]:
    """Name of a metric or a curve -> how its row is called."""
    return {**{metric.name: metric.row_title for metric in metrics.METRICS}, **CURVES}


def limit_text(check: Check, value: float | None) -> str:
    """A limit or what was found, in the limit's unit."""
    return "not measured" if value is None else check.rule.describe(value)


def measured_part(evidence: Evidence) -> Comparison:
    """Where latency was measured: a run on the test cases may have left it out."""
    has_latency = evidence.deciding.candidate.latency is not None
    return evidence.deciding if has_latency else evidence.validation


def limited_figure(evidence: Evidence) -> Metric:
    """The figure of the ranking that the recipe limits first, that is AUC where it limits none; of several classes the
    mean of theirs."""
    limited = (
        check.metric
        for check in evidence.deciding.checks
        if check.metric.reads == "ranking" and check.metric.is_compared and _is_told(evidence, check.metric)
    )
    return next(limited, metrics.main_ranking(evidence.deciding.baseline.predictions.label_kind))


def parity_sentence(parity: Parity) -> str:
    """Whether the artifact decides the same however it is run."""
    ran = [run for run in parity.runs if run.flips is not None and run.difference is not None]
    differing = [run for run in ran if run.flips]
    reserved = [f"{_way(run)} ({run.reason})" for run in ran if run.reason]
    probes = f", {parity.probes} of them reference inputs" if parity.probes else ""
    basis = f"{'up to ' if reserved else ''}{counted(parity.cases, 'cases')}{probes}"
    left_out = len(parity.runs) - len(ran)
    tail = f" With a reservation: {'; '.join(reserved)}." if reserved else ""
    tail += f" {left_out} could not be run on the host that sealed it; the table says why." if left_out else ""
    if not ran:
        return f"No other way of running the program could be tried on the host that sealed it.{tail}"
    largest = max(run.difference or 0.0 for run in ran)
    known = (
        f"The largest difference of a raw score is {largest:.3g}; the tolerance is {parity.tolerance:.3g} of the "
        "largest score."
    )
    if differing:
        worst = max(run.flips or 0 for run in differing)
        names = list(dict.fromkeys(_way(run) for run in differing))
        named = f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
        return (
            f"{len(differing)} of {len(ran)} other ways of running the program changed decisions ({named}), up to "
            f"{worst} of them; run on {basis}. {known}{tail}"
        )
    ways = "One other way" if len(ran) == 1 else f"All {len(ran)} other ways"
    return f"{ways} of running the program gave the same decisions on {basis}. {known}{tail}"


def _way(run: ParityRun) -> str:
    if run.instructions == "avx2":
        return f"{run.backend} restricted to AVX2"
    return f"{run.backend} at batch {run.batch} with {run.threads} thread{'s' if run.threads > 1 else ''}"


def tells_nothing(evidence: Evidence) -> bool:
    """Whether no figure of the cases is told: those of a comparison that missed limits. (An optimization tells those of
    the validation cases.)"""
    return evidence.kind == "comparison" and bool(evidence.withheld)


def comparison_notes(evidence: Evidence) -> tuple[str, ...]:
    """Of the deciding comparison: what it shows to be worse, limited or not, and what its limits would not notice."""
    part = evidence.deciding
    before, after = part.baseline.predictions, part.candidate.predictions
    outcomes = compare_outcomes(before, after, seed=evidence.seed)
    found, groups = compared(evidence, part), subgroups(evidence, part)
    worse = worse_notes(before, after, found, groups, evidence.limits, outcomes)
    return (*worse, *warnings(part.baseline, part.candidate, evidence.limits, seed=evidence.seed))


def notes(evidence: Evidence) -> tuple[str, ...]:
    """What a reader must be told before anything else, whatever the limits are."""
    if tells_nothing(evidence):
        return (*evidence.notes, *history_notes(evidence))
    parity, found = evidence.parity, (*history_notes(evidence), *comparison_notes(evidence))
    differs = parity is not None and any(run.flips for run in parity.runs)
    found = (*evidence.notes, *found)
    return (*found, parity_sentence(parity)) if parity is not None and differs else found


def methods(evidence: Evidence) -> dict[str, str]:
    """Name of a figure -> how its interval was made, of the figures that the cases could give."""
    if tells_nothing(evidence):
        return {}
    found = compared(evidence, evidence.deciding)
    absent = {name for name, figure in found.candidate.metrics.items() if figure is None}
    return {name: text for name, text in found.methods.items() if name not in absent}


def energy_methods(part: Comparison) -> str:
    """How the figures were got, each sentence once."""
    found = [measured.energy.method for measured in (part.baseline, part.candidate) if measured.energy is not None]
    return " ".join(text if text.endswith(".") else f"{text}." for text in dict.fromkeys(found))


def search_sentence(search: Search) -> str:
    """How the candidates were found."""
    kept = f", {search.kept} of them taken from an earlier run" if search.kept else ""
    budget = f" of a budget of {duration(search.budget_s)}" if search.budget_s is not None else ""
    count = len(search.skipped)
    skipped = f" {count} {'was' if count == 1 else 'were'} not tried." if count else ""
    stopped = f" {search.stopped[:1].upper()}{search.stopped[1:]}" if search.stopped else ""
    if stopped and not stopped.endswith("."):
        stopped += "."
    return (
        f"{counted(search.tried, 'candidates')} tried in {duration(search.elapsed_s)}{budget}{kept}.{skipped}{stopped}"
    )


def choice_sentence(evidence: Evidence) -> str:
    """How many candidates there were, and which was taken."""
    count, wanted = len(evidence.candidates), evidence.objective or "the fastest"
    tried = search_sentence(evidence.search) if evidence.search else f"{count} candidate{'s' * (count != 1)} tried."
    if evidence.chosen is None:
        taken = "None was sealed."
    elif not all_passed(evidence.chosen.checks):
        taken = f"None kept all limits; of those that missed the fewest {wanted} was sealed, by force."
    else:
        taken = f"{wanted[:1].upper()}{wanted[1:]} that kept all limits was chosen"
        fastest = wanted == "the fastest"
        quicker = [one for one in evidence.candidates if fastest and _is_quicker(one, evidence.chosen)]
        threads = any(one.threads > evidence.chosen.threads for one in quicker)
        larger = any(one.threads <= evidence.chosen.threads for one in quicker)
        beaten = ["more threads, which were hardly faster"] * threads
        beaten += ["larger ones that were not shown to be faster"] * larger
        taken += f", but for {' and '.join(beaten)}." if beaten else "."
    return f"{tried} All were measured on the validation cases. {taken}"


def _is_quicker(one: CandidateRecord, chosen: CandidateRecord) -> bool:
    """Though it passed and was not chosen."""
    if one.latency is None or chosen.latency is None or not (one.checks and all_passed(one.checks)):
        return False
    return one.latency.p50_ms < chosen.latency.p50_ms


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
