"""`load`: whatever a user has as a model, read by the reader of its kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from featherweight.core.arrays import Array
from featherweight.core.compare.bounded import open_bounded
from featherweight.core.doors.kinds import FILES, OTHERS, PICKLED
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.user_module import import_object, names_object
from featherweight.core.errors import UsageError
from featherweight.core.files import is_there
from featherweight.core.task import check_packages

MAX_BYTES = 4 << 30
"""Of a model's file."""
Example = Mapping[str, Array]
"""Inputs of a few cases, name -> [n, ...], in the order in which a network takes them."""


def load(source: Any, *, example: Any = None) -> LoadedModel:
    """Read a trained model, so that `optimize` can take it.

    source: a fitted object (a classifier, regressor or Booster of LightGBM or XGBoost, one of CatBoost, trees or a
    linear classifier of scikit-learn, or a Pipeline of scalers and imputers before one), a torch nn.Module, or a path:
    LightGBM's text `.txt`, XGBoost's `.json` or `.ubj`, CatBoost's `.json`, an ONNX file, a program of torch.export
    `.pt2`, a model of scikit-learn as skops keeps it `.skops`; or "module:name" for an object in your own module of the
    current folder.
    example: for a network, inputs of at least two cases as it takes them, an array [n, ...] or a dict of them. Trees
    are compared with their own library at their thresholds.

    Pickles (.pkl, .joblib, .pt, .pth) are refused: reading one runs whatever is in it.

    Raises UsageError for what is not read, and says what to do instead; DataError for a file that cannot be read;
    MissingExtraError.

    >>> import featherweight
    >>> featherweight.load("model.pkl")
    Traceback (most recent call last):
    featherweight.core.errors.UsageError: model.pkl: is a pickle, and reading one runs whatever code is in it. Save \
the model in its own format (LightGBM: booster.save_model('model.txt'); XGBoost: save_model('model.json'); \
scikit-learn: skops.io.dump; torch: torch.onnx.export), or load it in a module of your own and name the object as \
module:name
    """
    if isinstance(source, LoadedModel):
        return source
    check_packages("loading a model")
    if isinstance(source, str) and names_object(source) and not is_there(Path(source)):
        loaded = load(import_object(source), example=example)
        return replace(loaded, source=f"{loaded.source}, {source}")
    if isinstance(source, str | PathLike):
        return _read_file(Path(source), example)
    return _read_object(source, example)


def _as_example(given: Any) -> Example:
    """An array, a tuple or a dict of arrays [n, ...] by name, or what gives one when it is called."""
    if callable(given):
        return _as_example(given())
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, tuple):
        return {str(place): array for place, array in enumerate(given)}
    return {"": given}


def _read_file(path: Path, example: Any) -> LoadedModel:
    suffix = path.suffix.lower()
    if suffix in PICKLED:
        raise UsageError(
            f"{path}: is a pickle, and reading one runs whatever code is in it. Save the model in its own format "
            "(LightGBM: booster.save_model('model.txt'); XGBoost: save_model('model.json'); scikit-learn: "
            "skops.io.dump; torch: torch.onnx.export), or load it in a module of your own and name the object as "
            "module:name"
        )
    if suffix in OTHERS:
        raise UsageError(f"{path}: {OTHERS[suffix]}")
    if suffix not in FILES:
        raise UsageError(
            f"{path}: no kind of model is known by this name; expected {', '.join(FILES)}, or an object as module:name"
        )
    with open_bounded(path, MAX_BYTES) as file:
        content = file.read()
    loaded = _reader(FILES[suffix], example)(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return replace(loaded, source=f"{loaded.source}, {path.name}, sha256 {digest[:16]}")


def _reader(kind: str, example: Any) -> Callable[[Path, bytes], LoadedModel]:
    from featherweight.core.doors import trees

    if kind == "exported":
        from featherweight.core.doors.exported import read_pt2

        return lambda path, content: read_pt2(path, content, None if example is None else _as_example(example))
    if kind == "skops":
        from featherweight.core.doors.estimators import read_skops

        return read_skops
    if kind == "onnx":
        from featherweight.core.doors.onnx_file import read_onnx

        return read_onnx
    return {"json": trees.read_json, "lightgbm": trees.read_lightgbm_text, "xgboost": trees.read_xgboost_file}[kind]


def _read_object(source: Any, example: Any) -> LoadedModel:
    """By the library that its class comes from; none is imported that the object does not need."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(source).__mro__}
    roots = {kind.partition(".")[0] for kind in kinds}
    name = type(source).__name__
    if "torch.nn.modules.module.Module" in kinds:
        from featherweight.core.doors.network import read_module

        if example is None:
            raise UsageError(f"{name}: give `example`, inputs of a few cases, so that it is seen what it takes")
        return read_module(source, _as_example(example))
    if "lightgbm" in roots:
        from featherweight.core.doors.trees import read_lightgbm

        return read_lightgbm(source)
    if "xgboost" in roots:
        from featherweight.core.doors.trees import read_xgboost

        return read_xgboost(source)
    if "catboost" in roots:
        from featherweight.core.doors.trees import read_catboost

        return read_catboost(source)
    if roots & {"sklearn", "imblearn"}:
        from featherweight.core.doors.estimators import read_estimator

        return read_estimator(source)
    raise UsageError(
        f"{name} is no model that is read here: expected a torch nn.Module, a model of LightGBM, XGBoost, "
        "CatBoost or scikit-learn, or the path of a file"
    )
