from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from featherweight.apps.fraud.decision.scorer import REASONS, Scorer, open_scorer
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model

BOUGHT = Transaction(transaction_id="t", customer_id="c", terminal_id="p", time_ms=1_533_686_400_000, amount=70.0)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_fraud_model(folder)
    found = open_scorer(ModelSource(folder))
    yield found
    found.close()


def rows(scorer: Scorer, count: int = 300) -> np.ndarray:
    found = np.random.default_rng(5).lognormal(1.5, 2.5, (count, len(scorer.schema.names)))
    return found.astype(np.float32)


def test_one_and_many_are_decided_alike(scorer: Scorer) -> None:
    many = rows(scorer)
    alone = [scorer.decide(BOUGHT, row) for row in many]
    assert scorer.decide_batch([BOUGHT] * len(many), many, [False] * len(many)) == alone
    assert len({decision.outcome for decision in alone}) > 1


def test_alerts_alone_have_reasons_the_strongest_first(scorer: Scorer) -> None:
    for decision in scorer.decide_batch([BOUGHT] * 300, rows(scorer), [False] * 300):
        effects = [reason.effect for reason in decision.reasons]
        assert bool(effects) == (decision.outcome != "approve")
        assert effects == sorted(effects, reverse=True)
        assert all(effect >= 0 for effect in effects)
        assert len(effects) <= REASONS


def test_a_reason_is_what_the_score_loses_when_the_feature_has_its_reference_value(scorer: Scorer) -> None:
    row = next(row for row in rows(scorer) if scorer.decide(BOUGHT, row).reasons)
    reason = scorer.decide(BOUGHT, row).reasons[0]
    at = scorer.schema.names.index(reason.feature)
    without = row.copy()
    without[at] = scorer.schema.reference_values[at]
    assert reason.effect == pytest.approx(scorer.score(row) - scorer.score(without), abs=1e-3)
    assert reason.value == pytest.approx(row[at], abs=1e-4)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("amount", "outcome"), [(70.0, "approve"), (70_000.0, "review")])
def test_a_score_that_is_no_number_is_never_compared(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, score: float, amount: float, outcome: str
) -> None:
    monkeypatch.setattr(scorer, "score", lambda row: score)
    transaction = Transaction(transaction_id="t", customer_id="c", terminal_id="p", time_ms=1, amount=amount)
    decision = scorer.decide(transaction, rows(scorer)[0], duplicate=True)
    assert (decision.outcome, decision.fallback, decision.probability) == (outcome, True, None)
    assert decision.duplicate
