"""Names of export targets and where they live; a target's module is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from featherweight.core.edge.base import Target
from featherweight.core.errors import UsageError

_TARGETS: Mapping[str, str] = {
    "executorch": "featherweight.core.edge.executorch:ExecuTorch",
    "ort-mobile": "featherweight.core.edge.ort_mobile:OrtMobile",
    "litert": "featherweight.core.edge.litert:LiteRt",
}

NAMES = tuple(_TARGETS)


def find_target(name: str) -> Target:
    """Raises UsageError for an unknown name."""
    if name not in _TARGETS:
        raise UsageError(f"no export target is called {name!r}; there are {', '.join(NAMES)}")
    module, _, attribute = _TARGETS[name].partition(":")
    target: Target = getattr(importlib.import_module(module), attribute)()
    return target
