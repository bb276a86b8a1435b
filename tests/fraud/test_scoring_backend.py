"""What the caller asks of a scorer: the backend named and no other, and the mark of a transaction seen before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apps.fraud.scoring import open_scorer
from apps.fraud.transactions import Transaction
from core.errors import BackendUnavailableError, UsageError
from tests.fraud.serving import BACKEND

BOUGHT = Transaction(transaction_id="t", customer_id="c", terminal_id="p", time_ms=1_533_686_400_000, amount=70.0)


def test_no_other_backend_is_opened_than_the_one_named(model: Path) -> None:
    open_scorer(model).close()
    with pytest.raises(UsageError, match="no backend is called 'nobodys'"):
        open_scorer(model, backend="nobodys")
    with pytest.raises(BackendUnavailableError, match="torch: "):  # runs no trees, installed or not
        open_scorer(model, backend="torch")


def test_every_decision_says_whether_its_transaction_was_seen_before(model: Path) -> None:
    scorer = open_scorer(model, backend=BACKEND)
    rows = np.random.default_rng(5).lognormal(1.5, 2.5, (40, len(scorer.schema.names))).astype(np.float32)
    seen = [index % 3 == 0 for index in range(len(rows))]
    many = scorer.decide_batch([BOUGHT] * len(rows), rows, seen)
    alone = [scorer.decide(BOUGHT, row, duplicate=again) for row, again in zip(rows, seen, strict=True)]
    scorer.close()
    assert len({decision.outcome for decision in many}) > 1
    assert not any(decision.fallback for decision in many)
    assert [decision.duplicate for decision in many] == [decision.duplicate for decision in alone] == seen
