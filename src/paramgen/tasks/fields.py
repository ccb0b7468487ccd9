"""Implicit fields: a small network that is a picture, from a point in the unit square to the grey value there (PSNR).

M: points of a split. Higher frequencies come from sinusoids of the coordinates (Tancik et al. 2020, arXiv:2006.10739).
"""

from functools import cached_property, lru_cache
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.score import Measured, Scored, at_least_float32

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


class Represents(Scored):
    """Fields are trained by squared error and scored by PSNR. Networks return grey values, targets are those of a picture in [0, 1]."""

    score = ScoreSpec("PSNR", unit="dB", margin=1.0, axis="linear")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error (N, B) of grey values (N, B, 1)."""
        return (at_least_float32(output) - target).square().mean(-1)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Squared errors (N, B) of grey values in [0, 1]."""
        return Measured(self.loss(output.clamp(0, 1), target))

    def value(self, items: Tensor) -> Tensor:
        """PSNR (N,) in dB, against a range of 1."""
        return -10 * items.double().mean(1).clamp_min(1e-12).log10()


def points_of(split: str, resolution: int) -> Tensor:
    """The points (M, 2) of a split as (row, column) in [0, 1].

    Args:
        split: ``train``, ``val`` or ``test``: different points.
        resolution: Points per side; with as many as the picture has pixels, those of ``train`` are the pixels' centres.

    Raises:
        ParamgenError: No such split.
    """
    if split not in OFFSETS:
        raise ParamgenError(f"Unknown split {split!r}. Available: {', '.join(OFFSETS)}")
    side = (torch.arange(resolution) + OFFSETS[split]) / resolution  # (r,)
    return torch.cartesian_prod(side, side)


def grey_values(picture: Tensor, points: Tensor) -> Tensor:
    """The grey values (M, 1) of a picture (H, W) at points (M, 2), interpolated linearly."""
    grid = (2 * points - 1).flip(-1)[None, None]  # (1, 1, M, 2) as (x, y) in [-1, 1]
    return F.grid_sample(picture[None, None], grid, padding_mode="border", align_corners=False).view(-1, 1)


class FieldTask(Represents, Task):
    """Represent one of scikit-learn's digits. The target is the bilinearly interpolated image; splits are different points of it.

    Args:
        picture: Index of the digit, 0 to 1,796.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side of a split.

    Raises:
        ParamgenError: No such picture, or a size below 1.
    """

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
        points = points_of(split, self.resolution)
        return ArraySplit(points, grey_values(self._image, points))

    @cached_property
    def _image(self) -> Tensor:
        return digit_pictures().grey[self.picture]  # (8, 8)


class DigitPictures(NamedTuple):
    """scikit-learn's digits.

    Args:
        grey: (1797, 8, 8) in [0, 1].
        label: (1797,) which digit, int64.
    """

    grey: Tensor
    label: Tensor


@lru_cache(1)
def digit_pictures() -> DigitPictures:
    """All of scikit-learn's digits, read once."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return DigitPictures(torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target).long())
