"""`featherweight compare` from end to end: verdict, exit code, page, JSON; what is asked wrongly is told at once."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import featherweight
from featherweight.core import cli
from tests.core.compare.tabled import drawn, shuffled, write

SCHEMA = json.loads(files("featherweight.core.evidence.reports").joinpath("evidence.schema.json").read_text("utf-8"))
ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With tables of cases and of two models that are nearly the same, in the current folder."""
    monkeypatch.chdir(tmp_path)
    cases, old, new = drawn()
    write(tmp_path / "cases.csv", cases)
    write(tmp_path / "old.csv", old)
    write(tmp_path / "new.parquet", shuffled(new, 1))
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`compare` with what every test needs; returns what it prints on both streams."""

    def call(*words: str, code: int = 0, a: str = "old.csv", b: str = "new.parquet") -> str:
        usual = ["compare", a, b, "--data", "cases.csv", "--label", "y", "--out", "verdict"]
        monkeypatch.setattr(sys, "argv", ["featherweight", *usual, *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        assert ended.value.code == code, told
        return told.out + told.err

    return call


def words_of(page: Path) -> str:
    """What a reader of the page sees, without the style sheet."""
    text = re.sub(r"<style.*?</style>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_a_kept_limit_ends_with_0_and_a_missed_one_with_4(run: Run, folder: Path) -> None:
    said = run("--threshold", "1", "--limit", "auc_loss=.05", "--limit", "sensitivity_loss=0.1")
    assert said.startswith("passed: new against old; 2 of 2 limits kept\n")
    assert "page: verdict/evidence.html" in said
    assert sorted(path.name for path in (folder / "verdict").iterdir()) == ["evidence.html", "evidence.json"]
    said = run("--threshold", "1", "--limit", "auc_loss=.0001", "--limit", "sensitivity_loss=0.1", code=4)
    assert said.startswith("not passed: new against old; 1 of 2 limits kept\n")
    assert json.loads((folder / "verdict" / "evidence.json").read_text())["passed"] is False


def test_the_document_is_a_comparison_by_the_published_schema(run: Run, folder: Path) -> None:
    asked = ("--threshold-in-force", "1", "--prevalence", "0.01", "--cost-missed", "50", "--cost-alarm", "1")
    told = run("--limit", "auc_loss=.05", "--cluster", "patient", "--groups", "site", *asked, "--json")
    document = json.loads((folder / "verdict" / "evidence.json").read_text())
    Draft202012Validator(SCHEMA).validate(document)
    assert (document["kind"], document["decided_on"]) == ("comparison", "given")
    assert document["given"]["cases"] == 400
    assert [row["value"] for row in document["given"]["subgroups"]["rows"]] == ["north", "south"]
    assert (document["validation"], document["test"], document["candidates"], document["search"]) == (
        None,
        None,
        [],
        None,
    )
    assert document["in_force"]["prevalence"] == 0.01
    assert document["given"]["baseline"]["threshold"] == document["given"]["candidate"]["threshold"] == 1
    row = json.loads(told)
    assert row["passed"] is True
    assert row["checks"][0]["found"] == document["given"]["checks"][0]["found"]
    without = json.loads((Path(featherweight.__file__).parents[2] / "data/models/chest-xray/evidence.json").read_text())
    Draft202012Validator(SCHEMA).validate(without)  # older documents stay valid


def test_the_page_speaks_of_nothing_that_was_not_done(run: Run, folder: Path) -> None:
    run("--threshold-in-force", "1", "--limit", "auc_loss=.05", "--groups", "site")
    page = folder / "verdict" / "evidence.html"
    text = words_of(page)
    assert "new against old" in text
    assert "on the given cases" in text
    assert "If the threshold stays at 1" in text
    assert "Sensitivity as before" in text
    for word in (
        "Candidates tried",
        "validation",
        "test cases",
        "Latency",
        "latency",
        "sealed",
        "CHANGE_RECORD",
        "epochs",
    ):
        assert word not in text, word
    assert not re.search(r"<script|src=|https?://(?!www\.w3\.org)", page.read_text("utf-8"))


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_the_verdict_does_not_depend_on_the_order_of_rows(folder: Path, seed: int) -> None:
    cases, old, new = drawn(120)

    def found(*tables: object) -> list[tuple[str, float | None]]:
        data, a, b = tables
        limits = {"auc_loss": 0.02, "specificity_loss": 0.05}
        outcome = featherweight.compare(
            a, b, data=data, label="y", limits=limits, threshold=1.0, cluster="patient", out=folder / "v"
        )
        return [(check.status, round(check.found, 12)) for check in outcome.checks if check.found is not None]

    assert found(cases, shuffled(old, seed), shuffled(new, seed + 1)) == found(cases, old, new)


def test_a_site_that_keeps_its_threshold_is_told_what_changes(folder: Path) -> None:
    """The ranking is the same and so no limit on it is missed; sensitivity at the kept threshold is lost."""
    cases, old, _ = drawn()
    shifted = {**old, "score": old["score"] / 2}
    limits = {"auc_loss": 0.01, "average_precision_loss": 0.01}
    outcome = featherweight.compare(old, shifted, data=cases, label="y", limits=limits, in_force=1.0, out=folder / "v")
    assert outcome.passed
    found = {one.name: one for one in outcome.evidence.in_force.figures}
    assert found["sensitivity"].difference.high < -0.1
    assert [one.threshold.estimate for one in outcome.evidence.in_force.reproduced] == pytest.approx(
        [0.5, 0.5], abs=0.1
    )
    limits["sensitivity_loss"] = 0.05
    assert not featherweight.compare(
        old, shifted, data=cases, label="y", limits=limits, in_force=1.0, out=folder / "v"
    ).passed


def test_limits_are_those_of_recipes(run: Run, folder: Path) -> None:
    path = folder / "limits.toml"
    path.write_text("[limits]\nauc_loss = 0.05\nunseen_case = 'as-seen'\n")
    assert "1 of 1 limit kept" in run("--threshold", "1", "--limits", "limits.toml")
    path.write_text("[limits]\nauc_los = 0.05\nsensitivity_loss = 3\n")
    said = run("--threshold", "1", "--limits", "limits.toml", code=2)
    assert 'limits.auc_los: unknown key; did you mean "auc_loss"?' in said
    assert "limits.sensitivity_loss: found 3" in said
    path.write_text("[limit]\nauc_loss = 0.05\n")
    assert "limit: unknown key; known here: limits" in run("--threshold", "1", "--limits", "limits.toml", code=2)
    path.write_text("limits = 3\n")
    assert "expected a table [limits]" in run("--threshold", "1", "--limits", "limits.toml", code=2)
    path.write_text("version = 1\nname = 'x'\n[limits]\nauc_loss = 0.05\n")
    assert "source.task: missing" in run("--threshold", "1", "--limits", "limits.toml", code=2)
    path.write_text("version = 1\nname = 'x'\n[source]\ntask = 'imaging'\n[limits]\nauc_loss = 0.05\n")
    run("--threshold", "1", "--limits", "limits.toml")
    said = run("--threshold", "1", "--limits", "limits.toml", "--limit", "auc_loss=0.1", code=2)
    assert "the limit 'auc_loss' is set in limits.toml and on its own" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threshold", "1"), "no limit is set"),
        (("--limit", "auc_loss=.05"), "old: nothing says from which score on a case is positive"),
        (("--threshold", "1", "--limit", "auc_loss"), "expected NAME=VALUE"),
        (("--threshold", "1", "--limit", "auc_loss=much"), "limits.auc_loss: found the text 'much'"),
        (("--threshold", "1", "--limit", "auc_loss=1", "--limit", "auc_loss=2"), "auc_loss is given twice"),
        (("--threshold", "1", "--limit", "latency_ratio_min=2"), "a comparison times nothing"),
        (("--threshold", "1", "--limit", "size_ratio_min=2"), "no size as a model"),
        (("--threshold", "nan", "--limit", "auc_loss=.1"), "not a finite number"),
        (("--threshold", "1", "--threshold-a", "1", "--limit", "auc_loss=.1"), "--threshold is for both"),
        (("--threshold", "1", "--limit", "auc_loss=.1", "--prevalence", ".1"), "for a threshold in force"),
        (("--threshold-in-force", "1", "--limit", "auc_loss=.1", "--prevalence", "2"), "above 0 and below 1"),
        (("--threshold-in-force", "1", "--limit", "auc_loss=.1", "--cost-alarm", "2"), "without the other"),
        (("--threshold-in-force", "inf", "--limit", "auc_loss=.1"), "not a finite number"),
        (("--threshold", "1", "--limit", "auc_loss=.1", "--cluster", "ward"), "no column 'ward'"),
        (("--threshold", "1", "--limit", "auc_loss=.1", "--label", "site"), "others than 0 and 1"),
        (("--threshold", "review=1", "--threshold", "2", "--limit", "auc_loss=.1"), "a different NAME=VALUE"),
        (("--threshold", "1e400", "--limit", "auc_loss=.1"), "not a finite number"),
        (("--threshold", "1", "--limit", "auc_loss=" + "9" * 400), "limits.auc_loss: found inf"),
        (
            ("--threshold", "1", "--limit", "auc_loss=.1", "--cluster", "patient", "--cluster", "patient"),
            "different ones",
        ),
        (
            ("--threshold-in-force", "1", "--limit", "auc_loss=.1", "--cost-alarm", "1e308", "--cost-missed", "1"),
            "at most",
        ),
    ],
)
def test_what_is_asked_wrongly_is_told(run: Run, folder: Path, words: tuple[str, ...], said: str) -> None:
    assert said in run(*words, code=2)
    assert not (folder / "verdict").exists()


def test_models_that_are_not_there_or_are_something_else(run: Run, folder: Path) -> None:
    limit = ("--threshold", "1", "--limit", "auc_loss=.1")
    assert "there is no such file or folder" in run(*limit, a="none", code=2)
    (folder / "model.pkl").write_bytes(b"no")
    assert "is none of these" in run(*limit, b="model.pkl", code=2)
    (folder / "empty").mkdir()
    assert "manifest.json" in run(*limit, b="empty", code=2)


def test_an_artifact_is_never_written_into(run: Run, folder: Path) -> None:
    (folder / "verdict").mkdir()
    (folder / "verdict" / "manifest.json").write_text("{}")
    assert "is an artifact" in run("--threshold", "1", "--limit", "auc_loss=.1", code=2)
    assert [path.name for path in (folder / "verdict").iterdir()] == ["manifest.json"]


def test_the_same_scores_twice_are_pointed_out(run: Run) -> None:
    said = run("--threshold", "1", "--limit", "auc_loss=.01", b="old.csv")
    assert "old (B) against old (A)" in said
    assert "were two different ones meant?" in said


def test_the_documented_gate_runs(folder: Path) -> None:
    """The command of the workflow in the documentation, on tables as it names them."""
    text = (ROOT / "docs" / "examples" / "gate.yml").read_text("utf-8")
    [command] = re.findall(r"- run: >-\n((?: {10}.*\n)+)", text)
    [options] = re.findall(r"(?s)```toml\n(\[limits\].*?)```", (ROOT / "docs" / "howto.md").read_text("utf-8"))
    cases, old, new = drawn(2000, noise=0.02)
    (folder / "gate").mkdir()
    (folder / "limits.toml").write_text(options)
    write(folder / "gate" / "cases.csv", {**cases, "label": cases["y"]})
    write(folder / "gate" / "in-use.csv", old)
    write(folder / "gate" / "proposed.csv", new)
    words = command.split()
    assert words[0] == "featherweight"
    program = "from featherweight.core.cli import main; main()"
    for code in (0, 4):
        done = subprocess.run([sys.executable, "-c", program, *words[1:]], cwd=folder, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        write(folder / "gate" / "proposed.csv", {**new, "score": new["score"] - 1})
    assert (folder / "verdict" / "evidence.html").is_file()
    assert set(re.findall(r"uses: (\S+)@", text)) == {
        "actions/" + name for name in ("checkout", "setup-python", "upload-artifact")
    }


def test_labels_of_names(run: Run, folder: Path) -> None:
    cases, *_ = drawn()
    write(folder / "cases.csv", {**cases, "y": np.array(["benign", "cancer"])[cases["y"]]})
    run("--threshold", "1", "--limit", "auc_loss=.05", "--positive", "cancer")
    document = json.loads((folder / "verdict" / "evidence.json").read_text())
    assert document["labels"] == ["benign", "cancer"]


def test_it_needs_nothing_to_train_with(folder: Path) -> None:
    words = ["compare", "old.csv", "new.parquet", "--data", "cases.csv", "--label", "y", "--out", "v"]
    words += ["--threshold", "1", "--limit", "auc_loss=.05"]
    program = (
        "import json, sys\n"
        f"sys.argv = ['featherweight', *{words!r}]\n"
        "from featherweight.core.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(json.dumps(sorted({'torch', 'sklearn', 'onnx', 'onnxruntime', 'numba', 'pandas'} & sys.modules.keys())))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    import importlib.util

    usual = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "scipy" else usual(name, *rest)
    )
    assert "extra 'compare'" in run("--threshold", "1", "--limit", "auc_loss=.05", code=2)
