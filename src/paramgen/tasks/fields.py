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
from paramgen.tasks.field_sources import digit_pictures, grey_values, points_of
from paramgen.tasks.score import Measured, Scored, at_least_float32


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

    def best_match(self, drawn: Tensor, others: Tensor) -> Tensor:
        """PSNR (N,) to the nearest of other pictures: grey values (N, F) and (m, F)."""
        error = torch.cdist(drawn.clamp(0, 1).double(), others.double()).square()  # (N, m)
        return self.value(error.amin(1, keepdim=True) / others.shape[1])


class Encloses(Scored):
    """Fields are signed distances, negative inside: trained by squared error, scored by the IoU of the insides."""

    score = ScoreSpec("IoU", margin=0.02)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error (N, B) of distances (N, B, 1)."""
        return (at_least_float32(output) - target).square().mean(-1)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """How many of the two insides, the network's and the target's, each point (N, B) is in."""
        return Measured((output[..., 0] < 0).byte() + (target[..., 0] < 0).byte())

    def value(self, items: Tensor) -> Tensor:
        """Points in both insides over points in either, (N,); 0 if no point is inside."""
        return (items == 2).sum(1).double() / (items > 0).sum(1).clamp_min(1)

    def best_match(self, drawn: Tensor, others: Tensor) -> Tensor:
        """IoU (N,) with the most similar of other shapes: distances (N, F) and (m, F)."""
        a, b = (drawn < 0).double(), (others < 0).double()
        both = a @ b.T  # (N, m)
        return (both / (a.sum(1, keepdim=True) + b.sum(1) - both).clamp_min(1)).amax(1)


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
        return ArraySplit(points, grey_values(self._image[None], points)[0])

    @cached_property
    def _image(self) -> Tensor:
        return digit_pictures().grey[self.picture]  # (8, 8)
