"""Every runtime of the host that opens the sealed program has its figures on the test cases, or may not serve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featherweight.core.backends.base import Availability, Session
from featherweight.core.backends.native import Native
from featherweight.core.backends.registry import probe_all
from featherweight.core.errors import BackendError, BackendUnavailableError
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.optimize import Outcome, optimize
from featherweight.core.program import Program
from featherweight.core.recipe import parse_recipe
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import Tensors
from tests.core.recipes import recipe_head
from tests.fakes import TreesTask

RECIPE = (
    recipe_head(
        "rows", "average_precision_loss = 0.05\nflip_ratio_max = 0.05", repetitions=3, backends='["onnxruntime"]'
    )
    + '[[step]]\nkind = "quantize"\ncalibration_samples = 500\n'
)


def seal(folder: Path, *, recipe: str = RECIPE, force: bool = False) -> Outcome:
    where = folder / "artifact"
    return optimize(parse_recipe(recipe), TreesTask(), where, work=folder / "work", force=force, anyway=force)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return seal(tmp_path_factory.mktemp("rows"))


def test_runtimes_that_no_recipe_named_have_figures_on_the_test_cases(outcome: Outcome) -> None:
    rows = {row.backend: row for row in outcome.evidence.runtimes}
    can = {name for name, found in probe_all().items() if found.runs("trees", "int8")}
    assert set(rows) >= can
    assert "native" in can
    assert rows["onnxruntime"].judged
    for name in can:
        row = rows[name]
        assert row.serves
        assert row.average_precision == pytest.approx(rows["onnxruntime"].average_precision, abs=0.01)
        assert row.changed == 0
    listed = {(one.backend, one.serves) for one in outcome.artifact.manifest.runtimes}
    assert listed >= {(name, True) for name in can}
    document = json.loads(outcome.artifact.evidence["evidence.json"])
    assert [row["backend"] for row in document["runtimes"]] == list(rows)
    assert "By which runtime may it be served?" in render_html(outcome.evidence)


class _Wrong(Session):
    """A session whose scores are those of other rows."""

    def __init__(self, session: Session) -> None:
        self._session, self.inputs, self.outputs = session, session.inputs, session.outputs

    def run(self, tensors: Tensors) -> Tensors:
        return {name: -np.asarray(array) for name, array in self._session.run(tensors).items()}

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> _Wrong:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_a_runtime_that_decides_otherwise_is_refused_when_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Native.open
    monkeypatch.setattr(
        Native, "open", lambda self, program, *, device="cpu", threads=1: _Wrong(honest(self, program, threads=threads))
    )
    sealed = seal(tmp_path)
    monkeypatch.setattr(Native, "open", honest)
    row = next(one for one in sealed.evidence.runtimes if one.backend == "native")
    assert not row.serves
    assert "flip_ratio_max" in row.missed
    assert any(note.startswith("native may not serve it: missed") for note in sealed.artifact.manifest.notes)
    source = ModelSource(sealed.artifact.directory, backend="native")
    with pytest.raises(BackendUnavailableError, match=r"native: missed .* on the test cases, which the judged runtime"):
        source.choose(source.read())
    fit = ModelSource(sealed.artifact.directory)
    assert fit.choose(fit.read()).backend == "onnxruntime"


@pytest.mark.parametrize("wrong", [False, True])
def test_by_force_no_runtime_serves_that_misses_the_same_limits_by_more(
    wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = RECIPE.replace("average_precision_loss = 0.05", "average_precision_loss = 1e-6").replace("= 0.05", "= 1e-6")
    if wrong:
        monkeypatch.setattr(
            Native,
            "open",
            lambda self, program, *, device="cpu", threads=1, honest=Native.open: _Wrong(
                honest(self, program, threads=threads)
            ),
        )
    rows = {row.backend: row for row in seal(tmp_path, recipe=narrow, force=True).evidence.runtimes}
    assert set(rows["onnxruntime"].missed) == {"average_precision_loss", "flip_ratio_max"}
    assert rows["native"].missed == rows["onnxruntime"].missed
    assert rows["native"].serves is not wrong
    assert rows["native"].worse == (rows["native"].missed if wrong else ())
    assert ("kept or missed by less" in rows["native"].verdict) is wrong


def _fails(self: Native, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
    raise BackendError("it broke")


@pytest.mark.parametrize("how", ["absent", "fails"])
def test_a_runtime_without_figures_is_refused_when_it_serves(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        if how == "absent":
            patched.setattr(Native, "probe", lambda self: Availability(False, "numba is not installed"))
        else:
            patched.setattr(Native, "open", _fails)
        sealed = seal(tmp_path)
    source = ModelSource(sealed.artifact.directory, backend="native")
    with pytest.raises(BackendUnavailableError, match="native: no figures on the test cases: ") as told:
        source.choose(source.read())
    assert "It may be served by onnxruntime" in str(told.value)
    assert replace(source, backend=None).choose(source.read()).backend == "onnxruntime"
