"""A command writes a folder or a file alone: of two at once, the second ends with 2 and a clear line."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from featherweight.core.bundled import bundled_model
from featherweight.core.errors import FeatherweightError, UsageError
from featherweight.core.optimize import optimize
from featherweight.core.recipe import parse_recipe
from tests.core.test_files import HOLDER
from tests.fakes import TreesTask
from tests.integration.searching import RECIPE

FEATHERWEIGHT = (sys.executable, "-m", "featherweight.core.cli")
COMMANDS = {
    "artifact export": f"artifact export {bundled_model('chest-xray')} --target ort-mobile --out OUT",
    "data fetch": "data fetch pneumoniamnist --from source --to .",
    "fraud score": "fraud score --input transactions.jsonl --output OUT",
    "fraud synthesize": "fraud synthesize OUT --customers 5 --terminals 5 --days 2",
    "imaging synthesize": "imaging synthesize OUT --count 2 --image-size 64",
}


def hold(out: Path) -> subprocess.Popen[str]:
    """A process that writes there alone, until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_second_writer_is_refused_and_touches_nothing(command: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"a copy")
    (tmp_path / "transactions.jsonl").write_text(
        '{"transaction_id": "t", "customer_id": "c", "terminal_id": "m", "time_ms": 1522540800000, "amount": 1.5}\n'
    )
    out = "pneumoniamnist.npz" if command.startswith("data") else "out"
    with hold(tmp_path / out) as first:
        before = sorted(tmp_path.iterdir())
        words = command.replace("OUT", out).split()
        second = subprocess.run([*FEATHERWEIGHT, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (second.returncode, second.stdout) == (2, ""), second.stderr
        told = " ".join(second.stderr.split())
        assert f"{out}: another process writes there at this moment; wait until it has ended, or choose another" in told
        assert sorted(tmp_path.iterdir()) == before
        first.communicate()


def test_a_search_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE.replace("[source]", 'card = "none.md"\n[source]', 1))
    with pytest.raises(FeatherweightError, match=r"none\.md"):
        optimize(recipe, TreesTask(), tmp_path / "m" / "out", work=tmp_path / "runs" / "rows" / "work")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    words = ["artifact", "export", "nosuch", "--target", "ort-mobile", "--out", "e/f/g"]
    done = subprocess.run([*FEATHERWEIGHT, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_two_searches_of_one_recipe_do_not_share_its_working_folder(tmp_path: Path) -> None:
    """Each has an --out of its own; what both would write is below `runs/NAME`."""
    work = tmp_path / "runs" / "rows" / "work"
    with hold(work) as first:
        with pytest.raises(
            UsageError, match=r"another process writes there.*choose another name for the recipe"
        ) as told:
            optimize(parse_recipe(RECIPE), TreesTask(), tmp_path / "second", work=work)
        assert told.value.exit_code == 2
        assert not work.exists()
        assert not (tmp_path / "second").exists()
        first.communicate()


def test_of_two_that_draw_images_at_once_the_first_one_s_are_whole(tmp_path: Path) -> None:
    def synthesize(seed: int) -> subprocess.Popen[str]:
        words = ("imaging", "synthesize", "out", "--count", "60", "--image-size", "128", "--seed", str(seed))
        return subprocess.Popen(
            [*FEATHERWEIGHT, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    out, first = tmp_path / "out", synthesize(1)
    while not (tmp_path / ".out.lock").exists() and first.poll() is None:
        time.sleep(0.01)
    second = synthesize(2)
    _, told = second.communicate(timeout=120)
    _, rest = first.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 2), (rest, told)
    assert "another process writes there" in told
    with (out / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert {row["patient"][:4] for row in rows} == {"S001"}
    assert {out / row["path"] for row in rows} == set(out.rglob("*.dcm"))
    assert all(pydicom.dcmread(out / row["path"]).PatientID == row["patient"] for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
