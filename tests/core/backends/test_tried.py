"""A program that is new is tried by a process that may die; what it was tried with is remembered."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from featherweight.core.artifact import Artifact, Contents, Preference, ReferenceCases, write_artifact
from featherweight.core.backends import tried
from featherweight.core.backends.tried import check_tried
from featherweight.core.errors import ArtifactError, BackendError
from featherweight.core.files import cache_directory
from featherweight.core.inspection import inspect_program
from featherweight.core.parity.reproduction import check_parity
from featherweight.core.processes import Limits, run_module
from featherweight.core.program import Program
from featherweight.core.serving import ModelSource, OpenArtifact
from featherweight.core.tensors import TensorSpec
from tests.small_programs import file_without_end

SPECS = (TensorSpec("x", "float32", (None, 4)),), (TensorSpec("y", "float32", (None, 4)),)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known here of earlier tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_directory() / "tried"


def program_of(nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = ()) -> Program:
    value = helper.make_tensor_value_info
    ends = ([value(name, TensorProto.FLOAT, ["N", 4])] for name in ("x", "y"))
    graph = helper.make_graph(list(nodes), "g", *ends, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    inspect_program(content)  # what is tried here is what the first check lets through
    return Program(content, "fp32", *SPECS)


def endless() -> Program:
    content = file_without_end()
    inspect_program(content)
    return Program(content, "fp32", SPECS[0], (TensorSpec("y", "float32", (None, 1)),))


def hungry() -> Program:
    """Eight gigabytes of constants, in 400 bytes."""
    names = [f"c{index}" for index in range(8)]
    nodes = [
        *(helper.make_node("ConstantOfShape", ["side"], [name]) for name in names),
        helper.make_node("Sum", names, ["all"]),
        helper.make_node("ReduceMax", ["all"], ["largest"], keepdims=0),
        helper.make_node("Add", ["x", "largest"], ["y"]),
    ]
    return program_of(nodes, [helper.make_tensor("side", TensorProto.INT64, [2], [1 << 14, 1 << 14])])


def harmless() -> Program:
    return program_of([helper.make_node("Relu", ["x"], ["y"])])


def seal(directory: Path, program: Program, reference: ReferenceCases | None = None) -> Artifact:
    contents = Contents(
        name="m",
        app="a",
        labels=(),
        programs=(program,),
        sealed={},
        evidence={},
        weights_source="",
        versions={},
        preferences=(Preference(backend="onnxruntime", precision="fp32"),),
        reference_cases=reference,
    )
    return write_artifact(directory, contents)


def open_here(artifact: Artifact, stopping: Callable[[], bool] = lambda: False) -> OpenArtifact:
    return ModelSource(artifact.directory, "onnxruntime").open(artifact, stopping=stopping)


def test_a_program_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    artifact = seal(tmp_path / "m", endless())
    monkeypatch.setattr(tried, "TIME_S", 4.0)
    began = time.monotonic()
    with pytest.raises(ArtifactError, match="on onnxruntime took longer than 4 s"):
        open_here(artifact)
    assert time.monotonic() - began < 20
    assert not cache.exists()


def test_a_program_that_takes_all_memory_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = seal(tmp_path / "m", hungry())
    monkeypatch.setattr(tried, "MEMORY_BYTES", 1 << 30)
    with pytest.raises(ArtifactError, match=r"memory|alloc"):
        open_here(artifact)


def test_a_try_is_ended_when_nobody_waits_for_it(tmp_path: Path) -> None:
    artifact, began = seal(tmp_path / "m", endless()), time.monotonic()
    with pytest.raises(ArtifactError, match="was stopped"):
        open_here(artifact, stopping=lambda: time.monotonic() - began > 1)
    assert time.monotonic() - began < 10


def test_a_program_that_does_not_run_is_no_artifact_to_trust(tmp_path: Path) -> None:
    wrong = program_of([helper.make_node("MatMul", ["x", "x"], ["y"])])
    with pytest.raises(ArtifactError, match=r"onnxruntime.*do not use this artifact"):
        open_here(seal(tmp_path / "m", wrong))


def test_other_outputs_than_it_says_are_found(tmp_path: Path) -> None:
    every = program_of([helper.make_node("Concat", ["x", "x"], ["y"], axis=0)])
    with pytest.raises(ArtifactError, match=r"gives float32 \[2, 4\] as 'y'"):
        open_here(seal(tmp_path / "m", every))


def test_what_gives_no_numbers_is_no_artifact_to_trust(tmp_path: Path) -> None:
    nothing = program_of(
        [helper.make_node("Div", ["x", "zero"], ["d"]), helper.make_node("Sub", ["d", "d"], ["y"])],
        [helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])],
    )
    with pytest.raises(ArtifactError, match="not a finite number"):
        open_here(seal(tmp_path / "m", nothing))


def test_what_went_well_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    artifact = seal(tmp_path / "m", harmless())
    open_here(artifact).close()
    (verdict,) = cache.iterdir()
    assert artifact.programs[0].sha256 in verdict.read_text()
    monkeypatch.setattr(tried, "run_module", lambda *_, **__: pytest.fail("tried again"))
    open_here(artifact).close()
    another = seal(tmp_path / "again", harmless())
    assert another.sha256 != artifact.sha256
    open_here(another).close()
    verdict.write_text("cut sho")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    open_here(artifact).close()
    assert artifact.programs[0].sha256 in verdict.read_text()


def test_other_batches_and_other_runtimes_are_tried_anew(tmp_path: Path, cache: Path) -> None:
    artifact = seal(tmp_path / "m", harmless())
    for backend, batches in (("onnxruntime", (1,)), ("onnxruntime", (1, 16)), ("openvino", (1,))):
        check_tried(artifact, backend, artifact.program("fp32"), batches=batches)
    assert len(list(cache.iterdir())) == 3


def test_without_a_folder_for_the_cache_it_is_tried_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    artifact = seal(tmp_path / "m", harmless())
    for _ in range(2):
        open_here(artifact).close()


def test_an_input_that_is_too_large_is_not_made(tmp_path: Path) -> None:
    large = replace(harmless(), inputs=(TensorSpec("x", "float32", (None, 1 << 30)),))
    with pytest.raises(ArtifactError, match="one input takes 4294967296 bytes"):
        open_here(seal(tmp_path / "m", large))


# ---- verify ----


def test_verify_ends_in_time_and_says_which_backend_did_not(tmp_path: Path) -> None:
    rows = np.ones((2, 4), np.float32)
    reference = ReferenceCases({"x": rows}, {"y": rows[:, :1]}, "onnxruntime", "fp32", {"y": 0.1}, None)
    artifact = seal(tmp_path / "m", endless(), reference)
    began = time.monotonic()
    runs = check_parity(artifact, time_limit_s=4)
    assert time.monotonic() - began < 25
    mine = [run for run in runs if run.backend == "onnxruntime"]
    assert all(run.judged and "took longer than" in run.fault for run in mine)
    # One that nobody prefers may be slow.
    late = [run for run in runs if not run.judged and "took longer than" in run.reason]
    assert late
    assert not any(run.fault for run in late)


# ---- processes with limits ----

DYING = """
import os, sys
if "SLOW" in os.environ: __import__("time").sleep(0.5)
what = sys.stdin.read()
if len(what) > 20: print(len(what))
if what == "signal": os.kill(os.getpid(), 11)
if what == "memory": bytearray(1 << 30)
if what == "threads": print(bytes(100 << 20)[:1])
if what == "stack":
    import ctypes
    resource = __import__("resource")
    print(resource.getrlimit(resource.RLIMIT_STACK)[0], resource.getrlimit(resource.RLIMIT_CORE)[0])
if what == "score": print(open("/proc/self/oom_score_adj").read().strip())
if what == "loud":
    for _ in range(20): sys.stderr.write("x" * (1 << 20))
    sys.exit("\\nthe last line")
if what == "chatty":
    from featherweight.core.processes import answer_stream
    with answer_stream() as stream:
        os.system("echo greeting")
        print("hello", flush=True)
        stream.write(b"answer")
if what == "endless":
    while True: pass
"""


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "dying_module.py").write_text(DYING)
    monkeypatch.syspath_prepend(tmp_path)
    return "dying_module"


LIMITS = Limits(memory_bytes=512 << 20, stack_bytes=1 << 20, cpu_s=2)


def run_dying(module: str, what: str, **more: object) -> bytes:
    return run_module(
        module,
        what.encode(),
        **{"timeout_s": 30, "what": "it", "failure": BackendError, "limits": LIMITS, **more},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("signal", "it was ended by the signal SIGSEGV"),
        ("memory", "it asked for more than the 536870912 bytes of memory"),
        ("endless", "it was ended by the signal SIG"),
    ],
)
def test_how_a_process_ended_is_said(dying: str, what: str, said: str) -> None:
    with pytest.raises(BackendError, match=said):
        run_dying(dying, what)


def test_a_process_within_its_limits_answers(dying: str) -> None:
    assert run_dying(dying, "threads") == b"b'\\x00'\n"
    assert run_dying(dying, "stack").split() == [b"1048576", b"0"]


def test_the_end_of_what_a_process_prints_is_kept_and_no_more(dying: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BackendError, match=r"ended with code 1: the last line$"):
            run_dying(dying, "loud")
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_what_a_runtime_prints_does_not_stand_in_the_answer(dying: str) -> None:
    assert run_dying(dying, "chatty") == b"answer"


class _LateError(BackendError):
    pass


def test_that_time_was_up_is_told_by_its_own_error(dying: str) -> None:
    for late, expected in ((_LateError, _LateError), (None, BackendError)):
        with pytest.raises(BackendError, match="took longer than 1 s") as found:
            run_dying(dying, "endless", late=late, timeout_s=1)
        assert type(found.value) is expected
    with pytest.raises(BackendError) as found:
        run_dying(dying, "signal", late=_LateError)
    assert type(found.value) is BackendError


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has such a score")
def test_where_memory_runs_out_it_is_ended_first(dying: str) -> None:
    assert run_dying(dying, "score") == b"1000\n"


def test_all_is_read_by_a_process_that_takes_its_time(dying: str) -> None:
    """Longer than a pipe holds, and later than the first look at how it goes."""
    assert run_dying(dying, "x" * 5_000_000, environment={"SLOW": "1"}) == b"5000000\n"


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells a process that its parent is gone")
def test_it_ends_with_who_started_it(dying: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from featherweight.core.processes import Limits, run_module\n"
        "from featherweight.core.errors import BackendError\n"
        "print('started', flush=True)\n"
        "limits = Limits(1 << 30, 1 << 20, 99)\n"
        f"run_module({dying!r}, b'endless', timeout_s=99, what='it', failure=BackendError, limits=limits)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        child = wait_for(lambda: psutil.Process(parent.pid).children())[0]
        wait_for(lambda: child.cpu_times().user > 0.5)
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone


def wait_for(ask: Callable[[], Any]) -> Any:
    until = time.monotonic() + 60
    while not (found := ask()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found
