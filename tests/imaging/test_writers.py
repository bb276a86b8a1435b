from __future__ import annotations

import csv
import io
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apps.imaging.frames import FrameId, Prediction, Rejected
from apps.imaging.journal import Fingerprint, Finished, Spent, open_journal
from apps.imaging.writers.atomic import replacing
from apps.imaging.writers.csv import write_csv
from apps.imaging.writers.page import PAGE_ROWS, format_percent, render_page, write_page
from apps.imaging.writers.parquet import write_parquet
from apps.imaging.writers.rows import rejected_columns, result_columns
from apps.imaging.writers.summary import ModelFacts, Seconds, Settings, Summary, encode_summary
from apps.imaging.writers.thumbnails import render_thumbnail
from core.errors import OutputError

text = st.text(st.characters(codec="utf-8"), max_size=12)
ids = st.builds(FrameId, text, st.integers(0, 1 << 40), text, text, text)
times = st.floats(0, 1e6).map(lambda value: round(value, 3))
predictions = st.builds(Prediction, ids, st.floats(0, 1), st.sampled_from(["normal", "pneumonia"]), times, times)
rejections = st.builds(Rejected, ids, st.sampled_from(["timeout", "vanished"]), text)


def plain(columns: dict, row: object) -> dict:
    return {name: column.value(row) for name, column in columns.items()}


@settings(max_examples=40, deadline=None)
@given(st.lists(predictions, max_size=6), st.lists(rejections, max_size=6))
def test_tables_give_back_the_same_rows(results: list[Prediction], rejected: list[Rejected]) -> None:
    tables = [(result_columns("ab" * 32), results), (rejected_columns(), rejected)]
    with tempfile.TemporaryDirectory() as name:
        for columns, rows in tables:
            expected = [plain(columns, row) for row in rows]
            write_parquet(Path(name, "t.parquet"), columns, rows)
            write_csv(Path(name, "t.csv"), columns, rows)
            assert pq.read_table(Path(name, "t.parquet")).to_pylist() == expected
            with Path(name, "t.csv").open(newline="", encoding="utf-8") as file:
                read = list(csv.DictReader(file))
            assert read == [{key: str(value) for key, value in row.items()} for row in expected]
            assert [float(row["probability"]) for row in read if "probability" in row] == [
                row["probability"] for row in expected if "probability" in row
            ]
        assert sorted(path.name for path in Path(name).iterdir()) == ["t.csv", "t.parquet"]


def test_parquet_of_no_rows_still_has_its_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "r.parquet", rejected_columns(), [])
    table = pq.read_table(tmp_path / "r.parquet")
    assert (table.num_rows, table.column_names) == (0, list(rejected_columns()))


def test_parquet_spans_groups_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.imaging.writers.parquet.GROUP_ROWS", 7)
    rows = [Rejected(FrameId(f"{index:03}", 0), f"reason-{index % 9}", "") for index in range(50)]
    write_parquet(tmp_path / "r.parquet", rejected_columns(), rows)
    assert pq.read_table(tmp_path / "r.parquet")["source"].to_pylist() == [row.id.source for row in rows]
    assert pq.ParquetFile(tmp_path / "r.parquet").num_row_groups == 8


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("new")
            raise OSError(5, "disk on fire")

    with pytest.raises(OutputError, match=r"disk on fire.*same command"):
        fail()
    assert [path.read_text(), *tmp_path.iterdir()] == ["old", path]


def summary(images: int, **changes: object) -> Summary:
    values = {
        "source": "/scans",
        "out": "/out",
        "first_started": "2026-01-01T00:00:00.000+00:00",
        "started": "2026-01-01T00:00:00.000+00:00",
        "finished": "2026-01-01T00:01:00.000+00:00",
        "runs": 1,
        "items": images,
        "items_this_run": images,
        "images": images,
        "rejected": 0,
        "rejected_items": 0,
        "decisions": {"normal": images, "pneumonia": 0},
        "reasons": {},
        "seconds": Seconds(total=1.0, waiting=0.5, inference=0.1, decode=1.0),
        "items_per_s": 1.0,
        "inference_share": 0.1,
        "model": ModelFacts(
            name="chest",
            sha256="ab" * 32,
            labels=("normal", "pneumonia"),
            threshold=0.43,
            prevalence=0.5,
            created="2026-01-01",
            weights_source="somewhere",
            missed_limits=(),
            notes=(),
        ),
        "settings": Settings(backend="onnxruntime", precision="int8", workers=2, threads=1, batch=16),
        "versions": {"featherweight": "0.1.0"},
    }
    return Summary(**(values | changes))  # type: ignore[arg-type]


class Page(HTMLParser):
    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.links: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def prediction(source: str, probability: float) -> Prediction:
    return Prediction(FrameId(source, 0, "1.2", "1.3", "1.4"), probability, "normal", 1.0, 1.0)


def test_the_page_escapes_what_others_named() -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=y>"
    model = summary(1).model
    hostile = ModelFacts(
        **{name: getattr(model, name) for name in model.__struct_fields__}
        | {
            "name": evil,
            "labels": (evil, evil + "2"),
            "notes": (evil,),
            "missed_limits": (evil,),
            "weights_source": evil,
        }
    )
    page = render_page(
        summary(1, source=evil, model=hostile, decisions={evil: 1, evil + "2": 0}, rejected=1, reasons={evil: 1}),
        [(Prediction(FrameId(evil, 0, evil, evil, evil), 0.5, evil, 1.0, 1.0), None)],
        [(evil, 0, evil, evil)],
        {evil: [1] * 40},
    )
    tags = Page(page).tags
    assert "script" not in tags
    assert "img" not in tags
    assert Page(page).text.count("<script>alert(1)") > 8


def test_the_page_fetches_nothing() -> None:
    jpeg = render_thumbnail(np.zeros((32, 32), np.float32))
    page = Page(render_page(summary(1), [(prediction("a.dcm", 0.5), jpeg)], [], {"normal": [1] * 40}))
    assert [link for link in page.links if not link.startswith(("data:image/jpeg;base64,", "#"))] == []
    assert "Not a medical device" in page.text
    assert "a.dcm" in page.text


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_images_give_a_bounded_page(count: int, tmp_path: Path) -> None:
    """Every row as large as it gets: long names, noise for thumbnails."""
    rng = np.random.default_rng(0)
    noise = render_thumbnail(rng.random((224, 224), np.float32))
    name = "department/" * 12
    with open_journal(tmp_path, {}, "2026-01-01T00:00:00") as journal:
        for start in range(0, count, count // 5):
            items = [
                Finished(
                    f"{name}{index}",
                    Fingerprint(1, 1),
                    [prediction(f"{name}{index}", index / count)],
                    [],
                    {0: noise} if index % 50 == 0 or index > count - 2000 else {},
                )
                for index in range(start, start + count // 5)
            ]
            journal.commit(items, Spent())
        write_page(tmp_path / "index.html", journal, summary(count))
    content = (tmp_path / "index.html").read_text()
    assert len(content) < 15_000_000
    page = Page(content)
    assert content.count('class="row') == PAGE_ROWS
    assert f"All {count:,} are on further pages" in page.text
    assert max(path.stat().st_size for path in (tmp_path / "worklist").iterdir()) < 1_000_000
    assert page.text.index(f"{name}{count - 1}") < page.text.index(f"{name}{count - 2}")
    assert f"{name}{count - PAGE_ROWS - 1}" not in page.text


def test_the_order_controls_match_rows() -> None:
    rows = [(prediction("b", 0.9), None), (prediction("a", 0.8), None)]
    page = render_page(summary(2), rows, [], {"normal": [1] * 40})
    assert re.findall(r"--source:(\d+)", page) == ["1", "0"]


def test_rejected_rows_are_bounded_and_counted() -> None:
    refused = [(f"{index}.dcm", 0, "truncated", "cut short") for index in range(500)]
    page = Page(render_page(summary(0, rejected=4000, reasons={"truncated": 4000}), [], refused, {}))
    assert "The first 500 are here" in " ".join(page.text.split())
    assert "No image could be classified" in page.text


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "0.0%"), (0.0001, "<0.1%"), (0.5, "50.0%"), (0.99999, ">99.9%"), (1.0, "100.0%")]
)
def test_percent_never_rounds_to_certainty(share: float, words: str) -> None:
    assert format_percent(share) == words


def test_thumbnails_are_small_and_bare() -> None:
    rng = np.random.default_rng(0)
    image = Image.open(io.BytesIO(render_thumbnail(rng.random((224, 224), np.float32))))
    assert (image.size, image.mode) == ((96, 96), "L")
    assert not image.getexif()
    assert np.asarray(image).mean() == pytest.approx(127.5, abs=4)
    assert np.asarray(Image.open(io.BytesIO(render_thumbnail(np.full((28, 28), 2.0, np.float32))))).min() >= 250


def test_summary_is_json_that_reads_back() -> None:
    import msgspec

    made = summary(3)
    assert msgspec.json.decode(encode_summary(made), type=Summary) == made
