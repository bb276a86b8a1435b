"""One transaction in process: decode -> features -> score -> decision -> encode, JSON in and JSON out.

    python -m bench.transaction [--model DIR] [--backend native] [--days 45] [--customers 2000] [--terminals 4000]

The stream is the synthetic one; all but the last three days fill the histories, then every transaction is timed, whole
and part by part, in turns, so that the clock's own cost stays out of the whole. The garbage collector runs as usual.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench.timing import show
from featherweight.apps.fraud.decision.pipeline import Pipeline
from featherweight.apps.fraud.decision.scorer import Scorer, open_scorer
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import DUPLICATE
from featherweight.apps.fraud.labels import DAY_MS, label_later
from featherweight.apps.fraud.synthetic import START_MS, synthesize
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.bundled import data_directory
from featherweight.core.serving import ModelSource

TIMED_DAYS = 3
PARTS = ("decode", "features", "score and decision", "encode")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=data_directory() / "models" / "card-fraud")
    parser.add_argument("--backend")
    parser.add_argument("--days", type=int, default=45)
    parser.add_argument("--customers", type=int, default=2000)
    parser.add_argument("--terminals", type=int, default=4000)
    options = parser.parse_args()
    scorer = open_scorer(ModelSource(options.model, options.backend))
    engine = FeatureEngine(scorer.schema.delay_days)
    events = label_later(synthesize(options.customers, options.terminals, options.days), scorer.schema.delay_days)
    begin_ms = START_MS + (options.days - TIMED_DAYS) * DAY_MS
    lines: list[bytes] = []
    for event in events:
        if isinstance(event, Label):
            if event.time_ms + scorer.schema.delay_days * DAY_MS <= begin_ms:
                engine.apply_label(event)
        elif event.time_ms >= begin_ms:
            lines.append(msgspec.json.encode(event))
        else:
            engine.advance(event)
    whole, parts, alerts = measure(lines, scorer, engine)
    rows = [[name, *render(parts[name])] for name in PARTS]
    rows.append(["whole", *render(whole)])
    rows.append([f"whole, of the {len(alerts)} alerts with their reasons", *render(alerts)])
    show(f"microseconds a transaction, {len(lines):,} of them, {scorer.model}", ["part", "p50", "p99"], rows)


def measure(
    lines: Sequence[bytes], scorer: Scorer, engine: FeatureEngine
) -> tuple[list[int], dict[str, list[int]], list[int]]:
    """Nanoseconds: of the whole, of each part, and of the whole where it was an alert."""
    decode, encode = msgspec.json.Decoder(Transaction).decode, msgspec.json.Encoder().encode
    pipeline, clock = Pipeline(scorer, engine), time.perf_counter_ns
    whole: list[int] = []
    alerts: list[int] = []
    parts: dict[str, list[int]] = {name: [] for name in PARTS}
    for number, line in enumerate(lines):
        if number % 2:
            start = clock()
            decision = pipeline.process(decode(line))
            encode(decision)
            spent = clock() - start
            whole.append(spent)
            if decision.outcome != "approve":
                alerts.append(spent)
            continue
        moments = [clock()]
        transaction = decode(line)
        moments.append(clock())
        known = engine.advance(transaction)
        moments.append(clock())
        decision = scorer.decide(transaction, engine.row[scorer.columns], duplicate=known == DUPLICATE)
        moments.append(clock())
        encode(decision)
        moments.append(clock())
        for name, (start, end) in zip(PARTS, itertools.pairwise(moments), strict=True):
            parts[name].append(end - start)
    return whole, parts, alerts


def render(ns: Sequence[int]) -> list[str]:
    return [f"{np.percentile(ns, percent) / 1000:.1f}" if ns else "-" for percent in (50, 99)]


if __name__ == "__main__":
    main()
