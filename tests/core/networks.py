"""Small networks of the kinds that passes stumble over, all for `tests.fakes.SquaresTask`: one image in, one logit out,
but for those whose inputs or outputs are others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, shufflenet_v2_x0_5

from tests.fakes import SIDE


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = VisionTransformer(SIDE, 8, 1, 2, 32, 64, num_classes=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x.repeat(1, 3, 1, 1))
        return found


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = shufflenet_v2_x0_5(num_classes=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x.repeat(1, 3, 1, 1))
        return found


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(1, 40, 5, padding=2)
        self.after, self.head = nn.Conv2d(64, 32, 3), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.one(x), self.two(x)], dim=1).relu()
        found: Tensor = self.head(self.after(joined).relu().mean((2, 3)))
        return found


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 32, 3), nn.Linear(32 + 4, 1)

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        found: Tensor = self.head(torch.cat([self.stem(x).relu().mean((2, 3)), row], dim=1))
        return found


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(1, 32, 3), nn.Linear(32, 1), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.stem(x).relu().mean((2, 3))
        return self.one(inner), self.two(inner)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 32, 3), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logit": self.head(self.stem(x).relu().mean((2, 3)))}


class ByValue(nn.Module):
    """Which branch runs is decided by what is in the tensors: no graph can hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 32, 3), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.stem(x).relu().mean((2, 3))
        if float(inner.sum()) > 0:
            inner = inner * 2
        found: Tensor = self.head(inner)
        return found
