"""Rows of features to the program's input, and its scores to outcomes: the front door's way to a fraud artifact.

What needs a customer's past (the histories, duplicates, the fallback for small amounts) is not here: `fraud score`,
`serve` and `stream` have it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from featherweight.apps.fraud.decision.policy import choose_outcome
from featherweight.apps.fraud.sealed import FeatureSchema, decode_features, decode_rule, rule_outcomes
from featherweight.core.adapters import Cases, Decisions, InputRange, check_ranges
from featherweight.core.arrays import Array, FeatureRows
from featherweight.core.errors import ArtifactError, TensorError
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.terminal import counted

_SHARE = (0.0, 1.0)
_SHOWN = 5
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "is_weekend": _SHARE,
    "is_night": _SHARE,
    "hour": (0.0, 24.0),
    "terminal_risk_1d_delayed": _SHARE,
    "terminal_risk_7d_delayed": _SHARE,
    "terminal_risk_30d_delayed": _SHARE,
    "customer_amount_z_30d": (-math.inf, math.inf),
}
"""Features of the catalogue that are not simply 0 or more, as amounts, counts, times and ratios of amounts are."""


class FraudAdapter:
    """Rows of features in; outcome and calibrated probability of fraud out. The program's input is float32 [N, F]."""

    def __init__(self, labels: Sequence[str], files: Mapping[str, bytes], inputs: Sequence[TensorSpec]) -> None:
        missing = {"features.json", "decision.json"} - files.keys()
        if missing:
            raise ArtifactError(f"the artifact lacks {', '.join(sorted(missing))}; make it again")
        schema = decode_features(files["features.json"])
        self._names, self._rule = schema.names, decode_rule(files["decision.json"])
        if [(spec.dtype, spec.shape) for spec in inputs] != [("float32", (None, len(schema.names)))]:
            found = "; ".join(str(spec) for spec in inputs)
            raise ArtifactError(
                f"the program takes {found}; its features.json names {counted(len(schema.names), 'columns')}: make "
                "the artifact again"
            )
        self._input = inputs[0].name
        self.outcomes = rule_outcomes(self._rule)
        self._positive = labels[-1] if labels else "fraud"
        self.ranges = tuple(_range(self._input, schema, column) for column in range(len(schema.names)))

    def cases(self, arrays: Any) -> FeatureRows:
        """float32 [N, F] of an array [N, F] in the order of features.json, or of name -> values [N] (a dict, a table of
        columns) in any order; a dict of single numbers is one row."""
        rows = self._named_rows(arrays) if hasattr(arrays, "keys") else arrays
        if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != len(self._names):
            found = f"shape {list(rows.shape)}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise TensorError(
                f"rows: found {found}, expected an array [N, {len(self._names)}] with the columns "
                f"{', '.join(self._names)}, or a dict of these names"
            )
        if rows.dtype.kind not in "fiub":
            raise TensorError(f"rows: found {rows.dtype}, expected numbers, NaN where a value is missing")
        if not len(rows):
            raise TensorError("rows: found none, expected at least one")
        with np.errstate(over="ignore"):  # what is infinite in float32 is refused with its column
            return np.ascontiguousarray(rows, np.float32)

    def prepare(self, cases: Cases, first: int) -> tuple[Tensors, tuple[str, ...]]:
        """float32 [n, F]."""
        tensors: Tensors = {self._input: np.asarray(cases)}
        check_ranges(tensors, self.ranges, first)
        return tensors, ("",) * len(cases)

    def decide(self, outputs: Tensors) -> Decisions:
        """Decide from the log-odds [n, 1]; decisions are `approve`, `review` or `decline`."""
        (scored,) = outputs.values()
        scores = scored[:, 0].astype(np.float64)
        probabilities = self._rule.probabilities(scores)
        outcomes = np.array([choose_outcome(probability, self._rule) for probability in probabilities.tolist()])
        return Decisions(scores, probabilities, outcomes, self._positive)

    def _named_rows(self, columns: Mapping[str, Any]) -> Array:
        """[N, F] by names."""
        given = [str(name) for name in columns.keys()]  # noqa: SIM118  (a table's own iteration may be over rows)
        missing = [name for name in self._names if name not in given]
        unknown = [name for name in given if name not in self._names]
        if missing or unknown:
            parts = [f"missing {_some(missing)}"] if missing else []
            parts += [f"unknown {_some(unknown)}"] if unknown else []
            raise TensorError(
                f"rows: {'; '.join(parts)}; expected the {counted(len(self._names), 'columns')} of features.json"
            )
        found = {name: np.atleast_1d(np.asarray(columns[name])) for name in self._names}
        shapes = {array.shape for array in found.values()}
        if len(shapes) > 1 or any(array.ndim != 1 for array in found.values()):
            raise TensorError(f"rows: the columns have the shapes {sorted(map(str, shapes))}, expected [N] of one N")
        wrong = [name for name, array in found.items() if array.dtype.kind not in "fiub"]
        if wrong:
            raise TensorError(f"rows: {_some(wrong)} holds no numbers; NaN is for a value that is missing")
        return np.stack([array.astype(np.float64) for array in found.values()], axis=1)


def _range(tensor: str, schema: FeatureSchema, column: int) -> InputRange:
    name = schema.names[column]
    # What a caller brings has the caller's own units: only that it is a number is known.
    low, high = RANGES.get(name, (0.0, math.inf)) if schema.source == "histories" else (-math.inf, math.inf)
    return InputRange(tensor, low, high, column=column, name=name, missing=True)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
