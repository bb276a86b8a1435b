"""A model whose training told figures of the test cases says so when it is optimized."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featherweight.core.errors import DataError
from featherweight.core.record.training import training_notes


def test_training_that_told_of_the_test_cases_is_a_use_of_them(tmp_path: Path) -> None:
    assert training_notes(tmp_path) == ()
    written = tmp_path / "metrics.json"
    written.write_text(json.dumps({"validation": {"auc": 0.9}}))
    assert training_notes(tmp_path) == ()
    written.write_text(json.dumps({"validation": {"auc": 0.9}, "test": {"auc": 0.8}}))
    (note,) = training_notes(tmp_path)
    assert "--report-test" in note
    assert "by hand" in note


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.json"):
        training_notes(tmp_path)
