"""Splits of images: in memory, or streamed from files.

M: images in the split. R: networks trained at once. B: batch.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from paramgen.core.spacing import first_to_last
from paramgen.tasks.base import UNLABELLED
from paramgen.tasks.items import SplitData, keys_in_order, seeded_keys


class TensorSplit(SplitData):
    """A split in memory.

    Args:
        raw: (M, C, H, W) uint8 pixels.
        labels: (M,) int64.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        pad: Random crops of the image padded by this many pixels, in training alone.
        flip: Random horizontal flips, in training alone.
        white: Value of a white pixel.
        size: Height and width that batches are resized to, where the images in memory are smaller.
    """

    def __init__(
        self,
        raw: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        pad: int = 0,
        flip: bool = False,
        white: int = 255,
        size: int | None = None,
    ) -> None:
        super().__init__(labels)
        self.raw, self.pad, self.flip = raw, pad, flip
        self.size = size if size is not None and size > raw.shape[-1] else None
        self._scale = (1 / (white * torch.tensor(std))).view(-1, 1, 1)
        self._shift = (torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1)
        small = raw.numel() <= 1 << 22 and not (pad or flip or self.size)
        self._ready = self._normalise(raw) if small else None  # a few MB: cheaper than normalising at every step

    @property
    def input_source(self) -> object:
        """The pixels."""
        return self.raw

    @property
    def images(self) -> Tensor:
        """All images (M, C, H, W), float32, normalised, not augmented."""
        return self._normalise(self.raw) if self._ready is None else self._ready

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        for i in range(0, len(self), batch_size):
            part = slice(i, i + batch_size)
            yield self._normalise(self.raw[part]) if self._ready is None else self._ready[part], self.targets[part]

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        for index in order:  # (R, B)
            if self._ready is not None:
                yield self._ready.index_select(0, index.flatten()).unflatten(0, index.shape), self.targets[index]
                continue
            x = self.raw[index.flatten()]  # (R*B, C, H, W)
            if self.pad:
                sides = 2 * self.pad + 1
                corner = torch.cat([torch.randint(sides, (index.shape[1], 2), generator=g) for g in generators])
                x = crop(F.pad(x, (self.pad,) * 4), corner, self.raw.shape[-2:])
            if self.flip:
                turn = torch.cat([torch.rand(index.shape[1], generator=g) < 0.5 for g in generators])
                x = torch.where(turn.view(-1, 1, 1, 1), x.flip(-1), x)
            yield self._normalise(x).unflatten(0, index.shape), self.targets[index]

    def _normalise(self, raw: Tensor) -> Tensor:
        x = raw.float().mul_(self._scale).sub_(self._shift)
        if self.size is None:
            return x
        return F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)

    def take(self, index: Tensor) -> "TensorSplit":
        """Some of its images; everything else is unchanged."""
        part = copy.copy(self)
        part.raw, part.targets = self.raw[index], self.targets[index]
        part._ready = None if self._ready is None else self._ready[index]
        return part


def crop(images: Tensor, corner: Tensor, size: Sequence[int]) -> Tensor:
    """Cut one window out of every image.

    Args:
        images: (n, C, H, W).
        corner: (n, 2) row and column of each window's corner.
        size: Height and width of the windows.

    Returns:
        (n, C, *size).
    """
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (n, C, rows, columns, h, w), a view
    return windows[torch.arange(len(images)), :, corner[:, 0], corner[:, 1]]


class LabelledImages(NamedTuple):
    """Images and their labels.

    Args:
        images: (m, C, H, W) in [0, 1].
        labels: (m,) long.
    """

    images: Tensor
    labels: Tensor


class InMemory:
    """Raw images and labels of some tasks, and the settings that turn them into a split.

    Args:
        raw: (M, C, H, W) uint8.
        labels: (M,) int64.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        white: Value of a white pixel.
        pad: Random crops in training, as :class:`TensorSplit` has them.
        flip: Random flips in training.
    """

    def __init__(
        self,
        raw: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        white: int = 255,
        pad: int = 0,
        flip: bool = False,
    ) -> None:
        self.raw, self.labels, self.white = raw, labels, white
        self.normal = {"mean": mean, "std": std, "white": white, "pad": pad, "flip": flip}

    @cached_property
    def split(self) -> TensorSplit:
        """The images as a split."""
        return TensorSplit(self.raw, self.labels, **self.normal)  # type: ignore[arg-type]

    def some(self, most: int = UNLABELLED) -> LabelledImages:
        """Some images, evenly spaced."""
        indices = first_to_last(len(self.raw), min(most, len(self.raw)))
        return LabelledImages(self.raw[indices].float() / self.white, self.labels[indices])


class _Seeded(Dataset[Any]):
    """Items of a dataset under ``(index, seed)``, so that random transforms do not depend on workers or on neighbours."""

    def __init__(self, dataset: Dataset[Any], transform: Callable[[Any], Tensor]) -> None:
        self.dataset, self.transform = dataset, transform

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        index, seed = key
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return self.transform(self.dataset[index][0])


class StreamedSplit(SplitData):
    """A split whose images are decoded when they are needed.

    Args:
        dataset: Yields (PIL image, label).
        labels: (M,) int64.
        size: Height and width after cropping.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        augment: Random resized crops and flips in training.
        num_workers: Processes that decode; 0 for none.
        channels: 1 for grey, 3 for colours.
        margin: Ratio of the resized image's shorter side to the crop.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        labels: Tensor,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: bool = True,
        num_workers: int = 0,
        channels: int = 3,
        margin: float = 256 / 224,
    ) -> None:
        from torchvision import transforms as T

        super().__init__(labels)
        finish = [partial(in_channels, channels=channels), T.ToTensor(), T.Normalize(mean, std)]
        plain = T.Compose([T.Resize(round(size * margin)), T.CenterCrop(size), *finish])
        augmented = T.Compose([T.RandomResizedCrop(size), T.RandomHorizontalFlip(), *finish]) if augment else plain
        self._plain, self._varied = _Seeded(dataset, plain), _Seeded(dataset, augmented)
        self._loader = partial(DataLoader, num_workers=num_workers)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        keys = keys_in_order(len(self), batch_size)
        yield from zip(self._loader(self._plain, batch_sampler=keys), self.targets.split(batch_size), strict=True)

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        keys = seeded_keys(order, generators)
        for x, index in zip(self._loader(self._varied, batch_sampler=keys), order, strict=True):
            yield x.unflatten(0, index.shape), self.targets[index]

    def take(self, index: Tensor) -> "StreamedSplit":
        """Some of its images; everything else is unchanged."""
        part = copy.copy(self)
        part.targets = self.targets[index]
        part._plain, part._varied = (
            _Seeded(Subset(seeded.dataset, index.tolist()), seeded.transform) for seeded in (self._plain, self._varied)
        )
        return part


def in_channels(image: Any, channels: int) -> Any:
    """A PIL image in grey (1) or in colours (3), 8 bits a channel."""
    if image.mode.startswith("I"):  # 16 bits, which convert would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("L" if channels == 1 else "RGB")
