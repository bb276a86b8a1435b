"""Every error that Featherweight raises on purpose, in one tree.

    FeatherweightError          exit code
    ├── UsageError              2   what was asked for cannot be done as asked
    │   ├── RecipeError         2   a recipe file has faults (all of them listed)
    │   └── MissingExtraError   2   a package that an optional extra brings is not installed
    ├── DataError               2   a data set or input file is missing, damaged or not what it should be
    ├── TensorError             1   a tensor does not match its specification
    ├── ArtifactError           5   an artifact cannot be trusted or understood
    │   ├── DigestError         5   bytes differ from the digest that was sealed
    │   └── WrongModelError     2   what was named is no artifact, or another app's: nothing is damaged
    ├── BackendError            1   a runtime cannot open or run a program
    │   └── BackendUnavailableError  2   this host does not have the runtime or device
    ├── OutputError             6   results could not be written (disk full, no permission)
    │   └── JournalError        7   what a job keeps to go on is damaged or was changed: starting it again is no help
    └── LimitError              4   no candidate kept the recipe's limits, so nothing was sealed

A message says what was found, where, and what to do. The command line prints it without a traceback
and exits with the code shown; a traceback means a bug in Featherweight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class FeatherweightError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(FeatherweightError):
    """The command, a recipe or a setting asks for what cannot be done."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One mistake in a recipe: the key where it stands (`step[1].ratio`) and what is wrong with it."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class RecipeError(UsageError):
    """Carries every fault of the file, not only the first."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{source}: {len(self.faults)} {noun} in the recipe\n{lines}")


EXTRA_OF: Mapping[str, str] = {
    **dict.fromkeys(
        ("lightgbm", "onnx", "onnxscript", "safetensors", "sklearn", "torch", "torch_pruning", "torchvision"), "train"
    ),
    "openvino": "openvino",
    **dict.fromkeys(
        (
            "cramjam",
            "fastapi",
            "google_crc32c",
            "httptools",
            "kafka",
            "numba",
            "prometheus_client",
            "starlette",
            "uvicorn",
            "uvloop",
            "xxhash",
        ),
        "fraud",
    ),
}
"""Modules that the base install does not have -> the extra that brings them."""


def how_to_install(extra: str) -> str:
    """What to run for an extra, or without one for the base install. Featherweight is on no package index: it is
    installed from its wheel or its source, and so are its extras."""
    brackets = f"[{extra}]" if extra else ""
    again = "install Featherweight again" + (f" with its extra {extra!r}" if extra else "")
    return f"{again}, from its source (pip install '.{brackets}') or its wheel (pip install 'PATH-OF-WHEEL{brackets}')"


class MissingExtraError(UsageError):
    """A package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"{purpose} needs {package}, which is not installed; {how_to_install(extra)}")


class DataError(FeatherweightError):
    """An input's content is not what it must be."""

    exit_code = 2


class TensorError(FeatherweightError):
    """Tensors do not fit what a program takes: names, types, shapes."""


class ArtifactError(FeatherweightError):
    """An artifact is damaged, incomplete or not one."""

    exit_code = 5


class DigestError(ArtifactError):
    """A file differs from the digest that was written down for it."""


class WrongModelError(ArtifactError):
    """An ArtifactError, so that whoever serves refuses it like any other; but only another name is needed."""

    exit_code = 2


class BackendError(FeatherweightError):
    """A runtime failed while it opened or ran a program."""


class BackendUnavailableError(BackendError):
    """A backend is not installed, or does not run this program here."""

    exit_code = 2


class OutputError(FeatherweightError):
    """A result cannot be written."""

    exit_code = 6


class JournalError(OutputError):
    """A job's journal cannot be written, or not be trusted."""

    exit_code = 7


class LimitError(FeatherweightError):
    """A limit of a recipe is missed."""

    exit_code = 4
