"""Artifacts: one folder with programs, the app's sealed files and the evidence, every byte under a digest."""

from featherweight.core.artifact.manifest import DecisionPoint, Manifest, Preference, decode_manifest, encode_manifest
from featherweight.core.artifact.reference_cases import ReferenceCases
from featherweight.core.artifact.store import Artifact, FileCheck, read_artifact, verify_artifact
from featherweight.core.artifact.write import Contents, write_artifact

__all__ = [
    "Artifact",
    "Contents",
    "DecisionPoint",
    "FileCheck",
    "Manifest",
    "Preference",
    "ReferenceCases",
    "decode_manifest",
    "encode_manifest",
    "read_artifact",
    "verify_artifact",
    "write_artifact",
]
