"""API keys: what a file of digests may hold, and what a request must bring."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from featherweight.core.errors import UsageError
from featherweight.core.web.access import check_key, read_keys
from featherweight.core.web.problems import ProblemError

GOOD = hashlib.sha256(b"0123456789abcdef").hexdigest()


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("text", [b"", b"\n", b" ", b"$KEY", b"KEY\n"])
@pytest.mark.parametrize("line", ["{}  -", "{}", "{} shop"])
def test_the_digest_of_nothing_is_refused(text: bytes, line: str, tmp_path: Path) -> None:
    """`printf %s "$KEY" | sha256sum` where KEY is not set."""
    file = tmp_path / "keys"
    file.write_text(f"{GOOD}  good\n{line.format(digest(text).upper())}\n")
    with pytest.raises(UsageError, match=r"keys:2: is the digest of .*lets everybody in; make another key"):
        read_keys(file)


@pytest.mark.parametrize("content", ["", "# nothing\n", "secret\n", GOOD[:-1], GOOD + "ab", "\0" * 64])
def test_what_is_no_digest_is_refused_and_not_repeated(content: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"expected .*SHA-256 digest") as raised:
        read_keys(file)
    assert not content.strip() or content.strip() not in str(raised.value)


@pytest.mark.parametrize("given", [None, b"", b"Bearer", b"Bearer ", b"Bearer \t ", b"Bearer wrong", b"Basic abc"])
def test_no_key_is_never_one_that_is_known(given: bytes | None) -> None:
    with pytest.raises(ProblemError, match="no known key"):
        check_key(given, (hashlib.sha256(b"").digest(), hashlib.sha256(b"right").digest()))


def test_a_known_key_gets_in() -> None:
    keys = (hashlib.sha256(b"other").digest(), hashlib.sha256(b"right").digest())
    check_key(b"Bearer right", keys)
    check_key(b"bearer  right", keys)
    check_key(None, ())
