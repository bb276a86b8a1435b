"""A search that is killed again and again repeats nothing that it finished, and ends as if nobody had killed it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from featherweight.core.evidence.report import CandidateRecord
from featherweight.core.optimize import optimize
from featherweight.core.recipe import Recipe, parse_recipe
from featherweight.core.search.candidates import CandidateBuilder, silent
from featherweight.core.search.explore import explore
from featherweight.core.search.measurements import Measurements
from featherweight.core.search.records import make_records
from featherweight.core.search.runtimes import find_runtimes
from featherweight.core.search.trial import Evaluator
from tests.fakes import TreesTask
from tests.integration.searching import RECIPE

KILLS = 3


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.searching", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Entry -> (inode, time of writing): one that is made again has others."""
    found = [(path.name, path.stat()) for path in (folder / "work" / "ledger").glob("*.safetensors")]
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found}


def told(records: Iterable[CandidateRecord]) -> list[tuple[object, ...]]:
    """What was tried, in order, without what a clock says."""
    found = [(one.name, one.loss, one.auc, one.size_bytes, one.settings) for one in records]
    assert len(found) > 4
    return found


@pytest.mark.timeout(900)
def test_killed_again_and_again_it_repeats_nothing_and_ends_with_the_same_choice(tmp_path: Path) -> None:
    folder, chance, kept = tmp_path / "killed", random.Random(3), dict[str, tuple[int, int]]()
    for _ in range(KILLS):
        process = start(folder)
        more = chance.randint(1, 4)
        while process.poll() is None and len(finished(folder)) < len(kept) + more:
            time.sleep(0.002)
        assert process.poll() is None, f"it ended before it was killed: {process.communicate()}"
        process.kill()
        process.communicate()
        now = finished(folder)
        assert now.items() >= kept.items()
        assert len(now) > len(kept)
        kept = now
    process = start(folder)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert finished(folder).items() >= kept.items()
    assert not list((folder / "work" / "ledger").glob(".*"))

    # All times are in the killed search's ledger now: whoever goes on from it chooses the same.
    recipe = parse_recipe(RECIPE)
    again = optimize(recipe, TreesTask(), tmp_path / "again", work=folder / "work", budget_s=600)
    assert again.evidence.validation.candidate.name == said
    assert told(again.evidence.candidates) == told(undisturbed(recipe, tmp_path / "undisturbed"))


def undisturbed(recipe: Recipe, work: Path) -> Sequence[CandidateRecord]:
    """The same search in one go, without the sealing."""
    task, runtimes = TreesTask(), find_runtimes(recipe.measure, "trees")
    workshop = CandidateBuilder(task, recipe, work)
    measurements = Measurements(recipe, task, runtimes, workshop.ledger, silent)
    bench = Evaluator(recipe, task, measurements, workshop.baseline())
    return make_records(recipe, explore(recipe, workshop, bench, 600, silent), None)
