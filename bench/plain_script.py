"""What a user would write without Featherweight: DataLoader with two workers, PIL or pydicom, torch eager fp32.

python -m bench.plain_script FOLDER OUT.csv [WEIGHTS]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, Dataset

from featherweight.apps.imaging.training.network import build


class Folder(Dataset):  # type: ignore[type-arg]
    def __init__(self, root: Path) -> None:
        self.paths = sorted(p for p in root.rglob("*") if p.is_file())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        path = self.paths[index]
        if path.suffix == ".dcm":
            dataset = dcmread(path)
            values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
            values = (values - values.min()) / max(1.0, float(np.ptp(values)))
            image = Image.fromarray((values * 255).astype(np.uint8))
        else:
            image = Image.open(path).convert("L")
        image = image.resize((224, 224), Image.Resampling.BILINEAR)
        return str(path), torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def main() -> None:
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    network = build("resnet18").eval()
    if len(sys.argv) > 3:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(sys.argv[3]))
    loader = DataLoader(Folder(root), batch_size=16, num_workers=2)
    with out.open("w", newline="") as file, torch.inference_mode():
        writer = csv.writer(file)
        for paths, images in loader:
            for path, logit in zip(paths, network(images)[:, 0].tolist(), strict=True):
                writer.writerow([path, logit])


if __name__ == "__main__":
    main()
