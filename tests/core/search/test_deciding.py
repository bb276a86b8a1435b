"""The keys of the ledger cover all code that decides."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from torch import nn

import featherweight.core
from featherweight.core.losses import BINARY, TaskLoss
from featherweight.core.recipe import candidates, parse_recipe
from featherweight.core.search.candidates import CandidateBuilder
from featherweight.core.search.deciding import (
    LIBRARIES,
    NOT_DECIDING,
    deciding_code,
    deciding_files,
    digest_core,
    digest_task,
)
from featherweight.core.search.ledger import Entry, Ledger
from tests.fakes import SquaresTask

CORE = Path(featherweight.core.__file__).parent


@pytest.mark.parametrize(
    "name",
    [
        "training.py",
        "losses.py",
        "export.py",
        "passes/recover.py",
        "search/candidates.py",
        "search/measurements.py",
        "measure/performance.py",
        "measure/pinning.py",
        "backends/onnxruntime.py",
        "backends/native_trees.py",
        "trees/onnx_file.py",
        "trees/canonical.py",
    ],
)
def test_another_line_of_what_decides_makes_other_keys(tmp_path: Path, name: str) -> None:
    copy = tmp_path / "core"
    shutil.copytree(CORE, copy, ignore=shutil.ignore_patterns("__pycache__", "data"))
    assert digest_core(copy) == digest_core(CORE)
    with (copy / name).open("a") as file:
        file.write("# changed\n")
    assert digest_core(copy) != digest_core(CORE)


def test_what_only_shows_results_keeps_them() -> None:
    found = {path.relative_to(CORE).parts[0] for path in deciding_files(CORE)}
    assert not {name.removesuffix(".py") for name in found} & NOT_DECIDING
    assert {"evidence", "statistics"} <= NOT_DECIDING, "what judges changes no program and no time"
    assert {"passes", "backends", "measure", "search", "trees", "training.py"} <= found


def test_all_libraries_of_the_deciding_code_are_in_the_keys() -> None:
    ours = {"featherweight", "__future__"}
    shown = {"jinja2", "msgspec", "platformdirs", "psutil", "pynvml", "rich", "tqdm", "typer", "markupsafe", "urllib3"}
    distributions = packages_distributions()
    found: set[str] = set()
    for path in deciding_files(CORE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.partition(".")[0] for name in names}
    outside = found - sys.stdlib_module_names - ours - shown
    missing = {name for name in outside if not set(distributions.get(name, [name])) & set(LIBRARIES)}
    assert missing == set()


def test_the_tasks_own_code_is_in_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "somebodys_app"
    (package / "training").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "training" / "__init__.py").touch()
    (package / "augment.py").write_text("STRENGTH = 1\n")
    (package / "training" / "task.py").write_text("class Task: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("somebodys_app.training.task").Task
    before = digest_task(kind)
    assert digest_task(kind) == before
    (package / "augment.py").write_text("STRENGTH = 2\n")
    assert digest_task(kind) != before
    derived = type("Task", (kind,), {"__module__": "typed in"})
    assert digest_task(derived) != digest_task(kind)
    sys.modules.pop("somebodys_app.training.task")


def test_every_entry_lies_under_the_code_that_made_it(tmp_path: Path) -> None:
    code = deciding_code(SquaresTask())
    assert {"core", "task", "torch", "numpy", "onnxruntime", "python"} <= set(code)
    Ledger(tmp_path, code).keep("scored", {"a": 1}, Entry({"x": 1}))
    assert Ledger(tmp_path, code).find("scored", {"a": 1}) is not None
    assert Ledger(tmp_path, {**code, "torch": "0.1"}).find("scored", {"a": 1}) is None


class Digested(SquaresTask):
    def __init__(self, digest: str) -> None:
        super().__init__(40)
        self.digest = digest

    def training_digest(self) -> str:
        return self.digest


class Stating(SquaresTask):
    def training_loss(self) -> TaskLoss:
        return BINARY


class Smooth(SquaresTask):
    """The same weights with another function between the layers."""

    def __init__(self) -> None:
        super().__init__(40)
        self.baseline.network[2] = nn.SiLU()  # type: ignore[index, operator]


RECIPE = parse_recipe('version = 1\nname = "x"\n[source]\ntask = "squares"\n')


def test_data_loss_and_layers_are_in_the_keys(tmp_path: Path) -> None:
    tasks = [SquaresTask(40), Digested("a"), Digested("b"), Stating(40), Smooth()]
    keys = [CandidateBuilder(task, RECIPE, tmp_path).ledger_key(()) for task in tasks]
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == len(tasks)
    assert CandidateBuilder(Digested("a"), RECIPE, tmp_path).ledger_key(()) == keys[1]


def test_recovered_networks_of_other_code_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe(
        'version = 1\nname = "x"\n[source]\ntask = "squares"\n'
        '[[step]]\nkind = "prune-weights"\nsparsity = 0.5\n[[step]]\nkind = "recover"\nepochs = 1\n'
    )
    (candidate,) = candidates(recipe)
    epochs = []
    for code in ("one", "one", "other"):
        monkeypatch.setattr(
            "featherweight.core.search.candidates.deciding_code", lambda task, code=code: {"core": code}
        )
        shutil.rmtree(tmp_path / "ledger", ignore_errors=True)
        task = SquaresTask(40)
        CandidateBuilder(task, recipe, tmp_path).build(candidate)
        epochs.append(task.asked.count("training"))
    assert epochs[0] > 0
    assert epochs[1:] == [0, epochs[0]]
