"""A sealed model and images, small enough to make a few hundred in a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, encode
from featherweight.core.artifact.store import Artifact
from featherweight.core.artifact.write import Contents, write_artifact
from featherweight.core.program import Program
from featherweight.core.tensors import TensorSpec

SIDE = 32
LABELS = ("normal", "suspicious")


def onnx_program(side: int = SIDE, *, seed: int = 0, channels: int = 1) -> Program:
    """A convolution, a mean and a linear layer: a logit that depends on every pixel."""
    rng = np.random.default_rng(seed)
    weights = {
        "kernel": rng.normal(0, 1, (8, channels, 3, 3)).astype(np.float32),
        "line": rng.normal(0, 2, (8, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["edges"], strides=[2, 2]),
        helper.make_node("Relu", ["edges"], ["kept"]),
        helper.make_node("GlobalAveragePool", ["kept"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "line"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, side, side])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return Program(
        model.SerializeToString(),
        "fp32",
        (TensorSpec("image", "float32", (None, channels, side, side)),),
        (TensorSpec("logit", "float32", (None, 1)),),
    )


def write_model(
    directory: Path,
    *,
    seed: int = 0,
    app: str = "imaging",
    program: Program | None = None,
    side: int = SIDE,
    sealed: Mapping[str, bytes] | None = None,
    labels: tuple[str, ...] = LABELS,
) -> Artifact:
    files = {
        "preprocess.json": encode(Preprocess(side=side)),
        "decision.json": encode(DecisionRule(slope=2.0, intercept=-26.0, threshold=0.4)),
    }
    contents = Contents(
        name="tiny",
        app=app,
        labels=labels,
        programs=[program or onnx_program(seed=seed)],
        sealed=files if sealed is None else sealed,
        evidence={},
        weights_source="drawn at random for tests",
        versions={},
    )
    return write_artifact(directory, contents)


def pixels(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A blurred random picture of 40 x 48."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6), dtype=np.uint8))
    return np.asarray(coarse.resize((48, 40), Image.Resampling.BICUBIC))


def write_images(folder: Path, count: int, *, seed: int = 0) -> None:
    """PNG, JPEG and DICOM in turn, in two subfolders; every sixth DICOM has two frames."""
    rng = np.random.default_rng(seed)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        stem = folder / "ab"[index % 2] / f"{index:04}"
        picture = pixels(rng)
        match index % 3:
            case 0:
                Image.fromarray(picture).save(stem.with_suffix(".png"))
            case 1:
                Image.fromarray(picture).save(stem.with_suffix(".jpg"), quality=90)
            case _:
                frames = [picture, pixels(rng)] if index % 18 == 2 else [picture]
                write_dicom(stem.with_suffix(".dcm"), np.stack(frames))


def write_dicom(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    """frames: uint8 [frames, rows, columns]."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.2"
    data.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    data.SeriesInstanceUID, data.StudyInstanceUID = generate_uid(), generate_uid()
    data.PatientName, data.PatientID, data.PatientBirthDate = "Secret^Patient", "SECRET-ID", "19700101"
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "OT", "MONOCHROME2", 1
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = frames.tobytes()
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)
