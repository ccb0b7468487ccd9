"""Folders of images, ``CLASS/*.png``: their size and colours decide how they are read.

Small images, at most :data:`SMALL` pixels a side, are decoded once and kept in memory in their own size and colours, if they fit there.
All others are streamed. Grey images have one channel.

M: images. C: channels.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import Subset

from paramgen.errors import ParamgenError
from paramgen.tasks.vision.datasets import IMAGENET, SMALL, SOURCES, ImagePool, Source, stratified
from paramgen.tasks.vision.splits import in_channels

GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes of PIL
FILES_AT_ONCE = 512  # files that are read before the free memory is checked again
MEMORY_SHARE = 4  # a quarter of the free memory is taken at most
PIXELS_SHARE = 8  # random crops move a small image by an eighth of its side at most, as is usual for CIFAR and STL-10


class ImageInfo(NamedTuple):
    """One file."""

    size: tuple[int, int]  # height, width
    grey: bool
    pixels: np.ndarray[Any, Any] | None  # (H, W) or (H, W, 3) uint8; None when it was not decoded


class FolderContents(NamedTuple):
    """The images in a folder."""

    channels: int
    size: tuple[int, int]  # height, width that most images have
    raw: Tensor | None  # (M, C, H, W) uint8; None when the images are streamed


class ImageFolders:
    """The images of a task: ``root/train`` and ``root/test`` (or ``val``) where they exist, else ``root``, of which a fixed stratified
    fifth is the test.

    Args:
        root: The folder.
        image_size: Requested height and width; None for the images' own.
        streamed: Stream all images in three channels.

    Raises:
        ParamgenError: No images, or one that cannot be read.
    """

    def __init__(self, root: Path, image_size: int | None = None, streamed: bool = False) -> None:
        self.image_size, self.streamed = image_size, streamed
        tests = [root / name for name in ("test", "val") if (root / name).is_dir()]
        self.divided = (root / "train").is_dir() and bool(tests)
        self.parts = [_find(folder) for folder in ((root / "train", tests[0]) if self.divided else (root,))]
        self.num_classes = len(self.parts[0].classes)

    @cached_property
    def source(self) -> Source:
        """How the images are normalised and augmented, and their default shape."""
        contents, source = self._contents, SOURCES["image_folder"]
        mean, std = IMAGENET if contents.channels == 3 else tuple((sum(values) / 3,) for values in IMAGENET)
        if max(contents.size) > SMALL or self.streamed:
            return replace(source, shape=(contents.channels, *source.shape[1:]), mean=mean, std=std)
        pad, colour = min(contents.size) // PIXELS_SHARE, contents.channels == 3
        return replace(source, shape=(contents.channels, *contents.size), mean=mean, std=std, pad=pad, flip=colour)

    def pool(self, train: bool) -> ImagePool:
        """All training images, or all test images."""
        number = 0 if train or not self.divided else 1
        part, raw = self.parts[number], self._contents.raw
        labels = torch.tensor(part.targets)
        if raw is not None:
            first = len(self.parts[0].targets) * number
            raw = raw[first : first + len(labels)]
        if self.divided:
            return ImagePool(labels, self.num_classes, raw, None if raw is not None else part)
        indices = stratified(labels, max(1, len(labels) // 5), seed=0)[1 if train else 0]
        if raw is not None:
            return ImagePool(labels[indices], self.num_classes, raw[indices])
        return ImagePool(labels[indices], self.num_classes, dataset=Subset(part, indices.tolist()))

    @cached_property
    def _contents(self) -> FolderContents:
        """One pass over all files: headers of large images, pixels of small ones while they fit."""
        if self.streamed:
            return FolderContents(3, SOURCES["image_folder"].shape[1:], None)
        room = psutil.virtual_memory().available // MEMORY_SHARE
        sizes: Counter[tuple[int, int]] = Counter()
        pixels: list[np.ndarray[Any, Any]] | None = []
        grey = True
        for image in _read_images([path for part in self.parts for path, _ in part.samples]):
            sizes[image.size] += 1
            grey = grey and image.grey
            room -= 0 if image.pixels is None else image.pixels.size * (3 if image.pixels.ndim == 2 and not grey else 1)
            if image.pixels is None or room < 0:
                pixels = None
            elif pixels is not None:
                pixels.append(image.pixels)
            if pixels is None and not grey:
                break  # the remaining files cannot change how they are read
        size, channels = sizes.most_common(1)[0][0], 1 if grey else 3
        if pixels is None:
            return FolderContents(channels, max(sizes, key=max), None)
        return FolderContents(channels, size, _stacked(pixels, channels, self._target(size)))

    def _target(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width in memory: larger requested sizes are made batch by batch."""
        if self.image_size is None:
            return size
        return (min(self.image_size, *size),) * 2


def _find(folder: Path) -> Any:
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(str(folder))
    except (OSError, RuntimeError) as error:
        raise ParamgenError(
            f"dataset 'image_folder' found no images in {folder.absolute()}; expected CLASS/*.png (or .jpg, …) there, or "
            f"{SOURCES['image_folder'].files}; set root or PARAMGEN_DATA"
        ) from error


def _read_images(paths: Sequence[str]) -> Iterator[ImageInfo]:
    with ThreadPoolExecutor() as threads:
        for first in range(0, len(paths), FILES_AT_ONCE):
            yield from threads.map(_read_image, paths[first : first + FILES_AT_ONCE])


def _read_image(path: str) -> ImageInfo:
    from PIL import Image

    try:
        with Image.open(path) as image:
            grey, small = image.mode in GREY, max(image.size) <= SMALL
            pixels = np.asarray(in_channels(image, 1 if grey else 3)) if small else None
            return ImageInfo((image.height, image.width), grey, pixels)
    except (OSError, ValueError, SyntaxError) as error:  # damaged PNG files raise each of them
        raise ParamgenError(f"cannot read image {path}: {error}") from error


def _stacked(pixels: list[np.ndarray[Any, Any]], channels: int, size: tuple[int, int]) -> Tensor:
    """(M, C, H, W) uint8 of images (H, W) or (H, W, 3); those of another size are cropped to its proportions and resized."""
    from PIL import Image, ImageOps

    raw = np.empty((len(pixels), *size, channels), np.uint8)
    for row, image in zip(raw, pixels, strict=True):
        if image.shape[:2] != size:
            fitted = ImageOps.fit(Image.fromarray(image), size[::-1], Image.Resampling.BILINEAR)
            image = np.asarray(fitted)
        row[:] = image if image.ndim == 3 else image[..., None]
    return torch.from_numpy(raw).permute(0, 3, 1, 2).contiguous()
