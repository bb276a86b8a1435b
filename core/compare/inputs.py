"""What models are run on: columns of a table, or arrays of an archive, in the order of the cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.arrays import Array, Floats, Indices
from featherweight.core.compare.archives import read_arrays
from featherweight.core.compare.cases import Cases
from featherweight.core.compare.tables import Table, read_table
from featherweight.core.digests import file_digest
from featherweight.core.errors import DataError
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.terminal import counted


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the models are run on. arrays: name -> [rows, ...], table: where columns are read when it is known which;
    one of them is None. order: of each case its place among the rows. features: the columns of an input [N, F] that has
    no names of its own. sha256: of the file."""

    name: str
    arrays: Mapping[str, Array] | None
    table: Path | Table | None
    order: Indices
    features: tuple[str, ...] = ()
    sha256: str = ""

    def columns(self, names: Sequence[str]) -> list[Floats]:
        """Of a table, in the order of the cases; NaN where a value is missing. Raises DataError."""
        if self.table is None:
            raise TypeError("there is no table")
        table = self.table if isinstance(self.table, Table) else read_table(self.table, names)
        if table.sha256 != self.sha256:
            raise DataError(f"{self.name}: was changed while it was read; start again")
        return [table.numbers(name, may_lack=True)[self.order] for name in names]

    def tensors(self, specs: Sequence[TensorSpec]) -> Tensors:
        """All of a program's inputs, in the order of the cases. Raises DataError."""
        return {spec.name: self._tensor(spec, len(specs)) for spec in specs}

    def _tensor(self, spec: TensorSpec, inputs: int) -> Array:
        if self.arrays is not None:
            if spec.name not in self.arrays:
                raise DataError(
                    f"{self.name}: there is no array {spec.name!r}; found {', '.join(sorted(self.arrays)[:20])}"
                )
            return self._fitting(self.arrays[spec.name][self.order], spec)
        if len(spec.shape) == 2 and inputs == 1 and self.features:
            if spec.shape[1] not in (None, len(self.features)):
                raise DataError(f"--features names {counted(len(self.features), 'columns')}; the program takes {spec}")
            return self._fitting(np.stack(self.columns(self.features), axis=1), spec)
        if len(spec.shape) == 1 or spec.shape[1:] == (1,):
            (values,) = self.columns([spec.name])
            return self._fitting(values.reshape(len(values), *spec.shape[1:]), spec)
        raise DataError(
            f"{self.name}: the program takes {spec}, which no column is; name the columns in order by --features, or "
            "give an archive of arrays by --inputs (numpy.savez)"
        )

    def _fitting(self, values: Array, spec: TensorSpec) -> Array:
        """As the type that the program takes. Raises DataError for numbers that this would change to others."""
        wanted = np.dtype(spec.dtype)
        if values.dtype.kind not in "biuf":
            raise DataError(
                f"{self.name}: input {spec.name!r} takes {spec.dtype}; found {values.dtype.name}, no numbers"
            )
        if wanted.kind in "iu" and not _are_whole(values, np.iinfo(wanted)):
            raise DataError(f"{self.name}: input {spec.name!r} takes {spec.dtype}; found other numbers")
        with np.errstate(over="ignore"):
            found = np.ascontiguousarray(values, wanted)
        if wanted.kind == "f" and (np.isinf(found) & np.isfinite(values)).any():
            raise DataError(f"{self.name}: input {spec.name!r} takes {spec.dtype}; found larger numbers than that has")
        return found


def _are_whole(values: Array, of: np.iinfo[Any]) -> bool:
    """Whether all are whole numbers that the type has. Its largest one is no float64, but the next one is."""
    if values.dtype.kind != "f":
        return bool(int(values.min(initial=0)) >= of.min and int(values.max(initial=0)) <= of.max)
    wide = values.astype(np.float64)
    whole = np.isfinite(wide) & (wide == np.floor(wide))
    return bool((whole & (wide >= float(of.min)) & (wide < float(of.max + 1))).all())


def open_inputs(source: Path | Table, cases: Cases, id_column: str, features: tuple[str, ...]) -> Inputs:
    """Raises DataError for what cannot be read or has not the ids of the cases."""
    if isinstance(source, Table) or source.suffix.lower() != ".npz":
        table = source if isinstance(source, Table) else read_table(source, (id_column,))
        order = cases.place(table.texts(id_column), table.name)
        return Inputs(table.name, None, source, order, features, table.sha256)
    digest, arrays = file_digest(source), read_arrays(source)
    ids = arrays.pop(id_column, None)
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise DataError(f"{source}: there is no array {id_column!r} of the cases' ids beside the inputs")
    rows = {name: len(array) for name, array in arrays.items() if array.ndim}
    if not rows or set(rows.values()) != {len(ids)} or len(rows) < len(arrays):
        raise DataError(f"{source}: the arrays have not one row for each of the {len(ids):,} ids")
    order = cases.place([str(one).strip() for one in ids.tolist()], str(source))
    return Inputs(str(source), arrays, None, order, sha256=digest)
