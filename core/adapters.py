"""How an app's artifacts are run on arrays: what core cannot know, because the app's sealed files are opaque to it.

Core never imports an app; it loads the adapter that an installed app registers under its name (entry point group
`featherweight.models`). The adapter also states the range of values that the program's inputs may have, from what the
app has sealed: the front door refuses other values, and the evidence page names the range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from featherweight.core.arrays import Array, Bools, Probabilities, Scores, Texts
from featherweight.core.errors import EXTRA_OF, MissingExtraError, TensorError, UsageError
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.thresholds import Outcomes

GROUP = "featherweight.models"
_ROUNDING = 1e-6
"""Tolerance relative to the width of a range: float32 rounds a grey level of 1 to a little more."""
_FULL_SCALES = {255: "8-bit", 4095: "12-bit", 65535: "16-bit"}


@dataclass(frozen=True)
class InputRange:
    """The values that a program's input may have, both ends included.

    input: the tensor's name; column: of [N, F], the column that is meant, None for every value; name: of the column;
    meaning: what the values are; missing: whether NaN stands for a value that is not known;
    whole: whether the values are categories, whole numbers.

    >>> import featherweight
    >>> with featherweight.open("data/models/chest-xray") as model:
    ...     (found,) = model.describe().ranges
    >>> found.input, found.low, found.high
    ('image', 0.0, 1.0)
    >>> str(found)
    '0 to 1 (grey level, 0 is black and 1 is white)'
    """

    input: str
    low: float = -math.inf
    high: float = math.inf
    meaning: str = ""
    column: int | None = None
    name: str = ""
    missing: bool = False
    whole: bool = False

    def __str__(self) -> str:
        """The range in words: `0 to 1 (grey level)`."""
        text = {
            (True, True): f"{self.low:g} to {self.high:g}",
            (True, False): f"{self.low:g} or more",
            (False, True): f"{self.high:g} or less",
            (False, False): "any finite number",
        }[math.isfinite(self.low), math.isfinite(self.high)]
        if self.whole:
            text = text.replace("any finite number", "whole numbers")
        return f"{text} ({self.meaning})" if self.meaning else text


Cases = Sequence[Any] | Array
"""One element a case; it has a length and can be sliced."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """What an app makes of a program's outputs for n cases. scores: float64 [n], raw, larger is more positive;
    probabilities: float64 [n], calibrated, of the label `positive`; decisions: str [n]. Of several classes scores and
    probabilities are [n, K], in the order of `labels`, which is empty else, and `positive` is empty."""

    scores: Scores
    probabilities: Probabilities
    decisions: Texts
    positive: str
    labels: tuple[str, ...] = ()


class ModelAdapter(Protocol):
    """An app's knowledge of one of its artifacts."""

    ranges: tuple[InputRange, ...]
    """What the program's inputs may be."""
    outcomes: Outcomes | None
    """All that the app does by thresholds on the score, of which the lowest is that of its decision; None where it acts
    on one alone, which its evidence names."""

    def cases(self, arrays: Any) -> Cases:
        """What a programmer gave ([N, ...] or a sequence) as one element a case. Raises TensorError."""
        ...

    def prepare(self, cases: Cases, first: int) -> tuple[Tensors, tuple[str, ...]]:
        """(the program's inputs [n, ...], one note a case) of a part of `cases`; first: the place of the part's first
        case, for messages. Raises TensorError for values outside of the range that the app reads."""
        ...

    def decide(self, outputs: Tensors) -> Decisions:
        """Decide from the program's outputs [n, ...]. Scores that are not finite numbers are returned as they are, with
        any decision: the caller refuses them."""
        ...


class AdapterFactory(Protocol):
    """What an entry point of the group `featherweight.models` names."""

    def __call__(self, labels: Sequence[str], files: Mapping[str, bytes], inputs: Sequence[TensorSpec]) -> ModelAdapter:
        """labels, files: as sealed, file name -> bytes; inputs: of the program. Raises ArtifactError for sealed files
        that are not this app's, or do not fit the program."""
        ...


def open_adapter(
    app: str, labels: Sequence[str], files: Mapping[str, bytes], inputs: Sequence[TensorSpec]
) -> ModelAdapter | None:
    """The adapter that an installed app registers under its name, opened; None where none does. Raises ArtifactError
    as the factory does, UsageError for an app that does not load, MissingExtraError where it lacks a package."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}.get(app)
    if found is None:
        return None
    try:
        factory: AdapterFactory = found.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and missing in EXTRA_OF:
            raise MissingExtraError(missing, EXTRA_OF[missing], f"running a model of the app {app!r}") from error
        raise UsageError(f"the app {app!r} ({found.value}) does not load: {error}; reinstall it") from error
    return factory(labels, files, inputs)


def describe_ranges(ranges: Sequence[InputRange]) -> str:
    """All ranges of a program in one line; columns with the same range stand together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for one in ranges:
        alike.setdefault((one.input, str(one)), []).append(one.name)
    parts = [f"{tensor}: {text}" + _columns(names) for (tensor, text), names in alike.items()]
    if any(one.missing for one in ranges):
        parts.append("NaN where a value is missing")
    return "; ".join(parts)


def _columns(names: Sequence[str]) -> str:
    named = ", ".join(filter(None, names))
    return f" for {named}" if named else ""


def check_ranges(tensors: Tensors, ranges: Sequence[InputRange], first: int = 0) -> None:
    """Raise TensorError for the first value outside of a range, which is nothing that the program was judged on.

    tensors: of the declared types and shapes; first: the place of their first case, for messages.
    """
    for one in ranges:
        whole = tensors[one.input]
        values = whole if one.column is None else whole[:, one.column]
        slack = _ROUNDING * (one.high - one.low) if math.isfinite(one.high - one.low) else 0.0
        with np.errstate(invalid="ignore"):
            fits = (values >= one.low - slack) & (values <= one.high + slack) & np.isfinite(values)
        if one.whole:
            fits &= values == np.floor(values)
        if one.missing:
            fits |= np.isnan(values)
        if not fits.all():
            raise TensorError(_outside(one, values, fits, first))


def _outside(one: InputRange, values: Array, fits: Bools, first: int) -> str:
    """The range, what was found instead, and where it was found first."""
    wrong = np.argwhere(~fits)
    where = f"{one.input}{f' column {one.name!r}' if one.name else ''}"
    found = values[np.isfinite(values)]
    span = f"values from {found.min():g} to {found.max():g}" if len(found) else "no finite value"
    lost = values.size - len(found) - (int(np.isnan(values).sum()) if one.missing else 0)
    span += f" and {lost} that are not finite numbers" if lost else ""
    text = f"{where}: found {span}, first in case {first + int(wrong[0][0])}; expected {one}"
    return text + _scaling(one, found)


def _scaling(one: InputRange, found: Array) -> str:
    """The likely cause, where grey levels were given in whole numbers."""
    if (one.low, one.high) != (0.0, 1.0) or not len(found) or found.min() < 0:
        return ""
    scale = next((scale for scale in _FULL_SCALES if found.max() <= scale), None)
    if scale is None or found.max() <= 1:
        return ""
    return f"; are these {_FULL_SCALES[scale]} values, 0 to {scale}? Divide them by {scale}"
