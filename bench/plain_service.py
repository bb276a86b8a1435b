"""The endpoint as FastAPI's documentation teaches it: pydantic models in and out, the same engine and model behind it.

    python -m bench.plain_service MODEL BACKEND

Prints its address. No journal, no deadlines, no metrics, no keys: only the work itself.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.features.engine import warm_up
from featherweight.apps.fraud.transactions import Decision, Transaction
from featherweight.core.serving import ModelSource


class TransactionIn(BaseModel):
    transaction_id: str = Field(min_length=1, max_length=64)
    customer_id: str = Field(min_length=1, max_length=64)
    terminal_id: str = Field(min_length=1, max_length=64)
    time_ms: int = Field(ge=0, le=4_102_444_800_000)
    amount: float = Field(ge=0, le=10_000_000)


class ReasonOut(BaseModel):
    feature: str
    value: float | None
    effect: float


class DecisionOut(BaseModel):
    transaction_id: str
    customer_id: str
    terminal_id: str
    time_ms: int
    amount: float
    outcome: Literal["approve", "review", "decline"]
    probability: float | None
    model: str
    reasons: list[ReasonOut] = []
    duplicate: bool = False
    fallback: bool = False


class BatchIn(BaseModel):
    transactions: list[TransactionIn] = Field(min_length=1, max_length=1000)


class BatchOut(BaseModel):
    decisions: list[DecisionOut]


def create_app(pipeline: Pipeline) -> FastAPI:
    app = FastAPI()

    def decide(row: TransactionIn) -> DecisionOut:
        return describe(pipeline.process(Transaction(**row.model_dump())))

    @app.post("/v1/score")
    async def score(row: TransactionIn) -> DecisionOut:
        return decide(row)

    @app.post("/v1/score/batch")
    async def score_batch(batch: BatchIn) -> BatchOut:
        return BatchOut(decisions=[decide(row) for row in batch.transactions])

    return app


def describe(decision: Decision) -> DecisionOut:
    return DecisionOut(
        transaction_id=decision.transaction_id,
        customer_id=decision.customer_id,
        terminal_id=decision.terminal_id,
        time_ms=decision.time_ms,
        amount=decision.amount,
        outcome=decision.outcome,
        probability=decision.probability,
        model=decision.model,
        reasons=[ReasonOut(feature=r.feature, value=r.value, effect=r.effect) for r in decision.reasons],
        duplicate=decision.duplicate,
    )


def main() -> None:
    scorer = open_scorer(ModelSource(Path(sys.argv[1]), sys.argv[2]))
    warm_up(scorer.schema.delay_days)
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"serves at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(create_app(Pipeline(scorer)), log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
