"""What goes wrong, as RFC 9457 problem details that name the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = b"application/problem+json"

KINDS: Final[dict[str, tuple[int, str]]] = {
    "malformed-request": (400, "The request is not what the header or the JSON grammar asks for"),
    "unauthorized": (401, "An API key is needed"),
    "not-found": (404, "Nothing is here"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "too-slow": (408, "The request took too long to come in"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body must be application/json"),
    "expectation-failed": (417, "What the request expects is not done here"),
    "invalid-field": (422, "A field is not what it should be"),
    "head-too-large": (431, "The request's head is too large"),
    "internal": (500, "The service failed"),
    "overloaded": (503, "The service has more to do than it can"),
    "state-unavailable": (503, "The state cannot be written"),
}
"""The last part of `type` -> status and title."""


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one field."""

    pointer: str
    """The field in the body, as an RFC 6901 JSON Pointer in a URI fragment."""
    detail: str
    """What was found and what was expected."""


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every answer that is an error (RFC 9457)."""

    type: str
    """The kind of problem; its last part is one of a fixed list."""
    title: str
    """The kind of problem in words."""
    status: int
    """The HTTP status."""
    detail: str
    """What is wrong with this request."""
    request_id: str
    """The same as the header X-Request-ID of the answer."""
    errors: tuple[FieldError, ...] = ()
    """The fields at fault, where the body is JSON but not what the schema says."""
    header: str = ""
    """The header at fault."""


class ProblemError(Exception):
    """Raised anywhere while a request is answered. headers: of the answer."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        pointer: str | None = None,
        header: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, self.title = KINDS[kind]
        self.detail = detail
        self.errors: tuple[FieldError, ...] = () if pointer is None else (FieldError(pointer=pointer, detail=detail),)
        self.header = header
        self.headers = headers

    def encode(self, request_id: str) -> bytes:
        """The answer's body: problem details (RFC 9457) in JSON."""
        return msgspec.json.encode(
            ProblemDetails(
                type=f"urn:featherweight:problem:{self.kind}",
                title=self.title,
                status=self.status,
                detail=self.detail,
                request_id=request_id,
                errors=self.errors,
                header=self.header,
            )
        )


def encode_status(status: int, detail: str, request_id: str) -> bytes:
    """A problem that only its status describes: `about:blank`, in RFC 9457's words."""
    title = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    return msgspec.json.encode(
        ProblemDetails(type="about:blank", title=title, status=status, detail=detail, request_id=request_id)
    )


def explain_validation(errors: Sequence[Any]) -> ProblemError:
    """The problem behind pydantic's errors, as FastAPI gives them. Pure, and never repeats a value of the request."""
    if errors[0]["type"] == "json_invalid":
        return ProblemError("malformed-request", "the body is not JSON")
    first = ".".join(map(str, errors[0]["loc"]))
    problem = ProblemError("invalid-field", f"{first}: {errors[0]['msg']}")
    problem.errors = tuple(
        FieldError(pointer="#" + "".join(f"/{_escape(step)}" for step in error["loc"][1:]), detail=error["msg"])
        for error in errors
        if error["loc"][0] == "body"
    )
    return problem


_PATH = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`$")
_FIELD = re.compile(r"has (?:no|a) field (?P<name>[^,;]*)")
"""As `decoding` says it."""
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")


def explain_decoding(error: Exception) -> ProblemError:
    """The problem behind an error of msgspec: the field's pointer comes out of the message, which says
    ``Expected `float` >= 0 - at `$.transactions[3].amount` ``. Pure, and never repeats a value of the request."""
    if not isinstance(error, msgspec.ValidationError):
        return ProblemError("malformed-request", f"the body is not JSON: {error}")
    text = str(error)
    place = _PATH.search(text)
    steps = [step["name"] or step["index"] for step in _STEP.finditer(place["path"])] if place else []
    said = text[: place.start()] if place else text
    named = _FIELD.search(said)
    if named:
        steps.append(named["name"])
    pointer = "#" + "".join(f"/{_escape(step)}" for step in steps if step != "...")
    return ProblemError("invalid-field", f"{'.'.join(steps) or 'the body'}: {said}", pointer=pointer)


def _escape(step: Any) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
