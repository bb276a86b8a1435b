"""The record of uses is only ever added to, and shows when somebody did something else."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featherweight.core.errors import DataError, JournalError, OutputError, UsageError
from featherweight.core.evidence.reports.case_history import describe_use
from featherweight.core.evidence_cli import uses
from featherweight.core.record.cases import describe_cases
from featherweight.core.record.uses import (
    Begun,
    Entered,
    Planned,
    append_use,
    begin_use,
    check_record,
    end_use,
    now,
    read_uses,
)

CASES = describe_cases([bytes([number]) * 32 for number in range(40)], np.arange(40) % 2)
OTHERS = describe_cases([bytes([number]) * 32 for number in range(100, 140)], np.arange(40) % 2)


def begun(use: str, limit: float = 0.001, cases: object = CASES) -> Begun:
    return Begun(
        at=now(), use=use, cases=cases, recipe="chest", recipe_sha256="0" * 64, limits={"auc_loss": limit},
        candidate="c1", artifact="model",
    )  # type: ignore[arg-type]  # fmt: skip


def fill(path: Path) -> None:
    begin_use(path, begun("a"))
    end_use(path, begun("a"), "missed", ["auc_loss"])
    append_use(path, Entered(at=now(), cases=CASES, uses=9, when="2026-10", words="tuning"))
    begin_use(path, begun("b", 0.005))


def test_uses_are_counted_and_end_as_they_ended(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "uses.jsonl"
    fill(path)
    begin_use(path, begun("c", cases=OTHERS))
    found = end_use(path, begun("b", 0.005), "kept")
    assert found.number == 11
    assert [(use.verdict, use.count, use.missed) for use in found.earlier] == [
        ("missed", 1, ("auc_loss",)),
        ("entered by hand", 9, ()),
    ]
    assert (found.this.verdict, found.this.limits, found.lines) == ("kept", {"auc_loss": 0.005}, 6)
    history = read_uses(path)
    assert history.find_line(found.head) == 6
    assert [use.verdict for use in history.uses_of(OTHERS)] == ["not finished"]
    assert [use.recipe for use in history.uses_of(CASES)] == ["chest", "", "chest"]


def remove(lines: list[bytes]) -> list[bytes]:
    return lines[:1] + lines[2:]


def change(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b"0.001", b"0.005"), *lines[1:]]


def swap(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def insert(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[1], *lines[2:]]


def behead(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def spoil(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"{}", *lines[3:]]


def repeat_key(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].replace(b'"recipe":"chest"', b'"recipe":"chest","recipe":"other"')]


@pytest.mark.parametrize("attack", [remove, change, swap, insert, behead, spoil, repeat_key])
def test_a_record_that_was_changed_is_refused(attack: Callable[[list[bytes]], list[bytes]], tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    fill(path)
    lines = path.read_bytes().splitlines()
    assert len(read_uses(path).lines) == len(lines) == 4
    path.write_bytes(b"\n".join(attack(lines)) + b"\n")
    for use in (lambda: read_uses(path), lambda: append_use(path, begun("x")), lambda: check_record(path)):
        with pytest.raises(JournalError, match=r"line \d+ of the record of uses cannot be trusted") as caught:
            use()
        assert caught.value.exit_code == 7


def test_a_line_that_was_cut_short_is_refused_and_the_rest_goes_on_without_it(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(JournalError, match=r"line 4 .* cut short.*remove this line alone"):
        read_uses(path)
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    assert append_use(path, begun("d")).lines[-1].use == "d"  # type: ignore[union-attr]


def test_lines_cut_off_at_the_end_show_by_the_digest_that_the_evidence_has(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    fill(path)
    found = end_use(path, begun("b", 0.005), "kept")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert read_uses(path).find_line(found.head) is None


def test_a_plan_is_older_only_by_its_place_in_the_record(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    plan = "1" * 64
    assert read_uses(path).planned_before_use(plan, CASES) is None
    begin_use(path, begun("other cases", cases=OTHERS))
    append_use(path, Planned(at=now(), cases=CASES, recipe="chest", plan=plan))
    begin_use(path, begun("a"))
    append_use(path, Planned(at="2001-01-01T00:00:00+00:00", cases=CASES, recipe="chest", plan="2" * 64))
    history = read_uses(path)
    assert history.planned_before_use(plan, CASES) is True
    assert history.planned_before_use("2" * 64, CASES) is False
    assert history.planned_before_use("3" * 64, CASES) is None


def add_many(path: Path, name: str) -> None:
    for number in range(15):
        append_use(path, begun(f"{name}{number}"))


def test_processes_that_add_at_once_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_many, args=(path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    names = [line.use for line in read_uses(path).lines]  # type: ignore[union-attr]
    assert sorted(names) == sorted(f"{name}{number}" for name in "abc" for number in range(15))


def test_what_cannot_be_a_record_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the record of uses cannot be read"):
        check_record(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        check_record(tmp_path / "link")
    (tmp_path / "file").write_text("x")
    with pytest.raises((OutputError, DataError)):
        check_record(tmp_path / "file" / "uses.jsonl")
    (tmp_path / "large").write_bytes(b" " * (17 * 1024**2))
    with pytest.raises(JournalError, match="no record of uses needs"):
        check_record(tmp_path / "large")
    assert check_record(tmp_path / "new" / "uses.jsonl").lines == ()
    assert not (tmp_path / "new").exists()


def test_nothing_of_a_case_is_in_the_record(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    fill(path)
    first = json.loads(path.read_text().splitlines()[0])
    assert first["cases"].keys() == {"cases", "positives", "sha256", "sketch", "inputs"}
    assert path.stat().st_size < 20_000


def test_the_same_cases_are_described_once_in_a_record(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    large = describe_cases([hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(3000)])
    for name in "abc":
        begin_use(path, begun(name, cases=large))
    sizes = [len(line) for line in path.read_bytes().splitlines()]
    assert sizes[0] > 8000
    assert max(sizes[1:]) < 1000
    history = read_uses(path)
    assert [line.cases for line in history.lines] == [large] * 3  # type: ignore[union-attr]
    named = describe_cases([bytes([n]) * 32 for n in range(40)], names=["Anna", "Berta"])
    for one in (CASES, named, CASES):  # of the same digest, and each as it was given
        found = append_use(path, Planned(at=now(), cases=one, recipe="chest", plan="1" * 64))
    assert [line.cases for line in found.lines[3:]] == [CASES, named, CASES]  # type: ignore[union-attr]
    assert read_uses(path) == found


def test_parts_and_new_preparations_of_the_cases_are_told_with_their_share(tmp_path: Path) -> None:
    path, digests = tmp_path / "uses.jsonl", [bytes([number]) * 32 for number in range(40)]
    names = [f"scan {number}" for number in range(100, 140)]
    begin_use(path, begun("whole", cases=describe_cases(digests, names=names)))
    some = describe_cases([*digests[:10], *(bytes([number]) * 32 for number in range(200, 210))])
    again = describe_cases([bytes([number, 1]) * 16 for number in range(40)], names=names)
    [use] = read_uses(path).uses_of(some)
    assert (use.shared, use.known_by) == (0.5, "inputs")
    assert "about 50% of the cases, or with other labels" in describe_use(use)
    [use] = read_uses(path).uses_of(again)
    assert (use.shared, use.known_by, use.same_labels) == (1.0, "names", False)
    assert "about 100% of the cases by their names; their inputs are others" in describe_use(use)


def made_by_hand(**given: object) -> bytes:
    """A line as somebody may write one, with the digest that it needs."""
    cases = {"cases": 10, "positives": 5, "sha256": "a" * 64, "sketch": ["a" * 16]}
    line = {"kind": "entered by hand", "at": now(), "previous": "0" * 64, "cases": cases, "uses": 1, "when": "2026"}
    return json.dumps({**line, "words": "tuning", **given}).encode() + b"\n"


def of_cases(**given: object) -> dict[str, object]:
    return {"cases": 10, "positives": 5, "sha256": "a" * 64, "sketch": ["a" * 16], **given}


@pytest.mark.parametrize(
    "given",
    [
        {"uses": -5},
        {"uses": 0},
        {"uses": 10**30},
        {"uses": 1e30},
        {"cases": of_cases(cases=0, positives=0)},
        {"cases": of_cases(cases=0, positives=0, sketch=[])},
        {"cases": of_cases(sketch=[], sha256="b" * 64)},
        {"cases": of_cases(positives=11)},
        {"cases": of_cases(cases=10**30)},
        {"cases": of_cases(sha256="x")},
        {"cases": of_cases(sketch=["[bold]"])},
        {"cases": of_cases(sketch=["a" * 16] * 65)},
        {"cases": of_cases(inputs="a" * 100_000)},
        {"cases": of_cases(names="<script>")},
        {"at": "[/bold]\x1b]0;title\x07"},
        {"words": "x" * 20_000},
        {"words": "x" * 15_000_000},
        {"kind": "ended", "use": "a", "verdict": "kept"},
        {"previous": "x" * 64},
        {"words": ["[" * 50_000]},
    ],
    ids=lambda given: str(given)[:60],
)
def test_lines_that_say_what_cannot_be_are_refused_with_their_number(given: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    path.write_bytes(made_by_hand())
    assert read_uses(path).lines
    row = {**json.loads(made_by_hand(**given)), "previous": given.get("previous", read_uses(path).head)}
    if given.get("kind") == "ended":
        row = {key: row[key] for key in ("kind", "at", "previous", "use", "verdict")}
    path.write_bytes(path.read_bytes() + json.dumps(row).encode() + b"\n")
    with pytest.raises(JournalError, match="line 2 of the record of uses cannot be trusted") as caught:
        read_uses(path)
    assert caught.value.exit_code == 7
    assert len(str(caught.value)) < 1000


def test_a_line_that_is_long_for_nothing_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    path.write_bytes(made_by_hand()[:-2] + b" " * 300_000 + b"}\n")
    with pytest.raises(JournalError, match=r"line 1 .*more than 262,144 bytes"):
        read_uses(path)


def test_a_use_begins_and_ends_once(tmp_path: Path) -> None:
    path = tmp_path / "uses.jsonl"
    fill(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"nothing was written.*begins a use that was begun before"):
        begin_use(path, begun("a"))
    with pytest.raises(UsageError, match="ends a use that was not begun before, or that has ended"):
        end_use(path, begun("a"), "kept")
    assert path.read_bytes() == before


def test_nothing_is_written_that_could_not_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "uses.jsonl"
    fill(path)
    before = path.read_bytes()
    for words in ("x" * 10_001, "x" * (17 << 20)):
        with pytest.raises((UsageError, OutputError), match=r"could not be read again|is full"):
            append_use(path, Entered(at=now(), cases=CASES, uses=1, when="2026", words=words))
    monkeypatch.setattr("featherweight.core.record.uses.MAX_BYTES", len(before) + 100)
    with pytest.raises(OutputError, match="the record of uses is full"):
        append_use(path, begun("late"))
    assert path.read_bytes() == before


def test_what_a_record_says_is_shown_as_text_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "uses.jsonl"
    path.write_bytes(made_by_hand(when="[/bold][link=http://evil]\x1b]0;title\x07", words="[red]x\u202e"))
    begin_use(path, begun("died"))
    uses(path)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[/bold][link=http://evil]" in shown.replace("\n", "").replace(" ", "")
    assert "not ended" in " ".join(shown.split())
