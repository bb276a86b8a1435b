"""The figures of each runtime as a part of evidence.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from featherweight.core.evidence.runtime_figures import RuntimeFigures


def encode_runtimes(rows: Sequence[RuntimeFigures]) -> list[dict[str, Any]]:
    """Plain values, numbers with six digits."""
    return [{key: _plain(value) for key, value in asdict(row).items()} for row in rows]


def _plain(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return list(value) if isinstance(value, tuple) else value
