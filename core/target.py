"""What the labels of a task mean: a closed set of kinds. All that judges, seals or serves asks this one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from featherweight.core.errors import DataError
from featherweight.core.terminal import counted

LabelKind = Literal["binary", "multi-class", "multi-label", "regression"]
"""What the labels of a task are. Binary and multi-class ones are judged (`Target`)."""
MAX_CLASSES: Final = 200
"""Each class has figures, bounds and planted faults of its own."""


@dataclass(frozen=True)
class Binary:
    """Yes or no: labels int64 [N], 1 is positive; scores float64 [N], positive from a threshold on."""

    kind: LabelKind = "binary"
    names: tuple[()] = ()
    """Those of the two classes are the app's."""

    def shape(self, count: int) -> tuple[int, ...]:
        """That of the scores of so many cases."""
        return (count,)


@dataclass(frozen=True)
class Classes:
    """One of K classes that exclude each other: labels int64 [N], places in `names`; scores float64 [N, K], logits of
    which the largest decides. Raises DataError for fewer than three names, too many, or two that are the same.

    >>> Classes(("cat", "dog", "horse")).shape(5)
    (5, 3)
    """

    names: tuple[str, ...]
    kind: LabelKind = "multi-class"

    def __post_init__(self) -> None:
        if not 3 <= len(self.names) <= MAX_CLASSES or len(set(self.names)) < len(self.names):
            shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
            raise DataError(
                f"found {counted(len(self.names), 'classes')} ({shown}), expected 3 to {MAX_CLASSES} "
                "with different names; two classes are a yes or no"
            )

    def shape(self, count: int) -> tuple[int, ...]:
        """That of the scores of so many cases."""
        return count, len(self.names)


Target = Binary | Classes
