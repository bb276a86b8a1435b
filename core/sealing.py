"""From trials to evidence and from evidence to a sealed, checked artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from featherweight.core.adapters import describe_ranges, open_adapter
from featherweight.core.artifact.manifest import Preference, RuntimeEntry
from featherweight.core.artifact.store import Artifact
from featherweight.core.artifact.write import Contents, write_artifact
from featherweight.core.backends.opening import installed_versions
from featherweight.core.errors import FeatherweightError
from featherweight.core.evidence.planted_result import GateTrial, NoTrial
from featherweight.core.evidence.planted_trial import try_gate
from featherweight.core.evidence.predictions import Measured
from featherweight.core.evidence.report import Comparison, Evidence
from featherweight.core.evidence.reports.case_history import history_notes
from featherweight.core.evidence.reports.change_record import render_change_record
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import encode_evidence
from featherweight.core.evidence.reports.model_card import render_figures
from featherweight.core.evidence.reports.words import comparison_notes
from featherweight.core.files import write_errors
from featherweight.core.parity.measured import MeasuredParity
from featherweight.core.parity.reproduction import check_fresh
from featherweight.core.population import describe_split
from featherweight.core.recipe import render_recipe
from featherweight.core.search.records import SearchResult, make_records
from featherweight.core.search.trial import Evaluator, Trial
from featherweight.core.target import Classes, Target
from featherweight.core.task import StatesNotes

_PACKAGES = (
    "featherweight", "lightgbm", "numba", "numpy", "onnx", "onnxruntime", "openvino", "scikit-learn", "torch",
    "torch-pruning", "xgboost",
)  # fmt: skip


UNCHANGED = (
    "The model was not optimized: the sealed program is the baseline itself, and no step of the recipe is in it. The "
    "candidates in evidence.html say why none of them took its place."
)


def make_evidence(
    bench: Evaluator,
    tried: SearchResult,
    best: Trial,
    test: Comparison | None,
    parity: MeasuredParity | None,
    *,
    forced: bool,
) -> Evidence:
    """test: None when nothing was chosen, because no candidate kept the limits on the validation cases."""
    baseline, runtimes = best.baseline, bench.measurements.runtimes
    labels, cases = best.sealed.labels, bench.measurements.validation_cases
    population = describe_split(cases.labels, cases.clusters, cases.groups, cases.tensors, cases.target.names)
    facts = {
        "weights": best.sealed.weights_source,
        "recipe": bench.recipe.name,
        "input range": _input_range(best),
        "baseline timed on": baseline.latency.conditions.backend if baseline.latency else "nothing",
        **{f"not tried: {name}": reason for name, reason in runtimes.missing.items()},
    }
    return Evidence(
        title=bench.recipe.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        limits=bench.recipe.limits,
        validation=Comparison("validation", baseline, best.measured, best.checks, population=population),
        test=test,
        candidates=make_records(bench.recipe, tried, best if test is not None else None),
        labels=_labels(cases.target, labels),
        host=runtimes.host,
        versions=installed_versions(_PACKAGES),
        facts=facts,
        recipe_sha256=bench.recipe.sha256,
        forced=forced,
        seed=bench.recipe.seed,
        search=tried.search,
        parity=None if parity is None else parity.parity,
        gate=None if test is None else _try_gate(bench, baseline),
        statement=bench.statement,
        recipe_text=render_recipe(bench.recipe),
        objective=bench.recipe.objective.describe(),
        notes=bench.task.notes if isinstance(bench.task, StatesNotes) else (),
    )


def _labels(target: Target, sealed: Sequence[str]) -> tuple[str, ...]:
    """Names of the negative and the positive class, or of all classes."""
    if isinstance(target, Classes):
        return target.names
    return tuple(sealed) if len(sealed) == 2 else ("negative", "positive")


def _try_gate(bench: Evaluator, baseline: Measured) -> GateTrial | NoTrial:
    """On the validation cases: what the limits would notice is asked of no test case."""
    bench.progress("planting faults", 0, 1)
    found: GateTrial | NoTrial
    try:
        found = try_gate(baseline.predictions, bench.recipe.limits, seed=bench.recipe.seed)
    except Exception as error:  # noqa: BLE001 - hours of work are not thrown away for a trial of the gate
        # Its text may name a case, which is a patient's or a card's.
        found = NoTrial(f"it ended with a fault of featherweight itself ({type(error).__name__})")
    bench.progress("planting faults", 1, 1)
    return found


def _input_range(best: Trial) -> str:
    """The values that the program's inputs may have, as the app states them by what it seals."""
    sealed = best.sealed
    try:
        adapter = open_adapter(sealed.app, sealed.labels, sealed.files, best.run.program.inputs)
    except FeatherweightError as error:  # hours of work are not thrown away for a line of the page
        return f"not stated: {error}"
    return "not stated by the app" if adapter is None else describe_ranges(adapter.ranges)


def missed_limits(best: Trial, test: Comparison | None) -> tuple[str, ...]:
    """In words, each with the cases on which it was missed."""
    parts = [("validation", best.checks), *([("test", test.checks)] if test is not None else [])]
    return tuple(
        f"{check.name} on the {split} cases: {check.explanation}"
        for split, checks in parts
        for check in checks
        if check.status != "passed"
    )


def make_contents(
    bench: Evaluator,
    evidence: Evidence,
    trials: Sequence[Trial],
    best: Trial,
    parity: MeasuredParity,
    missed: Sequence[str],
    card: str = "",
) -> Contents:
    """What is sealed: the chosen program alone, the app's files for it, the evidence, the recipe, and reference
    inputs with which another host can check its own runtimes."""
    missing = bench.measurements.runtimes.missing
    documents = {
        "recipe.toml": render_recipe(bench.recipe).encode(),
        "CHANGE_RECORD.md": render_change_record(evidence).encode(),
    }
    if card:
        documents["MODEL_CARD.md"] = f"{card.rstrip()}\n\n{render_figures(evidence)}".encode()
    notes = [*evidence.notes, *([UNCHANGED] if evidence.unchanged else [])]
    notes += history_notes(evidence)
    notes += comparison_notes(evidence)
    notes += [f"{name} was not tried: {reason}" for name, reason in missing.items()]
    notes += parity.notes
    notes += [f"{one.backend} may not serve it: {one.verdict}" for one in evidence.runtimes if not one.serves]
    serving = [name for name in parity.agreeing if name in {one.backend for one in evidence.runtimes if one.serves}]
    document = encode_evidence(evidence)
    return Contents(
        name=bench.recipe.name,
        app=best.sealed.app,
        labels=best.sealed.labels,
        programs=[best.run.program],
        sealed=best.sealed.files,
        evidence={"evidence.json": document, "evidence.html": render_html(evidence, document).encode()},
        weights_source=best.sealed.weights_source,
        versions=evidence.versions,
        recipe_sha256=evidence.recipe_sha256,
        preferences=_preferences(bench, trials, best, serving),
        runtimes=[
            RuntimeEntry(backend=one.backend, precision=best.run.program.precision, serves=one.serves, told=one.verdict)
            for one in evidence.runtimes
        ]
        or None,
        documents=documents,
        forced=bool(missed),
        missed_limits=missed,
        notes=notes,
        reference_cases=parity.reference_cases,
    )


def seal(out: Path, contents: Contents, backend: str) -> Artifact:
    """Write the artifact, but first a copy that a fresh process runs on the backend where it was judged: what it cannot
    run never gets its name.

    Raises ArtifactError when the fresh process does not give the reference outputs that are sealed, OutputError
    when the folder cannot be written.
    """
    created = datetime.now(UTC)
    with (
        write_errors(out, "the artifact cannot be written"),
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) as name,
    ):
        trial = Path(name) / "artifact"
        write_artifact(trial, contents, created=created)
        check_fresh(trial, backend)
    return write_artifact(out, contents, created=created)


def write_evidence(folder: Path, evidence: Evidence) -> Path:
    """Evidence of candidates of which none was sealed; returns the page. Raises OutputError."""
    page = folder / "evidence.html"
    with write_errors(page, "the evidence cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        document = encode_evidence(evidence)
        (folder / "evidence.json").write_bytes(document)
        page.write_bytes(render_html(evidence, document).encode())
    return page


def _preferences(bench: Evaluator, trials: Sequence[Trial], best: Trial, agreeing: Sequence[str]) -> list[Preference]:
    """The backend on which the chosen program was judged, and then those on which it keeps the limits at its threshold
    and decides the same, each with its fastest number of threads, fastest first."""
    mine = [trial for trial in trials if trial.run.program == best.run.program and trial.made is best.made]
    alike = [trial for trial in mine if trial.run.backend in agreeing]
    fit = [trial for trial in alike if bench.keeps_limits(trial, best.measured.predictions)]
    first = {best.run.backend: best}
    for trial in sorted(fit, key=lambda trial: trial.p50_ms):
        first.setdefault(trial.run.backend, trial)
    return [
        Preference(backend=trial.run.backend, precision=trial.run.program.precision, threads=trial.run.threads)
        for trial in first.values()
    ]
