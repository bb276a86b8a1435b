"""The OpenAPI document: its schemas come from the types that decode requests and encode answers."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

import msgspec

from featherweight.apps.fraud.http.forms import (
    BatchAnswer,
    BatchRequest,
    Health,
    LabelRequest,
    LabelsAnswer,
    LabelsRequest,
    ScoreRequest,
)
from featherweight.apps.fraud.plausible import EARLIEST_MS, END_MS
from featherweight.apps.fraud.sealed import FeatureSchema
from featherweight.apps.fraud.transactions import Decision, Reason
from featherweight.core.fields import field_meanings
from featherweight.core.web.problems import KINDS, FieldError, ProblemDetails

TITLE: Final = "Featherweight fraud scorer"
DESCRIPTION: Final = """\
Scores card transactions for fraud.

A transaction without `features` is scored against the histories that the service keeps, and counted into them; sent
again with the same `transaction_id`, it is answered again (`duplicate`) and not counted again. With another amount,
customer, terminal or time than before under that `transaction_id` it is a `conflict`: it is scored as it came, and
what is counted stays the first. With `features` (every column of the model, by name) nothing is kept.

`/v1/labels` tells what became of transactions. Of several labels of a transaction the last one counts, so that a label
can be taken back by another one with the other `is_fraud`. A label names the transaction's own customer, terminal and
time; one whose transaction is not known (yet, or any more) changes nothing and is counted in `unknown`, and
one with another customer, terminal or time than its transaction changes what it names, and is counted in `conflicts`.

Fields that are not known are ignored (and counted in `/metrics`); a missing one is named together with what was found.

The service knows a transaction again as long as the customer's history has it: of a customer the latest 1,024 of the
last month. One that is sent again later is scored and counted as a new one, so send again at once.

Headers that change an answer (Host, Authorization, Content-Type, X-Deadline-Ms, X-Request-ID) may be there once only.

Errors are problem details (RFC 9457): `errors[].pointer` names the field."""

_TRANSACTION: Final[dict[str, Any]] = {
    "transaction_id": "tx-1",
    "customer_id": "customer-596",
    "terminal_id": "terminal-3156",
    "time_ms": 1_522_540_831_000,
    "amount": 57.16,
}
_LABEL: Final[dict[str, Any]] = {k: v for k, v in _TRANSACTION.items() if k != "amount"} | {"is_fraud": True}
_DECISION: Final[dict[str, Any]] = _TRANSACTION | {
    "outcome": "review",
    "probability": 0.8231,
    "model": "card-fraud@0123456789ab",
    "reasons": [{"feature": "terminal_risk_7d_delayed", "value": 0.4286, "effect": 2.9174}],
}
_REF: Final = "#/components/schemas/{name}"
_ROUTES: Final[dict[str, tuple[str, str, type, type, dict[str, Any], dict[str, Any]]]] = {
    "/v1/score": ("score", "Score a transaction", ScoreRequest, Decision, _TRANSACTION, _DECISION),
    "/v1/score/batch": (
        "score_batch",
        "Score up to 1000 transactions, in order",
        BatchRequest,
        BatchAnswer,
        {"transactions": [_TRANSACTION]},
        {"decisions": [_DECISION]},
    ),
    "/v1/labels": (
        "learn",
        "Tell what became of up to 1000 transactions, in order",
        LabelsRequest,
        LabelsAnswer,
        {"labels": [_LABEL]},
        {"learned": 1, "unknown": 0},
    ),
}


def describe(
    base: dict[str, Any], model: FeatureSchema, *, secured: bool, open_paths: Container[str]
) -> dict[str, Any]:
    """`base`, FastAPI's own document, with the endpoints of the service. model: whose columns `features` may have.
    secured: whether an API key is asked for, but for `open_paths`."""
    types = [kind for route in _ROUTES.values() for kind in route[2:4]]
    _, schemas = msgspec.json.schema_components([*types, Health, ProblemDetails], ref_template=_REF)
    for kind in (ScoreRequest, BatchRequest, LabelsRequest, LabelRequest):
        del schemas[kind.__name__]["additionalProperties"]  # what is not known is ignored, see `decoding`
    for explained in (*types, Reason, LabelRequest, FieldError, Health, ProblemDetails):
        for name, meaning in field_meanings(explained).items():
            schemas[explained.__name__]["properties"][name].setdefault("description", meaning)
    _name_features(schemas[ScoreRequest.__name__], model)
    _bound_times(schemas)
    paths = {path: _operation(*route) for path, route in _ROUTES.items()} | {
        "/healthz": _view("healthz", "The process lives", _HEALTH),
        "/readyz": _view("readyz", "Send it work", _HEALTH, {"503": {"description": "Not now", **_HEALTH}}),
        "/metrics": _view("metrics", "For Prometheus", {"content": {"text/plain": {"schema": {"type": "string"}}}}),
    }
    for path, operations in base["paths"].items():
        paths[path] = paths.get(path, {}) | {method: dict(operation) for method, operation in operations.items()}
    components = dict(base.get("components", {}))
    components["schemas"] = components.get("schemas", {}) | schemas
    if secured:
        components["securitySchemes"] = components.get("securitySchemes", {}) | {
            "key": {"type": "http", "scheme": "bearer"}
        }
        for path in paths:
            if path not in open_paths:
                for operation in paths[path].values():
                    operation["security"] = [{"key": []}]
                    operation["responses"] = operation["responses"] | {"401": _problem(401)}
    return {**base, "paths": paths, "components": components}


def _name_features(request: dict[str, Any], model: FeatureSchema) -> None:
    features = request["properties"]["features"]
    value = features.pop("additionalProperties")
    features |= {"properties": dict.fromkeys(model.names, value), "required": list(model.names)}
    features["additionalProperties"] = False
    if model.source == "given":
        request["required"].append("features")


def _bound_times(schemas: dict[str, Any]) -> None:
    """More is decoded than is believed, so that a refusal can name the unit that a number seems to be in."""
    for schema in schemas.values():
        found = schema.get("properties", {}).get("time_ms", {})
        if "maximum" in found:
            found |= {"minimum": EARLIEST_MS, "maximum": END_MS}


def _operation(
    name: str, summary: str, request: type, answer: type, example: dict[str, Any], answered: dict[str, Any]
) -> dict[str, Any]:
    failures = sorted({status for status, _ in KINDS.values()} - {401, 404, 405})
    responses = {"200": {"description": "Done", "headers": _REQUEST_ID, **_content(answer, answered)}}
    operation = {
        "operationId": name,
        "summary": summary,
        "tags": ["scoring"],
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, **_content(request, example)},
        "responses": responses | {str(status): _problem(status) for status in failures},
    }
    return {"post": operation}


def _view(name: str, summary: str, content: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    responses = {"200": {"description": "Done", "headers": _REQUEST_ID, **content}} | (more or {})
    return {"get": {"operationId": name, "summary": summary, "tags": ["health"], "responses": responses}}


def _content(kind: type, example: dict[str, Any]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=kind.__name__)}
    return {"content": {"application/json": {"schema": schema, "example": example}}}


def _problem(status: int) -> dict[str, Any]:
    titles = "; or: ".join(title for code, title in KINDS.values() if code == status)
    schema = {"$ref": _REF.format(name=ProblemDetails.__name__)}
    return {"description": titles, "content": {"application/problem+json": {"schema": schema}}}


_HEALTH: Final = {"content": {"application/json": {"schema": {"$ref": _REF.format(name=Health.__name__)}}}}
_REQUEST_ID: Final = {
    "X-Request-ID": {"description": "The caller's, or a new one.", "required": True, "schema": {"type": "string"}}
}
_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "X-Request-ID",
        "in": "header",
        "required": False,
        "description": "Comes back with the answer; anything but letters, digits and . _ : - (64 at most) is replaced.",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Deadline-Ms",
        "in": "header",
        "required": False,
        "description": "Milliseconds from the arrival of the request; a decision that cannot be had by then is the "
        "policy's fallback, and says so.",
        "schema": {"type": "number", "minimum": 0.001, "maximum": 60000},
    },
]
