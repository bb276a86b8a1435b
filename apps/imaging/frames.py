"""The app's own types: no library's objects cross from one room to another."""

from __future__ import annotations

from dataclasses import dataclass

from featherweight.core.arrays import GreyImage


@dataclass(frozen=True)
class FrameId:
    """Where a frame comes from. source: the path as the list or folder names it (relative to a folder's root, '/'
    between parts); frame: 0-based. UIDs are empty for what is not DICOM."""

    source: str
    frame: int
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""


@dataclass(frozen=True)
class Frame:
    """One image, ready for a network. pixels: float32 [side, side], grey levels in 0..1, light is dense tissue
    (MONOCHROME2). decode_ms: filled in by `readers.read_frames`, which alone sees the file opened. notes: how the file
    was understood where it deviates from its format's rules, and what of it is not applied; no patient data."""

    id: FrameId
    pixels: GreyImage
    decode_ms: float = 0.0
    notes: str = ""


@dataclass(frozen=True)
class RejectedFrame:
    """A file or frame that was not classified. reason: a short stable code (`unreadable`, `not-an-image`, ...);
    message: what was found and where, without patient data."""

    id: FrameId
    reason: str
    message: str


@dataclass(frozen=True)
class Prediction:
    """probability: calibrated, of the positive class; decision: one of the artifact's labels; notes: of the frame, or
    of the job."""

    id: FrameId
    probability: float
    decision: str
    decode_ms: float
    inference_ms: float
    notes: str = ""


Decoded = Frame | RejectedFrame
"""What reading gives for one frame of a file."""

Classified = Prediction | RejectedFrame
"""What becomes of one frame."""
