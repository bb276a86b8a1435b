"""What a run says of the folder as it is: files that are gone, that never were, none at all, results among images."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from apps.imaging.batch import Job, run_job
from apps.imaging.classify import SealedModel, read_model
from apps.imaging.journal import Journal
from apps.imaging.writers.summary import Summary
from core.errors import UsageError
from tests.imaging.running import run
from tests.imaging.tiny import write_dicom, write_images, write_model

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_model(directory)
    return directory


@pytest.fixture(scope="module")
def model(folder: Path) -> SealedModel:
    return read_model(folder)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", COUNT)
    return tmp_path / "in"


def classify(model: SealedModel, source: Path, out: Path, **changes: object) -> Summary:
    job = Job(source=source, out=out, **({"workers": 1, "batch": 8} | changes))  # type: ignore[arg-type]
    summary = run_job(job, model, on_progress=lambda _: None, stopping=lambda: False)
    assert summary is not None
    return summary


def read(out: Path, table: str) -> dict[str, dict[str, str]]:
    with (out / table).open(newline="") as file:
        return {row["source"]: row for row in csv.DictReader(file)}


def test_files_that_are_gone_leave_every_output_and_are_named(model: SealedModel, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (images / "bad.png").write_bytes(b"no image")
    classify(model, images, out)
    (images / "bad.png").unlink()
    (images / "a" / "0000.png").unlink()
    summary = classify(model, images, out)
    assert (summary.dropped_items, summary.dropped) == (2, ("a/0000.png", "bad.png"))
    assert (summary.items, summary.items_this_run, summary.rejected) == (COUNT - 1, 0, 0)
    assert read(out, "rejected.csv") == {}
    assert read(out, "results.csv").keys() == {str(path.relative_to(images)) for path in images.rglob("*.*")}
    page = (out / "index.html").read_text()
    assert 'class="row' in page
    assert "a/0000.png, bad.png" in page  # among the facts of the run, and nowhere else
    assert page.count("bad.png") == 1
    assert b"0000.png" not in (out / "journal.sqlite").read_bytes()
    assert classify(model, images, out).dropped_items == 0


def test_the_command_says_what_it_dropped(images: Path, folder: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out", folder)
    shutil.rmtree(images / "a")
    done = run(images, tmp_path / "out", folder)
    assert done.returncode == 0, done.stderr
    assert "dropped: 6 files of earlier runs, no longer in the source (a/0000.png, " in done.stdout


def test_a_list_that_no_longer_names_a_file_drops_it(model: SealedModel, images: Path, tmp_path: Path) -> None:
    listing, out = images / "list.csv", tmp_path / "out"
    listing.write_text("path\na/0000.png\nb/0001.jpg\n")
    classify(model, listing, out)
    listing.write_text("path\nb/0001.jpg\n")
    assert classify(model, listing, out).dropped == ("a/0000.png",)
    assert read(out, "results.csv").keys() == {"b/0001.jpg"}


def test_a_run_that_was_stopped_drops_nothing(model: SealedModel, images: Path, tmp_path: Path) -> None:
    """It has not seen all of the source."""
    out = tmp_path / "out"
    classify(model, images, out)
    Image.new("L", (40, 40), 10).save(images / "a" / "0000.png")
    Image.new("L", (40, 40), 10).save(images / "a" / "0006.png")
    seen: list[object] = []
    job = Job(source=images, out=out, workers=1, batch=1)
    assert run_job(job, model, on_progress=seen.append, stopping=lambda: bool(seen)) is None
    summary = classify(model, images, out)
    assert (summary.dropped_items, summary.items) == (0, COUNT)


def test_what_a_list_names_and_never_was_is_missing(model: SealedModel, images: Path, tmp_path: Path) -> None:
    (images / "list.csv").write_text("path\na/0000.png\na/never.png\nnowhere/0.png\n")
    (images / "a" / "link.png").symlink_to(images / "nowhere.png")
    classify(model, images / "list.csv", tmp_path / "listed")
    found = read(tmp_path / "listed", "rejected.csv")
    assert {name: row["reason"] for name, row in found.items()} == {
        "a/never.png": "missing",
        "nowhere/0.png": "missing",
    }
    assert "no such file" in found["a/never.png"]["message"]
    (images / "list.csv").unlink()
    classify(model, images, tmp_path / "walked")
    (link,) = read(tmp_path / "walked", "rejected.csv").values()
    assert (link["reason"], "a link that leads to no file" in link["message"]) == ("missing", True)


@pytest.mark.parametrize("listed", [False, True])
def test_what_goes_while_the_job_runs_has_vanished(
    listed: bool, model: SealedModel, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is taken away after the job has looked at it and before a worker reads it."""
    source = images
    if listed:
        source = images / "list.csv"
        source.write_text("path\na/0000.png\nb/0001.jpg\n")
    looked = Journal.is_finished

    def look(journal: Journal, name: str, stamp: object) -> bool:
        if name == "b/0001.jpg":
            (images / name).unlink()
        return looked(journal, name, stamp)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "is_finished", look)
    classify(model, source, tmp_path / "out")
    reasons = {row["source"]: row["reason"] for row in read(tmp_path / "out", "rejected.csv").values()}
    assert reasons["b/0001.jpg"] == "vanished"


def test_results_among_the_images_are_refused_as_what_they_are(
    model: SealedModel, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(images)
    before = sorted(images.rglob("*"))
    for out in (images, tmp_path / "link", images / "a" / ".."):
        with pytest.raises(UsageError, match="--out is the folder of the images itself"):
            classify(model, images, out, allow_empty=True)
    assert sorted(images.rglob("*")) == before


def test_images_in_an_out_inside_the_source_are_classified(model: SealedModel, images: Path) -> None:
    """Only what the job itself writes there is left out."""
    for _ in range(2):
        summary = classify(model, images, images / "a")
        assert (summary.items, summary.rejected) == (COUNT, 0)
    assert (images / "a" / "index.html").exists()


@pytest.mark.parametrize("name", ["results.csv", "results.parquet"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_list_is_not_written_over(name: str, restart: bool, model: SealedModel, images: Path, tmp_path: Path) -> None:
    classify(model, images, tmp_path / "out")
    before = (tmp_path / "out" / name).read_bytes()
    with pytest.raises(UsageError, match="is a file that this job itself writes"):
        classify(model, tmp_path / "out" / name, tmp_path / "out", restart=restart)
    assert (tmp_path / "out" / name).read_bytes() == before


def test_links_in_a_circle_are_no_source(model: SealedModel, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UsageError, match="no such file or folder"):
        classify(model, tmp_path / "circle", tmp_path / "out")


def test_an_empty_night_is_a_result_where_it_is_allowed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    refused = run(tmp_path / "in", tmp_path / "out", folder)
    assert (refused.returncode, "--allow-empty" in refused.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
    done = run(tmp_path / "in", tmp_path / "out", folder, "--allow-empty", "--max-rejected-share", "0")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["items"] == 0
    assert read(tmp_path / "out", "results.csv") == {}
    assert "The source held no files" in (tmp_path / "out" / "index.html").read_text()
    assert run(tmp_path / "missing", tmp_path / "other", folder, "--allow-empty").returncode == 2


def test_a_share_of_rejected_files_is_told_by_its_own_code(images: Path, folder: Path, tmp_path: Path) -> None:
    for index in range(COUNT):
        (images / f"bad{index}.dcm").write_bytes(b"no image")
    codes = {}
    for share in ("", "0.5", "0.49"):
        options = ("--max-rejected-share", share) if share else ()
        done = run(images, tmp_path / "out", folder, *options, "--json")
        codes[share] = done.returncode
        assert json.loads(done.stdout)["rejected"] == COUNT
        assert ("12 of 24 files were rejected" in done.stderr) == (done.returncode == 4)
    assert codes == {"": 3, "0.5": 3, "0.49": 4}
    assert run(images, tmp_path / "out", folder, "--max-rejected-share", "nan").returncode == 2


def test_two_files_of_one_instance_are_both_there_and_both_marked(
    model: SealedModel, images: Path, tmp_path: Path
) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 1, 40, 40), dtype=np.uint8)
    for name, picture in zip(("one.dcm", "two.dcm"), pictures, strict=True):
        write_dicom(images / name, picture)
        data = dcmread(images / name)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        data.save_as(images / name)
    summary = classify(model, images, tmp_path / "out")
    assert summary.repeated_instances == 1
    rows = read(tmp_path / "out", "results.csv")
    assert {name: row["notes"] for name, row in rows.items() if row["notes"]} == {
        "one.dcm": "the same SOP Instance UID as two.dcm",
        "two.dcm": "the same SOP Instance UID as one.dcm",
    }
    assert (tmp_path / "out" / "index.html").read_text().count("the same SOP Instance UID as") == 2


def test_the_unit_tries_again_what_heals_and_nothing_else() -> None:
    """A full disk (6) and a kill are worth another start; a damaged journal (7) would be started for ever."""
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    codes = set(re.search(r"^RestartPreventExitStatus=(.*)$", manual, re.MULTILINE)[1].split())
    assert {"2", "4", "5", "7"} <= codes
    assert not {"3", "6", "130"} & codes
    for code in (2, 3, 4, 5, 6, 7, 130):
        assert re.search(rf"^\| {code} \|", manual, re.MULTILINE), code
