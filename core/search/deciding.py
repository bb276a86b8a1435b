"""What a ledger's entries depend on beside the model, the data and the host: the code that makes and measures
candidates, the task's own, and the libraries that both call. Any change of it makes other keys, so that a search that
goes on never mixes what two versions found."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from featherweight.core.task import Task

NOT_DECIDING = frozenset(
    {
        "cases",
        "cli",
        "compare",
        "console",
        "datasets",
        "data",
        "edge",
        "evidence",
        "evidence_cli",
        "looking",
        "optimize",
        "population",
        "record",
        "request",
        "sealing",
        "statistics",
        "terminal",
    }
)
"""Modules of core that come after a trial, or show it. All others are taken to decide, so that a new module does
too."""
LIBRARIES = (
    "catboost", "imagecodecs", "lightgbm", "llvmlite", "numba", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript",
    "openvino", "pillow", "protobuf", "pyarrow", "pydicom", "safetensors", "scikit-learn", "scipy", "skops", "torch",
    "torch-pruning", "torchvision", "xgboost",
)  # fmt: skip


def deciding_code(task: Task) -> dict[str, str]:
    """Name -> digest or version, for the keys of a ledger."""
    return {"core": _core_digest(), "task": digest_task(type(task)), **_versions()}


@functools.cache
def _core_digest() -> str:
    return digest_core(Path(__file__).parents[1])


def deciding_files(core: Path) -> list[Path]:
    """The files of core whose code has a say in what a trial finds."""
    found = core.rglob("*.py")
    return [path for path in found if path.relative_to(core).parts[0].removesuffix(".py") not in NOT_DECIDING]


def digest_core(core: Path) -> str:
    """The digest of all deciding files."""
    return _digest(core, deciding_files(core))


def digest_task(kind: type) -> str:
    """Digest of all modules in the packages where the task's class and those that it derives from are written: its data
    readers and augmentations are there."""
    return f"{kind.__module__}.{kind.__qualname__} {digest_modules(base.__module__ for base in kind.__mro__)}"


def digest_modules(names: Iterable[str]) -> str:
    """Digest of the outermost packages in which these modules lie (of ours: the app), but for Python's own and those of
    LIBRARIES that provide layers."""
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        if name.partition(".")[0] in ("abc", "builtins", "torch", "torchvision", "typing"):
            continue
        if name.startswith("featherweight.core."):  # has a digest of its own
            continue
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:  # typed into an interpreter
            continue
        folder = _outermost_folder(name)
        paths = [Path(file)] if folder is None else folder.rglob("*.py")
        digest.update(_digest(folder or Path(file).parent, paths).encode())
    return digest.hexdigest()


def _outermost_folder(name: str) -> Path | None:
    """Folder of the outermost package that a module is in: for a task in `scans.training.task` it holds its readers and
    its pixels too."""
    parts = name.split(".")
    package = ".".join(parts[:3] if name.startswith("featherweight.apps.") else parts[:1])
    file = getattr(sys.modules.get(package), "__file__", None)
    return Path(file).parent if file is not None and package != name else None


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def _digest(folder: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
