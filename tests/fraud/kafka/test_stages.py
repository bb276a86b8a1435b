"""The two stages over batches, without Kafka: one process, several, and what stands between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from featherweight.apps.fraud.decision.scorer import Scorer, open_scorer
from featherweight.apps.fraud.kafka import batches as packed
from featherweight.apps.fraud.kafka import forwarding
from featherweight.apps.fraud.kafka.batches import Fetched, Messages, Unreadable
from featherweight.apps.fraud.kafka.records import encode_records
from featherweight.apps.fraud.kafka.stages import Outgoing, Shard, Stream, check_source
from featherweight.apps.fraud.labels import label_of
from featherweight.apps.fraud.transactions import Decision, Label, Transaction
from featherweight.core.errors import WrongModelError
from featherweight.core.serving import ModelSource
from tests.fraud.streaming import TOPICS, arrive_as, decide_embedded, draw_transactions, partition_of

PARTITIONS = 3


@pytest.fixture
def scorer(model: Path) -> Iterator[Scorer]:
    scorer = open_scorer(ModelSource(model))
    yield scorer
    scorer.close()


def arrive(events: list[Transaction] | list[Label], *, first_offset: int = 0) -> list[Messages]:
    found = []
    for partition in range(PARTITIONS):
        values = [
            msgspec.json.encode(event) for event in events if partition_of(event.customer_id, PARTITIONS) == partition
        ]
        topic = TOPICS.labels if isinstance(events[0], Label) else TOPICS.transactions
        found.append(arrive_as(topic, partition, values, first_offset))
    return found


class Group:
    """Several Streams that share the partitions; what one forwards, the owner of the partition gets next."""

    def __init__(self, *shares: set[int]) -> None:
        self.members = [Stream(TOPICS, PARTITIONS) for _ in shares]
        for member, share in zip(self.members, shares, strict=True):
            member.shards = {partition: Shard(7.0) for partition in share}
        self.decisions: list[Decision] = []
        self.forwarded = 0

    def process(self, arrived: list[Messages], scorer: Scorer) -> None:
        for member in self.members:
            mine = [batch for batch in arrived if batch.partition in member.shards]
            out = member.process(mine, scorer)
            self.collect(out)
            forwarded = [
                arrive_as(TOPICS.repartition, partition, [value for _, value in records])
                for partition, records in out.repartition.items()
            ]
            if forwarded:
                self.forwarded += len(forwarded)
                self.process(forwarded, scorer)

    def collect(self, out: Outgoing) -> None:
        assert not out.rejected
        for partition, records in out.decisions.items():
            for key, value in records:
                decision = msgspec.json.decode(value or b"", type=Decision)
                assert key == decision.customer_id.encode()
                assert partition == partition_of(decision.customer_id, PARTITIONS)
                self.decisions.append(decision)


@pytest.mark.parametrize(
    ("shares", "through_the_topic"),
    [([{0, 1, 2}], False), ([{0}, {1, 2}], True), ([{0}, {1}, {2}], True)],
    ids=["one process", "two", "three"],
)
def test_however_the_partitions_are_shared_the_decisions_are_those_of_the_pipeline(
    scorer: Scorer, model: Path, shares: list[set[int]], through_the_topic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "FORWARDED_AT_ONCE", 7)
    group = Group(*shares)
    early, late = draw_transactions(300, PARTITIONS), draw_transactions(300, PARTITIONS, seed=1, start=30_000)
    labels = [label_of(transaction, index % 2 == 0) for index, transaction in enumerate(early)]
    for start in range(0, 300, 50):
        group.process(arrive(early[start : start + 50]), scorer)
    group.process(arrive(labels), scorer)
    for start in range(0, 300, 50):
        group.process(arrive(late[start : start + 50]), scorer)
    expected = decide_embedded(model, [*early, *labels, *late])
    assert {found.transaction_id: found for found in group.decisions} == expected
    assert len(group.decisions) == len(expected)
    assert (group.forwarded > 0) == through_the_topic


@pytest.mark.parametrize("shares", [[{0, 1, 2}], [{0}, {1}, {2}]], ids=["one process", "three"])
def test_a_label_that_arrives_with_its_transaction_is_applied(
    scorer: Scorer, model: Path, shares: list[set[int]]
) -> None:
    """After a pause of the stream both wait for it."""
    group = Group(*shares)
    early, late = draw_transactions(100, PARTITIONS), draw_transactions(300, PARTITIONS, seed=1, start=30_000)
    labels = [label_of(transaction, True) for transaction in early]
    group.process([*arrive(labels), *arrive(early)], scorer)
    group.process(arrive(late), scorer)
    expected = decide_embedded(model, [*early, *labels, *late])
    assert {found.transaction_id: found for found in group.decisions} == expected
    assert expected != decide_embedded(model, [*early, *late]), "the labels must matter"


def test_histories_come_back_from_the_changelog_with_the_same_decisions(scorer: Scorer, model: Path) -> None:
    """After every batch the process is another one, which has nothing but the records."""
    transactions = draw_transactions(400, PARTITIONS, seed=2)
    changelogs: dict[tuple[str, int], dict[bytes | None, bytes | None]] = {}
    decisions = []
    for start in range(0, 400, 80):
        stream = Stream(TOPICS, PARTITIONS)
        stream.shards = {partition: Shard(7.0) for partition in range(PARTITIONS)}
        for (kind, partition), records in changelogs.items():
            for key, value in records.items():
                getattr(stream.shards[partition], kind).restore(key, value)
        out = stream.process(arrive(transactions[start : start + 80]), scorer)
        for kind in ("customers", "terminals"):
            for partition, changed in getattr(out, kind).items():
                changelogs.setdefault((kind, partition), {}).update(changed)
        decisions += [msgspec.json.decode(v or b"", type=Decision) for r in out.decisions.values() for _, v in r]
    assert {found.transaction_id: found for found in decisions} == decide_embedded(model, transactions)


def test_a_repartition_record_that_does_not_fit_itself_is_rejected(scorer: Scorer) -> None:
    stream = Stream(TOPICS, 1)
    stream.shards = {0: Shard(7.0)}
    transaction = draw_transactions(1, 1)[0]
    broken = forwarding.Forwarded(source=0, labels=[], transactions=[transaction], rows=b"\0" * 12, seen=[False])
    values = [msgspec.msgpack.encode(broken), b"\x00", None]
    out = stream.process([Messages(TOPICS.repartition, 0, [4, 5, 9], [b"k"] * 3, values)], scorer)
    where = [(found.topic, found.offset, found.key, found.value) for found in out.rejected]
    assert where == [(TOPICS.repartition, n, b"k", value) for n, value in zip((4, 5, 9), values, strict=True)]
    assert not out.decisions


def test_the_longest_forwarded_record_fits_into_a_brokers_message() -> None:
    longest = Transaction(
        transaction_id="\U0001f4b3" * 64,
        customer_id="\U0001f4b3" * 64,
        terminal_id="\U0001f4b3" * 64,
        time_ms=1,
        amount=1,
    )
    count = forwarding.FORWARDED_AT_ONCE
    rows = b"\0" * (4 * forwarding.SPLIT * count)
    full = forwarding.Forwarded(source=0, labels=[], transactions=[longest] * count, rows=rows, seen=[True] * count)
    assert len(msgspec.msgpack.encode(full)) < 900_000


def test_a_model_whose_features_are_given_is_refused(scorer: Scorer) -> None:
    check_source(scorer)
    scorer.schema = msgspec.structs.replace(scorer.schema, source="given")
    with pytest.raises(WrongModelError, match="given") as error:
        check_source(scorer)
    assert error.value.exit_code == 2


def fetch(topic: str, partition: int, first: int, values: list[bytes], **more: object) -> Fetched:
    content = encode_records([(None, value) for value in values])
    return Fetched(topic, partition, first, first, first + len(values) - 1, len(values), 0, content, **more)  # type: ignore[arg-type]


def test_slices_keep_order_and_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [fetch("a", 0, 0, [b"%d" % n for n in range(5)]), fetch("b", 1, 7, [b"7", b"9"])]
    parts = list(packed.slice_batches(batches, 3))
    found = [[(part.topic, part.offsets) for part in run if isinstance(part, Messages)] for run in parts]
    assert found == [[("a", [0, 1, 2])], [("a", [3, 4]), ("b", [7])], [("b", [8])]]
    assert parts[1][1].values == [b"7"]  # type: ignore[union-attr]
    assert list(packed.slice_batches([], 3)) == []
    damaged = fetch("a", 0, 5, [b"x"], fault="damaged")
    (part,) = packed.slice_batches([batches[0], damaged, batches[1]], 100)
    assert [(type(one), one.last_offset) for one in part] == [(Messages, 4), (Unreadable, 5), (Messages, 8)]
    monkeypatch.setattr(packed, "HELD_BYTES", 10)
    assert [len(run) for run in packed.slice_batches(batches, 100)] == [1, 1], "a full one takes no further batch"
