"""Parity: what is measured when an artifact is sealed, and what another host finds with the reference inputs."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.imaging.classify import read_model
from featherweight.core import cli
from featherweight.core.artifact import (
    Artifact,
    Contents,
    Preference,
    ReferenceCases,
    read_artifact,
    verify_artifact,
    write_artifact,
)
from featherweight.core.artifact.reference_cases import REFERENCE_FILE, decode_reference_cases, encode_reference_cases
from featherweight.core.backends import registry
from featherweight.core.backends.base import Availability, Backend, Session
from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.backends.opening import OpenSession
from featherweight.core.backends.registry import find_backend
from featherweight.core.errors import ArtifactError, BackendError
from featherweight.core.export import export
from featherweight.core.hardware import read_hardware
from featherweight.core.parity.avx2 import has_more_than_avx2
from featherweight.core.parity.measured import MeasuredParity, measure_parity
from featherweight.core.parity.reproduction import check_fresh, check_parity, check_session, run_batches
from featherweight.core.program import Program
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import Tensors
from tests.fakes import SquaresTask, TreesTask
from tests.fraud.artifacts import write_fraud_model
from tests.imaging.tiny import write_model
from tests.reference_cases import seal_reference_cases

Task = SquaresTask | TreesTask


@functools.cache
def exported(trees: bool) -> tuple[Task, Program]:
    task = TreesTask() if trees else SquaresTask()
    return task, export(task.baseline)[0]


def measured(
    backends: Mapping[str, Backend], *, trees: bool = False, on: str = "onnxruntime", threshold: float = 0.0
) -> MeasuredParity:
    task, program = exported(trees)
    held_out = task.validation_cases()
    with OnnxRuntime().open(program) as session:
        scores = task.scores(run_batches(session, held_out.tensors, 64))
    return measure_parity(task, held_out, program, on, scores=scores, threshold=threshold, backends=backends, seed=0)


class Faulty(OnnxRuntime):
    """ONNX Runtime with a fault: in batches of 64 all scores are higher by `shift`, or it refuses a second thread."""

    def __init__(self, shift: float = 0.0, *, one_thread: bool = False) -> None:
        self.shift, self.one_thread = shift, one_thread

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        if self.one_thread and threads > 1:
            raise BackendError("backend faulty: one thread alone")
        return FaultySession(program, super().open(program, device=device, threads=threads), self.shift)


class FaultySession(OpenSession):
    def __init__(self, program: Program, inner: Session, shift: float) -> None:
        super().__init__(program)
        self._inner, self._shift = inner, shift

    def _run(self, tensors: Tensors, batch: int) -> Tensors:
        shift = np.float32(self._shift if batch == 64 else 0.0)
        return {name: array + shift for name, array in self._inner.run(tensors).items()}

    def _free(self) -> None:
        self._inner.close()


@pytest.mark.parametrize(("trees", "others"), [(False, "openvino"), (True, "native")])
def test_one_program_run_otherwise_decides_the_same(trees: bool, others: str) -> None:
    found = measured({name: find_backend(name) for name in ("onnxruntime", others)}, trees=trees)
    parity, reference = found.parity, found.reference_cases
    assert (parity.cases, parity.probes, reference.count) == (232, 32, 32)
    here = [run for run in parity.runs if run.instructions == "all"]
    ways = {(run.backend, run.threads, run.batch) for run in here}
    assert ways == {(name, t, b) for name in ("onnxruntime", others) for t in (1, 2) for b in (1, 8, 64)}
    assert [run.flips for run in here] == [0] * 12
    assert all(run.difference is not None and run.difference < 1e-4 for run in here)
    assert 1e-4 <= parity.tolerance < 1e-3
    assert found.check.status == "passed"
    assert found.agreeing == ("onnxruntime", others)
    assert found.notes == ()
    assert reference.decision is not None
    output = reference.outputs[reference.decision.output][:, reference.decision.column]
    assert output.min() < 0 < output.max()
    assert np.abs(output).min() > 0.04 * np.abs(output).max()


def test_what_cannot_be_restricted_to_avx2_is_recorded_with_its_reason() -> None:
    found = measured({"onnxruntime": OnnxRuntime()})
    (restricted,) = [run for run in found.parity.runs if run.instructions == "avx2"]
    if has_more_than_avx2():
        assert (restricted.difference, restricted.flips) == (None, None)
        assert "no-emulator-in-tests is not installed" in restricted.reason
    else:
        assert restricted.flips == 0


def test_a_backend_that_disagrees_is_no_preference() -> None:
    found = measured({"onnxruntime": OnnxRuntime(), "faulty": Faulty(1.5)})
    assert found.agreeing == ("onnxruntime",)
    assert found.check.status == "passed"
    (note,) = found.notes
    assert note.startswith("faulty disagrees on the host that sealed it")
    assert "here" not in note
    flips = {(run.backend, run.batch): run.flips for run in found.parity.runs if run.instructions == "all"}
    assert {pair for pair, count in flips.items() if count} == {("faulty", 64)}
    # What is called the same is what the others differ by, not what the faulty one does.
    assert found.parity.tolerance < 1e-3


def test_the_rounding_of_another_runtime_is_no_preference_but_may_run_where_it_is_alone() -> None:
    task, program = exported(trees=False)
    with OnnxRuntime().open(program) as session:
        scores = np.sort(task.scores(run_batches(session, task.validation_cases().tensors, 64)))
    middle = int(np.searchsorted(scores, 0.0))
    # One case lies so near below the threshold that the shift takes it over; the next one does not.
    threshold = float(scores[middle] + 0.9 * (scores[middle + 1] - scores[middle]))
    shift = float(scores[middle + 1] - scores[middle])
    found = measured({"onnxruntime": OnnxRuntime(), "faulty": Faulty(shift)}, threshold=threshold)
    run = next(run for run in found.parity.runs if run.backend == "faulty" and run.batch == 64)
    assert run.flips is not None
    assert 0 < run.flips <= 2
    assert found.agreeing == ("onnxruntime",)
    assert found.notes
    assert found.reference_cases.tolerances["logit"] >= shift


def test_scores_that_differ_much_are_not_the_same_though_no_decision_is_another() -> None:
    found = measured({"onnxruntime": OnnxRuntime(), "faulty": Faulty(1.5)}, threshold=-60.0)
    run = next(run for run in found.parity.runs if run.backend == "faulty" and run.batch == 64)
    assert run.flips == 0
    assert "10% of the largest" in run.reason
    assert found.agreeing == ("onnxruntime",)


def test_a_decision_that_rounding_makes_is_not_counted_but_told() -> None:
    task, program = exported(trees=False)
    with OnnxRuntime().open(program) as session:
        scores = task.scores(run_batches(session, task.validation_cases().tensors, 64))
    nearest = float(scores[np.abs(scores).argmin()])
    step = 2e-6 * float(np.abs(scores).max())
    found = measured({"onnxruntime": OnnxRuntime(), "faulty": Faulty(2 * step)}, threshold=nearest + step)
    run = next(run for run in found.parity.runs if run.backend == "faulty" and run.batch == 64)
    assert run.flips == 0
    assert run.reason.startswith("1 decision nearer to the threshold than rounding is")
    assert "faulty" in found.agreeing


def test_another_processor_is_not_called_restricted_to_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no AVX2, or of which nothing is known: what it does says nothing of one that has."""
    for sets in (("neon", "dotprod"), ()):
        hardware = replace(read_hardware(), instruction_sets=sets)
        monkeypatch.setattr("featherweight.core.parity.avx2.read_hardware", lambda hardware=hardware: hardware)
        (restricted,) = [r for r in measured({"onnxruntime": OnnxRuntime()}).parity.runs if r.instructions == "avx2"]
        assert restricted.flips is None
    monkeypatch.setattr(
        "featherweight.core.parity.avx2.read_hardware",
        lambda: replace(read_hardware(), instruction_sets=("avx2", "fma")),
    )
    (restricted,) = [r for r in measured({"onnxruntime": OnnxRuntime()}).parity.runs if r.instructions == "avx2"]
    assert (restricted.flips, restricted.reason) == (0, "")


def test_a_backend_that_disagrees_with_itself_is_refused() -> None:
    found = measured({"faulty": Faulty(1.5)}, on="faulty")
    assert found.check.status == "failed"
    assert found.check.found is not None
    assert found.check.found > 0
    assert "at batch 64 on 1 thread" in found.check.explanation


def test_a_backend_that_fails_is_recorded_but_not_where_the_program_was_judged() -> None:
    backends = {"onnxruntime": OnnxRuntime(), "faulty": Faulty(one_thread=True)}
    found = measured(backends)
    runs = [run for run in found.parity.runs if run.backend == "faulty" and run.threads == 2]
    assert {run.reason for run in runs} == {"backend faulty: one thread alone"}
    assert found.agreeing == ("onnxruntime",)
    with pytest.raises(BackendError, match="one thread alone"):
        measured(backends, on="faulty")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A network with reference inputs as sealing makes them."""
    _, program = exported(trees=False)
    found = measured({"onnxruntime": OnnxRuntime(), "openvino": find_backend("openvino")})
    return write_artifact(tmp_path_factory.mktemp("sealed") / "artifact", contents(program, found.reference_cases))


def contents(program: Program, reference: ReferenceCases | None) -> Contents:
    return Contents(
        name="squares",
        app="squares",
        labels=("empty", "square"),
        programs=[program],
        sealed={},
        evidence={},
        weights_source="made up",
        versions={},
        preferences=[Preference(backend="onnxruntime", precision="fp32")],
        reference_cases=reference,
    )


def test_reference_inputs_come_back_from_the_folder(sealed: Artifact) -> None:
    found = read_artifact(sealed.directory).reference_cases()
    assert found is not None
    assert (found.backend, found.precision, found.count) == ("onnxruntime", "fp32", 32)
    assert encode_reference_cases(found) == sealed.parity
    with np.load(sealed.directory / REFERENCE_FILE, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["input-0"], found.inputs["image"])


def test_a_host_gives_the_sealed_decisions(sealed: Artifact) -> None:
    runs = check_parity(sealed, time_limit_s=200)  # torch takes its time to load beside other tests
    assert not [run.fault for run in runs if run.fault]
    ran = {(run.backend, run.judged) for run in runs if run.difference is not None}
    assert {("onnxruntime", True), ("openvino", False), ("torch", False)} <= ran
    assert check_fresh(sealed.directory, "onnxruntime") <= 1e-6
    with OnnxRuntime().open(sealed.programs[0], threads=2) as session:
        check_session(sealed, session)


def test_another_program_is_found(tmp_path: Path, sealed: Artifact) -> None:
    """All digests fit: somebody sealed a program with another's reference inputs."""
    reference = sealed.reference_cases()
    assert reference is not None
    other = replace(reference, outputs={"logit": reference.outputs["logit"] + np.float32(0.05)})
    artifact = write_artifact(tmp_path / "artifact", contents(sealed.programs[0], other))
    faults = {(run.backend, run.judged): run.fault for run in check_parity(artifact)}
    assert "'logit' differs by 0.05" in faults["onnxruntime", True]
    with (
        OnnxRuntime().open(artifact.programs[0]) as session,
        pytest.raises(ArtifactError, match="does not reproduce the artifact's reference decisions"),
    ):
        check_session(artifact, session)
    with pytest.raises(ArtifactError, match="do not use this artifact"):
        check_fresh(artifact.directory, "onnxruntime")
    with pytest.raises(ArtifactError, match="there is no such folder"):
        check_fresh(tmp_path / "nothing", "onnxruntime")


def test_one_decision_more_is_found_though_the_outputs_are_near(tmp_path: Path, sealed: Artifact) -> None:
    reference = sealed.reference_cases()
    assert reference is not None
    assert reference.decision is not None
    ranked = np.sort(reference.outputs["logit"][:, 0])
    at = msgspec.structs.replace(reference.decision, threshold=float(ranked[16]))
    shifted = {"logit": reference.outputs["logit"] - np.float32(1e-4)}
    near = replace(reference, outputs=shifted, tolerances={"logit": 1.0}, decision=at)
    artifact = write_artifact(tmp_path / "artifact", contents(sealed.programs[0], near))
    (fault, *_) = [run.fault for run in check_parity(artifact) if run.judged]
    assert fault == "1 of 32 decisions on the reference inputs changed"


def test_a_changed_byte_of_the_reference_inputs_is_found(tmp_path: Path, sealed: Artifact) -> None:
    folder = write_artifact(tmp_path / "artifact", contents(sealed.programs[0], sealed.reference_cases())).directory
    content = bytearray((folder / REFERENCE_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / REFERENCE_FILE).write_bytes(content)
    assert [check.file for check in verify_artifact(folder) if not check.passed] == [REFERENCE_FILE]


def npy(array: npt.NDArray[Any], text: str = "", **header: Any) -> bytes:
    """An array's bytes, under a header that may say something else, or be any text."""
    stream = io.BytesIO()
    if text:
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + array.tobytes()
    said = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(stream, said)
    return stream.getvalue() + array.tobytes()


def archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_LZMA) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


IMAGES, LOGITS = np.zeros((32, 1, 24, 24), np.float32), np.zeros((32, 1), np.float32)
HOSTILE: dict[str, Callable[[], bytes]] = {
    "no archive": lambda: b"reference",
    "empty": lambda: archive({}),
    "a member is missing": lambda: archive({"input-0.npy": npy(IMAGES)}),
    "huge shape": lambda: archive({"input-0.npy": npy(IMAGES, shape=(1 << 40,)), "output-0.npy": npy(LOGITS)}),
    "more cases": lambda: archive({"input-0.npy": npy(np.tile(IMAGES, (2, 1, 1, 1))), "output-0.npy": npy(LOGITS)}),
    "fewer bytes": lambda: archive({"input-0.npy": npy(IMAGES)[:-4], "output-0.npy": npy(LOGITS)}),
    "more bytes": lambda: archive({"input-0.npy": npy(IMAGES) + b"1234", "output-0.npy": npy(LOGITS)}),
    "pickles": lambda: archive({"input-0.npy": npy(IMAGES, descr="|O"), "output-0.npy": npy(LOGITS)}),
    "doubles": lambda: archive({"input-0.npy": npy(IMAGES.astype(np.float64)), "output-0.npy": npy(LOGITS)}),
    "no number": lambda: archive({"input-0.npy": npy(IMAGES), "output-0.npy": npy(LOGITS * np.float32(np.nan))}),
    "half a header": lambda: archive({"input-0.npy": npy(IMAGES, "{'descr': '<f4',"), "output-0.npy": npy(LOGITS)}),
    "an odd type": lambda: archive({"input-0.npy": npy(IMAGES, descr=()), "output-0.npy": npy(LOGITS)}),
    "an odd key": lambda: archive({"input-0.npy": npy(IMAGES, "{[]: 1}"), "output-0.npy": npy(LOGITS)}),
    "indented": lambda: archive({"input-0.npy": npy(IMAGES, "  1\n 2\n  ("), "output-0.npy": npy(LOGITS)}),
    "packed otherwise": lambda: archive({"input-0.npy": npy(IMAGES), "output-0.npy": npy(LOGITS)}, zipfile.ZIP_BZIP2),
    "no array": lambda: archive({"input-0.npy": b"\x93NUMPY\x09\x00" + b"x" * 200, "output-0.npy": npy(LOGITS)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_reference_inputs_are_refused(sealed: Artifact, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"reference|parity/probes"):
        decode_reference_cases(HOSTILE[name](), sealed.manifest)
    good = archive({"input-0.npy": npy(IMAGES), "output-0.npy": npy(LOGITS)})
    assert decode_reference_cases(good, sealed.manifest).count == 32


def test_reference_inputs_that_unpack_to_much_more_take_no_memory(sealed: Artifact) -> None:
    bomb = archive({"input-0.npy": npy(IMAGES) + bytes(128 << 20), "output-0.npy": npy(LOGITS)})
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="reference"):
            decode_reference_cases(bomb, sealed.manifest)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_reference_inputs_of_another_batch_than_the_manifest_fixes_are_refused(sealed: Artifact) -> None:
    (image,) = sealed.manifest.inputs
    fixed = msgspec.structs.replace(image, shape=(2, *image.shape[1:]))
    good = archive({"input-0.npy": npy(IMAGES), "output-0.npy": npy(LOGITS)})
    with pytest.raises(ArtifactError, match="reference"):
        decode_reference_cases(good, msgspec.structs.replace(sealed.manifest, inputs=(fixed,)))


@settings(max_examples=60)
@given(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4))
def test_damaged_reference_inputs_are_refused_or_read(sealed: Artifact, place: int, noise: bytes) -> None:
    assert sealed.parity is not None
    at = place % len(sealed.parity)
    damaged = sealed.parity[:at] + noise + sealed.parity[at + len(noise) :]
    with contextlib.suppress(ArtifactError):
        assert decode_reference_cases(damaged, sealed.manifest).count == 32


def test_a_tolerance_by_which_anything_is_the_same_is_refused(sealed: Artifact) -> None:
    assert sealed.parity is not None
    assert sealed.manifest.parity is not None
    for tolerance in (1e308, 1e9):
        entry = msgspec.structs.replace(sealed.manifest.parity, tolerances={"logit": tolerance})
        with pytest.raises(ArtifactError, match="anything would be the same"):
            decode_reference_cases(sealed.parity, msgspec.structs.replace(sealed.manifest, parity=entry))


def test_a_manifest_may_not_ask_for_much_memory(sealed: Artifact) -> None:
    (image,) = sealed.manifest.inputs
    huge = msgspec.structs.replace(image, shape=(None, 1 << 31, 1 << 31))
    with pytest.raises(ArtifactError, match="bytes unpacked"):
        decode_reference_cases(b"", msgspec.structs.replace(sealed.manifest, inputs=(huge,)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"precision": "int8"}, "no int8 program"),
        ({"tolerances": {"score": 1.0}}, "tolerances for"),
        ({"decision": {"output": "logit", "column": 1, "threshold": 0.0}}, "no output has"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(sealed: Artifact, change: dict[str, Any], told: str) -> None:
    from featherweight.core.artifact import decode_manifest, encode_manifest

    said = json.loads(encode_manifest(sealed.manifest))
    said["parity"] |= change
    with pytest.raises(ArtifactError, match=told):
        decode_manifest(json.dumps(said).encode())


def verify(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Any, str]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["featherweight", "artifact", "verify", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().out


def test_artifact_verify_runs_the_reference_inputs(
    tmp_path: Path, sealed: Artifact, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(sealed.directory)
    code, text = verify(capsys, monkeypatch, folder)
    assert code == 0
    assert "this host reproduces the artifact's 32 reference decisions" in text
    assert "not judged" in text
    # From here on the judged runtime alone: each of the others would be a process more, to no other end.
    monkeypatch.setattr(registry, "_BACKENDS", {"onnxruntime": registry._BACKENDS["onnxruntime"]})
    monkeypatch.setattr(registry, "NAMES", ("onnxruntime",))
    code, text = verify(capsys, monkeypatch, folder, "--digests-only")
    assert code == 0
    assert "every byte" in text
    assert "decides" not in text

    reference = sealed.reference_cases()
    assert reference is not None
    wrong = replace(reference, outputs={"logit": -reference.outputs["logit"]})
    other = write_artifact(tmp_path / "other", contents(sealed.programs[0], wrong)).directory
    code, text = verify(capsys, monkeypatch, str(other))
    assert code == 5
    assert "32 of 32 decisions" in text
    assert "do not use it here" in text
    code, text = verify(capsys, monkeypatch, str(other), "--json")
    told = json.loads(text)
    assert (code, told["passed"]) == (5, False)
    assert {run["flips"] for run in told["parity"] if run["judged"]} == {32}
    assert all(check["passed"] for check in told["checks"])

    unseen = write_artifact(
        tmp_path / "unseen", contents(sealed.programs[0], replace(reference, decision=None))
    ).directory
    code, text = verify(capsys, monkeypatch, str(unseen))
    assert code == 0
    assert "-: not known; no output of this artifact is its score" in text
    assert {line.split()[4] for line in text.splitlines() if line.startswith(" onnxruntime ")} == {"-"}
    told = json.loads(verify(capsys, monkeypatch, str(unseen), "--json")[1])
    assert {run["flips"] for run in told["parity"]} == {None}

    old = write_artifact(tmp_path / "old", contents(sealed.programs[0], None)).directory
    code, text = verify(capsys, monkeypatch, str(old))
    assert code == 0
    assert "no reference inputs sealed" in text
    assert json.loads(verify(capsys, monkeypatch, str(old), "--json")[1])["parity"] is None


def test_the_apps_start_only_where_the_sealed_decisions_are_kept(tmp_path: Path) -> None:
    fraud, imaging = tmp_path / "fraud", tmp_path / "imaging"
    write_fraud_model(fraud)
    write_model(imaging)
    openers: tuple[tuple[Path, Callable[..., Any]], ...] = (
        (fraud, lambda **asked: open_scorer(ModelSource(fraud, **asked)).close()),
        (fraud, lambda **asked: LiveModel(ModelSource(fraud, **asked)).close()),
        (imaging, lambda **asked: read_model(ModelSource(imaging, **asked))),
    )
    for _, start in openers:
        start()
        with pytest.raises(ArtifactError, match="no reference inputs sealed"):
            start(verify_decisions=True)
    for folder, start in openers:
        seal_reference_cases(folder)
        start(verify_decisions=True)
    for folder, start in openers:
        seal_reference_cases(folder, shift=5.0)
        start()
        with pytest.raises(ArtifactError, match="does not reproduce the artifact's reference decisions"):
            start(verify_decisions=True)


def test_a_backend_of_the_host_may_fail(sealed: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(self: OnnxRuntime) -> Availability:
        return Availability(False, "it is not installed")

    monkeypatch.setattr(OnnxRuntime, "probe", probe)
    runs = check_parity(sealed)
    assert {run.reason for run in runs if run.backend == "onnxruntime"} == {"it is not installed"}
    assert {run.backend for run in runs if run.judged} == {"openvino"}
