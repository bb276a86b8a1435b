"""Files become frames. One file a format, found by its first bytes and never by its name.

A file never raises and never vanishes from the results: it gives frames, or rejected rows with one of these reasons.

    missing                       no such file: a list names what is not there, or a link leads to nothing
    vanished                      it was there when the job came to it, and is gone (given by `apps.imaging.batch.job`)
    unreadable                    the system refuses to open or read it (permission, disk, network share)
    not-a-file                    a folder, pipe, socket or device
    empty                         no bytes
    too-large                     bytes, samples, frames, elements or memory above `Limits`
    not-an-image                  neither DICOM, JPEG, PNG nor TIFF by its first bytes
    no-pixel-data                 DICOM without an image (structured report, plan, waveform, encapsulated PDF, ...)
    unsupported-transfer-syntax   DICOM whose pixels are coded (or encrypted) in a way no installed decoder reads
    unsupported-photometric       DICOM whose photometric interpretation cannot become grey, or contradicts its samples
    bad-header                    rows, columns, frames, bits or look-up tables that cannot be right
    corrupt                       truncated or damaged, or a frame that is declared and not there
    bad-values                    pixels that are not numbers (NaN, infinity)
    out-of-memory                 it fits the limits, and still not this process' memory
    decoder-crashed, timeout      given by `apps.imaging.batch.decode`: the worker died, or did not answer in time

A file that declares several frames has a row for each, with its own number, whatever became of the others. It has one
row, of frame 0, where nothing can be said of its frames: it cannot be read, its header cannot be understood, it is
above the limits, or its worker died.

A message carries the path, header numbers, UIDs, the names of elements and an exception's type, never its text: the
text may quote an element's value, and elements hold names and birth dates. What deviates from a format's rules and has
one reading is read, and said in the row's notes.
"""

from __future__ import annotations

import importlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from featherweight.apps.imaging.frames import Decoded, FrameId, RejectedFrame
from featherweight.apps.imaging.readers.base import DEFAULT_LIMITS, Limits, Reader, RefusedError
from featherweight.apps.imaging.sealed import Preprocess
from featherweight.apps.imaging.sources.files import Item, find_items
from featherweight.core.arrays import GreyImage
from featherweight.core.files import describe_kind

__all__ = ["DEFAULT_LIMITS", "FORMATS", "Format", "Item", "Limits", "find_items", "read_content", "read_frames"]


BLANK = "the picture is of one grey: its probability says nothing"
"""A note."""


@dataclass(frozen=True)
class Format:
    """name: for people; matches: whether a file that begins with these bytes is one; module: has `decode_file`, a
    Reader, and is imported with the first such file."""

    name: str
    matches: Callable[[bytes], bool]
    module: str


def _is_dicom(head: bytes) -> bool:
    """PS3.10 files have DICM at byte 128. Older ones begin with an element of group 2 or 8, in either byte order, with
    an explicit type or a plausible length."""
    if head[128:132] == b"DICM":
        return True
    orders: tuple[Literal["little"], Literal["big"]] = ("little", "big")
    for order in orders:
        group = int.from_bytes(head[:2], order)
        element = int.from_bytes(head[2:4], order)
        length = int.from_bytes(head[4:8], order)
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        if len(head) >= 8 and group in (2, 8) and element <= 0x100 and (explicit or length <= 64):
            return True
    return False


FORMATS = (
    # DICOM stands first: its preamble may be the head of a TIFF as well (PS3.10 7.1).
    Format("DICOM", _is_dicom, "featherweight.apps.imaging.readers.dicom"),
    Format("JPEG", lambda head: head.startswith(b"\xff\xd8\xff"), "featherweight.apps.imaging.readers.raster"),
    Format("PNG", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), "featherweight.apps.imaging.readers.raster"),
    Format(
        "TIFF",
        lambda head: head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
        "featherweight.apps.imaging.readers.raster",
    ),
)


def read_frames(item: Item, preprocess: Preprocess, limits: Limits = DEFAULT_LIMITS) -> Iterator[Decoded]:
    """One file's frames in order, at least one row; in this process (`apps.imaging.batch.decode` gives it to others).

    A frame's decode_ms is its share of reading, decoding and resizing; opening the file counts for the first.
    """
    start, frame = time.perf_counter(), 0
    try:
        content = read_content(item.path, limits.file_bytes)
        frames = _reader(content)(content, item.source, preprocess, limits)
        del content  # a reader lets go of the bytes when it has parsed them
        for found in frames:
            if isinstance(found, RejectedFrame):
                yield found
            else:
                notes = "; ".join(filter(None, (found.notes, BLANK))) if _is_blank(found.pixels) else found.notes
                yield replace(found, decode_ms=(time.perf_counter() - start) * 1e3, notes=notes)
            start, frame = time.perf_counter(), found.id.frame + 1
    except RefusedError as error:  # perhaps after some frames, whose rows stand
        yield RejectedFrame(FrameId(item.source, frame), error.reason, str(error))
    except MemoryError:
        yield RejectedFrame(
            FrameId(item.source, frame), "out-of-memory", "the file is too large for this process' memory"
        )


def _is_blank(pixels: GreyImage) -> bool:
    """A lost exposure, or a window beside all values. A network has an answer for it as for any other."""
    return bool(pixels.max() - pixels.min() < 1 / 256)


def read_content(path: Path, limit: int) -> bytes:
    """The bytes of a regular file. Never waits for a pipe or device. Raises RefusedError."""
    try:
        # Looked at before it is opened (opening a device may already do something) and again afterwards (it may be
        # another).
        _check_regular(path.stat().st_mode, path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _check_regular(os.fstat(descriptor).st_mode, path)
            size = os.fstat(descriptor).st_size
            content = b"" if size > limit else file.read(size + 1)  # one more: has it grown?
    except (FileNotFoundError, NotADirectoryError):
        found = "a link that leads to no file" if path.is_symlink() else "no such file"
        raise RefusedError("missing", f"{found}; is its name spelled as it is on this host?") from None
    except (OSError, ValueError) as error:
        cause = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
        raise RefusedError("unreadable", f"the file cannot be opened or read: {cause}") from None
    if size > limit:
        raise RefusedError("too-large", f"found {size} bytes, at most {limit} are read")
    if len(content) > size:
        raise RefusedError("corrupt", "the file grew while it was read; is it still being copied?")
    if not content:
        raise RefusedError("empty", "the file has no bytes")
    return content


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        if path.is_symlink():
            raise RefusedError("not-a-file", "found a link to a folder, which is not followed; name the folder itself")
        raise RefusedError(
            "not-a-file", "found a folder that cannot be listed or is listed as a file; expected a regular file"
        )
    raise RefusedError("not-a-file", f"found {describe_kind(mode)}; expected a regular file")


def _reader(content: bytes) -> Reader:
    head = content[:132]
    for known in FORMATS:
        if known.matches(head):
            return cast(Reader, importlib.import_module(known.module).decode_file)
    expected = ", ".join(known.name for known in FORMATS)
    raise RefusedError("not-an-image", f"the first bytes are {content[:4].hex(' ')}; expected one of {expected}")
