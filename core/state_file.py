"""Tensors of a network or a training as a safetensors file that knows its own contents again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from featherweight.core.tensors import digest_tensors

UNREADABLE = (SafetensorError, LookupError, ValueError)
"""What `read_state` raises for a file that is no such one, beside OSError."""


def encode_state(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes, with a digest of the tensors among the metadata."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(kept, metadata={**metadata, "sha256": _digest(kept)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata). Raises OSError and what `UNREADABLE` names, for contents that are not those that were
    written too."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get("sha256") not in {_digest(tensors), None}:  # those of versions before have none
        raise ValueError("its bytes are not those that were written")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor]) -> str:
    return digest_tensors({name: tensor.numpy() for name, tensor in tensors.items()})
