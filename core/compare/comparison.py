"""Two models judged on the same cases: what they are read from or run on, their evidence, and where it is written."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from featherweight.core.backends.opening import installed_versions
from featherweight.core.compare.cases import Cases, read_cases
from featherweight.core.compare.predicted import Predicted, read_predictions
from featherweight.core.compare.request import ComparisonRequest, Source
from featherweight.core.compare.tables import Table, is_table, read_table
from featherweight.core.digests import file_digest
from featherweight.core.errors import MissingExtraError, UsageError
from featherweight.core.evidence.in_force import InForce, judge_in_force
from featherweight.core.evidence.judge import Check, judge
from featherweight.core.evidence.metrics import SIZE
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.report import Comparison, Evidence
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import encode_evidence
from featherweight.core.evidence.reports.words import notes
from featherweight.core.files import atomic_write, check_folder, is_there, write_errors, writing_alone
from featherweight.core.measure.performance import measure_size

_PACKAGES = ("featherweight", "numpy", "onnxruntime", "openvino", "pyarrow", "scipy")
PAGE, DOCUMENT = "evidence.html", "evidence.json"


@dataclass(frozen=True)
class ComparisonOutcome:
    """What a comparison ends with. passed: whether B keeps every limit against A; checks: one for each limit; notes:
    what a reader must be told first; page, document: the evidence for people and for programs.

    >>> import featherweight
    >>> cases = {"id": range(400), "y": [0, 1] * 200}
    >>> old = {"id": range(400), "score": [0.1, 0.9] * 200}
    >>> outcome = featherweight.compare(
    ...     old, old, data=cases, label="y", limits={"auc_loss": 0.05}, threshold=0.5, out="verdict"
    ... )
    >>> outcome.passed, [check.name for check in outcome.checks], outcome.page.name
    (True, ['auc_loss'], 'evidence.html')
    """

    passed: bool
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    page: Path
    document: Path
    evidence: Evidence = field(repr=False)


def compare_models(request: ComparisonRequest, out: Path) -> ComparisonOutcome:
    """Judge and write the evidence into the folder `out`.

    Raises UsageError for what was asked, DataError for what was given, ArtifactError for an artifact that cannot be
    trusted, OutputError. That a limit is missed raises nothing: the outcome says so.
    """
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError("scipy", "compare", "comparing")
    request.check()
    _check_out(out)
    with writing_alone(out):
        evidence = make_evidence(request)
        document, page = encode_evidence(evidence), render_html(evidence).encode()
        with write_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        for name, content in ((DOCUMENT, document), (PAGE, page)):
            with atomic_write(out / name) as partial:
                partial.write_bytes(content)
    checks = evidence.deciding.checks
    return ComparisonOutcome(evidence.passed, checks, notes(evidence), out / PAGE, out / DOCUMENT, evidence)


def _check_out(out: Path) -> None:
    check_folder(out)
    if is_there(out / "manifest.json"):
        raise UsageError(f"{out}: is an artifact, which another file would damage; choose another --out")


def make_evidence(request: ComparisonRequest) -> Evidence:
    """Read or run both models on the cases and judge B against A."""
    data = request.data if isinstance(request.data, Table) else read_table(request.data)
    cases = read_cases(data, request.columns)
    first, second = _name_apart(
        _predicted(request, request.baseline, data, cases), _predicted(request, request.candidate, data, cases)
    )
    before, after = (
        _measured(one, _threshold(request, side, one), cases, sized=request.limits.of(SIZE) is not None)
        for side, one in enumerate((first, second))
    )
    checks = judge(before, after, request.limits, seed=request.seed)
    return Evidence(
        title=f"{second.name} against {first.name}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        limits=request.limits,
        validation=Comparison("given", before, after, checks),
        test=None,
        candidates=(),
        labels=_class_names(cases, first, second),
        versions=installed_versions(_PACKAGES),
        facts=_facts(request, data, first, second),
        seed=request.seed,
        kind="comparison",
        in_force=_in_force(request, before.predictions, after.predictions),
        notes=tuple(_notes(before.predictions, after.predictions)),
    )


def _predicted(request: ComparisonRequest, source: Source, data: Table, cases: Cases) -> Predicted:
    id_column = request.columns.id
    if isinstance(source, Table):
        return read_predictions(source, source.name, source.name, cases, id_column)
    if is_table(source):
        return read_predictions(read_table(source), source.stem, _described(source), cases, id_column)
    is_onnx = source.suffix.lower() == ".onnx"
    if not is_onnx and not source.is_dir():
        what = "is none of these" if is_there(source) else "there is no such file or folder"
        raise UsageError(
            f"{source}: {what}; a model is a table of predictions (.csv, .parquet), an ONNX file (.onnx) or the folder "
            "of an artifact"
        )
    from featherweight.core.compare.programs import open_inputs, run_artifact, run_onnx

    inputs = open_inputs(data if request.inputs is None else request.inputs, cases, id_column, request.features)
    return run_onnx(source, inputs) if is_onnx else run_artifact(source, inputs)


def _name_apart(first: Predicted, second: Predicted) -> tuple[Predicted, Predicted]:
    if first.name != second.name:
        return first, second
    return replace(first, name=f"{first.name} (A)"), replace(second, name=f"{second.name} (B)")


def _threshold(request: ComparisonRequest, side: int, of: Predicted) -> float:
    given, letter = request.thresholds[side], "ab"[side]
    in_force = None if request.in_force is None else request.in_force.threshold
    for found in (given, in_force, of.threshold):
        if found is not None:
            return found
    raise UsageError(
        f"{of.name}: nothing says from which score on a case is positive; give --threshold for both models, or "
        f"--threshold-{letter}"
    )


def _measured(of: Predicted, threshold: float, cases: Cases, *, sized: bool) -> Measured:
    predictions = Predictions(
        cases.ids, cases.labels, of.scores, threshold, of.probabilities, cases.groups, cases.clusters
    )
    return Measured(of.name, predictions, size=measure_size(of.program) if sized and of.program is not None else None)


def _class_names(cases: Cases, *models: Predicted) -> tuple[str, str]:
    """The models' own, where labels are 0 and 1."""
    found = {one.labels for one in models if one.labels is not None}
    if cases.names == ("negative", "positive") and len(found) == 1:
        negative, positive = found.pop()
        return negative, positive
    return cases.names


def _in_force(request: ComparisonRequest, before: Predictions, after: Predictions) -> InForce | None:
    asked = request.in_force
    if asked is None:
        return None
    return judge_in_force(before, after, asked.threshold, prevalence=asked.prevalence, costs=asked.costs)


def _notes(before: Predictions, after: Predictions) -> list[str]:
    same = bool((before.scores == after.scores).all())
    return ["Both models give every case the same score: were two different ones meant?"] if same else []


def _facts(request: ComparisonRequest, data: Table, first: Predicted, second: Predicted) -> Mapping[str, str]:
    columns = request.columns
    found = {
        "A, the baseline": first.source,
        "B, the candidate": second.source,
        "cases": data.name if isinstance(request.data, Table) else _described(request.data),
        "labels": f"column {columns.label!r}" + (f", positive is {columns.positive!r}" if columns.positive else ""),
        "cases of one cluster": f"column {columns.cluster!r}" if columns.cluster else "",
        "inputs": _described(request.inputs) if isinstance(request.inputs, Path) else "",
    }
    return {name: text for name, text in found.items() if text}


def _described(path: Path) -> str:
    return f"{path}, sha256 {file_digest(path)}"
