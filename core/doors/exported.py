"""Programs that `torch.export.save` wrote (.pt2). Torch unpickles parts of such an archive, and evaluates texts in it;
so it is given an archive made anew from what is plain, and texts that could be code are refused."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featherweight.core.arrays import Array
from featherweight.core.causes import describe_cause
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.network import read_module
from featherweight.core.errors import DataError, UsageError
from featherweight.core.files import read_errors

MAX_UNPACKED = 4 << 30
MAX_MEMBERS = 100_000
_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)
"""Members that are numbers or JSON."""
_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError, EOFError)
_EXAMPLES = "data/sample_inputs/model.pt"
_SYMBOL = re.compile(r"Symbol\('[a-z]\w*'(, \w+=(True|False))*\)")
_TEXT = re.compile(r"[\w\s.,:;+\-*/%()<>=!&|~]*")
"""Texts of a program: names and expressions of sizes, which torch evaluates; no quote, bracket or backslash."""
_CALL = re.compile(r"(\w*)\s*\(")
_CALLED = {
    "", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "Gt",
    "IntTrueDiv", "Le", "Lt", "Max", "Min", "Mod", "Ne", "Not", "Or", "PowByNatural", "PythonMod", "ToFloat",
    "TruncToInt",
}  # fmt: skip
"""What an expression of sizes may call."""
_TARGET = re.compile(r"torch\.ops(\.\w+)+|_operator\.\w+|math\.\w+")
_TREE_TYPES = {"builtins.tuple", "builtins.list", "builtins.dict"}
_TREE_WORDS = {"type", "context", "children_spec", "null", "[]"}
_PROSE = ("stack_trace", "torch_fn", "nn_module_stack", "source_fn_stack", "from_node", "custom")
"""Keys of what torch only keeps for people; it is left out."""
_REFUSED = (
    "can run any code when it is read; export an ONNX file (torch.onnx.export), or name the module itself, module:name"
)


def read_pt2(path: Path, content: bytes, example: Mapping[str, Array] | None) -> LoadedModel:
    """A program of `torch.export`. example: as for `read_module`; without it the program's own sizes are taken.

    Raises UsageError for one in which torch would unpickle or evaluate something, DataError for another file.
    """
    plain = _rebuilt(path, content)
    try:
        program = torch.export.load(io.BytesIO(plain))
        network = _plain_module(program)
    except Exception as error:  # torch's errors have no common class
        raise DataError(
            f"{path}: torch cannot read it ({describe_cause(error)}); write it by torch.export.save"
        ) from error
    return read_module(network, example or _own_example(path, program))


def _plain_module(program: Any) -> nn.Module:
    """Its module; torch refuses to switch that to evaluation, in which it is already, or cannot be."""
    module: nn.Module = program.module(check_guards=False)
    del module.train, module.eval
    return module


def _own_example(path: Path, program: Any) -> dict[str, Array]:
    found: dict[str, Array] = {}
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for name in program.graph_signature.user_inputs:
        value: Any = values[name]
        if not isinstance(value, Tensor) or not value.ndim or type(value.shape[0]) is int:
            raise UsageError(
                f"{path}: its input {name} has a fixed number of cases; export it with a dynamic first size "
                "(dynamic_shapes)"
            )
        kind = str(value.dtype).removeprefix("torch.")
        found[name] = np.zeros([2, *(int(size) for size in value.shape[1:])], kind)
    return found


def _rebuilt(path: Path, content: bytes) -> bytes:
    """An archive of the plain members alone, whatever the other one held in ways that torch and this reader may see
    differently."""
    target = io.BytesIO()
    what = "is not an archive that torch.export.save wrote"
    with (
        read_errors(path, what, also=_DAMAGED),
        zipfile.ZipFile(io.BytesIO(content)) as archive,
        zipfile.ZipFile(target, "w") as written,
    ):
        members = archive.infolist()
        if len(members) > MAX_MEMBERS or sum(one.file_size for one in members) > MAX_UNPACKED:
            raise DataError(f"{path}: has more than {MAX_MEMBERS:,} entries or {MAX_UNPACKED:,} bytes unpacked")
        names = {one.filename.partition("/")[2]: one for one in members}
        unknown = [name for name in names if not _PLAIN.fullmatch(name) and name != _EXAMPLES]
        if unknown:
            raise UsageError(f"{path}: holds {unknown[0][:80]!r}, which {_REFUSED}")
        for name, member in names.items():
            part = b"" if name == _EXAMPLES else _checked(path, name, archive.read(member))
            written.writestr(f"archive/{name}", part)
    return target.getvalue()


def _checked(path: Path, name: str, part: bytes) -> bytes:
    """Of JSON, without what is for people; refused where it asks for pickles, or holds what could be code."""
    if not name.endswith(".json"):
        return part
    document = json.loads(part)
    if name.startswith("data/"):
        entries = document.get("config", {}).values()
        if any(entry.get("use_pickle") for entry in entries):
            raise UsageError(f"{path}: holds pickled weights, which {_REFUSED}")
    document = _without(document)
    if not all(_is_plain(key, text) for key, text in _texts("", document)):
        raise UsageError(f"{path}: holds a text in its program, which {_REFUSED}")
    return json.dumps(document).encode()


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: [] if name == "guards_code" else _without(one) for name, one in value.items() if name not in _PROSE
        }
    return [_without(one) for one in value] if isinstance(value, list) else value


def _is_plain(key: str, text: str) -> bool:
    if key in ("in_spec", "out_spec"):  # JSON within JSON: how inputs and outputs nest
        found = list(_texts("", json.loads(text)))
        return all(one in _TREE_TYPES if kind == "type" else one in _TREE_WORDS for kind, one in found)
    if key == "target":
        return bool(_TARGET.fullmatch(text))
    rest = _SYMBOL.sub("s", text)
    return bool(_TEXT.fullmatch(rest)) and "__" not in rest and set(_CALL.findall(rest)) <= _CALLED


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """(its key, text) of every text in a document; keys themselves have none."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield "", name
            yield from _texts(name, one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(key, one)
    elif isinstance(value, str):
        yield key, value
