"""Pictures composed from real digits, with the class of every pixel and a box around every digit.

Each picture is black, with one to `most` of scikit-learn's digits on it, enlarged and apart from each other. Pictures of the test split
show the digits of that split, which no other picture shows. M: pictures. S: their side in pixels. K: digits of a picture, at most.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from paramgen.tasks.vision.datasets import SOURCES, load_pool

NUM_CLASSES = 11  # background, and digit d as class d + 1
SIZES = (8, 14)  # side of a digit in pixels, from and to
INK = 0.25  # grey value from which a pixel belongs to its digit
TRIES = 20  # places that are tried for a digit before it is left out


class Scenes(NamedTuple):
    """Composed pictures.

    Args:
        images: (M, 1, S, S) in [0, 1].
        masks: (M, S, S) class of every pixel, int64; 0 is the background.
        boxes: (M, K, 6) left, top, right and bottom in pixels, class, 0; rows of class 0 are empty.
    """

    images: Tensor
    masks: Tensor
    boxes: Tensor


@lru_cache(8)
def digit_scenes(split: str, count: int, side: int = 32, most: int = 4) -> Scenes:
    """Composed pictures, the same ones at every call.

    Args:
        split: ``train`` or ``test``: the digits that they show.
        count: M.
        side: S.
        most: K.
    """
    pool = load_pool("digits", None, train=split == "train")
    assert pool.raw is not None  # digits are in memory
    grey, label = pool.raw[:, 0].float() / SOURCES["digits"].white, pool.labels
    rng = np.random.default_rng([count, side, most, int(split == "test")])  # numpy keeps its streams over versions
    images, masks = torch.zeros(count, 1, side, side), torch.zeros(count, side, side, dtype=torch.int64)
    boxes = torch.zeros(count, most, 6)
    for scene in range(count):
        taken = torch.zeros(side, side, dtype=torch.bool)
        for row in range(rng.integers(1, most + 1)):
            digit, size = int(rng.integers(len(grey))), int(rng.integers(SIZES[0], SIZES[1] + 1))
            place = _free(taken, size, rng)
            if place is None:
                continue
            top, left = place
            window = slice(top, top + size), slice(left, left + size)
            patch = F.interpolate(grey[digit][None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]
            taken[window] = True
            images[scene, 0][window] = patch
            ink, kind = patch > INK, int(label[digit]) + 1
            masks[scene][window] = kind * ink
            rows, columns = ink.any(1).nonzero()[:, 0], ink.any(0).nonzero()[:, 0]
            corners = [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
            boxes[scene, row] = torch.tensor([*map(float, corners), kind, 0])
    return Scenes(images, masks, boxes)


def _free(taken: Tensor, size: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """The corner of a free square, as (row, column); None where none was found."""
    for _ in range(TRIES):
        top, left = rng.integers(taken.shape[0] - size + 1, size=2).tolist()
        if not taken[top : top + size, left : left + size].any():
            return top, left
    return None
