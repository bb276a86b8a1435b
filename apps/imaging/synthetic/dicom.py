"""A folder of synthetic chest radiographs as a hospital's archive would hand them over: DICOM files in study and series
folders, in several transfer syntaxes, with their truth in `labels.csv`."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import imagecodecs
import rle.utils
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from featherweight.apps.imaging.synthetic.radiographs import LEVELS, SyntheticCase, synthetic_cases
from featherweight.core.arrays import UInt16s
from featherweight.core.files import atomic_write, write_errors, writing_alone

__all__ = ["SyntheticCase", "render_dicom", "synthetic_cases", "write_synthetic"]

TRANSFER_SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    JPEG2000Lossless,
    ImplicitVRLittleEndian,
)
"""Image after image takes the next one."""

COLUMNS = ("path", "label", "patient", "split", "modality")
BITS = 12


def write_synthetic(
    directory: Path,
    count: int,
    seed: int = 0,
    *,
    side: int = 256,
    prevalence: float = 0.5,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write `count` radiographs of `side` x `side` pixels and their `labels.csv`; returns the path of the latter.

    Its columns are path (relative, with '/'), label (0 or 1), patient, split (train, validation, test) and modality
    (DX or CR: a group by which results are told apart). The same arguments give the same bytes. One image is in memory
    at a time; `on_case` hears (images written, images in all).
    Raises OutputError when the files cannot be written, UsageError when another process writes there.
    """
    labels = directory / "labels.csv"
    with writing_alone(directory, "another folder"):
        with write_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            # The labels of an earlier run would be read as the truth of other images. The new file appears after
            # all images.
            labels.unlink(missing_ok=True)
        with (
            atomic_write(labels) as partial,
            write_errors(directory),  # of the images
            partial.open("w", newline="", encoding="utf-8") as stream,
        ):
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(COLUMNS)
            for case in synthetic_cases(count, seed, side=side, prevalence=prevalence):
                relative = f"{case.patient}/study-{case.index:05d}/series-1/image-1.dcm"
                path = directory / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                file = render_dicom(case, seed)
                file.save_as(path, enforce_file_format=True)
                rows.writerow((relative, case.label, case.patient, case.split, file.Modality))
                on_case(case.index + 1, count)
    return labels


def render_dicom(case: SyntheticCase, seed: int = 0) -> Dataset:
    """The radiograph as a DICOM file: Digital X-Ray or Computed Radiography, every fourth one MONOCHROME1."""
    digital = case.index % 3 != 2
    inverted = case.index % 4 == 3
    # steps of 3, 4 and 5 images: every combination comes up within 60
    syntax = TRANSFER_SYNTAXES[case.index % len(TRANSFER_SYNTAXES)]
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.ImplementationVersionName = "FEATHERWEIGHT"
    _add_study(file, case, seed)
    if digital:
        _add_digital_x_ray(file)
    else:
        _add_computed_radiography(file)
    _add_pixels(file, (LEVELS - 1 - case.pixels if inverted else case.pixels), inverted=inverted, syntax=syntax)
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    return file


def _uid(seed: int, *what: object) -> UID:
    """A UID under 2.25 (PS3.5, B.2), the same for the same seed and object."""
    name = "/".join(str(part) for part in ("featherweight", "synthetic", seed, *what))
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, name).int}")


def _add_study(file: Dataset, case: SyntheticCase, seed: int) -> None:
    """Patient, study, series and equipment; nobody is named and the dates are made up."""
    day = (date(2020, 1, 1) + timedelta(days=case.index % 1461)).strftime("%Y%m%d")
    time = f"{8 + case.index % 10:02d}{case.index * 7 % 60:02d}00"
    file.SOPInstanceUID = _uid(seed, case.index, "image")
    file.StudyInstanceUID = _uid(seed, case.index, "study")
    file.SeriesInstanceUID = _uid(seed, case.index, "series")
    file.PatientName = f"Synthetic^{case.patient}"
    file.PatientID = case.patient
    file.PatientBirthDate = ""
    file.PatientSex = "O"
    file.StudyDate = file.SeriesDate = file.AcquisitionDate = file.ContentDate = day
    file.StudyTime = file.SeriesTime = file.AcquisitionTime = file.ContentTime = time
    file.StudyID = f"{case.index:05d}"
    file.AccessionNumber = f"{case.index:08d}"
    file.ReferringPhysicianName = ""
    file.SeriesNumber = file.InstanceNumber = 1
    file.Manufacturer = "Featherweight (synthetic)"
    file.DeviceSerialNumber = "0"
    file.BodyPartExamined = "CHEST"
    file.PatientOrientation = ["L", "F"]
    file.SpecificCharacterSet = "ISO_IR 192"


def _add_digital_x_ray(file: Dataset) -> None:
    """What PS3.3 A.26 asks for beyond the common modules."""
    file.SOPClassUID = DigitalXRayImageStorageForPresentation
    file.Modality = "DX"
    file.PresentationIntentType = "FOR PRESENTATION"
    file.ImageType = ["ORIGINAL", "PRIMARY", ""]
    file.ImageLaterality = "U"
    file.PixelIntensityRelationship = "LOG"
    file.PixelIntensityRelationshipSign = -1
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = 0, 1, "US"
    file.LossyImageCompression = "00"
    file.BurnedInAnnotation = "NO"
    file.DetectorType = "SCINTILLATOR"
    file.ImagerPixelSpacing = ["1.4", "1.4"]
    file.PositionerType = "NONE"
    file.ViewPosition = "AP"
    file.AcquisitionContextSequence = Sequence([])
    file.AnatomicRegionSequence = Sequence([_code("51185008", "SCT", "Chest")])
    view = _code("399348003", "SCT", "antero-posterior")
    view.ViewModifierCodeSequence = Sequence([])
    file.ViewCodeSequence = Sequence([view])


def _add_computed_radiography(file: Dataset) -> None:
    """What PS3.3 A.2 asks for beyond the common modules."""
    file.SOPClassUID = ComputedRadiographyImageStorage
    file.Modality = "CR"
    file.ImageType = ["ORIGINAL", "PRIMARY"]
    file.ViewPosition = "AP"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _add_pixels(file: Dataset, pixels: UInt16s, *, inverted: bool, syntax: UID) -> None:
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, BITS, BITS - 1, 0
    file.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    # The whole range of values: what lies above or below it is not in the drawing.
    file.WindowCenter, file.WindowWidth = str(LEVELS // 2), str(LEVELS)
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_compressed else syntax
    file.PixelData = pixels.astype("<u2").tobytes()
    file["PixelData"].VR = "OW"
    if syntax.is_compressed:
        file.PixelData = encapsulate([_ENCODERS[syntax](pixels)])
        file["PixelData"].VR = "OB"
        file["PixelData"].is_undefined_length = True
        file.file_meta.TransferSyntaxUID = syntax


def _encode_rle(pixels: UInt16s) -> bytes:
    rows, columns = pixels.shape
    size = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_allocated": 16}
    encoded: bytes = rle.utils.encode_pixel_data(pixels.astype("<u2").tobytes(), byteorder="<", **size)
    return encoded


_ENCODERS: dict[UID, Callable[[UInt16s], bytes]] = {
    JPEGLosslessSV1: lambda pixels: bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=BITS)),
    JPEG2000Lossless: lambda pixels: bytes(
        imagecodecs.jpeg2k_encode(pixels, bitspersample=BITS, codecformat="j2k", reversible=True)
    ),
    RLELossless: _encode_rle,
}
