"""Errors on their way through FastAPI, as problem details."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from featherweight.apps.fraud.http.heads import RETRY
from featherweight.apps.fraud.http.service import (
    InvalidEventError,
    OverloadedError,
    RequestRefusedError,
    StateUnavailableError,
)
from featherweight.core.errors import FeatherweightError
from featherweight.core.web.problems import CONTENT_TYPE, ProblemError, encode_status, explain_validation

log = logging.getLogger("featherweight.fraud")


def explain_errors(app: FastAPI) -> None:
    """Have the app answer errors with problem details; for an unexpected error the answer has only the
    request's id, by which the log says more."""
    handlers: dict[Any, Any] = {
        ProblemError: _explain_problem,
        RequestValidationError: _explain_validation,
        HTTPException: _explain_status,
        RequestRefusedError: _explain_refusal,
        FeatherweightError: _explain_failure,
        Exception: _explain_bug,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def respond(problem: ProblemError, request_id: str) -> Response:
    """The problem as an answer of the application."""
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    return Response(problem.encode(request_id), problem.status, headers, media_type=CONTENT_TYPE.decode())


def explain_refusal(error: RequestRefusedError, rows: str = "") -> ProblemError:
    """rows: the name of the list in the body that the service was given, where it was one."""
    match error:
        case InvalidEventError(field=field, index=index):
            steps = [rows, "" if index is None else str(index), field]
            pointer = "#" + "".join(f"/{step}" for step in steps if step)
            return ProblemError("invalid-field", str(error), pointer=pointer)
        case OverloadedError():
            return ProblemError("overloaded", str(error), headers=RETRY)
        case StateUnavailableError():
            return ProblemError("state-unavailable", str(error), headers=RETRY)
        case _:
            raise TypeError(f"{type(error).__name__} has no problem of its own") from error


def report_failure(request_id: str, error: BaseException | None) -> ProblemError:
    """The answer to the caller; the reason goes to the log."""
    log.error("request %s failed", request_id, exc_info=error)
    return ProblemError("internal", "the service failed; its log says why, by the request's id")


async def _explain_problem(request: Request, problem: ProblemError) -> Response:
    return respond(problem, request.state.request_id)


async def _explain_refusal(request: Request, error: RequestRefusedError) -> Response:
    """Answer a refusal in a route that was added and calls the service itself."""
    return respond(explain_refusal(error), request.state.request_id)


async def _explain_validation(request: Request, error: RequestValidationError) -> Response:
    return respond(explain_validation(error.errors()), request.state.request_id)


async def _explain_failure(request: Request, error: FeatherweightError) -> Response:
    return respond(report_failure(request.state.request_id, error), request.state.request_id)


async def _explain_bug(request: Request, error: Exception) -> Response:
    """Not logged here: Starlette raises the error again, for the server to log."""
    problem = ProblemError("internal", "the service failed; its log says why, by the request's id")
    return respond(problem, request.state.request_id)


async def _explain_status(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND and "route" not in request.scope:
        problem = ProblemError("not-found", "nothing is here; /openapi.json says what is where")
        return respond(problem, request.state.request_id)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_with_head(headers.get("Allow", "").split(", ")))
        problem = ProblemError(
            "method-not-allowed", f"only {allowed} is answered here", headers=((b"allow", allowed.encode()),)
        )
        return respond(problem, request.state.request_id)
    if error.status_code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Response(status_code=error.status_code, headers=headers)
    content = encode_status(error.status_code, str(error.detail), request.state.request_id)
    return Response(content, error.status_code, headers, media_type=CONTENT_TYPE.decode())


def _with_head(methods: list[str]) -> list[str]:
    """What is answered to GET is answered to HEAD."""
    return sorted({*methods, "HEAD"} if "GET" in methods else methods)
