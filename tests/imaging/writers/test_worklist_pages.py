"""The pages beside index.html: every row is on them, whatever the number, and nothing else is in their folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from featherweight.apps.imaging.frames import FrameId, Prediction, RejectedFrame
from featherweight.apps.imaging.journal import Fingerprint, Finished, Journal, Spent, open_journal
from featherweight.apps.imaging.writers import find_outputs, write_outputs
from featherweight.apps.imaging.writers.page import write_page
from featherweight.core.errors import OutputError
from tests.imaging.writers.test_writers import Page, summary

LABELS = ("normal", "pneumonia")
COUNT, POSITIVES, REJECTED = 5_321, 2_200, 1_100


def source(index: int) -> str:
    return f"ward/{index:06}.dcm"


def fill(journal: Journal, count: int, positives: int, rejected: int = 0) -> None:
    """The sources are in another order than the probabilities."""
    items = []
    for index in range(count):
        place = index * 7919 % count
        decision = LABELS[place < positives]
        row = Prediction(FrameId(source(index), 0, "1.2", "1.3", f"1.4.{index}"), 1 - place / count, decision, 1.0, 1.0)
        items.append(Finished(source(index), Fingerprint(1, 1), [row], [], {}))
    for index in range(rejected):
        name = f"bad/{index:06}.dcm"
        items.append(Finished(name, Fingerprint(1, 1), [], [RejectedFrame(FrameId(name, 0), "corrupt", "cut")], {}))
    journal.commit(items, Spent())


def write(folder: Path, count: int, positives: int, rejected: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    with open_journal(folder, {}, "2026-01-01T00:00:00", restart=True) as journal:
        fill(journal, count, positives, rejected)
        decisions = {"normal": count - positives, "pneumonia": positives}
        said = summary(count, decisions=decisions, rejected=rejected, reasons={"corrupt": rejected})
        write_page(folder / "index.html", journal, said)


def read_sources(folder: Path, key: str) -> list[str]:
    """In the order in which a reader who presses `next` sees them."""
    found: list[str] = []
    name: str | None = f"{key}-00001.html"
    while name is not None:
        content = (folder / "worklist" / name).read_text()
        found += re.findall(r'class="mono">([^<]+?)</(?:span|td)>', content)
        following = re.search(r'rel="next" href="([^"]+)"', content)
        name = following[1] if following else None
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    write(folder, COUNT, POSITIVES, REJECTED)
    return folder


def test_every_row_is_on_the_pages_of_its_decision_highest_first(large: Path) -> None:
    places = {source(index): index * 7919 % COUNT for index in range(COUNT)}
    ranked = sorted(places, key=lambda name: places[name])
    assert read_sources(large, "positive") == ranked[:POSITIVES]
    assert read_sources(large, "negative") == ranked[POSITIVES:]


def test_every_row_is_on_the_pages_by_source_and_every_rejected_file_on_its_own(large: Path) -> None:
    assert read_sources(large, "source") == [source(index) for index in range(COUNT)]
    assert read_sources(large, "rejected") == [f"bad/{index:06}.dcm" for index in range(REJECTED)]


def test_all_pages_are_linked_and_no_link_leads_elsewhere(large: Path) -> None:
    """Nothing is fetched, nothing is run, and from the first page one gets to all others."""
    found, waiting = set(), [large / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        content = path.read_text()
        page = Page(content)
        assert "script" not in page.tags
        assert "Not a medical device" in page.text
        assert path.stat().st_size < 2_000_000
        links = [link for link in page.links if not link.startswith(("#", "data:image/jpeg;base64,"))]
        waiting += [(path.parent / link).resolve() for link in links]
    assert found == {large / "index.html", *(large / "worklist").iterdir()}
    assert len(found) > 15


def test_the_first_page_says_what_is_where(large: Path) -> None:
    text = " ".join(Page((large / "index.html").read_text()).text.split())
    for words in ("All 5,321 are on further pages", "pneumonia (2,200)", "normal (3,121)", "all by source (5,321)"):
        assert words in text
    assert "not classified (1,100)" in text
    assert "from ward/001000.dcm on" in text
    # Filters of this page alone would say that there is nothing normal among all images.
    assert 'type="radio"' not in (large / "index.html").read_text()


def test_few_rows_are_one_page_with_filters(tmp_path: Path) -> None:
    write(tmp_path, 12, 5, 3)
    assert (tmp_path / "index.html").read_text().count('type="radio"') == 6
    assert not (tmp_path / "worklist").exists()


def test_pages_of_an_earlier_run_go_and_what_others_put_there_stays(tmp_path: Path) -> None:
    write(tmp_path, 3_100, 1_050)
    (tmp_path / "worklist" / "notes.html").write_text("mine")
    write(tmp_path, 1_050, 50)
    assert sorted(path.name for path in (tmp_path / "worklist").iterdir()) == [
        "negative-00001.html",
        "notes.html",
        "positive-00001.html",
        "source-00001.html",
        "source-00002.html",
    ]
    write(tmp_path, 3, 1)
    assert [path.name for path in (tmp_path / "worklist").iterdir()] == ["notes.html"]


def test_the_pages_are_outputs_that_a_restart_removes(tmp_path: Path) -> None:
    write(tmp_path, 1_050, 50)
    assert "worklist/negative-00001.html" in find_outputs(tmp_path)
    open_journal(tmp_path, {}, "2026-01-01T00:00:00", outputs=find_outputs(tmp_path), restart=True).close()
    assert not list(tmp_path.glob("worklist/*"))


def test_pages_are_not_written_through_a_link(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    out.mkdir()
    (victim / "source-00001.html").write_text("mine")
    (out / "worklist").symlink_to(victim)
    with pytest.raises(OutputError, match="found a link"):
        write(out, 1_050, 50)
    assert [path.read_text() for path in victim.iterdir()] == ["mine"]


def test_names_and_labels_of_others_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=y>\x1b[2J"
    model = summary(1).model
    hostile = type(model)(
        **{name: getattr(model, name) for name in model.__struct_fields__} | {"name": evil, "labels": ("normal", evil)}
    )
    with open_journal(tmp_path, {}, "2026-01-01T00:00:00") as journal:
        items = [
            Finished(
                f"{evil}{index}",
                Fingerprint(1, 1),
                [Prediction(FrameId(f"{evil}{index}", 0, evil, evil, evil), 0.5, evil, 1.0, 1.0)],
                [RejectedFrame(FrameId(f"{evil}{index}", 1), evil, evil)],
                {},
            )
            for index in range(1_001)
        ]
        journal.commit(items, Spent())
        said = summary(
            1_001, model=hostile, decisions={"normal": 0, evil: 1_001}, rejected=1_001, reasons={evil: 1_001}
        )
        write_page(tmp_path / "index.html", journal, said, lambda prediction: evil)
    pages = [tmp_path / "index.html", *(tmp_path / "worklist").iterdir()]
    assert len(pages) == 1 + 2 + 2 + 2
    for path in pages:
        tags = Page(path.read_text()).tags
        assert "script" not in tags, path
        assert "img" not in tags, path
        assert "\x1b" not in path.read_text(), path


def test_one_instance_in_two_files_is_marked_in_tables_and_pages(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}, "2026-01-01T00:00:00") as journal:
        fill(journal, 1_050, 50)
        for name, uid in (("a.dcm", "1.9"), ("b.dcm", "1.9"), ("c.dcm", "1.8"), ("d.dcm", "1.8"), ("e.dcm", "1.8")):
            rows = [Prediction(FrameId(name, frame, "1", "1", uid), 1.0, "pneumonia", 1.0, 1.0) for frame in (0, 1)]
            journal.commit([Finished(name, Fingerprint(1, 1), rows, [], {})], Spent())
        repeated = journal.repeated()
        said = summary(1_060, decisions={"normal": 1_000, "pneumonia": 60}, repeated_instances=len(repeated))
        write_outputs(tmp_path, journal, said)
    assert len(repeated) == 2
    marks = {
        "a.dcm": "the same SOP Instance UID as b.dcm",
        "b.dcm": "the same SOP Instance UID as a.dcm",
        "c.dcm": "the same SOP Instance UID as 2 other files, e.dcm for one",
        "e.dcm": "the same SOP Instance UID as 2 other files, c.dcm for one",
    }
    for line in (tmp_path / "results.csv").read_text().splitlines()[1:]:
        name = line.partition(",")[0]
        if name in marks:
            assert line.endswith(marks[name]) or line.endswith(f'"{marks[name]}"')
        elif name != "d.dcm":
            assert line.endswith(",")
    for page in ("index.html", "worklist/positive-00001.html", "worklist/source-00001.html"):
        content = (tmp_path / page).read_text()
        assert content.count("the same SOP Instance UID as") == 10, page
        assert all(mark in content for mark in marks.values()), page
    assert "2 SOP Instance UIDs stand in more than one file" in (tmp_path / "index.html").read_text()


def test_the_word_of_the_decision_is_on_narrow_screens_too(large: Path) -> None:
    """Cells of the class `wide` are those that a narrow screen leaves out."""
    for page in ("index.html", "worklist/positive-00001.html"):
        cells = re.findall(r"<td([^>]*)>(?:<span class=\"pill\">)?pneumonia<", (large / page).read_text())
        assert len(cells) == 1000, page
        assert not [cell for cell in cells if "wide" in cell], page
