"""Trees and small dense networks, compiled by numba: one row in about a microsecond, for the `fraud` extra.

A session runs its batches on `threads` threads once they are long enough to share; a row of its own runs on the
caller's thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from featherweight.core.arrays import FeatureRow, FeatureRows, Octets
from featherweight.core.backends import opening
from featherweight.core.backends.base import Availability, Session
from featherweight.core.errors import BackendError
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors
from featherweight.core.trees.ensemble import Ensemble

_ROWS_A_THREAD = 64


class Native:
    """Our own code for trees and small dense networks, compiled by numba."""

    name = "native"
    extra = "fraud"

    def probe(self) -> Availability:
        """See Backend."""
        absent = opening.missing("numba", self.extra) or opening.missing("onnx", self.extra)
        if absent:
            return absent
        return Availability(
            True,
            version=opening.installed_version("numba"),
            devices=("cpu",),
            precisions=("fp32", "int8"),
            kinds=("network", "trees"),
            unpaired=(("network", "int8"),),
        )

    def open(self, program: Program, *, device: str = "cpu", threads: int = 1) -> Session:
        """See Backend."""
        opening.check_request(self.name, self.probe(), program, device, threads)
        packed, score_row, score_rows = _compiled_trees(program) if program.kind == "trees" else _network(program)
        session = NativeRowSession if program.outputs[0].shape[1:] == (1,) else NativeSession
        return session(program, packed, score_row, score_rows, threads)


class NativeSession(opening.OpenSession):
    """A packed program and the compiled functions that score it."""

    def __init__(
        self,
        program: Program,
        packed: Octets,
        score_row: Callable[..., float],
        score_rows: Callable[..., None],
        threads: int,
    ) -> None:
        super().__init__(program)
        self._packed, self._score_row, self._score_rows = packed, score_row, score_rows
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "native") if threads > 1 else None

    def _run(self, tensors: Tensors, batch: int) -> Tensors:
        rows: FeatureRows = np.require(tensors[self.inputs[0].name], None, ["C", "ALIGNED"])
        out = np.empty((batch, self.outputs[0].shape[1] or 0), np.float32)
        shares = min(self._threads, batch // _ROWS_A_THREAD)
        if self._pool is None or shares < 2:
            self._score_rows(self._packed, rows, out)
        else:
            edges = [batch * share // shares for share in range(shares + 1)]
            parts = itertools.pairwise(edges)
            done = [self._pool.submit(self._score_rows, self._packed, rows[a:b], out[a:b]) for a, b in parts]
            for one in done:
                one.result()
        return {self.outputs[0].name: out}

    def _free(self) -> None:
        self._packed, self._score_row = np.empty(0, np.uint8), _closed
        if self._pool is not None:
            self._pool.shutdown()


class NativeRowSession(NativeSession):
    """A session of a program with one output column, which scores one row without any dictionary."""

    def run_row(self, row: FeatureRow) -> float:
        """row: [F] of the program's type, contiguous. Raises TypeError for another type, BackendError after close(); a
        row of another length is the caller's mistake and is not found."""
        return self._score_row(self._packed, row)


def _closed(packed: Any, row: Any) -> float:
    raise BackendError("the session is closed; open the program again")


def _compiled_trees(program: Program) -> tuple[Octets, Any, Any]:
    from featherweight.core.backends import native_kernels as kernels
    from featherweight.core.backends.native_tree_packing import needs_general
    from featherweight.core.backends.native_trees import pack_blocks, pack_walk
    from featherweight.core.trees.onnx_file import decode_trees

    ensemble = decode_trees(program.content)
    inputs, outputs = ensemble.specs
    for kind, declared, found in (("input", program.inputs, inputs), ("output", program.outputs, outputs)):
        opening.check_specs(kind, declared, [(spec.name, spec.dtype, spec.shape) for spec in found])
    if needs_general(ensemble):
        return _general_trees(ensemble)
    if kernels.has_byte_permutes():
        packed = pack_blocks(ensemble)
        if packed is not None:
            return packed, kernels.blocks_row, kernels.blocks_rows
    return pack_walk(ensemble), kernels.walk_row, kernels.walk_rows


def _general_trees(ensemble: Ensemble) -> tuple[Octets, Any, Any]:
    """Trees with categories, float64 rows or several targets."""
    from featherweight.core.backends import native_tree_kernels as kernels
    from featherweight.core.backends.native_kernels import has_byte_permutes
    from featherweight.core.backends.native_tree_packing import pack_blocks, pack_walk

    packed = pack_blocks(ensemble) if has_byte_permutes() else None
    if packed is not None:
        return packed, kernels.blocks_row, kernels.blocks_rows
    return pack_walk(ensemble), kernels.walk_row, kernels.walk_rows


def _network(program: Program) -> tuple[Octets, Any, Any]:
    from featherweight.core.backends import native_kernels as kernels
    from featherweight.core.backends.native_networks import pack_network

    return pack_network(program), kernels.network_row, kernels.network_rows
