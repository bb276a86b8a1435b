"""The bench under MLPerf's own library, for a moment, with a bundled artifact."""

from __future__ import annotations

import pytest

pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")

from bench.loadgen import SCENARIOS, Library, Load, cases, contenders, measure, parse_summary
from featherweight.core.artifact.store import read_artifact
from featherweight.core.bundled import data_directory
from featherweight.core.tensors import Tensors

KEYS = {
    "SingleStream": "90.0th percentile latency (ns)",
    "Offline": "Samples per second",
    "Server": "Scheduled samples per second",
}


def test_summary() -> None:
    found = parse_summary(
        "=====\nScenario : Server\n  Min duration satisfied : NO\n * Run unsuccessful.\nlatency (ns): 20\n"
    )
    assert found == {"Scenario": "Server", "Min duration satisfied": "NO", "latency (ns)": "20"}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_runs_to_its_end_in_batches_no_larger_than_asked(scenario: str) -> None:
    artifact = read_artifact(data_directory() / "models" / "card-fraud")
    library = Library(cases(artifact, artifact.programs[0].inputs))
    run = contenders(artifact, None, 1, "cpu")["artifact int8 on onnxruntime"]
    sizes: list[int] = []

    def counting(tensors: Tensors) -> object:
        sizes.append(len(tensors["features"]))
        return run(tensors)

    batch = 1 if scenario == "SingleStream" else 8
    found = measure(counting, library, Load(scenario, 0.1, batch, qps=200, bound_ms=1000))
    assert found["Scenario"] == scenario
    assert float(found[KEYS[scenario]]) > 0
    assert max(sizes) <= batch
    assert sum(sizes) >= 20
