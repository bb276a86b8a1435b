"""The page of cases beside the artifact."""

from __future__ import annotations

import base64
import io
import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherweight.core.errors import OutputError
from featherweight.core.evidence.report import Evidence
from featherweight.core.evidence.reports.changed_cases import MAX_CHANGED, encode_thumbnail, write_cases
from featherweight.core.task import CaseView
from tests.core import evidence_cases as made

ATTACK = "<script>alert(1)</script>\"'&"


class Shows:
    """Of a task only what the page asks for; remembers what was asked."""

    def __init__(self, image: np.ndarray | None = None, columns: dict[str, str] | None = None) -> None:
        self.image, self.columns = image, columns or {}
        self.asked: list[tuple[str, list[int]]] = []

    def show(self, split: str, indices: Sequence[int]) -> list[CaseView]:
        self.asked.append((split, list(indices)))
        return [CaseView({"place": str(index), **self.columns}, self.image) for index in indices]


def unchanged() -> Evidence:
    part = made.comparison("test", 1, noise=0.0)
    return replace(made.evidence(), test=part)


def flipped(evidence: Evidence, *, to_positive: bool) -> set[str]:
    before, after = evidence.test.baseline.predictions, evidence.test.candidate.predictions
    where = np.flatnonzero((before.decisions != after.decisions) & (after.decisions == to_positive))
    return {before.ids[index] for index in where}


def test_every_flip_is_shown_under_the_way_it_went_and_those_that_changed_most(tmp_path):
    evidence, task = made.evidence(0.9), Shows()
    page = write_cases(tmp_path / "model", evidence, task)
    assert page == tmp_path / "model-cases.html"
    positive, negative, same = re.split("<h2>", page.read_text())[1:]
    for part, to_positive in ((positive, True), (negative, False)):
        wanted = flipped(evidence, to_positive=to_positive)
        assert wanted
        assert set(re.findall(r'<td class="id">(set1/[^<]*)</td>', part)) == wanted
        assert f"({len(wanted)})" in part
    assert len(re.findall(r'<td class="id">set1/', same)) == MAX_CHANGED
    assert "before and now" in same
    assert "before and now" not in positive + negative


def test_what_the_task_is_asked_for_are_the_cases_that_the_page_names(tmp_path):
    evidence, task = made.evidence(0.9), Shows()
    text = write_cases(tmp_path / "model", evidence, task).read_text()
    ids = evidence.test.baseline.predictions.ids
    assert {split for split, _ in task.asked} == {"test"}
    for _, indices in task.asked:
        for index in indices:
            row = text[text.index(ids[index] + "<") :]
            assert f'<td class="id">{index}</td>' in row[: row.index("</tr>")]


def test_it_says_whose_data_it_holds_and_only_its_owner_can_read_it(tmp_path):
    left = tmp_path / ".model-cases.html.partial"
    left.write_text("of a killed run")
    left.chmod(0o644)
    page = write_cases(tmp_path / "model", made.evidence(0.9), Shows())
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text()
    assert text.index("Holds patient or cardholder data") < text.index("<h2>")
    assert [path.name for path in tmp_path.iterdir()] == ["model-cases.html"]


def test_a_candidate_that_was_refused_shows_its_validation_cases(tmp_path):
    task = Shows()
    write_cases(tmp_path / "work" / "refused", made.evidence(0.9, with_test=False), task)
    assert {split for split, _ in task.asked} == {"validation"}
    assert (tmp_path / "work" / "refused-cases.html").exists()


def test_without_any_change_there_is_no_page_and_an_old_one_goes(tmp_path):
    old = tmp_path / "model-cases.html"
    old.write_text("patients of an earlier run")
    assert write_cases(tmp_path / "model", unchanged(), Shows()) is None
    assert not old.exists()


def test_changes_without_a_flip_still_make_a_page(tmp_path):
    evidence = made.evidence(0.9)
    part = evidence.test
    still = replace(part.baseline.predictions, scores=part.baseline.predictions.scores + 1e-9)
    quiet = replace(part, candidate=replace(part.candidate, predictions=replace(still, probabilities=None)))
    task = Shows()
    text = write_cases(tmp_path / "model", replace(evidence, test=quiet), task).read_text()
    assert text.count('<p class="muted">None.</p>') == 2
    assert [len(indices) for _, indices in task.asked] == [MAX_CHANGED]


@pytest.mark.parametrize("image", [None, np.zeros((28, 28), np.uint8), np.zeros((300, 200, 3), np.uint8)])
def test_texts_from_outside_are_escaped_and_nothing_is_loaded(tmp_path, image):
    evidence = made.evidence(0.9)
    part = evidence.test
    before, after = (
        replace(one, name=ATTACK, predictions=replace(one.predictions, ids=tuple(f"{ATTACK}{i}" for i in range(624))))
        for one in (part.baseline, part.candidate)
    )
    hostile = replace(
        evidence, title=ATTACK, labels=(ATTACK, ATTACK + "!"), test=replace(part, baseline=before, candidate=after)
    )
    text = write_cases(tmp_path / "model", hostile, Shows(image, {ATTACK: ATTACK})).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert re.findall(r'(?:src|href)="(?!data:image/)', text) == []


def test_small_images_are_embedded_exactly_and_large_ones_reduced():
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (28, 28), dtype=np.uint8)
    exact = encode_thumbnail(small)
    assert exact.startswith("data:image/png;base64,")
    assert np.array_equal(np.asarray(decode(exact)), small)
    large = np.tile(np.arange(224, dtype=np.uint8), (448, 2))
    reduced = encode_thumbnail(large)
    assert reduced.startswith("data:image/jpeg;base64,")
    assert max(decode(reduced).size) == 200
    assert len(reduced) < 12_000


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_bars_tell_small_probabilities_apart(tmp_path):
    """Where all are small (frauds), a bar from 0 to 1 would show nothing."""
    evidence = made.evidence(0.9)
    part = evidence.test
    before, after = (
        replace(one, predictions=replace(one.predictions, probabilities=one.predictions.probabilities / 10))
        for one in (part.baseline, part.candidate)
    )
    rare = replace(evidence, test=replace(part, baseline=before, candidate=after))
    text = write_cases(tmp_path / "model", rare, Shows()).read_text()
    widths = [float(width) for width in re.findall(r'class="fill \w+" x="0" y="\d+" width="([\d.]+)"', text)]
    assert max(widths) > 130
    assert max(widths) <= 160


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="page of cases cannot be written"):
        write_cases(tmp_path / "file" / "model", made.evidence(0.9), Shows())


def test_a_link_that_waits_under_the_partial_files_name_gets_nothing(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / ".model-cases.html.partial").symlink_to(elsewhere)
    page = write_cases(tmp_path / "model", made.evidence(0.9), Shows())
    assert elsewhere.read_text() == "mine"
    assert page.is_file()
    assert not page.is_symlink()


def test_a_page_beside_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    assert write_cases(Path(), made.evidence(0.9), Shows()) == tmp_path / "model-cases.html"
