"""`import featherweight`: its names, each with an example that runs, and what it costs."""

from __future__ import annotations

import doctest
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featherweight
from tests.fakes import TreesTask

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
version = 1
name = "mine"

[source]
task = "mine"

[[step]]
kind = "prune-trees"
ratio = 0.5
calibration_samples = 1000

[measure]
backends = ["onnxruntime"]
repetitions = 5

[limits]
average_precision_loss = 0.05
flip_ratio_max = 0.05
"""


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the examples run: the bundled models stand in `data`, as in a checkout."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)


def examples(name: str) -> list[doctest.DocTest]:
    """Those of the name and, of a class, those of its public methods."""
    given = {"my_task": TreesTask()} if "my_task" in inspect.getsource(getattr(featherweight, name)) else {}
    found = doctest.DocTestFinder(exclude_empty=True).find(
        getattr(featherweight, name), name, module=False, extraglobs=given
    )
    return [one for one in found if one.examples]


@pytest.mark.parametrize("name", featherweight.__all__)
@pytest.mark.usefixtures("_folder")
def test_every_name_has_an_example_that_runs(name: str) -> None:
    found = examples(name)
    assert name in {one.name for one in found}, "it has no example of its own"
    for one in found:
        told: list[str] = []
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(one, out=told.append)
        assert runner.summarize(verbose=False).failed == 0, "".join(told)


@pytest.mark.usefixtures("_folder")
def test_the_readmes_lines_run() -> None:
    """Between the fences of Python, with two images."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 200), np.uint8)
    one = doctest.DocTestParser().get_doctest(block, {"images": images}, "README", None, 0)
    assert len(one.examples) == 4
    told: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(one, out=told.append).failed == 0, "".join(told)


def test_an_example_that_is_wrong_is_seen() -> None:
    (one,) = examples("DataError")
    one.examples[-1].want = "3\n"
    assert doctest.DocTestRunner(verbose=False).run(one, out=lambda text: None).failed == 1


@pytest.mark.usefixtures("_folder")
def test_a_model_is_opened_and_called_in_one_line() -> None:
    assert featherweight.open is featherweight.open_model
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 200), np.uint8)
    found = featherweight.open("data/models/chest-xray")(images)
    with featherweight.open("data/models/chest-xray") as model:
        np.testing.assert_array_equal(found.scores, model.predict(images).scores)


@pytest.mark.parametrize("kind", [featherweight.OpenModel])
def test_every_public_method_has_an_example(kind: type) -> None:
    public = {name for name in vars(kind) if not name.startswith("_")}
    assert public == {"close", "describe", "evidence", "predict", "run"}
    assert {f"OpenModel.{name}" for name in public} <= {one.name for one in examples("OpenModel")}


def test_the_names_are_these_and_no_others() -> None:
    """They are written three times: for whoever reads, for type checkers, and for whoever imports."""
    assert featherweight.__all__ == sorted(featherweight.__all__)
    # `from featherweight import *` must not take the place of Python's own `open`.
    assert {*featherweight.__all__, "open"} == set(featherweight._MODULE_OF)
    source = inspect.getsource(featherweight)
    for name, module in featherweight._MODULE_OF.items():
        assert getattr(featherweight, name) is getattr(sys.modules[module], name)
        assert name in source.partition("_ERRORS =")[0], "type checkers do not know it"
    public = [name for name in dir(featherweight) if not name.startswith("_")]
    assert public == featherweight.__all__
    with pytest.raises(AttributeError, match="has no attribute 'open_modle'"):
        featherweight.open_modle  # noqa: B018


def test_every_error_is_exported() -> None:
    from featherweight.core import errors

    kinds = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.FeatherweightError)
    }
    assert kinds <= set(featherweight.__all__)


def run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_importing_it_imports_nothing_but_what_switches_telemetry_off() -> None:
    before = "import sys, json, importlib, __future__; known = set(sys.modules); "
    loaded = run(before + "import featherweight; print(json.dumps(sorted(set(sys.modules) - known)))")
    assert loaded == ["featherweight", "featherweight.core", "featherweight.core.silence", "openvino_telemetry"]


def test_no_name_needs_what_only_training_needs() -> None:
    """`help(featherweight)`, `import *` and whatever completes names ask for all of them, on a server too."""
    loaded = run(
        "import json, sys\n"
        "from featherweight import *\n"
        "print(json.dumps(sorted({'torch', 'torchvision', 'sklearn', 'onnx', 'numba'} & sys.modules.keys())))"
    )
    assert loaded == []


def test_a_model_is_run_without_anything_to_train_with() -> None:
    loaded = run(
        "import json, sys, numpy, featherweight\n"
        "model = featherweight.open('data/models/chest-xray', backend='onnxruntime')\n"
        "model.predict(numpy.zeros((1, 32, 32), numpy.uint8)), model.evidence._repr_html_()\n"
        "known = {'torch', 'torchvision', 'sklearn', 'onnx', 'numba', 'pyarrow', 'scipy'}\n"
        "print(json.dumps(sorted(known & sys.modules.keys())))"
    )
    assert loaded == []
