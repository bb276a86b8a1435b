"""Labelled cases of a user's own, from wherever they lie, before it is known what the model takes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np

from featherweight.core.arrays import Array, Indices, Texts
from featherweight.core.compare.cases import UNKNOWN
from featherweight.core.compare.tables import Table, read_table, table_of
from featherweight.core.doors.images import LABELS, Pictures
from featherweight.core.doors.loaders import as_array, is_iterated, iterate
from featherweight.core.errors import DataError
from featherweight.core.task import SplitName
from featherweight.core.terminal import counted, plural_of

SPLITS: Final[tuple[SplitName, ...]] = ("training", "validation", "test")
_SPLIT_NAMES: Mapping[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
}
_NAMED = 5
_LABEL_LIKE = re.compile(r"[A-Za-z_-]{0,20}|[0-9.]{1,4}")


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table mean; all that are not named here are features.

    label: the truth; split: train, validation or test; cluster: whom a case belongs to (patient, card); groups: by
    which results are told apart; id: what a case is called in the evidence; features: those that the model takes, where
    it does not name them itself, in its order.
    """

    label: str
    split: str = ""
    cluster: str = ""
    groups: tuple[str, ...] = ()
    id: str = ""
    features: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RawCases:
    """Cases as they were given. inputs: name -> [N, ...], "" for the only one without a name; or pictures; or a table,
    of which `names` are the features; labels: [N], any values; ids, clusters: texts; groups: column -> str [N]."""

    inputs: Mapping[str, Array] | Table | Pictures
    labels: Array
    ids: tuple[str, ...]
    clusters: tuple[str, ...] | None = None
    groups: Mapping[str, Texts] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    chosen: bool = False
    """Whether `names` are all the features, in the model's order."""

    def __len__(self) -> int:
        return len(self.labels)


class Data:
    """Labelled cases of one's own: what a model is optimized and judged on.

    train, validation, test: (inputs, labels) each, or `cases` with all of them, of which the split is then drawn.
    inputs: an array [N, F] or [N, C, H, W], several of them as a dict of name -> array or a tuple, or a table (a
    DataFrame, a dict of columns [N]); a torch Dataset or DataLoader takes the place of (inputs, labels): its cases are
    taken once each, in the order of the Dataset, whatever `shuffle` and `drop_last` say. labels: [N], 0 and 1, or
    names, of which `positive` is the positive one; of more than two classes 0, 1, 2 ..., or names, of which `classes`
    is the model's own order where it does not say it. clusters: whom each case belongs to (patients, cards);
    groups: name -> values (site, device); both have for each of the three parts an array [N], in a tuple or a dict, or
    one array for `cases`. `Data.read` reads tables from files.

    Raises DataError where these do not fit each other.

    >>> import featherweight, numpy
    >>> rows, labels = numpy.random.default_rng(0).normal(size=(600, 4)), numpy.arange(600) % 2
    >>> featherweight.Data(cases=(rows, labels), clusters=numpy.arange(600) // 3)
    <Data: 600 cases, to be split>
    >>> featherweight.Data(train=(rows, labels), validation=(rows + 1, labels), test=(rows + 2, labels))
    <Data: training 600, validation 600, test 600>
    """

    def __init__(
        self,
        *,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        cases: Any = None,
        clusters: Any = None,
        groups: Mapping[str, Any] | None = None,
        positive: str | int | None = None,
        classes: Sequence[str | int] = (),
        name: str = "arrays in memory",
    ) -> None:
        given = dict(zip(SPLITS, (train, validation, test), strict=True))
        missing = [split for split, part in given.items() if part is None]
        if (cases is None) == bool(missing):
            raise DataError(
                "data: give train, validation and test, or all cases together as `cases`, of which the split is drawn"
                + (f"; missing: {', '.join(missing)}" if cases is None else "")
            )
        whole: dict[str, Any] = {"cases": cases} if cases is not None else dict(given)
        self.name, self.positive = name, None if positive is None else str(positive)
        self.classes = tuple(map(str, classes))
        self.parts: Mapping[str, RawCases] = {
            part: _raw_cases(found, part, _part_of(clusters, part, whole), _groups_of(groups, part, whole))
            for part, found in whole.items()
        }
        self.places: Mapping[SplitName, Indices] | None = None
        self.cluster_noun, self.label_meaning = "clusters", ""

    @property
    def is_split(self) -> bool:
        """Whether the user says which cases are for what."""
        return self.places is not None or "cases" not in self.parts

    def example(self, count: int = 2) -> Mapping[str, Array]:
        """The inputs of the first cases, name -> [count, ...], as a network takes them that names nothing."""
        raw = next(iter(self.parts.values()))
        if isinstance(raw.inputs, Pictures):
            some = Pictures(raw.inputs.paths[:count])
            return {"": some.decode(some.native_shape(), self.name)}
        if not isinstance(raw.inputs, Table):
            return {name: array[:count] for name, array in raw.inputs.items()}
        columns = [raw.inputs.numbers(name, may_lack=True)[:count] for name in raw.names]
        return {"": np.nan_to_num(np.stack(columns, axis=1)).astype(np.float32)}

    def __repr__(self) -> str:
        if not self.is_split:
            return f"<Data: {counted(len(self.parts['cases']), 'cases')}, to be split>"
        sizes = self.places if self.places is not None else self.parts
        return f"<Data: {', '.join(f'{split} {len(part):,}' for split, part in sizes.items())}>"

    @classmethod
    def read(
        cls,
        table: str | PathLike[str] | Mapping[str, Any],
        *,
        label: str,
        split: str = "",
        cluster: str = "",
        groups: Sequence[str] = (),
        id: str = "",
        features: Sequence[str] = (),
        positive: str | int | None = None,
        classes: Sequence[str | int] = (),
    ) -> Data:
        """Cases from a table: a CSV or Parquet file, or a DataFrame or dict of columns; or from a folder of pictures
        with a labels.csv, whose column `path` names the files.

        label: the column of the truth; split: that says train, validation or test, without it the split is drawn;
        cluster: whom a case belongs to; groups: by which results are told apart; id: what a case is called; features:
        what the model takes, in its order, all other columns if it is not given and the model does not name them.
        """
        columns = TableColumns(label, split, cluster, tuple(groups), id, tuple(features))
        if isinstance(table, str | PathLike) and Path(table).is_dir():
            data = data_of_folder(Path(table), columns, positive)
            data.classes = tuple(map(str, classes))
            return data
        found = read_table(Path(table)) if isinstance(table, str | PathLike) else table_of("table in memory", table)
        data = data_of_table(found, columns, positive)
        data.classes = tuple(map(str, classes))
        return data


def data_of_folder(folder: Path, columns: TableColumns, positive: str | int | None = None) -> Data:
    """Pictures that `labels.csv` in the folder lists. Its columns `split` and `patient` mean what they say, and all
    others that are not named are groups. Raises DataError."""
    table = read_table(folder / LABELS)
    paths = Pictures(tuple(folder / name.strip() for name in table.texts("path")))
    listed = [str(path) for path in paths.paths]
    if len(set(listed)) < len(listed):
        raise DataError(f"{table.name}: names {counted(len(listed) - len(set(listed)), 'pictures')} more than once")
    split, cluster = (
        given or (usual if usual in table.columns else "")
        for given, usual in ((columns.split, "split"), (columns.cluster, "patient"))
    )
    known = {"path", columns.label, split, cluster, columns.id}
    groups = columns.groups or tuple(name for name in table.columns if name not in known)
    meant = TableColumns(columns.label, split, cluster, groups, columns.id or "path")
    return data_of_table(table, meant, positive, paths)


def data_of_table(
    table: Table, columns: TableColumns, positive: str | int | None = None, pictures: Pictures | None = None
) -> Data:
    """pictures: in place of features. Raises DataError for columns that are missing or hold what they cannot."""
    meant = [name for name in (columns.label, columns.split, columns.cluster, columns.id, *columns.groups) if name]
    missing = [name for name in (*meant, *columns.features) if name not in table.columns]
    if missing:
        shown = ", ".join(list(table.columns)[:20]) + (", ..." if len(table.columns) > 20 else "")
        raise DataError(f"{table.name}: there is no column {', '.join(map(repr, missing[:_NAMED]))}; found {shown}")
    names = columns.features or tuple(name for name in table.columns if name not in meant)
    whole = RawCases(
        table if pictures is None else pictures,
        _label_values(table, columns.label),
        tuple(table.texts(columns.id)) if columns.id else tuple(f"row {row}" for row in range(1, table.rows + 1)),
        tuple(table.texts(columns.cluster)) if columns.cluster else None,
        {name: np.array(table.texts(name, missing=UNKNOWN)) for name in columns.groups},
        names,
        bool(columns.features),
    )
    data = Data.__new__(Data)
    data.name, data.positive, data.classes = table.name, None if positive is None else str(positive), ()
    data.cluster_noun = plural_of(columns.cluster) if columns.cluster else "clusters"
    data.label_meaning = f"the column {columns.label} of {Path(table.name).name}"
    data.parts = {"cases": whole}
    data.places = _places(table, columns.split) if columns.split else None
    return data


def show_value(value: str) -> str:
    """Where columns are shifted it is a patient's number, or a report: only what looks like a label is shown."""
    return repr(value) if _LABEL_LIKE.fullmatch(value) else f"a text of {len(value)} characters"


def _label_values(table: Table, column: str) -> Array:
    import pyarrow as pa

    if pa.types.is_floating(table.columns[column].type):
        return np.array([f"{value:g}" for value in table.numbers(column).tolist()])
    return np.array(table.texts(column))


def _places(table: Table, column: str) -> dict[SplitName, Indices]:
    """Of each split its rows."""
    values = [value.lower() for value in table.texts(column)]
    unknown = sorted({value for value in values if value not in _SPLIT_NAMES})
    if unknown:
        shown = ", ".join(map(show_value, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
        count = sum(value not in _SPLIT_NAMES for value in values)
        raise DataError(
            f"{table.name}: column {column!r} holds {shown} in {counted(count, 'rows')}; expected train, validation or "
            "test"
        )
    found = np.array([_SPLIT_NAMES[value] for value in values])
    empty = [split for split in SPLITS if not (found == split).any()]
    if empty:
        raise DataError(
            f"{table.name}: column {column!r} names no cases for {' or '.join(empty)}; all three are needed"
        )
    return {split: np.flatnonzero(found == split) for split in SPLITS}


def _raw_cases(found: Any, part: str, clusters: Any, groups: Mapping[str, Any]) -> RawCases:
    inputs, labels = _inputs_and_labels(found, part)
    truth = as_array(labels, part)
    truth = truth[:, 0] if truth.ndim == 2 and truth.shape[1] == 1 else truth
    if truth.ndim != 1:
        raise DataError(f"{part}: labels of the shape {list(truth.shape)}; expected one a case, [N]")
    if truth.dtype.kind == "f":
        truth = np.array([f"{value:g}" for value in truth.tolist()])
    count = len(truth)
    per_case = {"clusters": clusters, **{f"group {name!r}": values for name, values in groups.items()}}
    wrong = [
        f"{len(values)} {name}" for name, values in per_case.items() if values is not None and len(values) != count
    ]
    raw, names = _named_inputs(inputs, part)
    if not isinstance(raw, Table):
        wrong += [
            f"{counted(len(array), 'rows')} of input {name or '1'}"
            for name, array in raw.items()
            if len(array) != count
        ]
    elif raw.rows != count:
        wrong.append(counted(raw.rows, "rows"))
    if wrong or not count:
        raise DataError(f"{part}: {counted(count, 'labels')} but {', '.join(wrong) or 'no cases'}; expected one a case")
    return RawCases(
        raw,
        truth.astype(str),
        tuple(f"{part} {place}" for place in range(count)),
        None if clusters is None else tuple(map(str, np.asarray(clusters).tolist())),
        {name: np.asarray(values).astype(str) for name, values in groups.items()},
        names,
    )


def _inputs_and_labels(found: Any, part: str) -> tuple[Any, Any]:
    listed = isinstance(found, list) and len(found) == 2 and not isinstance(found[0], tuple | list)
    if listed or (isinstance(found, tuple) and len(found) == 2):  # a list of pairs is a Dataset of two cases
        return found[0], found[1]
    if is_iterated(found):
        return iterate(found, part)
    raise DataError(f"{part}: found {type(found).__name__}, expected (inputs, labels), a torch Dataset or a DataLoader")


def _named_inputs(inputs: Any, part: str) -> tuple[Mapping[str, Array] | Table, tuple[str, ...]]:
    if isinstance(inputs, tuple):
        return {str(place): as_array(one, part) for place, one in enumerate(inputs)}, ()
    if not hasattr(inputs, "keys"):
        array = as_array(inputs, part)
        if array.ndim < 1 or array.dtype.kind not in "fiub":
            raise DataError(f"{part}: inputs are {array.dtype} {list(array.shape)}; expected numbers [N, ...]")
        return {"": array[:, None] if array.ndim == 1 else array}, ()
    named = {str(name): as_array(inputs[name], part) for name in inputs.keys()}  # noqa: SIM118  (a DataFrame iterates so too)
    if all(array.ndim == 1 for array in named.values()):
        table = table_of(part, named)
        return table, tuple(table.columns)
    return named, ()


def _part_of(found: Any, part: str, whole: Mapping[str, Any]) -> Any:
    """Of clusters or of a group, what belongs to this part."""
    if found is None or set(whole) == {"cases"}:
        return found
    if isinstance(found, Mapping):
        by_split = {_SPLIT_NAMES.get(str(name), str(name)): values for name, values in found.items()}
        if set(by_split) == set(whole):
            return by_split[part]
    elif isinstance(found, tuple | list) and len(found) == len(whole):
        return found[list(whole).index(part)]
    raise DataError("clusters and groups: expected one array for each of train, validation and test")


def _groups_of(groups: Mapping[str, Any] | None, part: str, whole: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _part_of(values, part, whole) for name, values in (groups or {}).items()}
