"""Folders, lists and single files; labelled folders."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from featherweight.apps.imaging.frames import RejectedFrame
from featherweight.apps.imaging.readers import Item, find_items, read_frames
from featherweight.apps.imaging.sealed import Preprocess
from featherweight.apps.imaging.training.folder import read_labelled
from featherweight.apps.imaging.training.layouts import LAYOUTS
from featherweight.core.errors import DataError, UsageError


def sources(path: Path) -> list[str]:
    return [item.source for item in find_items(path)]


def test_a_folder_is_walked_in_order_and_nothing_but_the_rule_is_left_out(tmp_path: Path) -> None:
    kept = ["a.dcm", "a/z", "b/1/x.png", "b/10.png", "b/2.png", "notes.txt", "Ä ö.jpg"]
    for name in [*kept, ".hidden", ".git/config", "b/.DS_Store", "DICOMDIR", "b/dicomdir"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.dcm")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path)
    found = sources(tmp_path)
    assert sorted(found) == sorted([*kept, "link.png", "dangling", "circle"])
    assert found == sources(tmp_path)
    assert found.index("a/z") < found.index("b/1/x.png") < found.index("b/10.png") < found.index("b/2.png")


def test_a_link_to_a_folder_is_told_and_not_followed(tmp_path: Path) -> None:
    """What lies behind it would be missing in silence."""
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (8, 8), 90).save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (item,) = find_items(tmp_path / "in")
    (row,) = read_frames(item, Preprocess(side=8))
    assert isinstance(row, RejectedFrame)
    assert (row.id.source, row.reason) == ("link", "not-a-file")
    assert "link to a folder, which is not followed" in row.message


def test_a_comma_in_a_path_is_not_the_end_of_it(tmp_path: Path) -> None:
    """The file of the shorter name may be there as well."""
    listing = tmp_path / "list.csv"
    listing.write_text("path\na.dcm\nb, second.dcm\n")
    with pytest.raises(DataError, match=r"row 2 has more cells than the header has columns.*quotation marks"):
        sources(listing)
    listing.write_text('path\na.dcm,\n"b, second.dcm",,\n')  # a spreadsheet adds empty cells
    assert sources(listing) == ["a.dcm", "b, second.dcm"]


def test_names_that_are_not_utf8_stay_printable_and_readable(tmp_path: Path) -> None:
    name = os.fsdecode(b"x-\xff\xfe.png")
    Image.new("L", (8, 8), 90).save(tmp_path / name)
    (item,) = find_items(tmp_path)
    assert item.source.encode("utf-8") == rb"./x-\xff\xfe.png"
    (frame,) = read_frames(item, Preprocess(side=8))
    assert not hasattr(frame, "reason")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_becomes_a_row(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert sources(tmp_path) == ["closed"]


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "one.dcm").write_bytes(b"x")
    assert list(find_items(tmp_path / "one.dcm")) == [Item("one.dcm", tmp_path / "one.dcm")]
    with pytest.raises(UsageError, match="no such file or folder"):
        find_items(tmp_path / "two.dcm")


def _write(path: Path, columns: dict[str, list[object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_lists(tmp_path: Path, suffix: str) -> None:
    columns: dict[str, list[object]] = {"note": ["a", "b", "c"], "path": ["x/1.png", "/abs/2.png", "gone, too"]}
    found = list(find_items(_write(tmp_path / f"list{suffix}", columns)))
    assert [item.source for item in found] == ["x/1.png", "/abs/2.png", "gone, too"]
    assert [item.path for item in found] == [tmp_path / "x/1.png", Path("/abs/2.png"), tmp_path / "gone, too"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["a"]}, "expected one named `path`"),
        ({"path": ["a", ""]}, "row 2"),
        ({"path": ["a", "b", "a"]}, "row 3: a is listed twice"),
        ({"path": ["a\0b"]}, "row 1"),
    ],
)
def test_lists_with_faults(tmp_path: Path, suffix: str, columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_items(_write(tmp_path / f"list{suffix}", columns))


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0\1", b"PAR1 and no more"])
def test_damaged_lists(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        find_items(tmp_path / name)


def test_a_parquet_list_of_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="something else than text"):
        find_items(_write(tmp_path / "list.parquet", {"path": [1, 2]}))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_that_a_program_on_windows_wrote(tmp_path: Path, suffix: str) -> None:
    for name in ("x/1.png", "y/z/2.png", "3.png", "4.png", "back\\slash.png", " blank.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names: list[object] = [
        "x\\1.png",
        ".\\y\\z\\2.png ",
        " 3.png",
        "4.png\xa0",
        "back\\slash.png",
        " blank.png",
        "gone\\5.png",
    ]
    found = list(find_items(_write(tmp_path / f"list{suffix}", {"path": names})))
    meant = ["x/1.png", "y/z/2.png", "3.png", "4.png", "back\\slash.png", " blank.png", "gone\\5.png"]
    assert [item.path for item in found] == [tmp_path / name for name in meant]
    assert [item.source for item in found][:1] == ["x\\1.png"]


def test_byte_order_mark_line_ends_and_blanks_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "list.csv").write_bytes("\ufeff note , path \r\n1, a.png \r\n2,b.png\r\n".encode())
    assert [item.path for item in find_items(tmp_path / "list.csv")] == [tmp_path / "a.png", tmp_path / "b.png"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("name", ["C:\\scans\\a.dcm", " d:/scans/a.dcm", "\\\\server\\share\\a.dcm"])
def test_a_drive_or_share_of_windows_is_refused_as_such(tmp_path: Path, suffix: str, name: str) -> None:
    with pytest.raises(DataError, match=r"row 2: .* is a path on a drive or share of Windows"):
        find_items(_write(tmp_path / f"list{suffix}", {"path": ["a.dcm", name]}))


def test_a_file_whose_name_looks_like_a_drive_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "C:").mkdir()
    (tmp_path / "C:" / "a.dcm").touch()
    (found,) = find_items(_write(tmp_path / "list.csv", {"path": ["C:/a.dcm"]}))
    assert found.path == tmp_path / "C:/a.dcm"


def test_one_file_in_two_spellings_is_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.png").touch()
    with pytest.raises(DataError, match=r"row 2: x.1\.png is listed twice \(before as 'x/1\.png'\)"):
        find_items(_write(tmp_path / "list.csv", {"path": ["x/1.png", "x\\1.png"]}))


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_list_with_other_separators_says_so(tmp_path: Path, mark: str) -> None:
    (tmp_path / "list.csv").write_text(f"path{mark}note\na.png{mark}1\n")
    with pytest.raises(DataError, match="not by commas"):
        find_items(tmp_path / "list.csv")


LABELS = [
    ("a.png", "0", "p1", "train"),
    ("b.png", "1", "p2", "train"),
    ("c.png", "0", "p3", "validation"),
    ("d.png", "1", "p4", "validation"),
    ("e.png", "0", "p5", "test"),
    ("f.tif", "1", "p6", "test"),
]


def _labelled(folder: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    for index, (name, *_) in enumerate(LABELS):
        image = Image.new("L", (20, 30), index * 40)
        if name == "f.tif":
            image.save(folder / name, save_all=True, append_images=[Image.new("L", (9, 9), 7)])
        else:
            image.save(folder / name)
    names = ("path", "label", "patient", "split")
    _write(folder / "labels.csv", {name: [row[at] for row in rows] for at, name in enumerate(names)})
    return folder


def test_labelled_folder(tmp_path: Path) -> None:
    split = LAYOUTS["folder"].load()(_labelled(tmp_path, LABELS), seed=0, side=16)
    assert split.train.ids == ("a.png", "b.png")
    assert split.train.images.shape == (2, 16, 16)
    assert split.train.images.dtype == np.uint8
    assert split.validation.patients == ("p3", "p4")
    assert split.test.ids == ("e.png", "f.tif", "f.tif#1")
    assert split.test.labels.tolist() == [0, 1, 1]
    assert split.test.images[:, 3, 3].tolist() == [160, 200, 7]


def test_further_columns_of_the_list_become_groups(tmp_path: Path) -> None:
    folder = _labelled(tmp_path, LABELS)
    lists = {name: [row[at] for row in LABELS] for at, name in enumerate(("path", "label", "patient", "split"))}
    _write(folder / "labels.csv", {**lists, "site": ["north", "north", "south", "", "north", "south"]})
    split = read_labelled(folder, side=16)
    assert split.validation.groups["site"].tolist() == ["south", "(unknown)"]
    assert split.test.groups["site"].tolist() == ["north", "south", "south"]  # both pages of f.tif
    assert split.test.take(np.array([False, False, True])).groups["site"].tolist() == ["south"]
    (folder / "labels.csv").write_text("path,label,patient,split,site,site\na.png,0,p,train,x,y\n")
    with pytest.raises(DataError, match="two columns have one name: site, site"):
        read_labelled(folder, side=16)
    _write(folder / "labels.csv", {**lists, "report": ["none", "no finding " * 20, "", "", "", ""]})
    with pytest.raises(DataError, match="line 3: report has 219 characters"):
        read_labelled(folder, side=16)


@pytest.mark.parametrize(
    ("line", "row", "message"),
    [
        (1, ("b.png", "2", "p2", "train"), "line 3: label is '2'"),
        (1, ("b.png", "1", "p2", "training"), "line 3: split is 'training'"),
        (1, ("b.png", "Doe^Jane 19610204", "p2", "train"), "line 3: label is a text of 17 characters, expected 0 or 1"),
        (1, ("b.png", "1", "train", "4711-0815"), "line 3: split is a text of 9 characters, expected one of"),
        (1, ("b.png", "1", "", "train"), "line 3: path and patient"),
        (1, ("a.png", "1", "p2", "train"), "a.png: listed twice"),
        (3, ("d.png", "1", "p1", "validation"), "d.png: its patient is in validation and train"),
        (1, ("b.png", "0", "p2", "train"), r"split train: found the labels \[0\]"),
        (1, ("none.png", "1", "p2", "train"), "none.png: missing: no such file"),
        (1, ("labels.csv", "1", "p2", "train"), "labels.csv: not-an-image"),
    ],
)
def test_labelled_folder_with_faults(tmp_path: Path, line: int, row: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labelled(_labelled(tmp_path, [*LABELS[:line], row, *LABELS[line + 1 :]]), side=16)


def test_labelled_folder_without_its_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_labelled(tmp_path, side=16)
    _write(tmp_path / "labels.csv", {"path": ["a"], "label": ["1"]})
    with pytest.raises(DataError, match="columns missing: patient, split"):
        read_labelled(tmp_path, side=16)


def test_a_missing_list_of_labels_is_told_as_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: there is no such file; it lists .* path, label, patient, split"):
        read_labelled(tmp_path, side=16)
    (tmp_path / "labels.csv").mkdir()
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read \(Is a directory\)"):
        read_labelled(tmp_path, side=16)
    with pytest.raises(DataError, match=r"none: is not a folder"):
        read_labelled(tmp_path / "none", side=16)


def test_a_kind_of_fault_is_one_line_with_its_count_and_first_places(tmp_path: Path) -> None:
    rows = [(f"{index}.png", "yes" if index % 2 else "no", "p", "training") for index in range(5000)]
    lists = dict(zip(("path", "label", "patient", "split"), map(list, zip(*rows, strict=True)), strict=True))
    _write(tmp_path / "labels.csv", lists)  # type: ignore[arg-type]
    with pytest.raises(DataError) as told:
        read_labelled(tmp_path, side=16)
    assert str(told.value).splitlines() == [
        f"{tmp_path}/labels.csv: 10,000 faults",
        "  lines 2, 3, 4, 5, 6 and 4,995 more: label is 'no'; 'yes', expected 0 or 1",
        "  lines 2, 3, 4, 5, 6 and 4,995 more: split is 'training', expected one of train, validation, test",
    ]


def test_images_that_are_missing_are_one_line_too(tmp_path: Path) -> None:
    folder = _labelled(tmp_path, LABELS)
    for name in "abcdef":
        next(folder.glob(f"{name}.*")).unlink()
    with pytest.raises(
        DataError, match=r"6 faults\n  a.png, b.png, c.png, d.png, e.png and 1 more: missing: no such"
    ) as told:
        read_labelled(folder, side=16)
    assert len(str(told.value).splitlines()) == 2


def test_labels_that_a_program_on_windows_wrote(tmp_path: Path) -> None:
    folder = _labelled(tmp_path, LABELS)
    (folder / "sub").mkdir()
    (folder / "a.png").rename(folder / "sub" / "a.png")
    text = (folder / "labels.csv").read_text(encoding="utf-8-sig")
    (folder / "labels.csv").write_text(text.replace("a.png", "sub\\a.png"), encoding="utf-8-sig")
    assert len(read_labelled(folder, side=16).train) == 2
    (folder / "labels.csv").write_text(text.replace("a.png", "C:\\sub\\a.png"), encoding="utf-8-sig")
    with pytest.raises(DataError, match="is on a drive or share of Windows"):
        read_labelled(folder, side=16)


def test_a_list_that_is_a_pipe_or_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "pipe.parquet", "zero.csv"):
        with pytest.raises(DataError, match="regular file"):
            find_items(tmp_path / name)


def test_folders_deeper_than_pythons_recursion_are_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        os.mkdir("a")  # noqa: PTH102
        os.chdir("a")
    Path("x").write_bytes(b"x")
    os.chdir(tmp_path)
    found = sources(tmp_path)
    # Python's own rmtree, with which pytest tidies up runs later, cannot go so deep.
    subprocess.run(["rm", "-r", "a"], check=True)
    assert found == ["a/" * 1100 + "x"]


def test_a_byte_and_its_escape_are_two_files(tmp_path: Path) -> None:
    names = [b"\xff.png", rb"\xff.png", rb"\\xff.png", b"\xff\\xff.png"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    found = list(find_items(tmp_path))
    assert len({item.source for item in found}) == len({item.path for item in found}) == len(names)


HOSTILE = [
    b"esc\x1b]0;pwned\x07\x1b[2J.png",
    b"new\nline.png",
    b"cr\r=2+5.png",
    b"tab\t.png",
    b"del\x7f.png",
    "c1\x9b31m.png".encode(),
    "rlo\u202egnp.exe".encode(),
    "\u2066isolate\u2069.png".encode(),
    "line\u2028.png".encode(),
    b"both\xff\x1b.png",
]
LITERAL = [rb"esc\x1b]0;pwned\x07\x1b[2J.png", rb"esc\\x1b.png", rb"\x1b.png", rb"tab\t.png", rb"both\xff\x1b.png"]
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def name_on_disk(source: str) -> bytes:
    """As docs/operations.md says it."""
    name = source.encode()
    if not (name.startswith(b"./") and b"\\" in name):
        return name
    return re.sub(rb"\\(?:x(..)|\\)", lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\", name[2:])


def test_names_with_control_characters_are_shown_and_still_lead_to_their_files(tmp_path: Path) -> None:
    for name in HOSTILE + LITERAL:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    (tmp_path / "fold\x1b[31mer").mkdir()
    (tmp_path / "fold\x1b[31mer" / "in.png").write_bytes(b"fold\x1b[31mer/in.png")
    found = list(find_items(tmp_path))
    assert len({item.source for item in found}) == len(found) == len(HOSTILE) + len(LITERAL) + 1
    for item in found:
        assert not OBEYED.search(item.source)
        assert name_on_disk(item.source) == item.path.read_bytes()
    for item in found:
        (alone,) = find_items(item.path)
        assert name_on_disk(alone.source) == os.fsencode(item.path.name)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_names_of_a_list_too(tmp_path: Path, suffix: str) -> None:
    names = [name.decode() for name in HOSTILE[:-1] + LITERAL]
    # What would be taken for an escaped name is escaped.
    names += [rf"./{name}" for name in names if "\\" in name] + ["./plain.png", "/abs/\x1b.png"]
    found = list(find_items(_write(tmp_path / f"list{suffix}", {"path": list(names)})))
    assert len({item.source for item in found}) == len(names)
    for name, item in zip(names, found, strict=True):
        assert not OBEYED.search(item.source)
        assert name_on_disk(item.source).decode() == name
        assert item.path == tmp_path / name
