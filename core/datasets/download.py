"""Fetch one file over HTTP: resumable, bounded in size, and checked before it gets its name.

The bytes gather in `NAME.part`. Beside it, `NAME.part.json` keeps the server's validator (ETag or Last-Modified), so
that an interrupted download goes on with `Range` and `If-Range` (RFC 9110, 13.1.5 and 14.2), and a file that changed
meanwhile starts anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import is_file, read_errors, write_errors
from featherweight.core.progress import Progress, silent

CHUNK_BYTES = 1 << 18
ATTEMPTS = 4
REDIRECTS = 5
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Expected:
    """What a file must be. md5 only where its publisher states one."""

    size_bytes: int
    sha256: str
    md5: str = ""


def read_digests(path: Path) -> tuple[int, str, str]:
    """(size in bytes, sha256, md5) of a file. Raises DataError when it cannot be read."""
    sha, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with read_errors(path, remedy="check that the file is there and readable"), path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return size, sha.hexdigest(), md5.hexdigest()


def check_file(path: Path, expected: Expected) -> None:
    """Raise DataError, with what was found and what was expected, unless the file is exactly the expected one."""
    size, sha256, md5 = read_digests(path)
    if size != expected.size_bytes:
        raise DataError(
            f"{path}: found {size} bytes, expected {expected.size_bytes}; the file is damaged or another version"
        )
    if sha256 != expected.sha256:
        raise DataError(
            f"{path}: found sha256 {sha256}, expected {expected.sha256}; the file is damaged or another version"
        )
    if expected.md5 and md5 != expected.md5:
        raise DataError(f"{path}: found md5 {md5}, the publisher states {expected.md5}; the file is another version")


def fetch_file(
    url: str, target: Path, expected: Expected, progress: Progress = silent, *, pause_s: float = 0.5
) -> None:
    """Download `url` to `target`, going on from an earlier interrupted try.

    A dropped connection is tried again until four tries in a row brought nothing, each wait twice as long as the last.
    Raises UsageError for an address that is not https, DataError when the server fails or its bytes are not the
    expected ones, OutputError when the disk takes no more. In none of these cases is anything left under the final
    name; the part that was received stays for the next try, except when its bytes proved wrong.
    """
    check_address(url)
    part = target.with_name(target.name + ".part")
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=15, read=60)) as pool:
        resumed = _receive(pool, url, part, expected, progress, pause_s)
        try:
            check_file(part, expected)
        except DataError:
            _discard(part)
            if not resumed:
                raise
            # The file may have changed between the parts without a word from the server: one whole try tells.
            _receive(pool, url, part, expected, progress, pause_s)
            _check_or_discard(part, expected)
    _rename(part, target)


def copy_file(source: Path, target: Path, expected: Expected, progress: Progress = silent) -> None:
    """Copy a local file to `target` by way of `NAME.part`, checked as a download is. Raises DataError, OutputError."""
    check_file(source, expected)
    part = target.with_name(target.name + ".part")
    _discard(part)
    with _write_errors(part), source.open("rb") as read, part.open("wb") as write:
        while chunk := read.read(CHUNK_BYTES):
            write.write(chunk)
            progress(target.name, write.tell(), expected.size_bytes)
    _check_or_discard(part, expected)  # the copy is checked too: the source may have changed under our hands
    _rename(part, target)


def check_address(url: str) -> None:
    """Raise UsageError unless the address is https, or http on this machine (tests)."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return
    raise UsageError(f"{url}: only https addresses are fetched, because a proxy on the way could change anything else")


def _receive(
    pool: urllib3.PoolManager, url: str, part: Path, expected: Expected, progress: Progress, pause_s: float
) -> bool:
    """Fill `part`; returns whether its bytes come from more than one response."""
    failures, resumed = 0, False
    while True:
        before = _size(part)
        if before == expected.size_bytes:
            return True  # an earlier run stopped between the last byte and the check
        problem = ""
        try:
            resumed = _receive_once(pool, url, part, expected, progress) or resumed
        except HTTPError as error:
            problem = str(error)
        have = _size(part)
        if have == expected.size_bytes:
            return resumed
        failures = 0 if have > before else failures + 1
        if failures >= ATTEMPTS:
            detail = problem or "the connection was closed early"
            raise DataError(
                f"{url}: {ATTEMPTS} tries without progress at {have} of {expected.size_bytes} bytes ({detail}); "
                "run the same command again to go on from there"
            )
        time.sleep(pause_s * 2**failures)


def _receive_once(pool: urllib3.PoolManager, url: str, part: Path, expected: Expected, progress: Progress) -> bool:
    """One request. Returns whether the server went on from the part that was there."""
    have = _size(part)
    validator = _read_validator(part, url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "featherweight"}
    if 0 < have < expected.size_bytes:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    response = _request(pool, url, headers)
    try:
        start = _start(response, url, have, expected)
        if start is None:
            _discard(part)
            return False
        if start == 0:
            _discard(part)
            _write_validator(part, url, response)
        with _write_errors(part), part.open("ab") as stream:
            for chunk in _chunks(response):
                stream.write(chunk)
                progress(part.stem, stream.tell(), expected.size_bytes)
                if stream.tell() > expected.size_bytes:
                    break
    finally:
        response.close()
    if part.stat().st_size > expected.size_bytes:
        _discard(part)
        raise DataError(f"{url}: more than the expected {expected.size_bytes} bytes came; the file there has changed")
    return start > 0


def _request(pool: urllib3.PoolManager, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    address = url
    for _ in range(REDIRECTS + 1):
        response = pool.request(
            "GET", address, headers=headers, preload_content=False, redirect=False, decode_content=False
        )
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        address = urljoin(address, location)
        check_address(address)
    raise DataError(f"{url}: more than {REDIRECTS} redirects; look at the publisher's page for the file's new address")


def _start(response: urllib3.BaseHTTPResponse, url: str, have: int, expected: Expected) -> int | None:
    """The offset of the response's first byte; None when the part that is here cannot be continued."""
    if response.status == 206:
        if response.headers.get("Content-Range", "") == f"bytes {have}-{expected.size_bytes - 1}/{expected.size_bytes}":
            return have
        return None  # another range or another length than asked for: start anew
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != expected.size_bytes:
            raise DataError(
                f"{url}: the server offers {length} bytes, expected {expected.size_bytes}; the file there has changed"
            )
        return 0
    if response.status == 416:
        return None
    if response.status in (408, 425, 429) or response.status >= 500:
        raise HTTPError(f"HTTP status {response.status}")
    raise DataError(f"{url}: the server answered with HTTP status {response.status}; look at the publisher's page")


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    # read1 gives what has come so far, so that a dropped connection costs none of it
    while chunk := response.read1(CHUNK_BYTES, decode_content=False):
        yield chunk


class _Validator(msgspec.Struct, frozen=True):
    url: str
    value: str


def _validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_validator(part: Path, url: str) -> str:
    """What the server called the version that `part` holds, or nothing."""
    path = _validator_path(part)
    try:
        found = msgspec.json.decode(path.read_bytes() if is_file(path) else b"", type=_Validator)
    except (OSError, UnicodeError, msgspec.DecodeError):
        return ""
    return found.value if found.url == url else ""


def _write_validator(part: Path, url: str, response: urllib3.BaseHTTPResponse) -> None:
    tag = response.headers.get("ETag", "")
    # RFC 9110 forbids weak tags in If-Range: they do not promise the same bytes.
    value = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    with _write_errors(part):
        _validator_path(part).write_bytes(msgspec.json.encode(_Validator(url, value)))


def _check_or_discard(part: Path, expected: Expected) -> None:
    try:
        check_file(part, expected)
    except DataError:
        _discard(part)
        raise


def _size(part: Path) -> int:
    """Bytes that are here. A link or pipe in the part's place, through which the download would be written, goes."""
    with _write_errors(part), contextlib.suppress(FileNotFoundError):
        found = part.lstat()
        if stat.S_ISREG(found.st_mode):
            return found.st_size
        _discard(part)
    return 0


def _discard(part: Path) -> None:
    with _write_errors(part):
        part.unlink(missing_ok=True)
        _validator_path(part).unlink(missing_ok=True)


def _rename(part: Path, target: Path) -> None:
    with _write_errors(target):
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(target)
    _validator_path(part).unlink(missing_ok=True)


def _write_errors(path: Path) -> contextlib.AbstractContextManager[None]:
    """urllib3's errors are no OSErrors and pass."""
    return write_errors(path, remedy="free space or choose --to")
