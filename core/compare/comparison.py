"""Two models judged on the same cases: what they are read from or run on, their evidence, and where it is written."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from featherweight.core.arrays import Scores
from featherweight.core.backends.opening import installed_versions
from featherweight.core.compare.bounded import open_bounded
from featherweight.core.compare.cases import Cases, read_cases
from featherweight.core.compare.copies import copies_notes, different_cases, left_out_notes
from featherweight.core.compare.outcomes import Decides, choose_thresholds, make_alike
from featherweight.core.compare.predicted import PROBABILITY, SCORE, Predicted, read_predictions
from featherweight.core.compare.request import ComparisonRequest, Source, find_record
from featherweight.core.compare.seen import Seen, see
from featherweight.core.compare.tables import Table, is_table, read_table
from featherweight.core.compare.uses import begin, describe_known, unknown_notes, untold
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
from featherweight.core.record.uses import check_record, end_use

_PACKAGES = ("featherweight", "numpy", "onnxruntime", "openvino", "pyarrow", "scipy")
PAGE, DOCUMENT = "evidence.html", "evidence.json"


@dataclass(frozen=True)
class ComparisonOutcome:
    """What a comparison ends with. passed: whether B keeps every limit against A; checks: one for each limit; notes:
    what a reader must be told first; page, document: the evidence for people and for programs; record: the file of uses
    of the cases. Where limits were missed the figures are not told, unless that was asked for: `evidence` is None then.

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
    title: str
    cases: int
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    page: Path
    document: Path
    record: Path
    evidence: Evidence | None = field(repr=False)


def compare_models(request: ComparisonRequest, out: Path) -> ComparisonOutcome:
    """Judge and write the evidence into the folder `out`.

    Raises UsageError for what was asked, DataError for what was given, ArtifactError for an artifact that cannot be
    trusted, OutputError; JournalError for a record of uses that is damaged. That a limit is missed raises nothing: the
    outcome says so.
    """
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError("scipy", "compare", "comparing")
    request.check()
    _check_out(out)
    record = find_record(request, out)
    check_record(record, "another file: --record")
    with writing_alone(out):
        evidence = _make_evidence(request, record)
        document = encode_evidence(evidence)
        page = render_html(evidence, document).encode()
        with write_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        for name, content in ((DOCUMENT, document), (PAGE, page)):
            with atomic_write(out / name) as partial:
                partial.write_bytes(content)
    checks, told = evidence.deciding.checks, not evidence.withheld
    return ComparisonOutcome(
        evidence.passed,
        evidence.title,
        len(evidence.deciding.baseline.predictions.ids),
        checks if told else tuple(map(untold, checks)),
        notes(evidence),
        out / PAGE,
        out / DOCUMENT,
        record,
        evidence if told else None,
    )


def _check_out(out: Path) -> None:
    check_folder(out)
    if is_there(out / "manifest.json"):
        raise UsageError(f"{out}: is an artifact, which another file would damage; choose another --out")


@dataclass(frozen=True, eq=False)
class _Model:
    """A model before it is run. own: the thresholds that it brings; run: its predictions; seen: what it is run on;
    scores: [N], read already where they are in a table."""

    name: str
    own: Decides | None
    run: Callable[[], Predicted]
    seen: Seen | None = None
    scores: Scores | None = None


def _make_evidence(request: ComparisonRequest, record: Path) -> Evidence:
    """Read all that can be wrong, write down that the cases are used, run both models and judge B against A."""
    data = request.data if isinstance(request.data, Table) else read_table(request.data, request.columns.names)
    cases = read_cases(data, request.columns)
    models = _name_apart(*(_open(request, one, cases) for one in (request.baseline, request.candidate)))
    decides = _thresholds(request, models)
    seen = [one.seen for one in models if one.seen is not None]
    known = describe_known(cases, seen, None if seen else models[0].scores)
    begun = begin(request, known, (models[0].name, models[1].name), record)
    try:
        evidence = _judged(request, data, cases, models, decides)
        evidence = replace(evidence, notes=(*evidence.notes, *unknown_notes(known, seen)))
    except Exception:  # an interruption leaves the use begun and not ended, as a kill does
        end_use(record, begun, "could not be run")
        raise
    missed = [check.name for check in evidence.deciding.checks if check.status != "passed"]
    evidence = replace(evidence, uses=end_use(record, begun, "missed" if missed else "kept", missed))
    return evidence if request.show or not missed else replace(evidence, withheld=tuple(missed), in_force=None)


def _open(request: ComparisonRequest, source: Source, cases: Cases) -> _Model:
    id_column = request.columns.id
    if isinstance(source, Table) or is_table(source):
        table = source if isinstance(source, Table) else read_table(source, (id_column, SCORE, PROBABILITY))
        name = source.name if isinstance(source, Table) else source.stem
        found = read_predictions(table, name, cases, id_column)
        return _Model(name, None, lambda: found, scores=found.scores)
    is_onnx = source.suffix.lower() == ".onnx"
    if not is_onnx and not source.is_dir():
        what = "is none of these" if is_there(source) else "there is no such file or folder"
        raise UsageError(
            f"{source}: {what}; a model is a table of predictions (.csv, .parquet), an ONNX file (.onnx) or the folder "
            "of an artifact"
        )
    from featherweight.core.compare.inputs import open_inputs
    from featherweight.core.compare.programs import open_artifact, open_onnx

    inputs = open_inputs(request.data if request.inputs is None else request.inputs, cases, id_column, request.features)
    if is_onnx:
        onnx = open_onnx(source)
        return _Model(source.stem, None, lambda: onnx.run(inputs), see(onnx.tensors(inputs)))
    artifact = open_artifact(source)
    name, seen = artifact.artifact.manifest.name, see(artifact.tensors(inputs))
    return _Model(name, artifact.decides, lambda: artifact.run(inputs), seen)


def _name_apart(first: _Model, second: _Model) -> tuple[_Model, _Model]:
    if first.name != second.name:
        return first, second
    return replace(first, name=f"{first.name} (A)"), replace(second, name=f"{second.name} (B)")


def _thresholds(request: ComparisonRequest, models: tuple[_Model, _Model]) -> tuple[Decides, Decides]:
    in_force = None if request.in_force is None else request.in_force.threshold
    first, second = (
        choose_thresholds(one.name, f"--threshold-{letter}", given, in_force, one.own)
        for one, given, letter in zip(models, request.thresholds, "ab", strict=True)
    )
    return make_alike(first, second, (models[0].name, models[1].name))


def _judged(
    request: ComparisonRequest,
    data: Table,
    cases: Cases,
    models: tuple[_Model, _Model],
    decides: tuple[Decides, Decides],
) -> Evidence:
    seen, all_cases = [one.seen for one in models if one.seen is not None], len(cases.ids)
    kept = different_cases(cases, seen)
    first, second = (replace(one.run(), name=one.name).take(kept) for one in models)
    cases, seen = cases.take(kept), [one.take(kept) for one in seen]
    sized = request.limits.of(SIZE) is not None
    before, after = (_measured(one, at, cases, sized=sized) for one, at in zip((first, second), decides, strict=True))
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
        notes=(
            *_notes(first, second),
            *left_out_notes(all_cases - len(kept)),
            *copies_notes(cases, first, second, seen),
        ),
    )


def _measured(of: Predicted, at: Decides, cases: Cases, *, sized: bool) -> Measured:
    kinds = (*cases.clusters, None, None)
    predictions = Predictions(
        cases.ids,
        cases.labels,
        of.scores,
        at.threshold,
        of.probabilities,
        cases.groups,
        kinds[0],
        cross_clusters=kinds[1],
        outcomes=at.outcomes,
        cluster_noun=next(iter(cases.cluster_nouns), "clusters"),
        cross_cluster_noun=next(iter(cases.cluster_nouns[1:]), "cross clusters"),
    )
    size = measure_size(of.program) if sized and of.program is not None else None
    return Measured(of.name, predictions, size=size, program_sha256="" if of.program is None else of.program.sha256)


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


def _notes(first: Predicted, second: Predicted) -> Sequence[str]:
    if first.sha256 == second.sha256:
        return ["A and B are the same to the last byte: were two different ones meant?"]
    same = bool((first.scores == second.scores).all())
    return ["Both models give every case the same score: were two different ones meant?"] if same else []


def _facts(request: ComparisonRequest, data: Table, first: Predicted, second: Predicted) -> Mapping[str, str]:
    """What was compared on what, each with its digest."""
    columns = request.columns
    found = {
        "A, the baseline": first.source,
        "B, the candidate": second.source,
        "cases": f"{data.name}, sha256 {data.sha256}",
        "labels": f"column {columns.label!r}" + (f", positive is {columns.positive!r}" if columns.positive else ""),
        "cases of one cluster": " and across them ".join(f"column {name!r}" for name in columns.clusters),
        "inputs": _described(request.inputs),
        "limits": _described(request.limits_file),
    }
    return {name: text for name, text in found.items() if text}


def _described(source: Source | None) -> str:
    if source is None:
        return ""
    if isinstance(source, Table):
        return f"{source.name}, sha256 {source.sha256}"
    with open_bounded(source) as file:
        return f"{source}, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
