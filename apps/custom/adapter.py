"""Arrays and tables to the program's inputs, its outputs to decisions: the front door's way to a custom artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.apps.custom.sealed import ClassRule, decode_rule, decode_schema
from featherweight.core.adapters import Decisions, InputRange, check_ranges
from featherweight.core.arrays import AnyFloats, Array, Scores
from featherweight.core.doors.scores import raw_scores
from featherweight.core.errors import ArtifactError, TensorError
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.terminal import counted

_SHOWN = 5
_FLOATS = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class ManyInputs:
    """Cases of a program with several inputs: name -> array [N, ...]."""

    arrays: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, part: slice) -> ManyInputs:
        return ManyInputs({name: array[part] for name, array in self.arrays.items()})


class CustomAdapter:
    """Arrays [N, ...] or tables in; label and calibrated probability out, of several classes those of all."""

    def __init__(self, labels: Sequence[str], files: Mapping[str, bytes], inputs: Sequence[TensorSpec]) -> None:
        missing = {"schema.json", "decision.json"} - files.keys()
        if missing:
            raise ArtifactError(f"the artifact lacks {', '.join(sorted(missing))}; make it again")
        self.schema = decode_schema(files["schema.json"])
        self.rule = decode_rule(files["decision.json"], len(labels))
        shapes = [spec.shape for spec in inputs]
        if (self.schema.columns and shapes != [(None, len(self.schema.columns))]) or len(labels) < 2:
            raise ArtifactError(
                f"the program takes {'; '.join(map(str, inputs))} and has {counted(len(labels), 'labels')}; its "
                f"schema.json names {counted(len(self.schema.columns), 'columns')}, of two labels or more: make the "
                "artifact again"
            )
        self._inputs, self.labels = tuple(inputs), tuple(labels)
        floats = [spec for spec in inputs if spec.dtype in _FLOATS]
        names, categories = self.schema.columns, self.schema.categories
        if categories and not names:
            names = ("",) * (inputs[0].shape[-1] or 0)
        self.ranges = tuple(
            InputRange(floats[0].name, column=place, name=name, missing=self.schema.missing, whole=place in categories)
            for place, name in enumerate(names)
        ) or tuple(InputRange(spec.name, missing=self.schema.missing) for spec in floats)

    def cases(self, arrays: Any) -> Any:
        """One array [N, ...] of a program with one input; name -> values [N] of a table, in any order; name -> array
        [N, ...] of a program with several inputs."""
        if self.schema.columns and hasattr(arrays, "keys"):
            return self._typed(self._named_rows(arrays), self._inputs[0])
        if not hasattr(arrays, "keys") and len(self._inputs) == 1:
            return self._typed(arrays, self._inputs[0])
        names = [spec.name for spec in self._inputs]
        given = [str(name) for name in arrays.keys()] if hasattr(arrays, "keys") else []  # noqa: SIM118
        if sorted(given) != sorted(names):
            found = f"a dict of {', '.join(given)}" if given else type(arrays).__name__
            raise TensorError(f"cases: found {found}, expected a dict of the arrays {', '.join(names)}")
        typed = {spec.name: self._typed(arrays[spec.name], spec) for spec in self._inputs}
        if len({len(array) for array in typed.values()}) > 1:
            raise TensorError(
                f"cases: the arrays have different numbers of cases: {[len(one) for one in typed.values()]}"
            )
        return typed[names[0]] if len(names) == 1 else ManyInputs(typed)

    def prepare(self, cases: Any, first: int) -> tuple[Tensors, tuple[str, ...]]:
        """Inputs [n, ...]."""
        if isinstance(cases, ManyInputs):
            tensors: Tensors = dict(cases.arrays)
        else:
            tensors = {self._inputs[0].name: np.asarray(cases)}
        check_ranges(tensors, self.ranges, first)
        return tensors, ("",) * len(cases)

    def decide(self, outputs: Tensors) -> Decisions:
        """Decide from the program's outputs [n, ...]."""
        scores = raw_scores(outputs, self.schema.score)
        if isinstance(self.rule, ClassRule):
            self.check_classes(scores)
            names = np.array(self.labels)[scores.argmax(axis=1)]
            return Decisions(scores, self.rule.probabilities(scores), names, "", self.labels)
        chances = self.rule.probabilities(scores)
        negative, positive = self.labels
        return Decisions(scores, chances, np.where(chances >= self.rule.threshold, positive, negative), positive)

    def check_classes(self, scores: Scores) -> None:
        """Raise ArtifactError for scores [n, K] of other classes than the labels are."""
        if scores.ndim != 2 or scores.shape[1] != len(self.labels):
            raise ArtifactError(
                f"the program gives scores {list(scores.shape)} for {counted(len(self.labels), 'labels')}; make the "
                "artifact again"
            )

    def _typed(self, found: Any, spec: TensorSpec) -> Array:
        array = found.detach().cpu().numpy() if hasattr(found, "detach") else np.asarray(found)
        wanted = "[" + ", ".join("N" if size is None else str(size) for size in spec.shape) + "]"
        if array.dtype.kind not in "fiub" or array.ndim != len(spec.shape) or array.shape[1:] != spec.shape[1:]:
            raise TensorError(f"{spec.name}: found {array.dtype} {list(array.shape)}, expected numbers {wanted}")
        if not len(array):
            raise TensorError(f"{spec.name}: found no cases, expected at least one")
        if spec.dtype not in _FLOATS:
            low, high = np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
            if not (np.isfinite(array) & (array == np.floor(array)) & (array >= low) & (array <= high)).all():
                raise TensorError(f"{spec.name}: found other numbers than those of {spec.dtype}")
            return np.ascontiguousarray(array, spec.dtype)
        with np.errstate(over="ignore"):  # what is infinite in float32 is refused with its place
            rows: AnyFloats = np.ascontiguousarray(array, spec.dtype)
        if self.schema.missing_value is not None:
            kind = rows.dtype.type
            rows = np.where(rows == kind(self.schema.missing_value), kind(np.nan), rows)
        return rows

    def _named_rows(self, columns: Mapping[str, Any]) -> Array:
        """[N, F] by names; other columns of the table are not looked at."""
        given = {str(name) for name in columns.keys()}  # noqa: SIM118  (a table's own iteration may be over rows)
        lost = [name for name in self.schema.columns if name not in given]
        if lost:
            more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
            raise TensorError(f"cases: the table lacks {', '.join(lost[:_SHOWN])}{more}")
        found = [np.atleast_1d(np.asarray(columns[name])) for name in self.schema.columns]
        if len({array.shape for array in found}) > 1 or found[0].ndim != 1:
            raise TensorError("cases: the columns have different shapes, expected [N] of one N")
        wrong = [name for name, array in zip(self.schema.columns, found, strict=True) if array.dtype.kind not in "fiub"]
        if wrong:
            raise TensorError(
                f"cases: {', '.join(wrong[:_SHOWN])} holds no numbers; NaN is for a value that is missing"
            )
        return np.stack([array.astype(np.float64) for array in found], axis=1)
