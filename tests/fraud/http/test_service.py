"""What the endpoints do, without HTTP."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from featherweight.apps.fraud.decision.live import LiveModel
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.http.forms import ScoreRequest
from featherweight.apps.fraud.http.service import CHUNK_ROWS, Service
from featherweight.apps.fraud.transactions import Decision
from featherweight.core.serving import ModelSource
from featherweight.core.web.problems import ProblemError
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
    service = Service(live, None, keys_file=None, deadline_ms=None)
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
    with pytest.raises(ProblemError, match="is_night"):
        asyncio.run(swap_amid(tmp_path / "other"))
    assert service.pending_rows == 0
    service.close()
