"""What the fields of a class mean: the texts that stand below them in its source.

A field is documented where it stands, so that an editor, the reference and a generated recipe show the same sentence.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap


def field_meanings(kind: type) -> dict[str, str]:
    """Field -> what it means, on one line: the string that follows the field in the class's body.

    Fields of base classes are there too; fields without such a string are not.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] == kind.__module__.partition(".")[0]:
            found |= _own_meanings(base)
    return found


def summary_line(kind: type) -> str:
    """The docstring of a class on one line; empty where it has none of its own."""
    return " ".join((kind.__dict__.get("__doc__") or "").split())


def _own_meanings(kind: type) -> dict[str, str]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    if not isinstance(definition, ast.ClassDef):
        return {}
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
