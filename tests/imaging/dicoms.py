"""DICOM files with given stored values in every transfer syntax, and as little else as there must be."""

from __future__ import annotations

import io
from collections.abc import Sequence

import imagecodecs
import numpy as np
import rle.utils
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
COMPRESSED = {
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "HTJ2K": HTJ2KLossless,
}
SYNTAXES = {**NATIVE, **COMPRESSED}


def encode_codestream(cells: np.ndarray, syntax: UID, precision: int) -> bytes:
    """cells: [rows, columns] or [rows, columns, 3] of `precision` bits."""
    match syntax:
        case _ if syntax == RLELossless:
            size = {"rows": cells.shape[0], "columns": cells.shape[1], "bits_allocated": 8 * cells.dtype.itemsize}
            return bytes(rle.utils.encode_pixel_data(cells.tobytes(), samples_per_pixel=1, byteorder="<", **size))
        case _ if syntax == JPEGLosslessSV1:
            return bytes(imagecodecs.ljpeg_encode(cells, bitspersample=precision))
        case _ if syntax == JPEGLSLossless:
            return bytes(imagecodecs.jpegls_encode(cells))
        case _ if syntax == JPEG2000Lossless:
            return bytes(imagecodecs.jpeg2k_encode(cells, bitspersample=precision, codecformat="j2k", reversible=True))
        case _:
            return bytes(imagecodecs.htj2k_encode(cells, reversible=True))


def dataset_of(rows: int, columns: int, syntax: UID = ExplicitVRLittleEndian, **elements: object) -> Dataset:
    """An unsigned monochrome image of 12 bits in 16 without pixels. elements: keyword -> value; None deletes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.PatientName = "Secret^Patient"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def render_native(dataset: Dataset, cells: np.ndarray) -> bytes:
    """cells: as they stand in the file, whatever the data set says of them."""
    syntax = dataset.file_meta.TransferSyntaxUID
    order = "<" if syntax.is_little_endian else ">"
    content = cells.astype(cells.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW" if cells.dtype.itemsize > 1 else "OB"
    return render(dataset)


def render_encapsulated(dataset: Dataset, codestreams: Sequence[bytes], *, has_table: bool = True) -> bytes:
    dataset.PixelData = encapsulate(list(codestreams), has_bot=has_table)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return render(dataset)


def render(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
