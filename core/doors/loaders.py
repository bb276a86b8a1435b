"""The cases of a torch Dataset or DataLoader, once each and in the Dataset's own order, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from featherweight.core.arrays import Array
from featherweight.core.causes import describe_cause
from featherweight.core.errors import DataError
from featherweight.core.terminal import counted

MAX_BYTES: Final = 16 << 30
"""Maximum size of a data set that is iterated into memory."""
_IN_ORDER: Final = ("SequentialSampler", "RandomSampler")


def as_array(value: Any, part: str) -> Array:
    """A tensor or what numpy takes. Raises DataError where it takes it not."""
    try:
        return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{part}: {type(value).__name__} does not become an array ({describe_cause(error)})") from error


def is_iterated(source: Any) -> bool:
    """Whether it is a DataLoader, or gives cases by their numbers or one after the other."""
    return hasattr(source, "batch_size") or hasattr(source, "__getitem__") or hasattr(source, "__iter__")


def iterate(source: Any, part: str) -> tuple[Any, Any]:
    """(inputs, labels) of all cases: inputs an array, or a tuple or dict of them; labels [N].

    A DataLoader's `shuffle` and `drop_last` are left aside: its Dataset is asked. Raises DataError for one that draws
    its cases otherwise, for cases that are not the same when they are asked for again, and for what fails.
    """
    batched, items = _in_order(source, part)
    columns: dict[str, list[Array]] = {}
    labels: list[Array] = []
    named, size, first = False, 0, b""
    for item in _guarded(items, part):
        named, arrays, label = _parts(item, part)
        columns = columns or {name: [] for name in arrays}
        if set(arrays) != set(columns):
            raise DataError(f"{part}: gives {counted(len(arrays), 'inputs')} for one case, {len(columns)} for another")
        for name, array in arrays.items():
            columns[name].append(array)
            size += array.nbytes
        if label.ndim > int(batched) and label.size != (len(label) if batched else 1):
            raise DataError(f"{part}: gives labels of the shape {list(label.shape)}; expected one a case")
        labels.append(label.reshape(-1))
        first = first or _digest(arrays)
        if size > MAX_BYTES:
            raise DataError(f"{part}: gives more than {MAX_BYTES:,} bytes; bring fewer cases")
    if not labels:
        raise DataError(f"{part}: gives no cases")
    again = next(iter(_guarded(_in_order(source, part)[1], part)), None)
    if again is None or _digest(_parts(again, part)[1]) != first:
        raise DataError(
            f"{part}: gives something else for its first case when it is asked again; bring the cases without random "
            "changes (augmentation, dropout, an order that is drawn)"
        )
    try:
        joined = {name: np.concatenate(some) if batched else np.stack(some) for name, some in columns.items()}
    except ValueError as error:
        raise DataError(f"{part}: the inputs differ in shape ({error}); make them of one size") from error
    if named:
        return joined, np.concatenate(labels)
    return next(iter(joined.values())) if len(joined) == 1 else tuple(joined.values()), np.concatenate(labels)


def _in_order(source: Any, part: str) -> tuple[bool, Iterator[Any]]:
    """(whether several cases come at a time, what comes)."""
    if not hasattr(source, "batch_size"):
        if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
            return False, (source[place] for place in range(len(source)))
        if hasattr(source, "__iter__") and not hasattr(source, "__next__"):
            return False, iter(source)
        raise DataError(f"{part}: a {type(source).__name__} does not say how many cases it has (__len__)")
    sampler = type(getattr(source, "sampler", None)).__name__
    dataset: Any = getattr(source, "dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        if getattr(source, "drop_last", False):
            raise DataError(f"{part}: leaves its last cases out; make the DataLoader with drop_last=False")
        return source.batch_size is not None, iter(source)
    replaced = sampler == "RandomSampler" and (source.sampler.replacement or len(source.sampler) != len(dataset))
    own_batches = type(source.batch_sampler).__name__ not in ("BatchSampler", "NoneType")
    if sampler not in _IN_ORDER or replaced or own_batches:
        raise DataError(
            f"{part}: its cases are drawn by {sampler}, some not at all or twice; give the Dataset, or a Subset of it"
        )
    from torch.utils.data import DataLoader

    whole = DataLoader(
        dataset,
        source.batch_size,
        num_workers=source.num_workers,
        collate_fn=source.collate_fn,
        multiprocessing_context=source.multiprocessing_context,
    )
    return source.batch_size is not None, iter(whole)


def _guarded(items: Iterator[Any], part: str) -> Iterator[Any]:
    """Raises DataError where the user's own code fails."""
    try:
        yield from items
    except DataError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise DataError(f"{part}: its code fails ({describe_cause(error)})") from error


def _parts(item: Any, part: str) -> tuple[bool, dict[str, Array], Array]:
    """(whether the inputs have names, the inputs, the label) of a case or a batch."""
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise DataError(f"{part}: gives {type(item).__name__}, expected (inputs, label)")
    *inputs, label = item
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        named = {str(name): as_array(one, part) for name, one in inputs[0].items()}
        return True, named, as_array(label, part)
    nested = len(inputs) == 1 and isinstance(inputs[0], tuple | list)
    arrays = [as_array(one, part) for one in (inputs[0] if nested else inputs)]
    return False, {str(place): array for place, array in enumerate(arrays)}, as_array(label, part)


def _digest(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of the first case: enough to see that it is another one."""
    return b"".join(np.ascontiguousarray(array).tobytes()[: 1 << 20] for array in arrays.values()) + b"."
