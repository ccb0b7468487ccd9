"""What implicit fields represent: numbered functions on the unit square, pictures or signed distances of shapes.

k: members of a source. M: points. H, W: pixels of its pictures.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from paramgen.errors import ParamgenError, require_choice
from paramgen.tasks.items import TaskSplit
from paramgen.tasks.shapes import KINDS, SHAPES, all_shapes, signed_distance
from paramgen.tasks.vision.datasets import find_source, load_pool


def points_of(split: str, resolution: int) -> Tensor:
    """The points (M, 2) of a split as (row, column) in [0, 1].

    Args:
        split: ``train``, ``val`` or ``test``: different points.
        resolution: Points per side; with as many as the picture has pixels, those of ``train`` are the pixels' centres.

    Raises:
        ParamgenError: No such split.
    """
    require_choice(TaskSplit, split=split)
    side = (torch.arange(resolution) + OFFSETS[split]) / resolution  # (r,)
    return torch.cartesian_prod(side, side)


OFFSETS = {"train": 0.5, "val": 0.25, "test": 0.75}  # position of a split's points within a grid cell


def grey_values(pictures: Tensor, points: Tensor) -> Tensor:
    """The grey values (k, M, 1) of pictures (k, H, W) at points (M, 2), interpolated linearly."""
    grid = (2 * points - 1).flip(-1)[None, None]  # (1, 1, M, 2) as (x, y) in [-1, 1]
    found = F.grid_sample(pictures[None], grid, padding_mode="border", align_corners=False)  # (1, k, 1, M)
    return found[0, :, 0, :, None]


class FieldSource(ABC):
    """Numbered functions on the unit square, each of a class.

    Args:
        labels: (members,) class of each, int64.
        classes: Number of classes.
        side: Pixels per side of a picture of a field.
        noun: What its members are, for messages.
    """

    def __init__(self, labels: Tensor, classes: int, side: int, noun: str) -> None:
        self.labels, self.classes, self.side, self.noun = labels, classes, side, noun

    def __len__(self) -> int:
        """Number of members."""
        return len(self.labels)

    @abstractmethod
    def values(self, members: Sequence[int], points: Tensor) -> Tensor:
        """The functions' values (k, M, 1) at points (M, 2)."""

    @abstractmethod
    def renders(self, values: Tensor) -> Tensor:
        """Values (..., side * side) at the pixels' centres as grey values (..., side, side) in [0, 1]."""

    @property
    def pixels(self) -> Tensor:
        """The centres (side * side, 2) of the pixels."""
        return points_of("train", self.side)


class PictureSource(FieldSource):
    """Grey pictures: all of scikit-learn's digits, or the training images of another set of grey pictures.

    Args:
        dataset: ``digits``, ``mnist`` or ``fashion_mnist``.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.

    Raises:
        ParamgenError: No such set, one in colour, or its files are not there.
    """

    def __init__(self, dataset: str, root: str | None = None) -> None:
        pictures = digit_pictures() if dataset == "digits" else grey_pictures(dataset, root)
        super().__init__(
            pictures.label, 10, pictures.grey.shape[-1], "digits" if "fashion" not in dataset else "images"
        )
        self.grey = pictures.grey

    def values(self, members: Sequence[int], points: Tensor) -> Tensor:
        """Grey values between the pixels, interpolated linearly."""
        pictures = self.grey[list(members)]
        return grey_values(pictures if pictures.is_floating_point() else pictures / 255, points)

    def renders(self, values: Tensor) -> Tensor:
        """The values, limited to [0, 1]."""
        return values.clamp(0, 1).view(*values.shape[:-1], self.side, self.side)


class ShapeSource(FieldSource):
    """2,000 procedural shapes of six kinds, as signed distances."""

    def __init__(self, side: int = 24) -> None:
        super().__init__(torch.arange(SHAPES) % len(KINDS), len(KINDS), side, "shapes")

    def values(self, members: Sequence[int], points: Tensor) -> Tensor:
        """Signed distances, negative inside."""
        shapes = all_shapes()
        return torch.stack([signed_distance(shapes[member], points)[:, None] for member in members])

    def renders(self, values: Tensor) -> Tensor:
        """White inside; a pixel on the border is grey by its distance."""
        return (0.5 - self.side * values).clamp(0, 1).view(*values.shape[:-1], self.side, self.side)


class GreyPictures(NamedTuple):
    """A set of grey pictures.

    Args:
        grey: (n, H, W) float in [0, 1], or uint8 of 0 to 255.
        label: (n,) the class of each, int64.
    """

    grey: Tensor
    label: Tensor


@lru_cache(1)
def digit_pictures() -> GreyPictures:
    """All of scikit-learn's digits, read once."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return GreyPictures(torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target).long())


@lru_cache(2)
def grey_pictures(dataset: str, root: str | None) -> GreyPictures:
    """The training images of a set, read once.

    Raises:
        ParamgenError: No such set, one in colour, or its files are not there.
    """
    if find_source(dataset).shape[0] != 1:
        raise ParamgenError(
            f"dataset {dataset!r} has colour images, but a field is a grey image. Available: digits, mnist, fashion_mnist."
        )
    pool = load_pool(dataset, root, train=True)
    assert pool.raw is not None
    return GreyPictures(pool.raw[:, 0], pool.labels)
