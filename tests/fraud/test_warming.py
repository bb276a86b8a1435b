"""What compiles all, compiles all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from featherweight.apps.fraud.features import histories as state
from featherweight.apps.fraud.features import kernels
from featherweight.apps.fraud.kafka import records
from featherweight.apps.fraud.warming import compile_all

CALLED = sorted(set(re.findall(r"kernels\.(\w+)\(", Path(state.__file__).read_text())))


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    compile_all()


def test_what_the_histories_call_is_found() -> None:
    assert {"apply_label", "collect", "fill", "dump", "release", "mark_sent", "newest_times"} == set(CALLED)


@pytest.mark.parametrize("name", [*CALLED, "advance_customer", "advance_terminal"])
def test_every_function_of_the_histories_is_compiled(name: str) -> None:
    assert len(getattr(kernels, name).signatures) == 1


@pytest.mark.parametrize("name", ["_read_records", "_write_records"])
def test_every_function_of_the_records_is_compiled(name: str) -> None:
    assert len(getattr(records, name).signatures) >= 1
