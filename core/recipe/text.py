"""A recipe's file as TOML: bounded, in UTF-8, and what is wrong with it in words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from featherweight.core.errors import Fault, RecipeError, UsageError
from featherweight.core.files import read_errors
from featherweight.core.recipe.wording import check_integers

_MAX_BYTES = 16_000
_LINES_LOOKED_AT = 100
"""Each is a parse of the whole recipe, a millisecond or so."""
_MODEL_SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors", ".json", ".ubj", ".pkl", ".joblib", ".tflite", ".npz")


def read_text(path: Path, what: str = "recipe") -> str:
    """what: the file is, in words. Raises UsageError for what cannot be read and for what is no text in TOML at all,
    RecipeError for what is not UTF-8."""
    with read_errors(path, f"the {what} cannot be read", "check the path", raises=UsageError), path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if path.suffix.lower() in _MODEL_SUFFIXES or b"\0" in content:
        raise UsageError(
            f"{path}: this is a model or another kind of file, not a {what}. A recipe is a text in TOML that names the "
            "steps and, in [source], the folder of a trained model; begin with: featherweight recipe new"
            if what == "recipe"
            else f"{path}: this is a model or another kind of file, not a {what}; expected a text in TOML"
        )
    if len(content) > _MAX_BYTES:
        raise UsageError(f"{path}: found more than {_MAX_BYTES:,} bytes, which no {what} needs; check the path")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fault = Fault("file", f"byte {error.start} is not UTF-8; save the file as UTF-8")
        raise RecipeError(str(path), [fault], what) from error


def parse_toml(text: str) -> tuple[dict[str, Any] | None, list[Fault]]:
    """The whole document, or None with what is wrong with it."""
    try:
        table = tomllib.loads(text)
        check_integers(table)
    except RecursionError:
        return None, [Fault("file", "not TOML: lists or tables are nested too deep")]
    except ValueError as error:  # a number of thousands of digits is a plain ValueError
        return None, [Fault("file", f"not TOML: {error}{_unclosed(text, error)}")]
    return table, []


def _unclosed(text: str, error: ValueError) -> str:
    """Where something begins that ends nowhere: the parser itself only says that it came to the end of the text."""
    if "end of document" not in str(error):
        return ""
    lines = text.splitlines(keepends=True)
    for count in range(len(lines) - 1, max(-1, len(lines) - _LINES_LOOKED_AT), -1):
        try:
            tomllib.loads("".join(lines[:count]))
        except (ValueError, RecursionError):
            continue
        return f"; what begins in line {count + 1} is not closed"
    return ""
