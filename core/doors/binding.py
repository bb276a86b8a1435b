"""Cases as a model takes them: columns by their names, arrays by their places, labels as 0 and 1 or as the places of
their classes, in three splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from featherweight.core.arrays import Array, Clusters, Indices, Labels, Texts
from featherweight.core.compare.tables import Table
from featherweight.core.doors.data import SPLITS, Data, RawCases, show_value
from featherweight.core.doors.images import Pictures
from featherweight.core.doors.splits import draw_split
from featherweight.core.errors import DataError
from featherweight.core.target import MAX_CLASSES, Binary, Classes, Target
from featherweight.core.task import HeldOut, SplitName
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.terminal import counted

_TRUTHS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_NAMED = 8
MAX_EXACT = 20_000
"""Cases that are kept as they were given, to be compared with the model's own library."""


@dataclass(frozen=True, eq=False)
class Cases:
    """The cases of one split. tensors: as the program takes them; labels: int64 [N], places in `BoundData.names`; ids,
    clusters: texts [N]; groups: column -> str [N]."""

    tensors: Tensors
    labels: Labels
    ids: tuple[str, ...]
    clusters: tuple[str, ...] | None = None
    groups: Mapping[str, Texts] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Indices) -> Cases:
        """Some of the cases, by their places [M]."""
        return Cases(
            {name: array[index] for name, array in self.tensors.items()},
            self.labels[index],
            tuple(self.ids[place] for place in index),
            None if self.clusters is None else tuple(self.clusters[place] for place in index),
            {name: values[index] for name, values in self.groups.items()},
        )

    def held_out(self, cluster_noun: str, target: Target) -> HeldOut:
        """As the optimizer takes them."""
        clusters = self.cluster_numbers()
        return HeldOut(
            self.ids, self.tensors, self.labels, self.groups, clusters, cluster_noun=cluster_noun, target=target
        )

    def cluster_numbers(self) -> Clusters | None:
        """int64 [N]; None where every case is one of its own."""
        if self.clusters is None:
            return None
        return np.asarray(np.unique(np.array(self.clusters), return_inverse=True)[1], np.int64)


@dataclass(frozen=True, eq=False)
class BoundData:
    """parts: of each split; columns: of a table, in the model's order, empty where the model takes arrays; names: of
    the negative and the positive class, or of all classes; exact: some of the inputs in the precision in which they
    were given, and `rounded` as the program takes them; notes: what was decided here and must be told."""

    parts: Mapping[SplitName, Cases]
    columns: tuple[str, ...]
    names: tuple[str, ...]
    exact: Mapping[str, Array]
    rounded: Tensors
    cluster_noun: str
    label_meaning: str
    notes: tuple[str, ...]

    @property
    def target(self) -> Target:
        """What the labels mean."""
        return Binary() if len(self.names) == 2 else Classes(self.names)


@dataclass(frozen=True)
class InputForm:
    """What a model says of its inputs. names: of its features, in its order, empty where it has none; classes: its
    labels in its order, where it names them."""

    specs: tuple[TensorSpec, ...]
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    missing_value: float | None = None


def bind(data: Data, form: InputForm, seed: int = 0) -> BoundData:
    """The cases, split. Raises DataError for what does not fit the model; every kind of fault is one line."""
    names = class_names(data, form.classes)
    fitted = {
        part: _fitted(raw, form, data.name if part == "cases" else f"{data.name}, {part}", names)
        for part, raw in data.parts.items()
    }
    columns = next(iter(fitted.values()))[2]
    exact = _joined([one[1] for one in fitted.values()])
    rounded = _joined([_some_rows(one[0].tensors) for one in fitted.values()])
    notes: list[str] = []
    if "cases" not in fitted:
        parts: dict[SplitName, Cases] = {split: fitted[split][0] for split in SPLITS}
    else:
        whole = fitted["cases"][0]
        places = data.places or draw_split(whole.tensors, whole.labels, whole.clusters, seed)
        parts = {split: whole.take(places[split]) for split in SPLITS}
        if data.places is None:
            notes.append(_drawn_note(parts, seed, clustered=whole.clusters is not None))
    for split, part in parts.items():
        missing = [name for place, name in enumerate(names) if not (part.labels == place).any()]
        if missing and len(names) == 2:
            raise DataError(f"{data.name}: the {split} cases have one label alone; both are needed")
        if missing:
            raise DataError(f"{data.name}: the {split} cases hold none of the classes {_shown(missing)}")
    return BoundData(parts, columns, names, exact, rounded, data.cluster_noun, data.label_meaning, tuple(notes))


def _drawn_note(parts: Mapping[SplitName, Cases], seed: int, *, clustered: bool) -> str:
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in parts.items())
    apart = "clusters and equal inputs stay together" if clustered else "equal inputs stay together"
    return (
        f"The split was drawn here ({sizes}; seed {seed}; {apart}): it is not known which of these cases the model was "
        "fitted on. If test cases are among them, what they show of both models is too good."
    )


def class_names(data: Data, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the negative and the positive class, or of all classes in the model's order. Raises DataError for labels
    of which it is not known which is the positive one, or which of the model's outputs is whose."""
    found = sorted({value for part in data.parts.values() for value in np.unique(part.labels).tolist()})
    shown = ", ".join(map(show_value, found[:_NAMED])) + (", ..." if len(found) > _NAMED else "")
    if len(found) > 2 or len(data.classes or classes or ()) > 2:
        return _many_names(data, classes, found, shown)
    if len(found) != 2:
        raise DataError(f"{data.name}: found {counted(len(found), 'different labels')} ({shown}), expected two or more")
    positive = data.positive
    if positive is None and classes is not None and set(classes) == set(found):
        positive = classes[1]
    if positive is not None:
        if positive not in found:
            raise DataError(f"{data.name}: no label is {positive!r}, the positive class; found {shown}")
        other = found[0] if found[1] == positive else found[1]
        return other, positive
    if any(value.lower() not in _TRUTHS for value in found):
        raise DataError(f"{data.name}: the labels are {shown}; name the positive one (--positive NAME)")
    negative, positive = sorted(found, key=lambda value: _TRUTHS[value.lower()])
    return negative, positive


def _many_names(data: Data, own: tuple[str, ...] | None, found: list[str], shown: str) -> tuple[str, ...]:
    """Of more than two classes: as the user orders them, else as the model does, else as numbers from 0 on say."""
    if data.positive is not None:
        raise DataError(
            f"{data.name}: found {counted(len(found), 'different labels')} ({shown}), and {data.positive!r} is named "
            "the positive one; leave that out for several classes, or make 0 and 1 of the labels"
        )
    if len(found) > MAX_CLASSES or any(_is_fraction(value) for value in found):
        raise DataError(
            f"{data.name}: found {counted(len(found), 'different labels')} ({shown}); a yes or no and up to "
            f"{MAX_CLASSES} classes are judged, and no quantities (regression)"
        )
    numbers = tuple(map(str, range(len(found))))
    names = data.classes or own or (numbers if set(numbers) == set(found) else ())
    if not names:
        raise DataError(
            f"{data.name}: the labels are {shown}; name them in the order of the model's outputs (--classes A,B,C)"
        )
    strange = [value for value in found if value not in names]
    if strange:
        told = "as they are named" if data.classes else "as the model names them"
        raise DataError(f"{data.name}: {_shown(strange)} are none of the classes {told}: {_shown(names)}")
    return names


def _is_fraction(value: str) -> bool:
    try:
        return not float(value).is_integer()
    except ValueError:
        return False


def _fitted(
    raw: RawCases, form: InputForm, where: str, names: tuple[str, ...]
) -> tuple[Cases, Mapping[str, Array], tuple[str, ...]]:
    """(the cases, some inputs as they were given, the columns' names)."""
    tensors, exact, columns = _inputs(raw, form, where)
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([places[value] for value in raw.labels.tolist()], np.int64)
    return Cases(tensors, labels, raw.ids, raw.clusters, raw.groups), exact, columns


def _inputs(raw: RawCases, form: InputForm, where: str) -> tuple[Tensors, Mapping[str, Array], tuple[str, ...]]:
    if isinstance(raw.inputs, Pictures):
        if len(form.specs) != 1:
            raise DataError(f"{where}: the model takes {len(form.specs)} inputs; a picture is one")
        (spec,) = form.specs
        sizes = tuple(size or 0 for size in spec.shape[1:])
        tensors: Tensors = {spec.name: _typed(raw.inputs.decode(sizes, where), spec, form, where)}
        return tensors, _some_rows(tensors), ()
    if isinstance(raw.inputs, Table):
        if len(form.specs) == 1 and len(form.specs[0].shape) == 2:
            return _columns(raw, raw.inputs, form, where)
        given: dict[str, Array] = {name: raw.inputs.numbers(name, may_lack=True) for name in raw.names}
    else:
        given = dict(raw.inputs)
    names = [spec.name for spec in form.specs]
    if set(given) != set(names) and len(given) == len(names):
        given = dict(zip(names, given.values(), strict=True))  # by their places
    if set(given) != set(names):
        raise DataError(
            f"{where}: has the inputs {', '.join(given)}; the model takes {'; '.join(map(str, form.specs))}"
        )
    tensors = {spec.name: _typed(given[spec.name], spec, form, where) for spec in form.specs}
    return tensors, _some_rows(given), form.names if len(form.specs) == 1 and len(form.specs[0].shape) == 2 else ()


def _columns(
    raw: RawCases, table: Table, form: InputForm, where: str
) -> tuple[Tensors, Mapping[str, Array], tuple[str, ...]]:
    """One input [N, F] of a table's columns."""
    (spec,) = form.specs
    names = _feature_names(raw, form, where)
    columns, faults = [], dict[str, list[str]]()
    picked = _places(table.rows)
    exact = np.empty((len(picked), len(names)), np.float64)
    for place, name in enumerate(names):
        try:
            values = table.numbers(name, may_lack=True)
        except DataError as error:
            kind = str(error).removeprefix(f"{table.name}: ").replace(f"column {name!r} ", "")
            faults.setdefault(kind, []).append(name)
            continue
        exact[:, place] = values[picked]
        with np.errstate(over="ignore"):
            columns.append(values.astype(spec.dtype))
    if faults:
        lines = [
            f"{counted(len(wrong), 'features')} ({', '.join(wrong[:_NAMED])}{', ...' if len(wrong) > _NAMED else ''}): "
            f"{kind}"
            for kind, wrong in faults.items()
        ]
        raise DataError(f"{where}: " + "\n  ".join(lines) + "\n  make numbers of them, or leave them out")
    rows = np.stack(columns, axis=1)
    tensors = {spec.name: _typed(rows, spec, form, where)}
    return tensors, {spec.name: exact}, names


def _feature_names(raw: RawCases, form: InputForm, where: str) -> tuple[str, ...]:
    """By the model's own names where it has them; else the table's columns, which then must be as many."""
    wanted = form.specs[0].shape[1]
    if form.names and not raw.chosen:
        missing = [name for name in form.names if name not in raw.names]
        if missing:
            raise DataError(
                f"{where}: lacks {counted(len(missing), 'features')} of the model ({_shown(missing)}); name the "
                "columns in the model's order by `features` if they are called otherwise here"
            )
        return form.names
    if len(raw.names) != wanted:
        raise DataError(
            f"{where}: has {counted(len(raw.names), 'features')} ({_shown(raw.names)}), the model takes {wanted} and "
            "does not name them; name them in its order by `features`"
        )
    return raw.names


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _typed(array: Array, spec: TensorSpec, form: InputForm, where: str) -> Array:
    found = array[:, None] if array.ndim == 1 and len(spec.shape) == 2 else array
    fits = found.ndim == len(spec.shape) and all(
        want is None or want == have for want, have in zip(spec.shape, found.shape, strict=True)
    )
    if not fits or found.dtype.kind not in "fiub":
        raise DataError(f"{where}: an input is {found.dtype} {list(found.shape)}; the model takes {spec}")
    wanted = np.dtype(spec.dtype)
    if wanted.kind in "iu":
        low, high = np.iinfo(wanted).min, np.iinfo(wanted).max
        if not (np.isfinite(found) & (found == np.floor(found)) & (found >= low) & (found <= high)).all():
            raise DataError(f"{where}: the input {spec.name} takes {spec.dtype}; found other numbers")
        return np.ascontiguousarray(found, wanted)
    with np.errstate(over="ignore"):
        typed = np.ascontiguousarray(found, wanted)
    infinite = int(np.isinf(typed).any(axis=tuple(range(1, typed.ndim))).sum())
    if infinite:
        raise DataError(f"{where}: {counted(infinite, 'cases')} hold numbers that are infinite as {spec.dtype}")
    return _replaced(typed, form)


def _replaced(array: Array, form: InputForm) -> Array:
    """NaN in the place of the number that the model reads as missing."""
    if form.missing_value is None or array.dtype.kind != "f":
        return array
    return np.where(array == array.dtype.type(form.missing_value), array.dtype.type(np.nan), array)


def _places(count: int) -> Indices:
    """Of so many rows those that are kept exactly: always the same ones."""
    if count <= MAX_EXACT:
        return np.arange(count, dtype=np.intp)
    return np.sort(np.random.default_rng(0).choice(count, MAX_EXACT, replace=False))


def _some_rows(tensors: Tensors) -> Tensors:
    places = _places(len(next(iter(tensors.values()))))
    return {name: array[places] for name, array in tensors.items()}


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
