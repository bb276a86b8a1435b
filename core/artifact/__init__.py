"""Artifacts: one folder with programs, the app's sealed files and the evidence, every byte under a digest."""

from core.artifact.manifest import Manifest, Preference, decode_manifest, encode_manifest
from core.artifact.store import Artifact, FileCheck, read_artifact, verify_artifact
from core.artifact.write import Contents, write_artifact

__all__ = [
    "Artifact",
    "Contents",
    "FileCheck",
    "Manifest",
    "Preference",
    "decode_manifest",
    "encode_manifest",
    "read_artifact",
    "verify_artifact",
    "write_artifact",
]
