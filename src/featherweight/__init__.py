"""Makes trained models small and fast, proves that their decisions did not get worse, and runs them.

Three lines open an artifact, run it on arrays and show what was proved of it:

    model = featherweight.open("data/models/chest-xray")
    model(images)               # uint8 [N, H, W]: a decision and a calibrated probability each
    model.evidence              # in a notebook a table; `model.evidence.page` is the whole page

Everything that programs need is here; what the folders below hold may change with any version. A name is imported when
it is first used, so that `import featherweight` takes milliseconds; what it does at once is to switch the telemetry of
the runtimes off.
"""

from __future__ import annotations

from importlib import import_module

import featherweight.core  # noqa: F401 - switches the telemetry off before a program that uses us imports a runtime

TYPE_CHECKING = False  # as type checkers know it; `typing` alone takes longer to import than all of this
if TYPE_CHECKING:
    from featherweight.core.adapters import InputRange
    from featherweight.core.api.comparing import compare
    from featherweight.core.api.evidence import SealedEvidence, read_evidence
    from featherweight.core.api.model import ModelDescription, OpenModel, Predictions, open, open_model  # noqa: F401
    from featherweight.core.api.optimizing import optimize
    from featherweight.core.compare.comparison import ComparisonOutcome
    from featherweight.core.doors.data import Data
    from featherweight.core.doors.load import load
    from featherweight.core.doors.loaded import LoadedModel
    from featherweight.core.errors import (
        ArtifactError,
        BackendError,
        BackendUnavailableError,
        DataError,
        DigestError,
        FeatherweightError,
        JournalError,
        LimitError,
        MissingExtraError,
        OutputError,
        RecipeError,
        TensorError,
        UsageError,
        WrongModelError,
    )
    from featherweight.core.outcome import Outcome
    from featherweight.core.task import Task

_ERRORS = "featherweight.core.errors"
_MODULE_OF = {
    "ArtifactError": _ERRORS,
    "BackendError": _ERRORS,
    "BackendUnavailableError": _ERRORS,
    "ComparisonOutcome": "featherweight.core.compare.comparison",
    "Data": "featherweight.core.doors.data",
    "DataError": _ERRORS,
    "DigestError": _ERRORS,
    "FeatherweightError": _ERRORS,
    "InputRange": "featherweight.core.adapters",
    "JournalError": _ERRORS,
    "LimitError": _ERRORS,
    "LoadedModel": "featherweight.core.doors.loaded",
    "MissingExtraError": _ERRORS,
    "ModelDescription": "featherweight.core.api.model",
    "OpenModel": "featherweight.core.api.model",
    "Outcome": "featherweight.core.outcome",
    "OutputError": _ERRORS,
    "Predictions": "featherweight.core.api.model",
    "RecipeError": _ERRORS,
    "SealedEvidence": "featherweight.core.api.evidence",
    "Task": "featherweight.core.task",
    "TensorError": _ERRORS,
    "UsageError": _ERRORS,
    "WrongModelError": _ERRORS,
    "compare": "featherweight.core.api.comparing",
    "load": "featherweight.core.doors.load",
    "open": "featherweight.core.api.model",
    "open_model": "featherweight.core.api.model",
    "optimize": "featherweight.core.api.optimizing",
    "read_evidence": "featherweight.core.api.evidence",
}
"""Public names -> the modules that have them."""

__all__ = [
    "ArtifactError",
    "BackendError",
    "BackendUnavailableError",
    "ComparisonOutcome",
    "Data",
    "DataError",
    "DigestError",
    "FeatherweightError",
    "InputRange",
    "JournalError",
    "LimitError",
    "LoadedModel",
    "MissingExtraError",
    "ModelDescription",
    "OpenModel",
    "Outcome",
    "OutputError",
    "Predictions",
    "RecipeError",
    "SealedEvidence",
    "Task",
    "TensorError",
    "UsageError",
    "WrongModelError",
    "compare",
    "load",
    "open_model",
    "optimize",
    "read_evidence",
]


if not TYPE_CHECKING:  # a type checker would take any misspelt name for one that this function knows

    def __getattr__(name: str) -> object:
        """A public name at its first use (PEP 562); later uses find it without this function."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
