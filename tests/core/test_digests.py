from __future__ import annotations

import os
from pathlib import Path

import pytest

from featherweight.core.digests import DIGESTS, atomic_folder, check_digests, write_digests
from featherweight.core.errors import DataError, OutputError

NAMES = ("a.bin", "b.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    write_digests(tmp_path, NAMES)
    return tmp_path


def test_what_was_written_together_is_taken(folder: Path) -> None:
    check_digests(folder, NAMES)
    check_digests(folder, NAMES[:1])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_writing_is_not(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"newer")
    with pytest.raises(DataError, match=f"{name} is not the file that was written with the others"):
        check_digests(folder, NAMES)


def test_a_file_that_was_not_written_with_them_is_not_one_of_them(folder: Path) -> None:
    (folder / "c.json").touch()
    with pytest.raises(DataError, match=r"c\.json is not the file"):
        check_digests(folder, ("c.json",))


def test_a_folder_of_a_version_without_digests_is_asked_for_its_files_only(folder: Path) -> None:
    (folder / DIGESTS).unlink()
    check_digests(folder, NAMES)
    (folder / "a.bin").unlink()
    with pytest.raises(DataError, match="found no regular file"):
        check_digests(folder, NAMES)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"x" * 100_000])
def test_digests_that_are_not_are_no_digests(folder: Path, content: bytes) -> None:
    (folder / DIGESTS).write_bytes(content)
    with pytest.raises(DataError):
        check_digests(folder, NAMES)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    for name in ("a.bin", DIGESTS):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(DataError):
            check_digests(folder, NAMES)


def fill(out: Path, text: str, names: tuple[str, ...] = NAMES, keep: str = "") -> None:
    with atomic_folder(out, keep) as folder:
        for name in names:
            (folder / name).write_text(text)
        write_digests(folder, names)


def fail(out: Path, keep: str = "") -> None:
    with atomic_folder(out, keep) as folder:
        with (folder / (keep or NAMES[0])).open("a") as file:
            file.write("half")
        raise KeyboardInterrupt


def shown(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in out.iterdir() if path.name != DIGESTS}


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with atomic_folder(out) as folder:
        (folder / NAMES[0]).write_text("new")
        assert not out.exists()
        write_digests(folder, NAMES[:1])
    check_digests(out, NAMES[:1])
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_folder_that_fails_is_not_there_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_in_a_folder_that_is_there_the_files_take_the_places_of_earlier_ones(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(out, "old", ("a.bin", "gone.json"))
    (out / "mine.txt").write_text("mine")
    fill(out, "new")
    assert shown(out) == {"a.bin": "new", "b.json": "new", "mine.txt": "mine"}
    check_digests(out, NAMES)
    with pytest.raises(KeyboardInterrupt):
        fail(out)
    assert shown(out) == {"a.bin": "new", "b.json": "new", "mine.txt": "mine"}


@pytest.mark.parametrize(
    "content",
    [b"\0" * (1 << 20), b"0" * 64 + b"  ..\n" + b"0" * 64 + b"  gone.json\n"],
    ids=["none", "a folder's name"],
)
def test_digests_of_an_earlier_run_that_say_nonsense_cost_no_training(content: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(out, "old")
    (out / DIGESTS).write_bytes(content)
    fill(out, "new")
    assert shown(out) == dict.fromkeys(NAMES, "new")
    check_digests(out, NAMES)


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
@pytest.mark.parametrize("digests", [True, False])
def test_a_process_that_dies_between_the_files_leaves_nothing_that_is_read(
    moved: int, digests: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the old ones or all of the new ones are read, also of versions that wrote no digests."""
    out, replace, done = tmp_path / "out", Path.replace, []
    fill(out, "old")
    if not digests:
        (out / DIGESTS).unlink()

    def die_after(path: Path, target: Path) -> Path:
        if target.parent == out:
            if len(done) == moved:
                raise KeyboardInterrupt
            done.append(target)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die_after)
        try:
            fill(out, "new")
        except KeyboardInterrupt:
            assert moved < 3
    try:
        check_digests(out, NAMES)
    except DataError:
        assert moved < 3
    else:
        assert len({shown(out)[name] for name in NAMES}) == 1
    fill(out, "newest")
    check_digests(out, NAMES)


def test_what_is_worth_going_on_from_stays_until_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fail(out, keep="checkpoint")
    assert not out.exists()
    with atomic_folder(out, keep="checkpoint") as folder:
        assert (folder / "checkpoint").read_text() == "halfhalf"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(KeyboardInterrupt), atomic_folder(out, keep="checkpoint"):
        raise KeyboardInterrupt
    assert [path.name for path in out.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_nothing_is_made_through_what_lies_in_the_way(kind: str, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    way = tmp_path / ".out.partial"
    way.symlink_to(tmp_path / "victim") if kind == "link" else way.touch()
    fill(tmp_path / "out", "new")
    check_digests(tmp_path / "out", NAMES)
    assert list((tmp_path / "victim").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="cannot be written"):
            fill(out, "new")
