from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from featherweight.apps.imaging.batch.job import Job, JobProgress, run_job
from featherweight.apps.imaging.classify import SealedModel, read_model
from featherweight.apps.imaging.journal import Journal
from featherweight.apps.imaging.writers.summary import Summary
from featherweight.core.errors import ArtifactError, OutputError, UsageError
from featherweight.core.program import Program
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import TensorSpec
from tests.imaging.running import run
from tests.imaging.tiny import SIDE, write_dicom, write_images, write_model
from tests.small_programs import file_that_does_not_open

COUNT, FRAMES = 36, 38


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SealedModel:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_model(directory)
    return read_model(ModelSource(directory))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", COUNT)
    return tmp_path / "in"


def classify(model: SealedModel, source: Path, out: Path, **changes: object) -> Summary:
    settings = {"workers": 2, "batch": 8} | changes
    summary = run_job(
        Job(source=source, out=out, **settings),  # type: ignore[arg-type]
        model,
        on_progress=lambda _: None,
        stopping=lambda: False,
    )
    assert summary is not None
    return summary


def rows(out: Path) -> list[dict[str, object]]:
    """The results without their times."""
    table = pq.read_table(out / "results.parquet").drop_columns(["decode_ms", "inference_ms"])
    return table.to_pylist()


def rejected(out: Path) -> dict[str, str]:
    with (out / "rejected.csv").open(newline="") as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


def test_every_frame_is_a_row_in_every_output(model: SealedModel, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = classify(model, images, out)
    found = rows(out)
    assert len(found) == FRAMES
    assert [(row["source"], row["frame"]) for row in found] == sorted((row["source"], row["frame"]) for row in found)
    assert {row["source"] for row in found} == {str(p.relative_to(images)) for p in images.rglob("*.*")}
    assert {row["model_sha256"] for row in found} == {model.chosen.artifact.sha256}
    assert all(bool(row["sop_instance_uid"]) == str(row["source"]).endswith(".dcm") for row in found)
    assert len({row["decision"] for row in found}) == 2
    with (out / "results.csv").open(newline="") as file:
        assert [(row["source"], float(row["probability"])) for row in csv.DictReader(file)] == [
            (row["source"], row["probability"]) for row in found
        ]
    written = json.loads((out / "summary.json").read_text())
    assert (written["images"], written["items"], written["rejected"]) == (FRAMES, COUNT, 0)
    assert sum(written["decisions"].values()) == FRAMES
    assert summary.seconds.inference > 0
    assert summary.seconds.decode > 0
    page = (out / "index.html").read_text()
    assert page.count('class="row') == page.count("data:image/jpeg") == FRAMES


def test_the_rows_do_not_depend_on_workers_or_interruptions(model: SealedModel, images: Path, tmp_path: Path) -> None:
    classify(model, images, tmp_path / "one", workers=1, batch=16)
    seen: list[JobProgress] = []
    for limit in (1, 2, 3, 99):
        seen.clear()
        finished = run_job(
            Job(source=images, out=tmp_path / "two", workers=2, batch=16),
            model,
            on_progress=seen.append,
            stopping=lambda limit=limit: len(seen) >= limit,
        )
        if finished is not None:
            break
    assert finished is not None
    assert finished.runs > 1
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


def test_a_stopped_job_keeps_what_it_did_and_writes_no_summary(
    model: SealedModel, images: Path, tmp_path: Path
) -> None:
    seen: list[JobProgress] = []
    job = Job(source=images, out=tmp_path / "out", workers=2, batch=4)
    assert run_job(job, model, on_progress=seen.append, stopping=lambda: bool(seen)) is None
    assert 0 < seen[-1].done < COUNT
    assert not (tmp_path / "out" / "summary.json").exists()
    again: list[JobProgress] = []
    assert run_job(job, model, on_progress=again.append, stopping=lambda: False) is not None
    assert again[-1].done == COUNT
    assert again[-1].earlier == seen[-1].done


def test_only_what_is_new_or_changed_is_classified_again(model: SealedModel, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    classify(model, images, out)
    before = {str(row["source"]): row["probability"] for row in rows(out)}
    assert classify(model, images, out).items_this_run == 0
    changed, gone, new = "a/0000.png", "b/0001.jpg", "a/new.png"
    Image.new("L", (40, 40), 200).save(images / changed)
    Image.new("L", (40, 40), 10).save(images / new)
    (images / gone).unlink()
    assert classify(model, images, out).items_this_run == 2
    after = {str(row["source"]): row["probability"] for row in rows(out)}
    assert after.keys() == before.keys() - {gone} | {new}
    assert after[changed] != before[changed]


def test_bad_files_are_rejected_and_the_rest_goes_on(model: SealedModel, images: Path, tmp_path: Path) -> None:
    whole = (images / "a" / "0002.dcm").read_bytes()
    (images / "empty.dcm").touch()
    (images / "short.dcm").write_bytes(whole[: len(whole) // 2])
    (images / "text.png").write_text("not a picture")
    (images / "dangling.png").symlink_to(images / "nowhere.png")
    (images / "folder.png").mkdir()
    classified = classify(model, images, tmp_path / "out")
    assert rejected(tmp_path / "out").keys() == {"empty.dcm", "short.dcm", "text.png", "dangling.png"}
    assert len(rows(tmp_path / "out")) == FRAMES
    # Half of a file of two frames holds neither, and each has its row.
    assert (classified.rejected, classified.rejected_items) == (5, 4)
    assert sum(classified.reasons.values()) == 5
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(name in page for name in rejected(tmp_path / "out"))


def test_a_rejected_file_is_tried_again_on_request(model: SealedModel, images: Path, tmp_path: Path) -> None:
    path, out = images / "a" / "0000.png", tmp_path / "out"
    path.write_bytes(b"\0" * 100)
    classify(model, images, out)
    assert classify(model, images, out).items_this_run == 0
    summary = classify(model, images, out, retry_rejected=True)
    assert (summary.items_this_run, summary.rejected) == (1, 1)


def test_another_image_of_the_same_size_and_time_is_classified(
    model: SealedModel, images: Path, tmp_path: Path
) -> None:
    """Copies that keep times, and archives that are unpacked, give such files: those of one device have one size."""
    one, two, out = images / "one.dcm", images / "two.dcm", tmp_path / "out"
    pixels = np.zeros((1, 32, 32), np.uint8)
    pixels[0, 0, 0] = 255
    write_dicom(one, pixels)
    two.write_bytes(one.read_bytes().replace(pixels.tobytes(), (255 - pixels).tobytes()))
    for path in (one, two):
        os.utime(path, ns=(10**18, 10**18))
    classify(model, images, out)
    before = {str(row["source"]): row["probability"] for row in rows(out)}
    assert before["one.dcm"] != before["two.dcm"]
    one.rename(images / "three.dcm")
    two.rename(one)
    (images / "three.dcm").rename(two)
    assert classify(model, images, out).items_this_run == 2
    after = {str(row["source"]): row["probability"] for row in rows(out)}
    assert (after["one.dcm"], after["two.dcm"]) == (before["two.dcm"], before["one.dcm"])


def test_a_file_that_vanishes_is_rejected_and_read_when_it_is_back(
    model: SealedModel, images: Path, tmp_path: Path
) -> None:
    listing, out = images / "list.csv", tmp_path / "out"
    listing.write_text("path\na/0000.png\na/late.png\nb/0001.jpg\n")
    classify(model, listing, out)
    assert rejected(out).keys() == {"a/late.png"}
    Image.new("L", (40, 40), 100).save(images / "a" / "late.png")
    summary = classify(model, listing, out)
    assert (summary.items_this_run, summary.rejected) == (1, 0)
    assert [row["source"] for row in rows(out)] == ["a/0000.png", "a/late.png", "b/0001.jpg"]


def test_results_inside_the_source_are_not_classified(model: SealedModel, images: Path) -> None:
    out = images / "a" / "results"
    classify(model, images, out)
    assert classify(model, images, out).rejected == 0
    assert len(rows(out)) == FRAMES


def test_an_empty_source_is_refused_and_leaves_nothing(model: SealedModel, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="no files"):
        classify(model, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_model_is_refused_until_restart(model: SealedModel, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    classify(model, images, out)
    write_model(tmp_path / "other", seed=1)
    other = read_model(ModelSource(tmp_path / "other"))
    with pytest.raises(UsageError, match="model was"):
        classify(other, images, out)
    assert {row["model_sha256"] for row in rows(out)} == {model.chosen.artifact.sha256}
    classify(other, images, out, restart=True)
    assert {row["model_sha256"] for row in rows(out)} == {other.chosen.artifact.sha256}


def test_a_model_that_fails_its_trial_leaves_the_folder_as_it_was(
    model: SealedModel, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    specs = (TensorSpec("image", "float32", (None, 1, SIDE, SIDE)),), (TensorSpec("logit", "float32", (None, 1)),)
    content = file_that_does_not_open("image", "logit", 1, SIDE, SIDE)
    write_model(tmp_path / "failing", program=Program(content, "fp32", *specs))
    failing = read_model(ModelSource(tmp_path / "failing"))
    with pytest.raises(ArtifactError, match="do not use this artifact"):
        classify(failing, images, out)
    assert not out.exists()
    classify(model, images, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for restart in (False, True):
        with pytest.raises(ArtifactError, match="do not use this artifact"):
            classify(failing, images, out, restart=restart)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_nothing_written_knows_the_patient_and_no_pixels_when_told(
    model: SealedModel, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    classify(model, images, out, thumbnails=False)
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(contents) >= 8
    for name, content in contents.items():
        assert b"SECRET" not in content.upper(), name
        assert b"19700101" not in content, name
        assert b"\xff\xd8\xff" not in content, name
    assert b"data:image" not in contents["index.html"]


def test_the_thumbnails_are_those_of_the_most_suspicious(
    model: SealedModel, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("batch.job", "writers.page"):
        monkeypatch.setattr(f"featherweight.apps.imaging.{module}.PAGE_ROWS", 5)
    classify(model, images, tmp_path / "out", batch=4)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('class="row') == page.count("data:image/jpeg") == 5
    top = sorted(rows(tmp_path / "out"), key=lambda row: -float(str(row["probability"])))[:5]
    assert all(str(row["source"]) in page for row in top)


def test_a_source_and_an_out_whose_names_are_not_utf8(tmp_path: Path) -> None:
    model, source = tmp_path / "model", tmp_path / "in\udcff"
    write_model(model)
    source.mkdir()
    (source / "notes.txt").write_bytes(b"no image")
    done = run(source, tmp_path / "out\udcff", model)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert "in\\\\xff" in (tmp_path / "out\udcff" / "summary.json").read_text()


def test_nothing_written_holds_what_a_terminal_obeys(tmp_path: Path) -> None:
    hostile = "e\x1b]0;pwned\x07\x1b[2J\r\n\t\x9b31m\u202e"
    write_model(tmp_path / "model", labels=("normal" + hostile, "suspicious" + hostile))
    source, out = tmp_path / ("in" + hostile), tmp_path / ("out" + hostile)
    write_images(source, 4)
    for path in [path for path in source.rglob("*") if path.is_file()]:
        path.rename(path.with_name(hostile + path.name))
    (source / (hostile + "bad.png")).write_bytes(b"not an image")
    done = run(source, out, tmp_path / "model")
    assert done.returncode == 3, done.stderr
    written = {
        path.name: path.read_bytes().decode() for path in out.iterdir() if path.suffix in (".csv", ".json", ".html")
    }
    assert len(written) == 4
    for name, text in {**written, "stdout": done.stdout, "stderr": done.stderr}.items():
        assert "pwned" in text or name == "stderr", name
        shown = text.replace("\r\n", "\n") if name.endswith(".csv") else text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown), name
    for name, count in (("results.csv", 4), ("rejected.csv", 1)):
        assert len(written[name].splitlines()) > count
        assert all(line.count(",") > 2 for line in written[name].splitlines()), name
    assert json.loads(written["summary.json"])["model"]["labels"] == ["normal" + hostile, "suspicious" + hostile]


def test_a_row_that_is_lost_under_way_is_an_error_and_not_a_shorter_table(
    model: SealedModel, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(journal: Journal, count: int) -> None:
        journal._connection.execute("DELETE FROM predictions WHERE source LIKE '%0003%'")

    monkeypatch.setattr(Journal, "keep_thumbnails", lose)
    with pytest.raises(OutputError, match=r"0 rows of .*0003.*, expected 1.*--restart"):
        classify(model, images, tmp_path / "out")
    assert not list((tmp_path / "out").glob("results.*"))


def test_a_summary_is_never_beside_tables_of_another_run(model: SealedModel, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    classify(model, images, out)
    (images / "a" / "0000.png").unlink()
    write_images(images / "more", 3)
    (out / "results.csv").unlink()
    (out / "results.csv").mkdir()
    with pytest.raises(OutputError, match=r"results\.csv: could not be written"):
        classify(model, images, out)
    assert not (out / "summary.json").exists()
    (out / "results.csv").rmdir()
    assert classify(model, images, out).images == len(rows(out))


def test_a_journal_that_lacks_a_row_ends_with_code_7_and_leaves_the_results(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_model(tmp_path / "model")
    assert run(images, out, tmp_path / "model").returncode == 0
    before = (out / "results.csv").read_bytes()
    with contextlib.closing(sqlite3.connect(out / "journal.sqlite", isolation_level=None)) as connection:
        connection.execute("DELETE FROM predictions WHERE source LIKE '%0003%'")
    ended = run(images, out, tmp_path / "model")
    assert (ended.returncode, "--restart" in ended.stderr, "Traceback" in ended.stderr) == (7, True, False)
    assert (out / "results.csv").read_bytes() == before
    assert run(images, out, tmp_path / "model", "--restart").returncode == 0
    assert [line.split(b",")[:6] for line in (out / "results.csv").read_bytes().splitlines()] == [
        line.split(b",")[:6] for line in before.splitlines()
    ]
