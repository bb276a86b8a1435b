"""The record of uses is only ever added to, and shows when somebody did something else."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featherweight.core.errors import DataError, JournalError, OutputError
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
    assert first["cases"].keys() == {"cases", "positives", "sha256", "sketch"}
    assert path.stat().st_size < 20_000
