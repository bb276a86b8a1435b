"""The batch job as a process that is killed, asked to stop, robbed of its workers, started twice."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import psutil
import pytest

from tests.imaging.running import read_rows, run, start
from tests.imaging.tiny import write_images

COUNT = 800


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, COUNT)
    (folder / "a" / "broken.dcm").write_bytes(b"\0" * 200)
    return folder


@pytest.fixture(scope="module")
def undisturbed(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    ended = run(images, out, model)
    assert ended.returncode == 3, ended.stderr
    assert len(read_rows(out)) > COUNT
    return out


def finished_items(out: Path, scratch: Path) -> int:
    """From a copy of the journal: the original is left exactly as the killed process left it."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for path in out.glob("journal.sqlite*"):
        shutil.copy(path, scratch)
    try:
        with contextlib.closing(sqlite3.connect(scratch / "journal.sqlite")) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM items").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("kills_wanted", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_with_the_same_rows(
    kills_wanted: int, images: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A quarter of the kills come at any moment of the start, the others while it classifies or writes."""
    out = tmp_path / "out"
    chance = random.Random(7)
    kills, progress = 0, [0]
    while kills < kills_wanted:
        process = start(images, out, model, "--batch-size", "2")
        assert process.stderr is not None
        if kills % 4:
            process.stderr.readline()
            time.sleep(chance.uniform(0, 0.1))
        else:
            time.sleep(chance.uniform(0.1, 1))
        if process.poll() is not None:
            assert process.returncode == 3, process.communicate()[1]
            shutil.rmtree(out)
        process.kill()
        process.communicate()
        kills += 1
        progress.append(finished_items(out, tmp_path / "copy"))
    assert len(set(progress) - {0, COUNT + 1}) >= 3, f"the kills must have come while it worked: {progress}"
    ended = run(images, out, model, "--batch-size", "2", "--json")
    assert ended.returncode == 3, ended.stderr
    assert json.loads(ended.stdout)["runs"] > 1
    assert read_rows(out) == read_rows(undisturbed)
    assert (out / "rejected.csv").read_bytes() == (undisturbed / "rejected.csv").read_bytes()
    assert not [path for path in out.iterdir() if "partial" in path.name]


def test_a_killed_job_leaves_no_process_behind(images: Path, model: Path, tmp_path: Path) -> None:
    process = start(images, tmp_path / "out", model)
    assert process.stderr is not None
    process.stderr.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_says_how_to_go_on(
    images: Path, model: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(images, out, model, "--batch-size", "4")
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(number)
    _, rest = process.communicate(timeout=20)
    assert "of 801 files" in first
    assert process.returncode == 130, rest
    assert "the same command goes on" in rest
    assert "Traceback" not in rest
    assert 0 < finished_items(out, tmp_path / "copy") < COUNT
    assert not (out / "summary.json").exists()
    assert run(images, out, model, "--batch-size", "4").returncode == 3
    assert read_rows(out) == read_rows(undisturbed)


def test_workers_may_die_while_it_runs(images: Path, model: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(images, out, model, "--batch-size", "2")
    assert process.stderr is not None
    process.stderr.readline()
    main = psutil.Process(process.pid)
    direct = {child.pid for child in main.children()}
    killed = 0
    for child in main.children(recursive=True):
        if child.pid not in direct:
            child.kill()
            killed += 1
    _, rest = process.communicate(timeout=30)
    assert killed >= 1
    assert process.returncode == 3, rest
    assert read_rows(out) == read_rows(undisturbed)


def test_a_second_process_is_refused_and_the_first_goes_on(images: Path, model: Path, tmp_path: Path) -> None:
    first = start(images, tmp_path / "out", model)
    assert first.stderr is not None
    first.stderr.readline()
    first.send_signal(signal.SIGSTOP)
    second = run(images, tmp_path / "out", model)
    first.send_signal(signal.SIGCONT)
    _, rest = first.communicate(timeout=30)
    assert second.returncode == 2
    assert "another process is classifying into this folder" in " ".join(second.stderr.split())
    assert first.returncode == 3, rest


def test_a_model_with_a_changed_byte_ends_with_code_5(images: Path, model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(model, bad)
    program = next(bad.rglob("*.onnx*"))
    program.write_bytes(program.read_bytes()[:-1] + b"!")
    ended = run(images, tmp_path / "out", bad)
    assert ended.returncode == 5
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_to_classify_is_a_usage_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "missing"):
        ended = run(tmp_path / source, tmp_path / "out", model)
        assert ended.returncode == 2, ended.stderr
        assert "Traceback" not in ended.stderr
