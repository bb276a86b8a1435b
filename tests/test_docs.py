"""The documentation: its reference covers the code, its site builds strictly, its tutorials run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from featherweight.core.passes.steps import STEPS
from featherweight.core.recipe import keys
from featherweight.core.request import recipe_example, registered_tasks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = sorted(path.stem for path in (DOCS / "tutorials").glob("*.md"))


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def reference(name: str, generated: ModuleType) -> str:
    filled: str = generated.fill_in((DOCS / "reference" / f"{name}.md").read_text("utf-8"))
    return filled


def test_the_reference_has_every_key_of_a_recipe(generated: ModuleType) -> None:
    page = reference("recipe", generated).partition("## A recipe for")[0]
    found = [*keys.top_keys(), *keys.measure_keys(), *keys.limit_keys(), *keys.decision_keys()]
    found += [key for kind in STEPS for key in keys.step_keys(kind)]
    found += [key for task in registered_tasks() for key in keys.source_keys(recipe_example(task).settings)]
    for key in found:
        assert f"| `{key.name}` | {key.meaning.replace('|', chr(92) + '|')} |" in page


def test_the_reference_has_every_command_and_option_with_its_help(generated: ModuleType) -> None:
    page = reference("command-line", generated)
    commands = dict(generated.commands())
    assert {"featherweight recipe new", "featherweight fraud serve", "featherweight imaging classify"} <= set(commands)
    for words, command in commands.items():
        section = page.partition(f"## `{words}`\n")[2].partition("\n## `")[0]
        assert command.help, words
        for param in command.params:
            if not param.hidden and "--version" not in param.opts:
                assert param.help, f"{words} {param.name}: has no help"
                assert (f"`{param.opts[0]}" if param.opts[0].startswith("-") else f"`{param.name.upper()}`") in section


def test_the_reference_has_every_key_of_the_evidence(generated: ModuleType) -> None:
    page = reference("evidence-json", generated)
    schema = json.loads(
        files("featherweight.core.evidence.reports").joinpath("evidence.schema.json").read_text("utf-8")
    )
    for part in (schema, *schema["$defs"].values()):
        for name in part.get("properties", {}):
            assert f"`{name}`" in page
    assert all(f"## {name}\n" in page for name in schema["$defs"])


def test_every_diagram_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens the site has no network, and whoever builds it no browser."""
    monkeypatch.syspath_prepend(DOCS)
    draw = importlib.import_module("draw")
    drawn = {draw.path_of(source) for source in draw.sources()}
    assert drawn == set(draw.DRAWN.glob("*.svg"))
    assert drawn
    for path in drawn:
        text = path.read_text("utf-8")
        assert text.startswith("<svg")
        assert not re.search(r"<script|<foreignObject|https?://(?!www\.w3\.org/)", text)


def test_every_field_of_a_file_or_message_has_a_meaning(generated: ModuleType) -> None:
    """Of all types that the pages name, and of all types that these hold."""
    pages = "".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md"))
    named = set(re.findall(r"^% generated: fields (\S+)$", pages, re.MULTILINE))
    assert len(named) > 15
    for path in named:
        table = generated.fields(path)
        assert "|  |\n" not in table, f"{path}: a field without a meaning\n{table}"
        kind = generated._load(path)
        if issubclass(kind, msgspec.Struct):
            held = set(re.findall(r"a `(\w+)`", table))
            assert held <= {name.rpartition(":")[2] for name in named}, f"{path} holds types that no page explains"


def test_the_columns_of_the_results_are_those_of_the_page() -> None:
    from featherweight.apps.imaging.training.folder import _COLUMNS
    from featherweight.apps.imaging.writers.rows import rejected_columns, result_columns

    page = (DOCS / "reference" / "files.md").read_text("utf-8")

    def documented(heading: str) -> list[str]:
        section = page.partition(f"### {heading}\n")[2].partition("\n###")[0]
        return [
            name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
        ]

    assert documented("results.csv and results.parquet") == list(result_columns(""))
    assert documented("rejected.csv and rejected.parquet") == list(rejected_columns())
    assert documented("labels.csv") == list(_COLUMNS)


def test_the_page_of_files_names_every_file_of_an_artifact() -> None:
    page = (DOCS / "reference" / "files.md").read_text("utf-8")
    for path in (ROOT / "data" / "models").glob("*/**/*"):
        if path.is_file():
            assert path.name in page, path


def test_every_exit_code_of_an_error_is_explained() -> None:
    from featherweight.core import errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    page = (DOCS / "operations.md").read_text("utf-8").partition("## Exit codes")[2].partition("\n## ")[0]
    assert codes | {0, 3, 130} == {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}


def build(docs: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-b", "dirhtml"]
    return subprocess.run([*words, str(docs), str(out)], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    built = build(DOCS, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    for path in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*", path.read_text("utf-8")
        )
        assert fetched == [], path
    for path in (tmp_path / "site").rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)[\s\"']*(?:https?:)?//", path.read_text("utf-8")) == [], path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_broken_link_a_missing_anchor_and_an_unknown_name_fail(tmp_path: Path) -> None:
    for name in ("docs", "core", "apps", "data", "bench", "tests", "src"):
        if name == "docs":
            shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build"))
        else:
            (tmp_path / name).symlink_to(ROOT / name)
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        "constraints.txt",
        "pyproject.toml",
    ):
        (tmp_path / name).symlink_to(ROOT / name)
    with (tmp_path / "docs" / "start.md").open("a") as page:
        page.write(
            "\n[a](nowhere.md) [b](operations.md#no-such-part) [c](../core/nothing.py) {py:func}`featherweight.no`\n"
        )
    built = build(tmp_path / "docs", tmp_path / "site")
    assert built.returncode != 0
    warnings = [line for line in built.stderr.splitlines() if "start.md" in line]
    assert len(warnings) == 4, built.stderr
    for planted in ("nowhere.md", "no-such-part", "nothing.py", "featherweight.no"):
        assert any(planted in line for line in warnings), built.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """Every line of its consoles, one after the other in one shell that stops at the first that fails."""
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / "tutorials" / f"{name}.md").read_text("utf-8"), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert len(lines) > 5
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = "set -euo pipefail\nset -x\n" + "\n".join(lines).replace("8000", str(port)) + "\n"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
