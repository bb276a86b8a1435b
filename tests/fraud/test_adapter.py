"""Rows of features given by a program are decided as the app decides them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import featherweight
from featherweight.apps.fraud.adapter import RANGES, FraudAdapter
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, encode
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.adapters import check_ranges, describe_ranges
from featherweight.core.errors import ArtifactError
from featherweight.core.serving import ModelSource
from featherweight.core.tensors import TensorSpec
from tests.fraud.artifacts import write_fraud_model

RULE = encode(
    DecisionRule(
        slope=1.0, intercept=0.0, review_threshold=0.5, decline_threshold=0.9, chosen_for="tests", fallback="approve"
    )
)
DAY_MS = 86_400_000


def adapter(names: tuple[str, ...] = CATALOGUE, source: str = "histories") -> FraudAdapter:
    schema = FeatureSchema(names=names, reference_values=(None,) * len(names), source=source)  # type: ignore[arg-type]
    files = {"features.json": encode(schema), "decision.json": RULE}
    return FraudAdapter(("legitimate", "fraud"), files, (TensorSpec("features", "float32", (None, len(names))),))


def computed_rows(count: int) -> np.ndarray:
    """What the engine gives, in busy and quiet times, late ones and repeated ones among them, some of them frauds."""
    rng, engine, rows = np.random.default_rng(5), FeatureEngine(delay_days=2.0), []
    time_ms = 1_600_000_000_000
    for place in range(count):
        time_ms += int(rng.exponential(DAY_MS / 50))
        came = time_ms - int(rng.choice([0, 0, 0, DAY_MS // 2, 3 * DAY_MS]))
        names = {"customer_id": f"C{rng.integers(8)}", "terminal_id": f"T{rng.integers(5)}"}
        transaction = Transaction(
            transaction_id=f"X{place - int(rng.random() < 0.02)}",
            time_ms=came,
            amount=round(float(rng.choice([0, 0.01, 50, 1e6]) * rng.random()), 2),
            **names,
        )
        engine.advance(transaction)
        rows.append(engine.row.copy())
        if rng.random() < 0.3:
            engine.apply_label(
                Label(transaction_id=f"X{place}", time_ms=came, is_fraud=bool(rng.random() < 0.7), **names)
            )
    return np.array(rows)


def test_what_the_histories_give_is_inside_the_stated_ranges() -> None:
    rows = computed_rows(3000)
    check_ranges({"features": rows}, adapter().ranges)
    for place, name in enumerate(CATALOGUE):
        assert np.isfinite(rows[:, place]).any(), f"{name}: never seen, so this test says nothing of it"


def test_a_share_in_per_cent_is_refused() -> None:
    rows = computed_rows(300)
    rows[:, CATALOGUE.index("terminal_risk_7d_delayed")] = 40
    with pytest.raises(featherweight.TensorError, match="'terminal_risk_7d_delayed': found values from 40 to 40"):
        adapter().prepare(rows, 0)


def test_ranges_are_of_features_that_there_are() -> None:
    assert RANGES.keys() <= set(CATALOGUE)
    given = adapter(("V1", "V2"), "given")
    assert describe_ranges(given.ranges) == ("features: any finite number for V1, V2; NaN where a value is missing")
    assert [one.low for one in given.ranges] == [-math.inf, -math.inf]


def test_the_decisions_are_those_of_the_app(tmp_path: Path) -> None:
    folder = write_fraud_model(tmp_path / "model", review_threshold=0.3).directory
    rows = computed_rows(400)
    transactions = [
        Transaction(transaction_id=f"X{i}", customer_id="C", terminal_id="T", time_ms=1_600_000_000_000, amount=1.0)
        for i in range(len(rows))
    ]
    scorer = open_scorer(ModelSource(folder))
    decided = scorer.decide_batch(transactions, rows, [False] * len(rows))
    scorer.close()
    with featherweight.open_model(folder) as model:
        found = model.predict(rows)
        named = model.predict({name: rows[:, place] for place, name in enumerate(CATALOGUE)})
    assert found.decisions.tolist() == [one.outcome for one in decided]
    assert [round(value, 6) for value in found.probabilities.tolist()] == [one.probability for one in decided]
    assert len(set(found.decisions)) > 1
    assert np.array_equal(named.scores, found.scores)


def test_files_that_do_not_fit_are_refused() -> None:
    inputs = (TensorSpec("features", "float32", (None, 3)),)
    for files in ({}, {"features.json": b"{}", "decision.json": RULE}, {"features.json": b"[", "decision.json": RULE}):
        with pytest.raises(ArtifactError):
            FraudAdapter(("a", "b"), files, inputs)
    schema = encode(FeatureSchema(names=("amount",), reference_values=(1.0,)))
    with pytest.raises(ArtifactError, match="names 1 column:"):
        FraudAdapter(("a", "b"), {"features.json": schema, "decision.json": RULE}, inputs)
