"""Artifacts: what is written is what is read, and nothing else is read."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight.core.artifact import (
    Artifact,
    Contents,
    Manifest,
    Preference,
    decode_manifest,
    encode_manifest,
    read_artifact,
    verify_artifact,
    write_artifact,
)
from featherweight.core.artifact import write as writing
from featherweight.core.artifact.manifest import RuntimeEntry
from featherweight.core.artifact.packed import pack, unpack
from featherweight.core.artifact.store import previous_of, render_manifest_digest
from featherweight.core.backends.base import Availability
from featherweight.core.backends.fastest import choose_program, open_fastest_named
from featherweight.core.errors import (
    ArtifactError,
    BackendUnavailableError,
    DigestError,
    OutputError,
    UsageError,
    WrongModelError,
)
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.small_programs import identity_file

INPUTS = (TensorSpec("image", "float32", (None, 1, 8, 8)),)
OUTPUTS = (TensorSpec("logit", "float32", (None, 1)),)
FP32 = Program(identity_file("fp32 program"), "fp32", INPUTS, OUTPUTS)
INT8 = Program(identity_file("int8"), "int8", INPUTS, OUTPUTS)
CONTENTS = Contents(
    name="chest",
    app="imaging",
    labels=("normal", "pneumonia"),
    programs=(FP32, INT8),
    sealed={"preprocess.json": b'{"side": 8}', "decision.json": b"{}"},
    evidence={"evidence.json": b"{}", "evidence.html": "<p>größer</p>".encode()},
    documents={"MODEL_CARD.md": b"# Chest\n"},
    weights_source="trained on synthetic data",
    versions={"featherweight": "0.1.0"},
    recipe_sha256="0" * 64,
    preferences=(Preference(backend="openvino", precision="int8"), Preference(backend="onnxruntime", precision="fp32")),
)
FILES = (
    "MODEL_CARD.md",
    "evidence.html",
    "evidence.json",
    "manifest.json",
    "manifest.sha256",
    "programs/fp32.onnx.gz",
    "programs/int8.onnx.gz",
    "sealed/decision.json",
    "sealed/preprocess.json",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "chest", CONTENTS)
    return tmp_path / "chest"


def seal(folder: Path, manifest: bytes) -> None:
    """Put another manifest there, with a digest that fits: what somebody does who rewrites an artifact on purpose."""
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "manifest.sha256").write_bytes(render_manifest_digest(hashlib.sha256(manifest).hexdigest()))


def edited(folder: Path, **changes: object) -> bytes:
    fields = msgspec.json.decode((folder / "manifest.json").read_bytes())
    return msgspec.json.encode({**fields, **changes})


def names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    written = write_artifact(tmp_path / "a" / "chest", CONTENTS, created=created)
    read = read_artifact(tmp_path / "a" / "chest")
    assert read == written
    assert names(read.directory) == FILES
    assert read.sealed == CONTENTS.sealed
    assert read.evidence == CONTENTS.evidence
    assert read.documents == CONTENTS.documents
    assert (read.program("fp32"), read.program("int8")) == (FP32, INT8)
    assert read.manifest.created == created
    assert read.manifest.preferences == CONTENTS.preferences
    assert read.sha256 == hashlib.sha256((read.directory / "manifest.json").read_bytes()).hexdigest()
    assert all(check.passed for check in verify_artifact(read.directory))
    assert listing(tmp_path / "a") == ["chest"]


def test_the_same_contents_make_the_same_bytes(tmp_path: Path) -> None:
    created = datetime(2026, 1, 2, tzinfo=UTC)
    one = write_artifact(tmp_path / "one", CONTENTS, created=created)
    two = write_artifact(tmp_path / "two", CONTENTS, created=created)
    assert one.sha256 == two.sha256


def test_a_pinned_digest(folder: Path) -> None:
    sha256 = read_artifact(folder).sha256
    assert read_artifact(folder, expected_sha256=sha256).sha256 == sha256
    with pytest.raises(DigestError, match="expected " + "1" * 64):
        read_artifact(folder, expected_sha256="1" * 64)
    assert not verify_artifact(folder, expected_sha256="1" * 64)[0].passed


def test_bf16_is_the_fp32_file(tmp_path: Path, folder: Path) -> None:
    assert read_artifact(folder).program("bf16") == replace(FP32, precision="bf16")
    both = write_artifact(tmp_path / "b", replace(CONTENTS, programs=(FP32, replace(FP32, precision="bf16"))))
    assert [entry.file for entry in both.manifest.programs] == ["programs/fp32.onnx.gz"] * 2
    with pytest.raises(ArtifactError, match="no int8 program; it has fp32, bf16"):
        both.program("int8")


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_found(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for position in {0, len(content) // 2, len(content) - 1}:
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"its bytes (are not those|do not fit)"):
            read_artifact(folder)
        assert not all(check.passed for check in verify_artifact(folder))
    path.write_bytes(content)
    read_artifact(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_shorter_or_longer_file(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for changed in (content[:-1], content + b" ", b""):
        path.write_bytes(changed)
        with pytest.raises(ArtifactError):
            read_artifact(folder)
    path.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        read_artifact(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_refused_even_to_the_right_bytes(folder: Path, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(ArtifactError, match="is a link"):
        read_artifact(folder)


def test_a_linked_folder_a_folder_and_a_pipe_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "sealed", tmp_path / "sealed")
    (folder / "sealed").symlink_to(tmp_path / "sealed")
    with pytest.raises(ArtifactError, match=r"is a link|is not in manifest.json"):
        read_artifact(folder)
    (folder / "sealed").unlink()
    shutil.move(tmp_path / "sealed", folder / "sealed")
    (folder / "evidence.json").unlink()
    (folder / "evidence.json").mkdir()
    with pytest.raises(ArtifactError, match=r"not a regular file|is not in manifest.json"):
        read_artifact(folder)
    (folder / "evidence.json").rmdir()
    os.mkfifo(folder / "evidence.json")
    with pytest.raises(ArtifactError, match="not a regular file"):
        read_artifact(folder)


@pytest.mark.parametrize("name", ["extra.txt", "sealed/extra.json", "more/extra", ".hidden", "programs/INT8.onnx.bak"])
def test_extra_files_are_faults(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"?")
    with pytest.raises(ArtifactError, match="is not in manifest"):
        read_artifact(folder)
    assert [check.file for check in verify_artifact(folder) if not check.passed] == ["(other files)"]


def test_swapped_files(folder: Path) -> None:
    one, other = folder / "evidence.json", folder / "sealed/decision.json"
    one.write_bytes(b"{ }")
    other.write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"evidence.json"):
        read_artifact(folder)
    faults = [check.file for check in verify_artifact(folder) if not check.passed]
    assert faults == ["evidence.json"]


def program_entry(folder: Path, content: bytes, **stated: object) -> bytes:
    """A manifest whose one program is a file of these bytes."""
    (folder / "programs/int8.onnx.gz").unlink()
    (folder / "programs/fp32.onnx.gz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    entry = {"file": "programs/fp32.onnx.gz", "sha256": digest, "bytes": len(content), "precision": "fp32", **stated}
    return edited(folder, programs=[entry])


PACKED = pack(b"program" * 1000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PACKED[:-9], "does not unpack to the 7000 bytes"),
        (PACKED[:-2], "does not unpack to the 7000 bytes"),
        (PACKED + b"more", "does not unpack to the 7000 bytes"),
        (PACKED + PACKED, "does not unpack to the 7000 bytes"),
        (pack(b"program" * 999), "does not unpack to the 7000 bytes"),
        (pack(b"program" * 1001), "does not unpack to the 7000 bytes"),
        (b"program" * 1000, "is not a gzip file"),
        (PACKED[:-8] + b"00000000", "is not a gzip file"),
    ],
    ids=["cut", "cut checksum", "more behind", "two files", "too small", "too large", "not packed", "another checksum"],
)
def test_a_program_that_does_not_unpack_to_what_was_sealed(folder: Path, content: bytes, said: str) -> None:
    seal(folder, program_entry(folder, content, unpacked_bytes=7000))
    with pytest.raises(ArtifactError, match=said):
        read_artifact(folder)


def test_a_program_that_unpacks_to_more_than_is_stated(folder: Path) -> None:
    seal(folder, program_entry(folder, pack(bytes(64 << 20)), unpacked_bytes=1000))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="does not unpack to the 1000 bytes"):
        read_artifact(folder)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_programs_that_are_stated_to_unpack_to_gigabytes(folder: Path) -> None:
    (entry,) = msgspec.json.decode(program_entry(folder, PACKED, unpacked_bytes=1 << 30))["programs"]
    three = [{**entry, "precision": name, "file": f"programs/{name}.gz"} for name in ("fp32", "bf16", "int8")]
    seal(folder, edited(folder, programs=three))
    with pytest.raises(ArtifactError, match="more than"):
        read_artifact(folder)


def test_a_program_that_is_stated_to_unpack_to_a_thousand_times_its_size(folder: Path) -> None:
    """As honest as zeros are: a megabyte asks for a gigabyte of memory, by whoever reads the artifact."""
    size = 200 << 20
    seal(folder, program_entry(folder, pack(bytes(size)), unpacked_bytes=size))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="at most 100 times its size"):
        read_artifact(folder)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_version_1_whose_programs_are_not_packed(folder: Path) -> None:
    content = program_entry(folder, FP32.content)
    seal(folder, content.replace(b'"format_version":3', b'"format_version":1'))
    artifact = read_artifact(folder)
    assert (artifact.manifest.format_version, artifact.program("fp32").content) == (1, FP32.content)


@given(st.binary(max_size=3000))
def test_packing_and_unpacking(content: bytes) -> None:
    assert unpack(pack(content), len(content)) == content
    assert pack(content) == pack(content)


def test_programs_swapped_under_each_others_names(folder: Path) -> None:
    fp32, int8 = folder / "programs/fp32.onnx.gz", folder / "programs/int8.onnx.gz"
    first, second = fp32.read_bytes(), int8.read_bytes()
    fp32.write_bytes(second)
    int8.write_bytes(first)
    assert len([check for check in verify_artifact(folder) if not check.passed]) == 2


@pytest.mark.parametrize(
    "name",
    [
        "../outside", "/etc/hostname", "sealed/../../outside", "sealed\\x", "C:x", ".hidden",
        "a//b", "a/", "", "ä", "a\0b",
        "manifest.json", "MANIFEST.json", "manifest.sha256", "a/./b", "x\n", "a/b/c/d/e/f",
    ],
)  # fmt: skip
def test_names_that_leave_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    seal(folder, edited(folder, documents=[{"file": name, "sha256": digest, "bytes": 2}]))
    with pytest.raises(ArtifactError, match=r"not a plain file name|may not list itself"):
        read_artifact(folder)


def test_a_file_listed_twice(folder: Path) -> None:
    entry = {"file": "evidence.json", "sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    for other in (entry, {**entry, "file": "Evidence.JSON"}):
        seal(folder, edited(folder, documents=[other]))
        with pytest.raises(ArtifactError, match="stands twice"):
            read_artifact(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 4}, "format version 4; this featherweight reads versions 1 to 3"),
        ({"format_version": "1"}, "not a manifest"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"created": "2026-01-01T00:00:00"}, "not a manifest"),
        ({"programs": []}, "not a manifest"),
        ({"labels": "normal"}, "not a manifest"),
        ({"recipe_sha256": "ABC"}, "not a manifest"),
        ({"inputs": [{"name": "x", "dtype": "object", "shape": [None]}]}, "not a manifest"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [None, None]}]}, "only the first dimension"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": []}]}, "only the first dimension"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [None, -1]}]}, "not a manifest"),
        ({"missed_limits": ["auc"]}, "`forced` must be true"),
        ({"evidence": [{"file": "e", "sha256": "0" * 64, "bytes": 1 << 40}]}, "not a manifest"),
        ({"evidence": [{"file": f"e{n}", "sha256": "0" * 64, "bytes": 1 << 30} for n in range(3)]}, "more than"),
        ({"evidence": [{"file": f"e{n}", "sha256": "0" * 64, "bytes": 0} for n in range(300)]}, "at most 256"),
    ],
)
def test_manifests_that_are_refused(folder: Path, changes: dict[str, object], said: str) -> None:
    seal(folder, edited(folder, **changes))
    with pytest.raises(ArtifactError, match=said):
        read_artifact(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"notes":' * 100_000,
        b'{"name": "\xff"}',
        b'{"format_version": 1}',
    ],
    ids=["empty", "cut", "null", "utf16", "deep list", "deep object", "not utf-8", "only a version"],
)
def test_bytes_that_are_no_manifest(folder: Path, content: bytes) -> None:
    seal(folder, content)
    with pytest.raises(ArtifactError, match="not a manifest"):
        read_artifact(folder)


def test_a_gigabyte_of_manifest_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 30)
    started = time.monotonic()
    with pytest.raises(ArtifactError, match="found 1073741824 bytes, at most 1048576 are read"):
        read_artifact(folder)
    assert time.monotonic() - started < 5


def test_places_that_are_no_artifact(tmp_path: Path) -> None:
    """A wrong name (exit code 2): nothing is damaged, and no copy would help."""
    artifact = write_artifact(tmp_path / "models" / "chest", CONTENTS)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for kind, name in (("trained", "digests.sha256"), ("job", "summary.json"), ("scans", "Jane Doe.dcm")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / name).write_bytes(b"")
    for name, told in {
        "none": "there is no such folder; expected an artifact",
        "models/chets": f"there is no such folder; did you mean {artifact.directory}",
        "file": "is not a folder",
        "empty": "is empty",
        "trained": "it holds a trained model; `featherweight optimize",
        "job": "it holds results of a job",
        "scans": "not an artifact: it holds no manifest.json; expected",
        "models": f"holds some: name {artifact.directory}",
        "n" * 300: "there is no such folder",
    }.items():
        for look in (read_artifact, verify_artifact):
            with pytest.raises(WrongModelError) as caught:
                look(tmp_path / name)
            assert told in str(caught.value)
            assert "copy" not in str(caught.value)
            assert "Jane" not in str(caught.value)
            assert caught.value.exit_code == 2


@pytest.mark.parametrize("lost", ["manifest.json", "manifest.sha256"])
def test_an_artifact_that_lost_its_manifest_is_damaged_and_not_another_folder(tmp_path: Path, lost: str) -> None:
    artifact = write_artifact(tmp_path / "chest", CONTENTS)
    (artifact.directory / lost).unlink()
    with pytest.raises(ArtifactError, match=rf"{lost} is missing; copy the artifact again") as caught:
        read_artifact(artifact.directory)
    assert caught.value.exit_code == 5
    assert not verify_artifact(artifact.directory)[0].passed


def test_another_apps_model_is_a_wrong_name(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "chest", CONTENTS)
    assert read_artifact(artifact.directory, app="imaging").sha256 == artifact.sha256
    with pytest.raises(WrongModelError, match="is a model of the app 'imaging', not of 'fraud'"):
        read_artifact(artifact.directory, app="fraud")


def _manifest() -> Manifest:
    _, manifest = writing._laid_out(CONTENTS, datetime(2026, 1, 1, tzinfo=UTC))
    return manifest


VALID = encode_manifest(_manifest())


def test_encode_and_decode_are_inverse() -> None:
    assert decode_manifest(VALID) == _manifest()
    assert encode_manifest(decode_manifest(VALID)) == VALID


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | json_values.map(msgspec.json.encode))
def test_any_bytes_raise_only_artifact_errors(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        decode_manifest(content)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(position=st.integers(0, len(VALID) - 1), insert=st.binary(max_size=6), cut=st.integers(0, 6))
def test_damaged_manifests_raise_only_artifact_errors(position: int, insert: bytes, cut: int) -> None:
    damaged = VALID[:position] + insert + VALID[position + cut :]
    try:
        manifest = decode_manifest(damaged)
    except ArtifactError:
        return
    assert all(".." not in entry.file.split("/") for entry in manifest.files())


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(sorted(msgspec.json.decode(VALID))), value=json_values)
def test_any_value_in_any_field_raises_only_artifact_errors(field: str, value: object) -> None:
    try:
        decode_manifest(msgspec.json.encode({**msgspec.json.decode(VALID), field: value}))
    except ArtifactError as error:
        assert "manifest.json" in str(error)  # noqa: PT017


def test_contents_that_do_not_fit_together(tmp_path: Path) -> None:
    other = replace(INT8, outputs=(TensorSpec("logit", "float32", (None, 2)),))
    for contents, said in (
        (replace(CONTENTS, programs=()), "at least one program"),
        (replace(CONTENTS, programs=(FP32, other)), "same inputs and outputs"),
        (replace(CONTENTS, programs=(FP32, replace(INT8, precision="fp32"))), "twice"),
        (replace(CONTENTS, documents={"evidence.json": b""}), "two files"),
        (replace(CONTENTS, documents={"../x": b""}), "not a plain file name"),
        (replace(CONTENTS, missed_limits=("auc",)), "forced"),
    ):
        with pytest.raises(ArtifactError, match=said):
            write_artifact(tmp_path / "a", contents)
    assert not any(tmp_path.iterdir())


def test_an_artifact_is_replaced_whole(folder: Path) -> None:
    smaller = write_artifact(
        folder, replace(CONTENTS, programs=(INT8,), documents={}, forced=True, missed_limits=("auc",))
    )
    assert smaller.manifest.missed_limits == ("auc",)
    assert "programs/fp32.onnx.gz" not in names(folder)
    assert listing(folder.parent) == ["chest"]


def test_an_artifact_is_replaced_where_folders_cannot_be_swapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_swap", lambda one, other: False)
    write_artifact(folder, replace(CONTENTS, name="new"))
    assert read_artifact(folder).manifest.name == "new"
    assert listing(folder.parent) == ["chest"]


def test_killed_between_the_two_renames(folder: Path) -> None:
    folder.rename(previous_of(folder))
    assert read_artifact(folder).manifest.name == "chest"
    write_artifact(folder, replace(CONTENTS, name="new"))
    assert read_artifact(folder).manifest.name == "new"
    assert listing(folder.parent) == ["chest"]


def test_what_is_no_artifact_is_left_alone(tmp_path: Path, folder: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    write_artifact(precious, CONTENTS)
    (precious / "notes.txt").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(folder)
    plain = tmp_path / "plain"
    plain.write_text("mine")
    for place in (precious, link, plain, tmp_path):
        with pytest.raises(OutputError, match="not an artifact that can be replaced"):
            write_artifact(place, CONTENTS)
    assert (precious / "notes.txt").read_text() == "mine"
    assert plain.read_text() == "mine"
    assert link.is_symlink()


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        write_artifact(tmp_path / "file" / "artifact", CONTENTS)


def test_old_leftovers_are_removed_and_young_ones_kept(tmp_path: Path) -> None:
    old, young = tmp_path / ".chest.a.partial", tmp_path / ".chest.b.partial"
    old.mkdir()
    young.mkdir()
    os.utime(old, (1, 1))
    write_artifact(tmp_path / "chest", CONTENTS)
    assert listing(tmp_path) == [".chest.b.partial", "chest"]


WRITER = """
import sys
from pathlib import Path
from featherweight.core.artifact import Contents, write_artifact
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec
from tests.small_programs import identity_file

specs = (TensorSpec("x", "float32", (None, 1)),)
count = 0
while True:
    count += 1
    program = Program(identity_file(chr(65 + count % 60) * 300_000), "fp32", specs, specs)
    write_artifact(Path(sys.argv[1]), Contents(
        name=f"number {count}", app="a", labels=(), programs=(program,), sealed={"s": b"s"}, evidence={},
        weights_source="none", versions={}))
    if count == 1:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("swap", [True, False], ids=["swap", "two renames"])
def test_kill_9_while_writing_leaves_a_whole_artifact(folder: Path, swap: bool) -> None:
    """A process replaces the artifact without end and is killed at eight different moments; a reader that looks in
    between, and after each kill, always finds a whole one."""
    program = (
        WRITER
        if swap
        else "import featherweight.core.artifact.write as w\nw._swap = lambda one, other: False\n" + WRITER
    )
    found = set()
    for attempt in range(8):
        command = [sys.executable, "-c", program, str(folder)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
        assert writer.stdout is not None
        try:
            writer.stdout.readline()
            until = time.monotonic() + 0.02 + 0.013 * attempt
            while swap and time.monotonic() < until:
                read_artifact(folder)
            time.sleep(max(0, until - time.monotonic()))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait(30)
            writer.stdout.close()
        found.add(read_artifact(folder).manifest.name)
    assert found - {"chest"}, "no writer got as far as a first artifact"


HERE = Availability(True, devices=("cpu",), precisions=("fp32", "int8"))
FULL = Availability(True, devices=("cpu",), precisions=("fp32", "bf16", "int8"))
ABSENT = Availability(False, "not installed")


def _choice(artifact: Artifact, **available: Availability) -> tuple[str, str]:
    name, program = choose_program(artifact, available)
    return name, program.precision


def test_the_measured_order_decides(folder: Path) -> None:
    artifact = read_artifact(folder)
    assert _choice(artifact, onnxruntime=HERE, openvino=FULL) == ("openvino", "int8")
    assert _choice(artifact, onnxruntime=HERE, openvino=ABSENT) == ("onnxruntime", "fp32")


def test_without_a_measured_order_int8_on_the_default_backend(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "a", replace(CONTENTS, preferences=()))
    assert _choice(artifact, onnxruntime=HERE, openvino=FULL) == ("onnxruntime", "int8")
    assert _choice(artifact, openvino=FULL, onnxruntime=ABSENT) == ("openvino", "int8")
    plain = write_artifact(tmp_path / "b", replace(CONTENTS, programs=(FP32,), preferences=()))
    assert _choice(plain, openvino=FULL) == ("openvino", "bf16")


RUNTIMES = (
    RuntimeEntry(backend="openvino", precision="int8", serves=True, told="kept the limits"),
    RuntimeEntry(backend="onnxruntime", precision="int8", serves=False, told="missed auc_loss on the test cases"),
)


def test_a_runtime_that_missed_a_limit_or_has_no_figures_does_not_serve(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "a", replace(CONTENTS, preferences=(), runtimes=RUNTIMES))
    assert _choice(artifact, onnxruntime=HERE, openvino=FULL) == ("openvino", "int8")
    with pytest.raises(BackendUnavailableError, match="onnxruntime: missed auc_loss") as told:
        choose_program(artifact, {"onnxruntime": HERE})
    assert "It may be served by openvino; for another runtime, optimize again" in str(told.value)
    with pytest.raises(BackendUnavailableError, match="torch: no figures on the test cases in fp32"):
        choose_program(artifact, {"torch": replace(HERE, precisions=("fp32",))})
    there = replace(FULL, devices=("cpu", "cuda"))
    with pytest.raises(BackendUnavailableError, match="openvino: no figures on the test cases on cuda") as told:
        choose_program(artifact, {"openvino": there}, device="cuda")
    assert "On the CPU it may be served by openvino" in str(told.value)
    free = write_artifact(tmp_path / "b", replace(CONTENTS, preferences=(), runtimes=None))
    assert choose_program(free, {"openvino": there}, device="cuda")[0] == "openvino"
    assert _choice(free, onnxruntime=HERE) == ("onnxruntime", "int8")


def test_nothing_that_runs(folder: Path) -> None:
    artifact = read_artifact(folder)
    with pytest.raises(BackendUnavailableError, match="openvino: not installed"):
        choose_program(artifact, {"openvino": ABSENT})
    with pytest.raises(BackendUnavailableError, match="on cuda"):
        open_fastest_named(artifact, device="cuda", backend="onnxruntime")
    with pytest.raises(UsageError, match="no backend is called"):
        open_fastest_named(artifact, backend="abacus")
