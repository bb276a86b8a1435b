"""What the next reader leans on, counted: docstrings, shapes of arrays, lengths of functions and modules."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

parse = functools.cache(ast.parse)
ROOT = Path(__file__).parent.parent
MODULES = sorted(path for room in ("core", "apps") for path in (ROOT / room).rglob("*.py"))
MIN_DOCUMENTED = 0.9
MAX_MEDIAN_LINES = 9
MAX_MODULE_LINES = 400
LONGER = {
    "apps/fraud/features/kernels.py": "numba's cache looks only at the file of the function that is called, so "
    "everything that one compiled function calls stands in one file (ADR 007)",
    "apps/fraud/http/connection.py": "one class, a state machine of one connection: its parts share its state",
    "apps/fraud/kafka/member.py": "to be split into the member's loop, label gate and recovery",
}
"""Modules that may be longer, and why."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function
ARRAY = re.compile(r"\bNDArray\b|\bndarray\b")
SHAPE = re.compile(r"\[[^\]]*\]|any shape|one shape|same shape")
TYPED_SHAPE = re.compile(r"\b(u?int\d+|float\d+|bool|0 or 1,) \[")
"""What counts in a module's docstring, which speaks of all its functions."""


def public(node: ast.Module | ast.ClassDef, place: str) -> Iterator[tuple[str, Documented, ast.ClassDef | None]]:
    """(place and name, node, its class) of the public classes, functions and methods within."""
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        yield f"{place}:{child.name}", child, node if isinstance(node, ast.ClassDef) else None
        if isinstance(child, ast.ClassDef):
            yield from public(child, f"{place}:{child.name}")


def find_all(source: str, name: str) -> list[tuple[str, Documented, ast.ClassDef | None]]:
    tree = parse(source)
    empty = not tree.body  # of an empty `__init__.py` there is nothing to say
    return [*([] if empty else [(name, tree, None)]), *public(tree, name)]


def find_undocumented(source: str, name: str) -> list[str]:
    return [place for place, node, _ in find_all(source, name) if not ast.get_docstring(node)]


def find_shapeless(source: str, name: str) -> list[str]:
    """Public functions that take or give an array whose shape neither their docstring, nor their class's or module's,
    nor the text below the type's name tells."""
    tree = parse(source)
    arrays = [ARRAY.pattern]
    for node, after in itertools.pairwise([*tree.body, ast.Pass()]):
        told = isinstance(after, ast.Expr) and SHAPE.search(ast.unparse(after))
        if isinstance(node, ast.Assign) and ARRAY.search(ast.unparse(node.value)) and not told:
            arrays.append(rf"\b{ast.unparse(node.targets[0])}\b")
    if TYPED_SHAPE.search(ast.get_docstring(tree) or ""):
        return []
    found = []
    for place, node, owner in find_all(source, name):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        annotations = [argument.annotation for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
        types = " ".join(ast.unparse(one) for one in [*annotations, node.returns] if one)
        told = " ".join(ast.get_docstring(one) or "" for one in (node, owner) if one)
        if re.search("|".join(arrays), types) and not SHAPE.search(told):
            found.append(place)
    return found


def all_of(find: object) -> list[str]:
    assert callable(find)
    return [one for path in MODULES for one in find(path.read_text(), str(path.relative_to(ROOT)))]


def test_nine_of_ten_public_names_have_a_docstring() -> None:
    missing = all_of(find_undocumented)
    total = len(all_of(find_all))
    assert total > 1500
    assert len(missing) <= (1 - MIN_DOCUMENTED) * total, missing


def test_the_shapes_of_arrays_are_told() -> None:
    assert all_of(find_shapeless) == []


def test_functions_are_short() -> None:
    nodes = [node for path in MODULES for node in ast.walk(parse(path.read_text()))]
    lines = [node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, Function) and node.end_lineno]
    assert len(lines) > 2000
    assert median(lines) <= MAX_MEDIAN_LINES


def test_modules_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > MAX_MODULE_LINES and name not in LONGER} == {}
    assert lengths.keys() >= LONGER.keys(), "an exception for a module that is no more"


PLANTED = '''
"""A module."""
Row = npt.NDArray[np.float32]
def silent(): ...
class Box:
    def inner(self): ...
    def _own(self): ...
def vague(row: Row) -> int:
    """A row."""
def plain(out: npt.NDArray[np.int64]) -> None:
    """Fill it."""
def clear(row: Row) -> int:
    """row: float32 [F]."""
'''


def test_what_is_missing_is_found() -> None:
    assert find_undocumented(PLANTED, "m") == ["m:silent", "m:Box", "m:Box:inner"]
    assert find_shapeless(PLANTED, "m") == ["m:vague", "m:plain"]


@pytest.mark.parametrize("told", ['"""A module; x: float32 [F]."""', '"""float32 [F]"""'])
def test_a_shape_may_be_told_once_for_a_module_or_a_type(told: str) -> None:
    module = told if "module" in told else '"""A module."""'
    below = "" if "module" in told else told
    source = f'{module}\nRow = npt.NDArray[np.float32]\n{below}\ndef vague(row: Row):\n    """A row."""\n'
    assert find_shapeless(source, "m") == []
