"""Telemetry that somebody else's imports have begun before ours; tests/integration/test_silence.py watches the rest."""

from __future__ import annotations

import subprocess
import sys

BEFORE_US = """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # of this test: nothing is to be sent before our turn either
import onnxruntime
import openvino_telemetry.main

ended = []
onnxruntime.disable_telemetry_events = lambda: ended.append(True)
del os.environ["ORT_DISABLE_TELEMETRY"]
import core

assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert ended

class Collector:
    received = 0
    def send(self, message):
        self.received += 1

sender, collector = openvino_telemetry.main.TelemetrySender(), Collector()
sender.send(collector, "an event")
sender.executor.shutdown()
assert not collector.received
"""


def test_what_was_imported_before_us_sends_no_more() -> None:
    subprocess.run([sys.executable, "-c", BEFORE_US], check=True, timeout=60)
