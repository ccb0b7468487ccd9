"""Splits of images with masks or boxes, read from files when they are needed, and turned and cropped together with them.

M: images in the split. R: networks trained at once. B: batch. S: side of an image after it is fitted. K: boxes of an image.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from paramgen.errors import ParamgenError, one_line
from paramgen.tasks.items import Keys, SplitData, keys_in_order, seeded_keys
from paramgen.tasks.vision.annotated import VOID

CROP_SCALES = (0.5, 2.0)  # of random crops, relative to S
FittedPair = tuple[Tensor, Tensor]  # an image (3, S, S) in [0, 1], and its mask (S, S) or boxes (K, 6)


class FittedPairs(Dataset[FittedPair]):
    """Images and targets under ``(index, seed)``, fitted into a square of one size.

    Without augmentation the longer side becomes S pixels, and the rest is padded on the right and below: with black, and :data:`VOID`
    in masks. With augmentation the image is scaled by a random factor, cropped or padded, and flipped.

    Args:
        dataset: Yields a PIL image and a mask (H, W) or boxes (K, 6); see :mod:`paramgen.tasks.vision.annotated`.
        side: S.
        augment: Whether to augment.
    """

    def __init__(self, dataset: Dataset[Any], side: int, augment: bool) -> None:
        self.dataset, self.side, self.augment = dataset, side, augment

    def __getitem__(self, key: tuple[int, int]) -> FittedPair:
        from torchvision.transforms.v2.functional import pil_to_tensor

        index, seed = key
        try:
            picture, target = self.dataset[index]
        except (OSError, ValueError, KeyError, SyntaxError) as error:  # damaged files raise each of them
            raise ParamgenError(f"cannot read image {index} and its annotation: {one_line(error)}") from error
        image = pil_to_tensor(picture).float() / 255  # (3, H, W)
        boxes = target.dim() == 2 and target.shape[1] == 6 and target.is_floating_point()
        height, width = image.shape[1:]
        scale, flip, corner = self.side / max(height, width), False, (0, 0)
        if self.augment:
            generator = torch.Generator().manual_seed(seed)
            u, turn, row, column = torch.rand(4, generator=generator).tolist()
            scale, flip = scale * CROP_SCALES[0] * (CROP_SCALES[1] / CROP_SCALES[0]) ** u, turn < 0.5
            spare = [max(0, round(size * scale) - self.side) for size in (height, width)]
            corner = (round(row * spare[0]), round(column * spare[1]))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        image = self._window(image, corner, 0.0)
        if boxes:
            return _flipped(image, flip), self._boxes(target, (size[0] / height, size[1] / width), corner, flip)
        mask = F.interpolate(target[None, None].float(), size, mode="nearest")[0, 0].long()
        return _flipped(image, flip), _flipped(self._window(mask, corner, VOID), flip)

    def _window(self, x: Tensor, corner: tuple[int, int], fill: float) -> Tensor:
        part = x[..., corner[0] : corner[0] + self.side, corner[1] : corner[1] + self.side]
        return F.pad(part, (0, self.side - part.shape[-1], 0, self.side - part.shape[-2]), value=fill)

    def _boxes(self, rows: Tensor, scale: tuple[float, float], corner: tuple[int, int], flip: bool) -> Tensor:
        """Boxes in the window, in its pixels; those that are cut to less than a pixel are left out."""
        corners = rows[:, :4] * torch.tensor([scale[1], scale[0]] * 2) - torch.tensor([corner[1], corner[0]] * 2)
        corners = corners.clamp(0, self.side)
        if flip:
            corners = torch.stack(
                [self.side - corners[:, 2], corners[:, 1], self.side - corners[:, 0], corners[:, 3]], 1
            )
        kept = ((corners[:, 2:] - corners[:, :2]) >= 1).all(1)
        return torch.cat([corners, rows[:, 4:]], 1)[kept]


def _flipped(x: Tensor, flip: bool) -> Tensor:
    return x.flip(-1) if flip else x


class PairSplit(SplitData):
    """A split whose images and targets are read from files when they are needed.

    ``targets`` are the places of the images: masks and boxes come with the images.

    Args:
        dataset: As of :class:`FittedPairs`.
        count: M.
        side: S.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        augment: Random scales, crops and flips in training.
        num_workers: Processes that read; 0 for none.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        count: int,
        side: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: bool = True,
        num_workers: int = 0,
    ) -> None:
        super().__init__(torch.arange(count))
        self.dataset, self.side, self.augment, self.num_workers = dataset, side, augment, num_workers
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        yield from self._loaded(keys_in_order(len(self), batch_size), augment=False)

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        for x, y in self._loaded(seeded_keys(order, generators), self.augment):
            yield x.unflatten(0, order.shape[1:]), y.unflatten(0, order.shape[1:])

    def take(self, index: Tensor) -> "PairSplit":
        """Some of its images; everything else is unchanged."""
        part = copy.copy(self)
        part.dataset, part.targets = Subset(self.dataset, index.tolist()), torch.arange(len(index))
        return part

    def _loaded(self, keys: Keys, augment: bool) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = FittedPairs(self.dataset, self.side, augment)
        load = partial(DataLoader, num_workers=self.num_workers, collate_fn=_collated)
        for x, y in load(pairs, batch_sampler=keys):
            yield (x - self.mean) / self.std, y


def _collated(pairs: Sequence[FittedPair]) -> FittedPair:
    """A batch; boxes are padded with rows of class 0."""
    targets = [target for _, target in pairs]
    if targets[0].is_floating_point():
        most = max(1, *map(len, targets))
        targets = [F.pad(boxes, (0, 0, 0, most - len(boxes))) for boxes in targets]
    return torch.stack([image for image, _ in pairs]), torch.stack(targets)
