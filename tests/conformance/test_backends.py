"""One suite that every backend passes, in every precision that it says it has.

Tolerances: fp32 and int8 outputs are compared as max |difference| / max |reference|. bf16 keeps 8 bits of a mantissa.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from featherweight.core.artifact import Contents, write_artifact
from featherweight.core.artifact.manifest import Preference
from featherweight.core.backends.base import Backend, row_function
from featherweight.core.backends.registry import NAMES, find_backend, probe_all
from featherweight.core.errors import BackendError, BackendUnavailableError, FeatherweightError, TensorError, UsageError
from featherweight.core.program import Precision, Program
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import TensorSpec

pytest.importorskip("torch", reason="the programs of this suite are exported by torch")

from tests.conformance.programs import Case, Filling, Mlp, ResidualCnn, make_case, one_operator, weights_elsewhere

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.02, "int8": 0.06}
INT8_AGREEMENT = 0.02
"""Between two engines: they round ties, and fuse, differently; a step of the output's 255 is 0.004 of the range."""

EXEMPTIONS: dict[tuple[str, Precision], str] = {
    ("onnxruntime", "bf16"): "ONNX Runtime's CPU kernels have no bfloat16",
    ("torch", "int8"): "PyTorch would only simulate int8 in float32; it says so and refuses",
    ("native", "bf16"): "the native backend computes in float32",
    ("native", "int8"): "the native backend runs int8 trees; of networks, whose weights fit into caches, only fp32",
}
ACCELERATED = [("onnxruntime", "cuda"), ("onnxruntime", "tensorrt"), ("onnxruntime", "coreml"), ("torch", "cuda")]
DEVICE_EXEMPTIONS: dict[tuple[str, Precision], str] = {
    ("tensorrt", "int8"): "TensorRT takes no zero points",
    ("coreml", "int8"): "CoreML's provider has no quantized operators",
}
TENSORFLOAT = 5e-3
"""TensorRT's provider has no option against it; it keeps 10 bits of a mantissa."""
NO_CNN = {"native": "native runs trees and small dense networks"}

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PAIRS = [pytest.param(name, precision, id=f"{name}-{precision}") for name in NAMES for precision in PRECISIONS]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {
        "cnn": make_case(ResidualCnn(), (1, 32, 32), 3, tmp_path_factory.mktemp("cnn")),
        "mlp": make_case(Mlp(), (12,), 2, tmp_path_factory.mktemp("mlp")),
    }


@pytest.fixture(params=["cnn", "mlp"])
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture(autouse=True)
def _exempt_from_the_cnn(request: pytest.FixtureRequest) -> None:
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    name = parameters.get("name") or parameters.get("backend")
    if name in NO_CNN and parameters.get("case") == "cnn":
        pytest.skip(f"exempt: {NO_CNN[name]}")


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> Backend:
    found = find_backend(request.param)
    available = found.probe()
    if not available.available:
        pytest.skip(f"{request.param}: {available.reason}")
    return found


def _usable(name: str, precision: Precision) -> Backend:
    backend = find_backend(name)
    available = backend.probe()
    if not available.available:
        pytest.skip(f"{name}: {available.reason}")
    if (name, precision) in EXEMPTIONS:
        pytest.skip(f"exempt: {EXEMPTIONS[name, precision]}")
    if not available.runs("network", precision):
        pytest.skip(f"{name}: this host does not run {precision}")
    return backend


def distance(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_same_outputs_as_pytorch(name: str, precision: Precision, case: Case) -> None:
    with _usable(name, precision).open(case.programs[precision]) as session:
        x = case.batch(8)
        outputs = session.run({"x": x})
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    assert distance(outputs["y"], case.reference(x)) < TOLERANCE[precision]


def test_outputs_depend_on_the_input_more_than_any_tolerance(case: Case) -> None:
    expected = case.reference(case.batch(8))
    assert distance(expected[::-1], expected) > 2 * max(TOLERANCE.values())


def test_int8_engines_agree(case: Case) -> None:
    x = case.batch(8)
    answers = []
    for name in ("onnxruntime", "openvino"):
        with _usable(name, "int8").open(case.programs["int8"]) as session:
            answers.append(session.run({"x": x})["y"])
    assert distance(answers[0], answers[1]) < INT8_AGREEMENT


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_any_batch_size_and_any_order(name: str, precision: Precision, case: Case) -> None:
    with _usable(name, precision).open(case.programs[precision]) as session:
        x = case.batch(8)
        whole = session.run({"x": x})["y"]
        for size in (1, 3, 8, 1):
            part = session.run({"x": x[:size]})["y"]
            assert part.shape == (size, whole.shape[1])
            assert distance(part, whole[:size]) < (1e-5 if precision == "fp32" else 1e-2)


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_threads_do_not_change_the_answer(name: str, precision: Precision, case: Case) -> None:
    backend = _usable(name, precision)
    x = case.batch(3)
    with (
        backend.open(case.programs[precision], threads=1) as one,
        backend.open(case.programs[precision], threads=2) as two,
    ):
        assert distance(two.run({"x": x})["y"], one.run({"x": x})["y"]) < (1e-5 if precision == "fp32" else 1e-2)


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_outputs_are_the_callers(name: str, precision: Precision, case: Case) -> None:
    """A later run, and close, leave earlier outputs alone; inputs are not written to."""
    x, other = case.batch(1), case.batch(1, seed=5)
    with _usable(name, precision).open(case.programs[precision]) as session:
        first = session.run({"x": x})["y"]
        kept = first.copy()
        session.run({"x": other})
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(x, case.batch(1))


def test_read_only_and_strided_input(backend: Backend, case: Case) -> None:
    x = case.batch(6)
    frozen = x.copy()
    frozen.flags.writeable = False
    with backend.open(case.programs["fp32"]) as session:
        expected = session.run({"x": x})["y"]
        np.testing.assert_allclose(session.run({"x": frozen})["y"], expected, rtol=1e-6)
        assert distance(session.run({"x": x[::2]})["y"], expected[::2]) < 1e-5


def test_nan_stays_in_its_row(backend: Backend, case: Case) -> None:
    x = case.batch(3)
    x[1] = np.nan
    with backend.open(case.programs["fp32"]) as session:
        found = session.run({"x": x})["y"]
    assert found.shape[0] == 3
    assert distance(found[[0, 2]], case.reference(x[[0, 2]])) < TOLERANCE["fp32"]


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(Filling(), (12,), 1, tmp_path_factory.mktemp("filling"))


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_missing_values_become_constants(name: str, precision: Precision, filling: Case) -> None:
    backend = _usable(name, precision)
    program = filling.programs[precision]
    x = filling.batch(9)
    x[::2, ::3] = np.nan
    x[4] = np.nan
    expected = filling.reference(x)
    assert distance(filling.reference(np.nan_to_num(x)), expected) > 2 * max(TOLERANCE.values())
    with backend.open(program) as session:
        found = session.run({"x": x})["y"]
        assert distance(found, expected) < TOLERANCE[precision]
        for index in (4, 5, 6):
            alone = row_function(session)(x[index])
            assert abs(alone - expected[index, 0]) < TOLERANCE[precision] * np.abs(expected).max()


def test_wrong_input_is_refused_before_the_runtime_sees_it(backend: Backend, cases: dict[str, Case]) -> None:
    case = cases["mlp"]
    x = case.batch(1)
    with backend.open(case.programs["fp32"]) as session:
        for wrong, said in (
            ({"image": x}, r"found tensors \['image'\], expected \['x'\]"),
            ({}, "found tensors"),
            ({"x": x, "more": x}, "found tensors"),
            ({"x": x.astype(np.float64)}, "found float64, expected float32"),
            ({"x": x[:, :11]}, r"found shape \[1, 11\], expected \[N, 12\]"),
            ({"x": x[0]}, "found shape"),
            ({"x": x[:0]}, "the batch is empty"),
            ({"x": x.tolist()}, "found list"),
        ):
            with pytest.raises(TensorError, match=said):
                session.run(wrong)
        session.run({"x": x})


def test_close(backend: Backend, cases: dict[str, Case]) -> None:
    case = cases["mlp"]
    with backend.open(case.programs["fp32"]) as other:
        session = backend.open(case.programs["fp32"])
        session.run({"x": case.batch(1)})
        session.close()
        session.close()
        with pytest.raises(BackendError, match="closed"):
            session.run({"x": case.batch(1)})
        other.run({"x": case.batch(1)})


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_two_sessions_on_two_threads(name: str, precision: Precision, cases: dict[str, Case]) -> None:
    backend = _usable(name, precision)
    failures: list[str] = []

    def work(case: Case, size: int) -> None:
        x = case.batch(size)
        with backend.open(case.programs[precision], threads=size) as session:
            expected = session.run({"x": x})["y"]
            for _ in range(30):
                found = session.run({"x": x})["y"]
                if distance(found, expected) > 1e-2:
                    failures.append(f"{size}: {distance(found, expected)}")

    first = "mlp" if name in NO_CNN else "cnn"
    threads = [threading.Thread(target=work, args=(cases[which], size)) for which, size in ((first, 1), ("mlp", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures


@pytest.mark.parametrize("precision", PRECISIONS)
def test_corrupt_programs_are_errors(backend: Backend, precision: Precision, cases: dict[str, Case]) -> None:
    whole = cases["cnn"].programs[precision]
    if not backend.probe().runs("network", precision):
        pytest.skip(f"{backend.name} does not run {precision} here")
    for content in (b"", b"no model", whole.content[: len(whole.content) // 2], whole.content[:-1], b"\0" * 1000):
        with pytest.raises(BackendError):
            backend.open(dataclasses.replace(whole, content=content))


def test_flipped_bytes_never_crash(backend: Backend, cases: dict[str, Case]) -> None:
    """Digests keep such files away from a runtime; should one get there, it runs or is refused in words."""
    whole = cases["mlp"].programs["fp32"]
    rng = np.random.default_rng(3)
    for _ in range(25):
        content = bytearray(whole.content)
        # The graph's structure, not its weights, lies where names are; the file is small, so hits are frequent.
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        with (
            contextlib.suppress(FeatherweightError),
            backend.open(dataclasses.replace(whole, content=bytes(content))) as session,
        ):
            session.run({"x": cases["mlp"].batch(1)})


def test_specs_that_the_file_does_not_have(backend: Backend, cases: dict[str, Case]) -> None:
    good = cases["cnn"].programs["fp32"]
    for inputs, outputs, said in (
        ((TensorSpec("image", "float32", (None, 1, 32, 32)),), good.outputs, "inputs do not fit"),
        ((TensorSpec("x", "float32", (None, 1, 64, 64)),), good.outputs, r"the file has float32 \[N, 1, 32, 32\]"),
        ((TensorSpec("x", "uint8", (None, 1, 32, 32)),), good.outputs, "the file has float32"),
        ((TensorSpec("x", "float32", (4, 1, 32, 32)),), good.outputs, "input does not fit"),
        (good.inputs, (TensorSpec("y", "float32", (None, 2)),), "output does not fit"),
        (good.inputs, (), "outputs do not fit"),
    ):
        with pytest.raises(BackendError, match=said):
            backend.open(Program(good.content, "fp32", inputs, outputs))


def test_requests_that_this_host_cannot_do(backend: Backend, cases: dict[str, Case]) -> None:
    program = cases["mlp"].programs["fp32"]
    with pytest.raises(BackendUnavailableError, match="no device 'abacus'"):
        backend.open(program, device="abacus")
    with pytest.raises(UsageError, match="threads = 0"):
        backend.open(program, threads=0)
    for precision in PRECISIONS:
        if not backend.probe().runs("network", precision):
            with pytest.raises(BackendUnavailableError, match=r"cannot run|has no bfloat16"):
                backend.open(cases["mlp"].programs[precision])


def test_an_operator_that_nobody_knows_is_named(backend: Backend) -> None:
    with pytest.raises(BackendError, match="Frobnicate"):
        backend.open(one_operator("Frobnicate"))


def test_programs_do_not_read_other_files(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    program = weights_elsewhere(str(tmp_path / "secret"))
    # Protobuf lets the length of "location" be written in more bytes than it needs; every size around it grows by one.
    for content in (program.content, program.content.replace(b"\x0a\x08location", b"\x0a\x88\x00location")):
        with pytest.raises(BackendError, match="takes data from other files"):
            backend.open(dataclasses.replace(program, content=content))


def test_an_artifact_opens_on_every_backend(backend: Backend, case: Case, tmp_path: Path) -> None:
    contents = Contents(
        name="some network",
        app="conformance",
        labels=(),
        programs=(case.programs["fp32"], case.programs["int8"]),
        sealed={},
        evidence={},
        weights_source="random",
        versions={},
    )
    artifact = write_artifact(tmp_path / "artifact", contents)
    shutil.rmtree(tmp_path / "artifact")
    with ModelSource(artifact.directory, backend.name).open(artifact) as opened:
        found = opened.session.run({"x": case.batch(2)})["y"]
    assert distance(found, case.reference(case.batch(2))) < TOLERANCE["int8"]
    with ModelSource(artifact.directory, threads=2).open(artifact) as opened:
        assert opened.session.run({"x": case.batch(2)})["y"].shape == (2, case.programs["fp32"].outputs[0].shape[1])


def test_opening_goes_on_where_the_preferred_backend_refuses(cases: dict[str, Case], tmp_path: Path) -> None:
    _usable("native", "fp32")
    case = cases["cnn"]
    contents = Contents(
        name="some network",
        app="conformance",
        labels=(),
        programs=(case.programs["fp32"],),
        sealed={},
        evidence={},
        weights_source="random",
        versions={},
        preferences=(Preference(backend="native", precision="fp32"),),
    )
    artifact = write_artifact(tmp_path / "artifact", contents)
    with ModelSource(artifact.directory).open(artifact) as opened:
        found = opened.session.run({"x": case.batch(2)})["y"]
    assert distance(found, case.reference(case.batch(2))) < TOLERANCE["fp32"]
    with pytest.raises(BackendUnavailableError, match="native: runs trees and small dense networks"):
        ModelSource(artifact.directory, "native").open(artifact)


def test_nothing_is_printed(backend: Backend, cases: dict[str, Case], tmp_path: Path) -> None:
    """Runtimes write to the process's own stdout and stderr, below Python's."""
    program = cases["mlp"].programs["fp32"]
    (tmp_path / "program").write_bytes(program.content)
    code = (
        "import pathlib, sys\n"
        "import numpy as np\n"
        "from featherweight.core.backends.registry import find_backend\n"
        "from featherweight.core.errors import BackendError\n"
        "from featherweight.core.program import Program\n"
        "from featherweight.core.tensors import TensorSpec\n"
        "content = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "specs = (TensorSpec('x', 'float32', (None, 12)),), (TensorSpec('y', 'float32', (None, 2)),)\n"
        "backend = find_backend(sys.argv[2])\n"
        "with backend.open(Program(content, 'fp32', *specs)) as session:\n"
        "    session.run({'x': np.zeros((3, 12), np.float32)})\n"
        "try: backend.open(Program(content[:-9], 'fp32', *specs))\n"
        "except BackendError: pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "program"), backend.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout + done.stderr == ""


def test_exemptions_are_still_needed() -> None:
    for name, precision in EXEMPTIONS:
        assert not find_backend(name).probe().runs("network", precision)


def test_probe_answers_for_every_name() -> None:
    for name, available in probe_all().items():
        assert name in NAMES
        assert available.available or available.reason
        assert not available.available or ("cpu" in available.devices and "fp32" in available.precisions)


def test_unknown_backend() -> None:
    with pytest.raises(UsageError, match="no backend is called 'tflite'; there are onnxruntime, openvino, torch"):
        find_backend("tflite")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "device"), ACCELERATED)
def test_an_accelerator_gives_the_cpus_answer(name: str, device: str, precision: Precision, case: Case) -> None:
    backend = _usable(name, precision)
    if device not in backend.probe().devices:
        pytest.skip(f"{name}: no {device} here")
    if (device, precision) in DEVICE_EXEMPTIONS:
        with pytest.raises(BackendUnavailableError, match=f"not on the device {device}"):
            backend.open(case.programs[precision], device=device)
        pytest.skip(f"exempt: {DEVICE_EXEMPTIONS[device, precision]}")
    tolerance = TENSORFLOAT if device == "tensorrt" else TOLERANCE[precision]
    with backend.open(case.programs[precision], device=device) as session:
        for size in (4, 1, 4):
            found = session.run({"x": case.batch(size)})["y"]
            assert distance(found, case.reference(case.batch(size))) < tolerance
