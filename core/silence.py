"""The telemetry of the libraries that we run, switched off: nothing is sent, and no id is kept about this host.

`core/__init__.py` calls it, and `import featherweight` imports that, so that it is done before any module of ours can
import a runtime, in every process that we start and in those that use us as a library. What the environment says
reaches further processes too.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as type checkers know it: `import featherweight` is to stay quick, and imports this
if TYPE_CHECKING:
    from pathlib import Path

_OPENVINO = "openvino_telemetry"


def silence() -> None:
    """Do it now; again and again does no harm."""
    # ONNX Runtime, from 1.29 on, sends events of processes and models, with an id that it keeps in ~/.cache/Microsoft.
    # This is its documented switch ("Disabling Telemetry" in the Privacy.md of its package), which it reads when it is
    # imported: `disable_telemetry_events()` comes too late for the first event and the id.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if runtime := sys.modules.get("onnxruntime"):  # the program that uses us imported it first, so that it has begun
        runtime.disable_telemetry_events()
    # OpenVINO, when it is imported, and NNCF, at each call, ask Google Analytics with an id that is kept in ~/intel.
    # They have no switch but a file in the user's home folder, and go on with stubs of their own where this package is
    # not installed (openvino/tools/ovc/telemetry_utils.py, nncf/telemetry/wrapper.py): to them it is not.
    if sender := sys.modules.get(f"{_OPENVINO}.utils.sender"):  # imported before us, too
        sender.TelemetrySender.send = lambda *_: None
    sys.modules[_OPENVINO] = None  # type: ignore[assignment]


def redirect_caches(cache: Path) -> None:
    """Let libraries that keep something by themselves keep it below `cache`, where the user named no other place and
    it can be written; for the process of a command, not for a program that uses us as a library."""
    # Path.exists would raise where the home folder may not be looked into, as under systemd's ProtectHome.
    there = next(folder for folder in (cache, *cache.parents) if os.path.exists(folder))  # noqa: PTH110
    if os.path.isdir(there) and os.access(there, os.W_OK):  # noqa: PTH112
        # Parts of torch make a folder in TMPDIR when they are imported, under a name that everybody on the host knows.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "torch"))
        # What NVIDIA's driver compiles, by default in ~/.nv.
        os.environ.setdefault("CUDA_CACHE_PATH", str(cache / "cuda"))
