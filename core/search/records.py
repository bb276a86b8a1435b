"""What a search tried, as records for the evidence and as a file that other tools open."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from featherweight.core.evidence import metrics
from featherweight.core.evidence.judge import all_passed
from featherweight.core.evidence.metrics import AUC, AVERAGE_PRECISION, Limits
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.evidence.report import CandidateRecord, Search, summarize_latency
from featherweight.core.files import atomic_write
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.recipe import Candidate, Recipe
from featherweight.core.search.advice import advise, mark_front
from featherweight.core.search.trial import BuiltCandidate, Trial


@dataclass(frozen=True)
class SearchResult:
    """made: every candidate that was tried; trials: of those that could be made and run; search: None where there was
    none, but a trial or two."""

    made: Sequence[BuiltCandidate]
    trials: Sequence[Trial]
    search: Search | None


def make_records(recipe: Recipe, tried: SearchResult, chosen: Trial | None) -> tuple[CandidateRecord, ...]:
    """One a trial, in the order in which they were made, and one for each candidate that has none."""
    records = []
    for one in tried.made:
        mine = [trial for trial in tried.trials if trial.made is one]
        records += [_record(trial, recipe, chosen) for trial in mine]
        if not mine:
            settings = _settings(recipe, one.candidate, quantized=True)
            reason = one.reason or "no backend of the recipe opened this program"
            made = () if one.built is None else one.built.records
            name, description = one.name or one.candidate.name, one.candidate.name
            steps = tuple(map(asdict, made))
            records.append(CandidateRecord(name, settings, steps, reason=reason, description=description))
    return tuple(advise(mark_front(records), spent=tried.search is not None and bool(tried.search.stopped)))


def write_candidates(folder: Path, records: Sequence[CandidateRecord]) -> Path:
    """Write `candidates.csv`, one line a record, for other tools; returns its path. Raises OutputError."""
    path = folder / "candidates.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = "candidate description threads on_front chosen p50_ms p95_ms size_bytes loss auc average_precision"
    writer.writerow([*columns.split(), "outcome", "advice", "slower_int8", "settings", "steps"])
    for one in records:
        times = ("", "") if one.latency is None else (one.latency.p50_ms, one.latency.p95_ms)
        figures = [
            "" if found is None else found for found in (one.size_bytes, one.loss, one.auc, one.average_precision)
        ]
        said = [one.outcome, one.advice, one.slower_int8]
        nested = [json.dumps(dict(one.settings)), json.dumps(one.steps, default=str)]
        writer.writerow(
            [
                one.name,
                one.description,
                one.threads,
                int(one.on_front),
                int(one.chosen),
                *times,
                *figures,
                *said,
                *nested,
            ]
        )
    with atomic_write(path, "the table of candidates cannot be written", make_folder=True) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
    return path


def _record(trial: Trial, recipe: Recipe, chosen: Trial | None) -> CandidateRecord:
    quantized = not trial.in_its_place
    is_chosen = chosen is not None and trial.measured.name == chosen.measured.name
    reason = ""
    if chosen is not None and all_passed(trial.checks) and not is_chosen:
        if trial.cost(recipe.objective) >= chosen.cost(recipe.objective):
            worse = {"fastest": "slower", "smallest": "larger"}.get(recipe.objective.name, "worse on balance")
            reason = f"{worse} than {chosen.measured.name}"
        elif chosen.final and not trial.final:
            reason = f"not among the nearly best and smallest, which were timed once more; {chosen.measured.name} was"
        elif trial.run.threads > chosen.run.threads:
            reason = f"with more threads hardly faster than {chosen.measured.name}"
        else:
            reason = f"larger than {chosen.measured.name} and not shown to be faster"
    predictions, latency, size = trial.measured.predictions, trial.measured.latency, trial.measured.size
    return CandidateRecord(
        name=trial.measured.name,
        settings={
            **_settings(recipe, trial.made.candidate, quantized=quantized),
            "backend": trial.run.backend,
            "precision": trial.run.program.precision,
        },
        steps=tuple(map(asdict, trial.records)),
        checks=trial.checks,
        size_bytes=None if size is None else size.compressed_bytes,
        latency=None if latency is None else summarize_latency(latency),
        auc=metrics.ranking_estimate(AUC, predictions),
        average_precision=metrics.ranking_estimate(AVERAGE_PRECISION, predictions),
        chosen=is_chosen,
        reason=reason,
        threads=trial.run.threads,
        loss=_loss(recipe.limits, trial.baseline.predictions, predictions),
        slower_int8=trial.slower_int8,
        description=trial.measured.description,
    )


def _loss(limits: Limits, before: Predictions, after: Predictions) -> float | None:
    """Loss of the ranking metric that is limited first; of the AUC where none is limited. Of several classes that of
    the mean over them."""
    known = metrics.limits(before.label_kind).values()
    ranking = (metric for metric, _ in known if metric.reads == "ranking" and metric.is_compared)
    metric = next((one for one in ranking if limits.of(one) is not None), AUC)
    was, now = metrics.ranking_estimate(metric, before), metrics.ranking_estimate(metric, after)
    return None if was is None or now is None else was - now


def _settings(recipe: Recipe, candidate: Candidate, *, quantized: bool) -> dict[str, object]:
    """What distinguishes this candidate: the fields for which the recipe lists several values, but for those of a
    quantization that was given up."""
    return {
        f"step[{index}].{name}": getattr(step, name)
        for index, (choices, step) in enumerate(zip(recipe.steps, candidate.steps, strict=True))
        for name, _ in choices.lists
        if quantized or not isinstance(step, QuantizeStep)
    }
