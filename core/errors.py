"""Every error that Featherweight raises on purpose, in one tree.

    FeatherweightError          exit code
    ├── UsageError              2   what was asked for cannot be done as asked
    │   ├── RecipeError         2   a recipe file has faults (all of them listed)
    │   └── MissingExtraError   2   a package that an optional extra brings is not installed
    ├── DataError               2   a data set or input file is missing, damaged or not what it should be
    ├── TensorError             1   a tensor does not match its specification
    ├── ArtifactError           5   an artifact cannot be trusted or understood
    │   ├── DigestError         5   bytes differ from the digest that was sealed
    │   └── WrongModelError     2   what was named is not an artifact, or another app's: nothing is damaged
    ├── BackendError            1   a runtime cannot open or run a program
    │   └── BackendUnavailableError  2   this host does not have the runtime or device
    ├── OutputError             6   results could not be written (disk full, no permission)
    │   └── JournalError        7   what a job keeps to go on is damaged or was changed: starting it again does not help
    └── LimitError              4   no candidate kept the recipe's limits, so nothing was sealed

A message says what was found, where, and what to do. The command line prints it without a traceback
and exits with the code shown; a traceback means a bug in Featherweight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class FeatherweightError(Exception):
    """Root of the tree: catch it for all that Featherweight refuses. `exit_code` is what the command line returns.

    >>> import featherweight
    >>> try:
    ...     featherweight.open("no-such-folder")
    ... except featherweight.FeatherweightError as error:
    ...     print(type(error).__name__, error.exit_code)
    WrongModelError 2
    """

    exit_code = 1


class UsageError(FeatherweightError):
    """What was asked for cannot be done as asked; another argument is needed.

    >>> import featherweight
    >>> featherweight.open("data/models/chest-xray", threads=0)
    Traceback (most recent call last):
    featherweight.core.errors.UsageError: threads = 0; expected at least 1
    """

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One mistake in a recipe: the key where it stands (`step[1].ratio`) and what is wrong with it."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class RecipeError(UsageError):
    """A recipe has faults. It carries every fault of the file, not only the first.

    source: the file; faults: each with the key where it stands and what is wrong with it; what: in words, where it is
    no recipe but a part of one.

    >>> import featherweight, pathlib
    >>> _ = pathlib.Path("faulty.toml").write_text("version = 1\\nname = 'mine'\\nseeds = 3\\n")
    >>> try:
    ...     featherweight.optimize("faulty.toml", "models/mine")
    ... except featherweight.RecipeError as error:
    ...     print(error.source, [fault.key for fault in error.faults])
    faulty.toml ['seeds', 'source.task']
    """

    def __init__(self, source: str, faults: Sequence[Fault], what: str = "recipe") -> None:
        self.source = source
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{source}: {len(self.faults)} {noun} in the {what}\n{lines}")


EXTRA_OF: Mapping[str, str] = {
    **dict.fromkeys(
        ("lightgbm", "onnx", "onnxscript", "safetensors", "sklearn", "skops", "torch", "torch_pruning", "torchvision"),
        "train",
    ),
    "openvino": "openvino",
    "scipy": "compare",
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
    """A package that an optional extra brings is not installed. extra: its name.

    >>> import featherweight
    >>> error = featherweight.MissingExtraError("torch", "train", "optimizing")
    >>> print(error.extra, "|", str(error).partition(";")[0])
    train | optimizing needs torch, which is not installed
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"{purpose} needs {package}, which is not installed; {how_to_install(extra)}")


class DataError(FeatherweightError):
    """A data set or an input file is missing, damaged or not what it should be.

    >>> import featherweight
    >>> featherweight.DataError.exit_code
    2
    """

    exit_code = 2


class TensorError(FeatherweightError):
    """An array does not match what a model takes: its type, its shape, or the range of its values.

    >>> import featherweight, numpy
    >>> with featherweight.open("data/models/chest-xray") as model:
    ...     model.run(numpy.zeros((1, 224, 224), numpy.float32))
    Traceback (most recent call last):
    featherweight.core.errors.TensorError: image: found shape [1, 224, 224], expected [N, 1, 224, 224]
    """


class ArtifactError(FeatherweightError):
    """An artifact cannot be trusted or understood: do not use it.

    >>> import featherweight, pathlib, shutil
    >>> copy = pathlib.Path(shutil.copytree("data/models/card-fraud", "short"))
    >>> (copy / "sealed" / "decision.json").unlink()
    >>> featherweight.open(copy)
    Traceback (most recent call last):
    featherweight.core.errors.ArtifactError: short/sealed/decision.json is missing; copy the artifact again from where \
it was made, or make it again
    """

    exit_code = 5


class DigestError(ArtifactError):
    """Bytes of an artifact are not those that were sealed.

    >>> import featherweight, pathlib, shutil
    >>> copy = pathlib.Path(shutil.copytree("data/models/card-fraud", "changed"))
    >>> rule = (copy / "sealed" / "decision.json").read_text()
    >>> _ = (copy / "sealed" / "decision.json").write_text(rule.replace("0.9", "0.8"))
    >>> featherweight.open(copy)
    Traceback (most recent call last):
    featherweight.core.errors.DigestError: changed/sealed/decision.json: its bytes are not those that were sealed; \
copy the artifact again from where it was made, or make it again
    """


class WrongModelError(ArtifactError):
    """What was named is not an artifact, or another app's: nothing is damaged, and only another name is needed. An
    ArtifactError, so that services refuse it like any other.

    >>> import featherweight
    >>> featherweight.open("data/models/chest-ray")
    Traceback (most recent call last):
    featherweight.core.errors.WrongModelError: data/models/chest-ray: there is no such folder; did you mean \
data/models/chest-xray?
    """

    exit_code = 2


class BackendError(FeatherweightError):
    """A runtime cannot open or run a program, or the session is closed.

    >>> import featherweight, numpy
    >>> model = featherweight.open("data/models/chest-xray")
    >>> model.close()
    >>> model.predict(numpy.zeros((1, 64, 64), numpy.uint8))
    Traceback (most recent call last):
    featherweight.core.errors.BackendError: the session is closed; open the program again
    """


class BackendUnavailableError(BackendError):
    """This host does not have the runtime or the device, or none of its runtimes is for this program.

    >>> import featherweight
    >>> try:
    ...     featherweight.open("data/models/card-fraud", backend="openvino")
    ... except featherweight.BackendUnavailableError as error:
    ...     print(error.exit_code)
    2
    """

    exit_code = 2


class OutputError(FeatherweightError):
    """Results could not be written: the disk is full, or there is no permission.

    >>> import featherweight
    >>> featherweight.OutputError.exit_code
    6
    """

    exit_code = 6


class JournalError(OutputError):
    """What a job keeps in order to go on is damaged or was changed: starting the job again does not help.

    >>> import featherweight
    >>> featherweight.JournalError.exit_code
    7
    """

    exit_code = 7


class LimitError(FeatherweightError):
    """No candidate kept the recipe's limits, so nothing was sealed.

    >>> import featherweight, pathlib
    >>> recipe = pathlib.Path("recipe.toml").read_text().replace("flip_ratio_max = 0.05", "latency_ratio_min = 1000")
    >>> _ = pathlib.Path("strict.toml").write_text(recipe)
    >>> featherweight.optimize("strict.toml", "models/strict", task=my_task)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    featherweight.core.errors.LimitError: no candidate kept the recipe's limits, so nothing was sealed...
    """

    exit_code = 4
