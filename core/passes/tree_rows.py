"""Unlabelled rows for the passes that look at what trees do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from core.errors import DataError
from core.tensors import Tensors
from core.trees.ensemble import INPUT
from core.trees.predict import Rows


def join_rows(batches: Iterable[Tensors], kind: str) -> Rows:
    """All batches as one float32 [N, F]. Raises DataError when there is none; `kind` names the step."""
    parts = [batch[INPUT] for batch in batches]
    if not parts:
        raise DataError(f"{kind}: the task gives no calibration inputs; its training set is empty")
    return np.concatenate(parts).astype(np.float32, copy=False)
