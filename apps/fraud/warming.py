"""Everything compiled that the fraud app's commands use, on histories that are thrown away."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from featherweight.apps.fraud.features.catalogue import CUSTOMER_FEATURES, TERMINAL_FEATURES
from featherweight.apps.fraud.features.engine import warm_up
from featherweight.apps.fraud.features.histories import CustomerHistories, Histories, TerminalHistories
from featherweight.apps.fraud.kafka.records import decode_records, encode_records
from featherweight.core.arrays import FeatureRow


def compile_all() -> None:
    """Use every compiled function once."""
    warm_up(7.0)
    decode_records(encode_records([(b"key", b"value")]), 1)
    with TemporaryDirectory() as folder:
        for kind, features in ((CustomerHistories, CUSTOMER_FEATURES), (TerminalHistories, TERMINAL_FEATURES)):
            _use_all(kind, np.zeros(len(features), np.float32), Path(folder, "snapshot"))


def _use_all(kind: type[Histories], out: FeatureRow, snapshot: Path) -> None:
    histories, restored = kind(limit=1), kind()
    for number, key in enumerate(("forgotten", "kept")):
        histories.advance(key, number, 0, 100, 1, out)
        for record in histories.drain():
            restored.restore(*record)
    restored.settle()
    restored.apply_label("kept", 1, 0, True)
    restored.write_snapshot(snapshot)
    histories.read_snapshot(snapshot)
