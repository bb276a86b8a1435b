"""`artifact verify` answers for the runtimes that the artifact is run on here; what another one does is told alone."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from featherweight.core import cli
from featherweight.core.backends import registry
from featherweight.core.backends.base import Session
from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.backends.opening import OpenSession
from featherweight.core.parity import reproduction
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors
from tests.imaging.tiny import write_model
from tests.reference_cases import seal_reference_cases


class Shifted(OnnxRuntime):
    """A runtime that computes another model: every output is far from ONNX Runtime's."""

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        return ShiftedSession(program, super().open(program, device=device, threads=threads))


class ShiftedSession(OpenSession):
    def __init__(self, program: Program, inner: Session) -> None:
        super().__init__(program)
        self._inner = inner

    def _run(self, tensors: Tensors, batch: int) -> Tensors:
        return {name: array + 1000 for name, array in self._inner.run(tensors).items()}

    def _free(self) -> None:
        self._inner.close()


SOUND, SHIFTED = "featherweight.core.backends.onnxruntime:OnnxRuntime", f"{__name__}:Shifted"


@pytest.mark.parametrize(
    ("onnxruntime", "other", "code"),
    [(SOUND, SOUND, 0), (SOUND, SHIFTED, 0), (SHIFTED, SOUND, 5)],
    ids=["none differs", "one that is not judged differs", "the judged one differs"],
)
def test_only_a_judged_runtime_that_differs_fails_the_artifact(
    onnxruntime: str,
    other: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_model(tmp_path / "model")
    seal_reference_cases(tmp_path / "model")  # prefers onnxruntime
    monkeypatch.setattr(registry, "_BACKENDS", {"onnxruntime": onnxruntime, "other": other})
    monkeypatch.setattr(registry, "NAMES", ("onnxruntime", "other"))
    # In this process, which alone knows the runtimes above; otherwise it would be one for each of them.
    monkeypatch.setattr(
        reproduction, "_ask", lambda order, *_: reproduction._answer(io.BytesIO(json.dumps(order).encode()))
    )
    monkeypatch.setattr(sys, "argv", ["featherweight", "artifact", "verify", str(tmp_path / "model"), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = json.loads(capsys.readouterr().out)
    assert (ended.value.code, told["passed"]) == (code, code == 0)
    assert {run["backend"] for run in told["parity"] if run["judged"]} == {"onnxruntime"}
    differing = {run["backend"] for run in told["parity"] if run["fault"]}
    assert differing == {name for name, kind in (("onnxruntime", onnxruntime), ("other", other)) if kind == SHIFTED}
