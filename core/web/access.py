"""Who may ask: API keys, kept as digests only."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from pathlib import Path

from featherweight.core.errors import UsageError
from featherweight.core.files import read_errors
from featherweight.core.web.problems import ProblemError

_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{64})(\s.*)?")
_KEY_BYTES = 1024
_WEAK = {
    hashlib.sha256(text).digest(): said
    for said, texts in {
        "no key at all (was $KEY empty?)": (b"", b"\n", b"\r\n", b" "),
        "the words `$KEY` or `KEY`": (b"$KEY", b"KEY", b"$KEY\n", b"KEY\n"),
    }.items()
    for text in texts
}
"""Digests of what a slip of the shell makes -> of what they are."""


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The SHA-256 digests of a file in the form of sha256sum: one a line, a name behind it, `#` begins a comment.

    Raises UsageError, which names the line and never repeats it: it may hold a key by mistake.
    """
    with read_errors(path, "the API keys cannot be read", raises=UsageError, also=(UnicodeDecodeError,)):
        lines = path.read_text("utf-8").splitlines()
    digests = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise UsageError(f"{path}:{number}: expected the SHA-256 digest of a key, 64 hexadecimal digits")
        digest = bytes.fromhex(found["digest"])
        if said := _WEAK.get(digest):
            raise UsageError(f"{path}:{number}: is the digest of {said}, which lets everybody in; make another key")
        digests.append(digest)
    if not digests:
        raise UsageError(f"{path}: holds no key; expected one SHA-256 digest a line")
    return tuple(digests)


def check_exposure(host: str, keys: tuple[bytes, ...], *, allow_anonymous: bool) -> None:
    """Raise UsageError for a service without keys that others than this host could reach."""
    if not keys and not allow_anonymous and not is_loopback(host):
        raise UsageError(
            f"--host {host} lets other machines in, and no --api-keys are given; name a file of keys, "
            "or say --allow-anonymous"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this host alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_key(authorization: bytes | None, keys: tuple[bytes, ...]) -> None:
    """Raise ProblemError unless `Authorization: Bearer KEY` brings a key whose digest is among `keys`; without any,
    everybody may ask. Every digest is compared, each in constant time."""
    if not keys:
        return
    scheme, _, key = (authorization or b"").partition(b" ")
    key = key.strip()
    digest = hashlib.sha256(key).digest() if len(key) <= _KEY_BYTES else b""
    matches = sum(hmac.compare_digest(digest, known) for known in keys)
    if scheme.lower() != b"bearer" or not key or not matches:
        raise ProblemError(
            "unauthorized",
            "no known key came with this request; send the header Authorization: Bearer KEY",
            header="Authorization",
            headers=((b"www-authenticate", b"Bearer"),),
        )
