"""What `bench.stream` compares with: the same features and the same model, exactly once, written as one would.

    python -m bench.plain_stream loop|quix --bootstrap HOST:PORT --model DIR --prefix P

Neither keeps its histories anywhere but in memory: they do less than `featherweight fraud stream`, which restores them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import open_scorer
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import DUPLICATE
from featherweight.apps.fraud.transactions import Transaction
from featherweight.core.serving import ModelSource


def run_loop(bootstrap: str, model: Path, prefix: str) -> None:
    """kafka-python: poll, one transaction for what was polled, one send for each decision."""
    import numpy as np
    from kafka import KafkaConsumer, KafkaProducer
    from kafka.structs import OffsetAndMetadata

    import featherweight.apps.fraud.kafka.clients  # noqa: F401  # the same checksum: kafka-python's own takes a second a megabyte

    scorer = open_scorer(ModelSource(model))
    engine = FeatureEngine(scorer.schema.delay_days)
    consumer = KafkaConsumer(
        f"{prefix}transactions",
        bootstrap_servers=bootstrap,
        group_id=f"{prefix}loop",
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_poll_records=4000,
    )
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{prefix}loop", linger_ms=5)
    producer.init_transactions()
    decode, encode = msgspec.json.Decoder(Transaction).decode, msgspec.json.Encoder().encode
    while True:
        transactions, rows, seen, offsets = [], [], [], {}
        for partition, records in consumer.poll(timeout_ms=200).items():
            for record in records:
                transaction = decode(record.value)
                seen.append(engine.advance(transaction) == DUPLICATE)
                rows.append(engine.row[scorer.columns])
                transactions.append(transaction)
            offsets[partition] = OffsetAndMetadata(records[-1].offset + 1, "", -1)
        if not transactions:
            continue
        producer.begin_transaction()
        for decision in scorer.decide_batch(transactions, np.stack(rows), seen):
            producer.send(f"{prefix}decisions", encode(decision), key=decision.customer_id.encode())
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.commit_transaction()


def run_quix(bootstrap: str, model: Path, prefix: str) -> None:
    """Quix Streams: a streaming data frame with one function, its exactly-once guarantee, a commit every 4000."""
    from quixstreams import Application

    pipeline = Pipeline(open_scorer(ModelSource(model)))
    decode, encode = msgspec.json.Decoder(Transaction).decode, msgspec.json.Encoder().encode
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"{prefix}quix",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_every=4000,
        commit_interval=0.05,
        loglevel="WARNING",
        auto_create_topics=False,
    )
    stream = app.dataframe(app.topic(f"{prefix}transactions", value_deserializer="bytes"))
    stream = stream.apply(lambda value: encode(pipeline.process(decode(value))))
    stream.to_topic(app.topic(f"{prefix}decisions", value_serializer="bytes"))
    app.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["loop", "quix"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prefix", required=True)
    given = parser.parse_args()
    (run_loop if given.kind == "loop" else run_quix)(given.bootstrap, given.model, given.prefix)
