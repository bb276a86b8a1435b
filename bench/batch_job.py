"""Images per second of `imaging classify` against a plain script, on the same full-size x-rays in four formats.

    python -m bench.batch_job --images chest_xray_fullsize_200.zip [--count 200] [--copies 2] [--rounds 3]

Whole commands are timed, start to finish, imports included, in shuffled order; the table gives medians.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, generate_uid

from bench.timing import command, interleave, median, show

FEATHERWEIGHT = Path(sys.executable).with_name("featherweight")


def write_dicom(path: Path, pixels: np.ndarray, syntax: UID) -> None:
    import imagecodecs

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = (generate_uid() for _ in range(3))
    dataset.Modality, dataset.PatientID = "DX", "bench"
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    if syntax == ExplicitVRLittleEndian:
        content = pixels.tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
    else:
        encode = imagecodecs.ljpeg_encode if syntax == JPEGLosslessSV1 else imagecodecs.jpeg2k_encode
        options = {"bitspersample": 8} if syntax == JPEGLosslessSV1 else {"codecformat": "j2k", "reversible": True}
        dataset.PixelData = encapsulate([bytes(encode(pixels, **options))])
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def prepare(archive: Path, count: int, copies: int, root: Path) -> dict[str, Path]:
    """The same pixels as full-size JPEG and as DICOM in three transfer syntaxes, a folder each, every file `copies`
    times."""
    syntaxes = {
        "DICOM uncompressed": ExplicitVRLittleEndian,
        "DICOM JPEG-lossless": JPEGLosslessSV1,
        "DICOM JPEG 2000": JPEG2000Lossless,
    }
    folders = {name: root / name.replace(" ", "-") for name in ("JPEG", *syntaxes)}
    for folder in folders.values():
        folder.mkdir()
    with zipfile.ZipFile(archive) as images:
        names = [name for name in images.namelist() if name.lower().endswith((".jpeg", ".jpg"))][:count]
        for name in names:
            stem, content = Path(name).stem, images.read(name)
            (folders["JPEG"] / f"{stem}.jpeg").write_bytes(content)
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
            for format_name, syntax in syntaxes.items():
                write_dicom(folders[format_name] / f"{stem}.dcm", pixels, syntax)
    for folder in folders.values():
        for path in list(folder.iterdir()):
            for copy in range(1, copies):
                shutil.copy(path, path.with_stem(f"{path.stem}-{copy}"))
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--copies", type=int, default=2, help="of every image, to make a longer night")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    if not get_decoder(JPEGLosslessSV1).is_available:
        raise SystemExit("the plain script decodes lossless JPEG with pylibjpeg-libjpeg: pip install -e '.[bench]'")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for format_name, folder in prepare(options.images, options.count, options.copies, root).items():
            out = root / "out"
            model = ["--model", options.model] if options.model else []

            def ours(folder: Path = folder, out: Path = out, model: list[Path | str] = model) -> None:
                shutil.rmtree(out, ignore_errors=True)
                command(FEATHERWEIGHT, "imaging", "classify", folder, "--out", out, *model)

            def plain(folder: Path = folder) -> None:
                command(sys.executable, "-m", "bench.plain_script", folder, root / "plain.csv")

            seconds = interleave({"ours": ours, "plain": plain}, options.rounds)
            count = len(list(folder.iterdir()))
            mine, theirs = median(seconds["ours"]), median(seconds["plain"])
            summary = json.loads((out / "summary.json").read_text())
            share = summary["seconds"]["inference"] / summary["seconds"]["total"]
            rows.append(
                [format_name, f"{count / mine:.1f}", f"{count / theirs:.1f}", f"{theirs / mine:.1f}x", f"{share:.0%}"]
            )
            print(rows[-1], flush=True)
    show(
        f"batch job, {options.count * options.copies} full-size x-rays, medians of {options.rounds} runs",
        ["format", "classify images/s", "plain script images/s", "ratio", "inference share of time"],
        rows,
    )


if __name__ == "__main__":
    main()
