"""Names of runtimes and where they live. A backend's module is imported when it is asked for; its runtime, when it
opens a program."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from featherweight.core.backends.base import Availability, Backend
from featherweight.core.errors import UsageError

DEFAULT = "onnxruntime"

_BACKENDS: Mapping[str, str] = {
    "onnxruntime": "featherweight.core.backends.onnxruntime:OnnxRuntime",
    "openvino": "featherweight.core.backends.openvino:OpenVino",
    "torch": "featherweight.core.backends.torch:Torch",
    "native": "featherweight.core.backends.native:Native",
}

NAMES = tuple(_BACKENDS)


def find_backend(name: str = DEFAULT) -> Backend:
    """Raises UsageError for an unknown name. What it returns need not be available: ask `probe()`."""
    if name not in _BACKENDS:
        raise UsageError(f"no backend is called {name!r}; there are {', '.join(NAMES)}")
    module, _, attribute = _BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def probe_all() -> dict[str, Availability]:
    """Every backend's availability, in the order of NAMES."""
    return {name: find_backend(name).probe() for name in NAMES}
