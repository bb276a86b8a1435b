"""A live service is given artifacts that would hold it for ever or end it."""

from __future__ import annotations

import time
from pathlib import Path

from core.artifact import read_artifact
from tests.fraud.artifacts import endless_program, write_fraud_model
from tests.fraud.serving import make_transactions, serving


def test_a_service_decides_on_while_an_endless_artifact_is_tried(tmp_path: Path) -> None:
    model = tmp_path / "model"
    first = write_fraud_model(model, seed=0)
    transactions = iter(make_transactions(100_000))
    with serving(tmp_path, model) as served, served.client() as client:

        def decided_by() -> str:
            answer = client.post("/v1/score", json=next(transactions))
            assert answer.status_code == 200
            return str(answer.json()["model"])

        write_fraud_model(model, program=endless_program())
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert decided_by().endswith(first.sha256[:12])
        # A good one in its place is not held up by it.
        good, until = write_fraud_model(model, seed=1), time.monotonic() + 60
        while not decided_by().endswith(good.sha256[:12]):
            assert time.monotonic() < until, served.said
        write_fraud_model(model, program=endless_program())
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert decided_by().endswith(good.sha256[:12])
        began = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - began < 20
    assert "Traceback" not in served.said
    assert read_artifact(model).manifest.name == "tiny-fraud"
