"""Implicit fields: a small network that is a picture, from a point in the unit square to the grey value there (PSNR).

M: points of a split. Higher frequencies come from sinusoids of the coordinates (Tancik et al. 2020, arXiv:2006.10739).
"""

from functools import cached_property
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.score import Measured, at_least_float32

OFFSETS = {"train": 0.5, "val": 0.25, "test": 0.75}  # position of a split's points within a grid cell


class Field(nn.Module):
    """A multilayer perceptron on sinusoids of the coordinates.

    Args:
        hidden: Width of each of the two hidden layers.
        octaves: Frequencies of the sinusoids: 1, 2, 4, ... half periods across the picture.
    """

    def __init__(self, hidden: int = 32, octaves: int = 3) -> None:
        super().__init__()
        self.octaves = octaves
        self.first = nn.Linear(2 + 4 * octaves, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Points (B, 2) in [0, 1] to grey values (B, 1)."""
        angles = torch.cat([2**k * pi * points for k in range(self.octaves)], -1)  # (B, 2 octaves)
        x = torch.cat([points, angles.sin(), angles.cos()], -1)
        values: Tensor = self.last(F.relu(self.second(F.relu(self.first(x)))))
        return values


class FieldTask(Task):
    """Represent one of scikit-learn's digits. The target is the bilinearly interpolated image; splits are different points of it.

    Args:
        picture: Index of the digit, 0 to 1,796.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side of a split.

    Raises:
        ParamgenError: No such picture, or a size below 1.
    """

    score = ScoreSpec("PSNR", unit="dB", margin=1.0, axis="linear")

    def __init__(self, picture: int = 0, hidden: int = 32, octaves: int = 3, resolution: int = 16) -> None:
        require_positive(hidden=hidden, octaves=octaves, resolution=resolution)
        if not 0 <= picture < 1797:
            raise ParamgenError(f"picture is {picture}, expected 0 to 1796")
        self.picture, self.hidden, self.octaves, self.resolution = picture, hidden, octaves, resolution

    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""
        return Field(self.hidden, self.octaves)

    def data(self, split: str) -> SplitData:
        """Points (M, 2) of a split and the picture's grey values there (M, 1)."""
        if split not in OFFSETS:
            raise ParamgenError(f"Unknown split {split!r}. Available: {', '.join(OFFSETS)}")
        side = (torch.arange(self.resolution) + OFFSETS[split]) / self.resolution  # (r,)
        points = torch.cartesian_prod(side, side)  # (M, 2) as (row, column)
        grid = (2 * points - 1).flip(-1)[None, None]  # (1, 1, M, 2) as (x, y) in [-1, 1]
        grey = F.grid_sample(self._image[None, None], grid, padding_mode="border", align_corners=False)
        return ArraySplit(points, grey.view(-1, 1))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error (N, B) of grey values (N, B, 1)."""
        return (at_least_float32(output) - target).square().mean(-1)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Squared errors (N, B) of grey values in [0, 1]."""
        return Measured(self.loss(output.clamp(0, 1), target))

    def value(self, items: Tensor) -> Tensor:
        """PSNR (N,) in dB, against a range of 1."""
        return -10 * items.double().mean(1).clamp_min(1e-12).log10()

    @cached_property
    def _image(self) -> Tensor:
        from sklearn.datasets import load_digits

        return torch.from_numpy(load_digits().images[self.picture]).float() / 16  # (8, 8)
