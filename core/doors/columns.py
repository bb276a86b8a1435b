"""What the steps of a scikit-learn pipeline before its model make of the columns: which one comes from which, and which
of them are categories that were encoded.

Nothing is computed anew here: what a value becomes is always asked of the fitted steps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any, Final

import numpy as np

from featherweight.core.arrays import Array, Bools, Floats, Floats32, Integers
from featherweight.core.errors import UsageError
from featherweight.core.terminal import counted

_KEEPING: Final = ("SimpleImputer",)
"""Steps that leave a value what it is, and fill in missing ones."""
_ORDERED: Final = (
    "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "PowerTransformer", "QuantileTransformer",
    "KBinsDiscretizer",
)  # fmt: skip
"""Steps that treat each column for itself, and keep the order of its values."""
_ENCODERS: Final = ("OneHotEncoder", "OrdinalEncoder")
READ: Final = (*_ORDERED, *_KEEPING, *_ENCODERS, "ColumnTransformer")
_MAX_CATEGORIES: Final = 1000
_SIZES: Final = (float(np.finfo(np.float32).max), 1e30, 1e20, 1e12, 1e8, 1e6)


@dataclass(frozen=True)
class _Column:
    """origin: of the table; plain: whether its values are still those of the table; encoded: whether it says which
    category the table's value is."""

    origin: int
    plain: bool = True
    encoded: bool = False


@dataclass(frozen=True, eq=False)
class Columns:
    """steps: fitted; width: columns of the table; origin: int64 [F], what each column behind the steps is made of;
    encoded: bool [F], whether it is an encoding of categories; categories: column of the table -> its categories,
    float32 and rising; names: of the table's columns, where the steps know columns by name."""

    steps: Sequence[Any]
    width: int
    origin: Integers
    encoded: Bools
    categories: Mapping[int, Floats32]
    names: tuple[str, ...]

    def transform(self, rows: Array) -> Array:
        """What the steps make of rows [N, width]: [N, F]."""
        found: Any = as_frame(rows, self.names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a category is not known, or a column has no name
            for step in self.steps:
                found = step.transform(found)
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found)

    def asked(self, rows: Array) -> Array:
        """As `transform`, also where the steps refuse a value: an infinite or a very large one is like the largest one
        that they take, and what comes of a missing one is missing."""
        taken = np.clip(rows, -self.largest, self.largest)
        try:
            return self.transform(taken)
        except ValueError:
            made = self.transform(np.nan_to_num(taken)).astype(np.float64)
            return np.asarray(np.where(np.isnan(rows[:, self.origin]), np.nan, made))

    @cached_property
    def largest(self) -> float:
        """A size of values of which the steps still make finite numbers of float32."""
        for size in _SIZES:
            ends = np.full((2, self.width), size, np.float32) * np.array([[1], [-1]], np.float32)
            with np.errstate(all="ignore"), suppress(ValueError):
                if np.isfinite(self.transform(ends).astype(np.float32)).all():
                    return size
        return _SIZES[-1]

    def of_categories(self, column: int) -> Floats:
        """float64 [K + 2, F]: the columns behind the steps for each category of a column, for a value that is none of
        them, and for a missing one."""
        known = self.categories[column]
        rows = np.zeros((len(known) + 2, self.width), np.float32)
        other = np.nextafter(known[~np.isnan(known)].max(initial=0), np.float32(np.inf))
        rows[:, column] = [*known, other, np.nan]
        with np.errstate(all="ignore"):
            return np.asarray(self.asked(rows), np.float64)


def as_frame(rows: Array, names: Sequence[str]) -> Any:
    """A DataFrame where columns are known by name, which steps then ask for."""
    if not names:
        return rows
    try:
        pandas = import_module("pandas")
    except ModuleNotFoundError as error:
        raise UsageError("the pipeline knows its columns by name: install pandas, by which it can be asked") from error
    return pandas.DataFrame(rows, columns=list(names))


def read_columns(steps: Sequence[tuple[str, Any]], width: int, names: Sequence[str]) -> Columns:
    """steps: names and fitted steps, of a Pipeline without its model. Raises UsageError for a step that is not read,
    and for one that does more than to treat each column for itself."""
    columns = [_Column(place) for place in range(width)]
    categories: dict[int, Floats32] = {}
    for name, step in steps:
        columns = _trace(name, step, columns, categories)
    fitted = [step for _, step in steps]
    by_name = tuple(names) if any(_knows_names(step) for step in fitted) else ()
    found = Columns(
        fitted,
        width,
        np.array([column.origin for column in columns], np.int64),
        np.array([column.encoded for column in columns]),
        categories,
        by_name,
    )
    made = found.transform(np.zeros((1, width), np.float32)).shape[1]
    if made != len(columns):
        raise UsageError(
            f"the pipeline makes {counted(made, 'columns')} where {len(columns)} were expected; apply it to the data "
            "before, and load the model alone"
        )
    return found


def _knows_names(step: Any) -> bool:
    return type(step).__name__ == "ColumnTransformer" and any(
        isinstance(one, str) for _, _, columns in step.transformers for one in np.atleast_1d(np.array(columns, object))
    )


def _trace(name: str, step: Any, columns: Sequence[_Column], categories: dict[int, Floats32]) -> list[_Column]:
    kind = type(step).__name__
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return list(columns)
    if kind == "FunctionTransformer" and step.func is None:
        return list(columns)
    if kind == "Pipeline":
        found = list(columns)
        for inner, one in step.steps:
            found = _trace(f"{name}, {inner}", one, found, categories)
        return found
    if kind == "ColumnTransformer":
        return _parts(name, step, columns, categories)
    if kind in _ENCODERS:
        return _encoded(name, step, columns, categories)
    _check_ordered(name, step)
    return [column if kind in _KEEPING else replace(column, plain=False) for column in columns]


def _check_ordered(name: str, step: Any) -> None:
    kind = type(step).__name__
    if kind not in (*_KEEPING, *_ORDERED):
        raise UsageError(
            f"the pipeline's step {name!r} is {kind}; before a model only {', '.join(READ)} are read: apply it to the "
            "data before, and load the model alone"
        )
    if kind == "SimpleImputer" and not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise UsageError(f"the pipeline's step {name!r} takes {step.missing_values!r} for missing; put NaN there")
    if kind == "KBinsDiscretizer" and step.encode != "ordinal":
        raise UsageError(f"the pipeline's step {name!r} makes a column for each bin; fit it with encode='ordinal'")


def _parts(name: str, step: Any, columns: Sequence[_Column], categories: dict[int, Floats32]) -> list[_Column]:
    """Of a ColumnTransformer, whose parts stand behind each other."""
    places: Mapping[str, Sequence[int]] = step._transformer_to_input_indices
    found: list[_Column] = []
    for part, transformer, _ in step.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        found += _trace(f"{name}, {part}", transformer, [columns[place] for place in places[part]], categories)
    return found


def _encoded(name: str, step: Any, columns: Sequence[_Column], categories: dict[int, Floats32]) -> list[_Column]:
    kind = type(step).__name__
    for column, values in zip(columns, step.categories_, strict=True):
        if not column.plain or column.encoded:
            raise UsageError(f"the pipeline's step {name!r} encodes what another step has changed; encode the columns")
        known = _numbers(name, values)
        if not np.array_equal(categories.get(column.origin, known), known, equal_nan=True):
            raise UsageError(f"the pipeline encodes one column twice, in step {name!r} with other categories")
        categories[column.origin] = known
    unknown = step.handle_unknown
    if unknown == "error":
        advice = "'ignore'" if kind == "OneHotEncoder" else "'use_encoded_value', and an unknown_value"
        raise UsageError(
            f"the pipeline's step {name!r} refuses a value that it does not know, which an artifact cannot do; set its "
            f"handle_unknown to {advice}: it need not be fitted again"
        )
    if kind == "OrdinalEncoder":
        return [replace(column, plain=False, encoded=True) for column in columns]
    if any(one is not None for one in getattr(step, "infrequent_categories_", ())):
        raise UsageError(f"the pipeline's step {name!r} puts rare categories together, which is not read")
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(columns)
    return [
        replace(column, plain=False, encoded=True)
        for column, values, left_out in zip(columns, step.categories_, dropped, strict=True)
        for _ in range(len(values) - (left_out is not None))
    ]


def _numbers(name: str, values: Array) -> Floats32:
    if values.dtype.kind not in "fiub":
        raise UsageError(
            f"the pipeline's step {name!r} encodes texts, and an artifact takes numbers: give the column a number for "
            "each text before the pipeline, and fit it on that"
        )
    numbers = values.astype(np.float32)
    if len(numbers) > _MAX_CATEGORIES or not np.array_equal(numbers.astype(np.float64), values, equal_nan=True):
        raise UsageError(
            f"the pipeline's step {name!r} has {counted(len(numbers), 'categories')}; at most {_MAX_CATEGORIES} are "
            "read, which are numbers of float32"
        )
    return np.asarray(numbers)
