"""What the service's own endpoints answer to a request that has been let in and is whole."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from featherweight.apps.fraud.http.explaining import explain_refusal
from featherweight.apps.fraud.http.forms import BatchAnswer, Health, decode_batch, decode_labels, decode_score, encode
from featherweight.apps.fraud.http.heads import JSON
from featherweight.apps.fraud.http.messages import Answer, Endpoint, Request
from featherweight.apps.fraud.http.service import RequestRefusedError, Service
from featherweight.apps.fraud.monitoring.metrics import CONTENT_TYPE as METRICS_TYPE
from featherweight.apps.fraud.monitoring.metrics import RequestMetrics, render_metrics
from featherweight.core.web.problems import explain_decoding

_undecodable = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Endpoints:
    """They raise ProblemError."""

    def __init__(self, service: Service, request_metrics: RequestMetrics) -> None:
        self._service, self._unread = service, service.metrics.unread
        self._render_metrics = render_metrics([service.metrics, request_metrics])

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(
            [
                Endpoint("/v1/score", "POST", self._score),
                Endpoint("/v1/score/batch", "POST", self._score_batch),
                Endpoint("/v1/labels", "POST", self._apply_labels),
                Endpoint("/healthz", "GET", self._tell_health),
                Endpoint("/readyz", "GET", self._tell_readiness),
                Endpoint("/metrics", "GET", self._tell_metrics),
            ]
        )

    def _score(self, request: Request) -> Answer:
        try:
            wanted = decode_score(request.body, self._unread)
        except _undecodable as error:
            raise explain_decoding(error) from error
        try:
            decision = self._service.score(wanted, request.due)
        except RequestRefusedError as error:
            raise explain_refusal(error) from error
        return Answer(200, JSON, encode(decision))

    async def _score_batch(self, request: Request) -> Answer:
        try:
            wanted = decode_batch(request.body, self._unread).transactions
        except _undecodable as error:
            raise explain_decoding(error) from error
        try:
            decisions = await self._service.score_batch(wanted, request.due)
        except RequestRefusedError as error:
            raise explain_refusal(error, "transactions") from error
        return Answer(200, JSON, encode(BatchAnswer(decisions=decisions)))

    def _apply_labels(self, request: Request) -> Answer:
        try:
            labels = decode_labels(request.body, self._unread).labels
        except _undecodable as error:
            raise explain_decoding(error) from error
        try:
            answer = self._service.apply_labels(labels)
        except RequestRefusedError as error:
            raise explain_refusal(error, "labels") from error
        return Answer(200, JSON, encode(answer))

    def _tell_health(self, _: Request) -> Answer:
        return Answer(200, JSON, encode(Health(status="ok", model=self._service.pipeline.scorer.model)))

    def _tell_readiness(self, _: Request) -> Answer:
        model = self._service.pipeline.scorer.model
        if self._service.fault:
            health = Health(status="unready", model=model, reason="the state cannot be written")
            return Answer(503, JSON, encode(health))
        return Answer(200, JSON, encode(Health(status="ready", model=model)))

    def _tell_metrics(self, _: Request) -> Answer:
        return Answer(200, METRICS_TYPE.encode(), self._render_metrics())
