"""What the endpoints do, without HTTP."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.http.explaining import explain_refusal
from featherweight.apps.fraud.http.forms import ScoreRequest
from featherweight.apps.fraud.http.service import (
    CHUNK_ROWS,
    InvalidEventError,
    OverloadedError,
    Service,
    StateUnavailableError,
)
from featherweight.apps.fraud.transactions import Decision
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model
from tests.fraud.serving import BACKEND, make_transactions

NAMES = ("amount", "hour", "customer_count_1d")


def given(count: int, names: tuple[str, ...]) -> list[ScoreRequest]:
    values: dict[str, float | None] = {name: 10.0**index for index, name in enumerate(names)}
    return [ScoreRequest(**found, features=values) for found in make_transactions(count, seed=3)]


def test_features_given_are_taken_by_name_also_when_another_artifact_takes_over_amid_a_batch(tmp_path: Path) -> None:
    write_fraud_model(tmp_path / "old", names=NAMES)
    write_fraud_model(tmp_path / "new", names=NAMES[::-1], seed=2)
    write_fraud_model(tmp_path / "other", names=("amount", "is_night"), seed=2)
    live = LiveModel(ModelSource(tmp_path / "old", BACKEND))
    service = Service(live, None)
    requests = given(CHUNK_ROWS + 1, NAMES)

    async def swap_amid(folder: Path) -> list[Decision]:
        service.pipeline.scorer = open_scorer(ModelSource(tmp_path / "old", BACKEND))
        scoring = asyncio.create_task(service.score_batch(requests, math.inf))
        await asyncio.sleep(0)
        service.pipeline.scorer = open_scorer(ModelSource(folder, BACKEND))
        return await scoring

    first, *_, last = asyncio.run(swap_amid(tmp_path / "new"))
    assert first.model != last.model
    assert last == service.score(requests[-1], math.inf)
    with pytest.raises(InvalidEventError, match="is_night") as refused:
        asyncio.run(swap_amid(tmp_path / "other"))
    assert (refused.value.field, refused.value.index) == ("features", 0)
    assert service.pending_rows == 0
    service.close()


@pytest.mark.parametrize(
    ("error", "rows", "pointer"),
    [
        (InvalidEventError("why", "time_ms"), "", "#/time_ms"),
        (InvalidEventError("why", "features", 0), "transactions", "#/transactions/0/features"),
        (InvalidEventError("why"), "labels", "#/labels"),
    ],
)
def test_a_field_that_is_refused_is_named_by_its_place_in_the_body(
    error: InvalidEventError, rows: str, pointer: str
) -> None:
    problem = explain_refusal(error, rows)
    assert (problem.status, problem.detail, problem.headers) == (422, "why", ())
    assert [(found.pointer, found.detail) for found in problem.errors] == [(pointer, "why")]


@pytest.mark.parametrize("error", [OverloadedError("why"), StateUnavailableError("why")])
def test_what_may_be_asked_again_says_when(error: OverloadedError | StateUnavailableError) -> None:
    problem = explain_refusal(error)
    assert (problem.status, problem.detail, problem.headers) == (503, "why", ((b"retry-after", b"1"),))


def test_the_service_says_which_row_it_refuses(tmp_path: Path) -> None:
    write_fraud_model(tmp_path / "model", names=NAMES)
    service = Service(LiveModel(ModelSource(tmp_path / "model", BACKEND)), None)
    good, wrong = given(2, NAMES[:2])[0], given(2, NAMES)[1]
    with pytest.raises(InvalidEventError, match="lacks customer_count_1d") as refused:
        asyncio.run(service.score_batch([wrong, good], math.inf))
    assert (refused.value.field, refused.value.index) == ("features", 1)
    with pytest.raises(InvalidEventError) as refused:
        service.score(good, math.inf)
    assert (refused.value.field, refused.value.index) == ("features", None)
    late = replace(wrong, time_ms=5)
    with pytest.raises(InvalidEventError) as refused:
        asyncio.run(service.score_batch([wrong, late], math.inf))
    assert (refused.value.field, refused.value.index) == ("time_ms", 1)
    service.close()
