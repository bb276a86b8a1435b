"""Training rows are what the live pipeline sees."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from msgspec.structs import replace

from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import Scorer
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import identify
from featherweight.apps.fraud.labels import label_later, label_of
from featherweight.apps.fraud.training.replay import PROGRESS_EVERY, replay
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.arrays import FeatureRow
from featherweight.core.serving import ModelSource
from tests.fraud.artifacts import write_fraud_model
from tests.fraud.streams import DAY, START, Event, long_stream, streams, transaction


def pairs(count: int = 400) -> list[tuple[Transaction, bool]]:
    events = [event for event in long_stream(2, count, lateness=0) if isinstance(event, Transaction)]
    return [(event, number % 7 == 0) for number, event in enumerate(dict.fromkeys(events))]


@given(streams())
def test_rows_are_those_of_the_live_engine(events: list[Event]) -> None:
    rows, engine = replay(iter(events)), FeatureEngine()
    live = []
    for event in events:
        if isinstance(event, Label):
            engine.apply_label(event)
        elif not engine.advance(event):
            live.append((event, engine.row.copy()))
    assert [identify(event.transaction_id) for event, _ in live] == rows.ids.tolist()
    assert b"".join(row.tobytes() for _, row in live) == rows.features.tobytes()
    last = {event.transaction_id: event.is_fraud for event in events if isinstance(event, Label)}
    assert rows.labels.tolist() == [int(last.get(event.transaction_id, -1)) for event, _ in live]
    assert rows.amounts.tolist() == [event.amount for event, _ in live]


def test_labels_come_when_they_are_due() -> None:
    made = pairs()
    arrived: list[Event] = list(label_later(iter(made), 7.0))
    assert [event for event in arrived if isinstance(event, Transaction)] == [event for event, _ in made]
    labels = [event for event in arrived if isinstance(event, Label)]
    assert [(event.transaction_id, event.is_fraud) for event in labels] == [
        (event.transaction_id, is_fraud) for event, is_fraud in made
    ]
    before = 0
    for event, following in zip(arrived, [*arrived[1:], None], strict=True):
        if isinstance(event, Transaction):
            before = event.time_ms
        elif isinstance(following, Transaction):
            assert before < event.time_ms + 7 * DAY <= following.time_ms


def test_a_label_due_at_a_transactions_time_counts_for_it() -> None:
    """As the handbook's windows have it: they end exactly the delay before the transaction, that moment included."""
    first, now = transaction("first", START), transaction("now", START + 7 * DAY)
    rows = replay(label_later([(first, True), (now, False)], 7.0))
    assert rows.features[1, CATALOGUE.index("terminal_risk_1d_delayed")] == 1
    assert rows.features[1, CATALOGUE.index("terminal_count_1d_delayed")] == 1


def test_duplicates_give_no_second_row_and_progress_is_told() -> None:
    heard: list[int] = []
    events: list[Event] = [transaction(f"t{n // 2}", START + n * 1000) for n in range(2 * PROGRESS_EVERY + 10)]
    rows = replay(events, on_progress=heard.append)
    assert len(rows) == PROGRESS_EVERY + 5 == len(rows.features)
    assert heard == [PROGRESS_EVERY, PROGRESS_EVERY + 5]
    assert set(rows.labels.tolist()) == {-1}


def test_a_label_is_its_customers_where_others_have_the_same_id() -> None:
    """Ids may begin anew every day, or at every terminal."""
    mine, another = (
        transaction("1", START),
        replace(transaction("1", START + DAY), customer_id="bert", terminal_id="bar"),
    )
    for is_fraud in (True, False):
        rows = replay(label_later([(mine, is_fraud), (another, not is_fraud)]))
        assert rows.labels.tolist() == [is_fraud, not is_fraud]


def test_of_nothing_comes_an_empty_table() -> None:
    rows = replay([label_of(transaction("lost", START), True)])
    assert rows.features.shape == (0, len(CATALOGUE))
    assert len(rows) == len(rows.labels) == 0


class Watched(Scorer):
    """Keeps the rows that it decides on."""

    rows: list[bytes]

    def decide(self, transaction: Transaction, row: FeatureRow, *, duplicate: bool = False) -> Decision:
        if not duplicate:
            self.rows.append(row.tobytes())
        return super().decide(transaction, row, duplicate=duplicate)


def test_rows_are_what_the_pipeline_scores(tmp_path: Path) -> None:
    """Bit for bit: training and live scoring share one code path."""
    artifact = write_fraud_model(tmp_path / "model")
    scorer = Watched(artifact, ModelSource(artifact.directory).open(artifact).session)
    scorer.rows = []
    events, pipeline = long_stream(9, 500), Pipeline(scorer)
    for event in events:
        if isinstance(event, Label):
            pipeline.apply_label(event)
        else:
            pipeline.process(event)
    scorer.close()
    assert b"".join(scorer.rows) == replay(events).features.tobytes()
