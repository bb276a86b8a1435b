"""What the head of a request must be, and what it says of how it is to be answered: pure checks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

import httptools

from featherweight.core.web.problems import ProblemError

HEAD_BYTES: Final = 64 << 10
BODY_BYTES: Final = 1 << 20
DEADLINES_MS: Final = 0.001, 60_000.0
JSON: Final = b"application/json"
RETRY: Final = ((b"retry-after", b"1"),)
"""Headers of an answer that may be another one soon."""
ONCE: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"content-type",
        b"content-encoding",
        b"transfer-encoding",
        b"expect",
        b"x-deadline-ms",
        b"x-request-id",
    }
)
"""Headers that change the answer. Of two, a proxy may have looked at the other one."""
_CHARSET: Final = re.compile(rb'.*;\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE | re.DOTALL)
_CHARSETS: Final = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})

Fields = Iterable[tuple[bytes, bytes]]
Headers = dict[bytes, bytes]


def find_path(url: bytes) -> str:
    """The path of a request's target, decoded. Raises ProblemError."""
    try:
        path: bytes = httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError as error:
        raise ProblemError("malformed-request", "the request's target is neither a path nor a URL") from error
    return unquote(path.decode("latin-1"))


def check_repeated(fields: Fields) -> None:
    """Raise ProblemError when a header of ONCE is there twice."""
    seen = set[bytes]()
    for name, _ in fields:
        if name in ONCE and name in seen:
            said = name.decode().title()
            raise ProblemError("malformed-request", f"{said}: sent more than once; send one", header=said)
        seen.add(name)


def check_head_size(url: bytes, fields: Fields) -> None:
    """Raise ProblemError. Spaces around values are counted while they are read only."""
    if len(url) + len("POST  HTTP/1.1\r\n\r\n") + sum(len(n) + len(v) + len(": \r\n") for n, v in fields) > HEAD_BYTES:
        raise head_too_large()


def check_framing(version: str, headers: Headers) -> None:
    """Raise ProblemError for what this server and a proxy before it could understand differently. That lengths are
    given once, lines end rightly and names are names, is checked by the parser."""
    if version not in ("1.0", "1.1"):
        raise ProblemError("malformed-request", f"HTTP/{version} is not spoken here; send HTTP/1.1")
    if version == "1.1" and b"host" not in headers:
        raise ProblemError("malformed-request", "Host: HTTP/1.1 asks for this header", header="Host")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
        raise ProblemError(
            "unsupported-media-type", "send no Transfer-Encoding but chunked, in HTTP/1.1", header="Transfer-Encoding"
        )


def wants_permission(version: str, headers: Headers) -> bool:
    """Whether the body comes only once it is asked for. Raises ProblemError for any other expectation. HTTP/1.0 knows
    none."""
    if version == "1.0":
        return False
    if headers[b"expect"].strip().lower() != b"100-continue":
        raise ProblemError("expectation-failed", "Expect: only 100-continue is understood", header="Expect")
    return True


def check_body_length(headers: Headers) -> None:
    """Raise ProblemError for a body that is announced as too large."""
    length = headers.get(b"content-length", b"0")
    if len(length.lstrip(b"0")) > len(str(BODY_BYTES)) or int(length) > BODY_BYTES:
        raise body_too_large()


def check_body_kind(headers: Headers) -> None:
    """Raise ProblemError for a body that is not plain JSON in UTF-8."""
    kind = headers.get(b"content-type", b"")
    if kind != JSON:
        charset = _CHARSET.fullmatch(kind)
        known = charset is None or charset[1].lower() in _CHARSETS
        if kind.partition(b";")[0].strip().lower() != JSON or not known:
            raise ProblemError(
                "unsupported-media-type", "send Content-Type: application/json, in UTF-8", header="Content-Type"
            )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise ProblemError(
            "unsupported-media-type",
            "send the body as it is, without Content-Encoding",
            header="Content-Encoding",
            headers=((b"accept-encoding", b"identity"),),
        )


def find_due(headers: Headers, arrived: float, default_ms: float | None) -> float:
    """When the decision must be there: X-Deadline-Ms after the request's arrival, or the service's own deadline."""
    given = headers.get(b"x-deadline-ms")
    if given is None:
        return math.inf if default_ms is None else arrived + default_ms / 1000
    try:
        deadline_ms = float(given)
    except ValueError:
        deadline_ms = math.nan
    lowest, highest = DEADLINES_MS
    if not lowest <= deadline_ms <= highest:
        raise ProblemError(
            "malformed-request",
            f"X-Deadline-Ms: expected a number of milliseconds from {lowest:g} to {highest:g}",
            header="X-Deadline-Ms",
        )
    return arrived + deadline_ms / 1000


def head_too_large() -> ProblemError:
    """The problem of a request whose head is beyond HEAD_BYTES."""
    return ProblemError("head-too-large", f"at most {HEAD_BYTES} bytes are read")


def body_too_large() -> ProblemError:
    """The problem of a request whose body is beyond BODY_BYTES."""
    return ProblemError("too-large", f"at most {BODY_BYTES} bytes are read; send fewer transactions at once")
