"""Image sets by name, normalised and augmented as is usual for each.

Small sets are kept in memory as uint8 and are normalised and augmented as batched tensor operations when used; large ones are streamed from
their files. ``val`` is carved from the training images by a fixed seed, stratified by class.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, Dataset

from paramgen.errors import ParamgenError, did_you_mean, first_line

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL = 96  # maximum side, in pixels, of images that are kept in memory
DIGITS_TEST = 597  # of 1,797


@dataclass(frozen=True)
class Source:
    """How a named set is read.

    Args:
        num_classes: Classes; ``None`` if the folders define them.
        shape: Channels, height, width; height and width of a streamed set are what its images are cropped to.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        pad: Random crops of the image padded by this many pixels; 0 for none.
        flip: Random horizontal flips.
        torchvision: Class in ``torchvision.datasets``.
        train: Its arguments for the training images, one dictionary for each part.
        test: Its arguments for the test images.
        files: The files expected under `root`, for messages.
        downloads: Whether torchvision can fetch it.
        white: Value of a white pixel.
    """

    num_classes: int | None
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    flip: bool = False
    torchvision: str = ""
    train: tuple[dict[str, Any], ...] = ({"train": True},)
    test: tuple[dict[str, Any], ...] = ({"train": False},)
    files: str = ""
    downloads: bool = True
    white: int = 255

    @property
    def streamed(self) -> bool:
        """Whether the images are decoded from files on demand."""
        return self.shape[1] > SMALL


def _split(*names: str) -> tuple[dict[str, Any], ...]:
    return tuple({"split": name} for name in names)


SOURCES: dict[str, Source] = {
    "digits": Source(10, (1, 8, 8), (0.3053,), (0.3761,), white=16),
    "mnist": Source(
        10, (1, 28, 28), (0.1307,), (0.3081,), torchvision="MNIST", files="MNIST/raw/train-images-idx3-ubyte, …"
    ),
    "fashion_mnist": Source(
        10,
        (1, 28, 28),
        (0.2860,),
        (0.3530,),
        pad=2,
        flip=True,
        torchvision="FashionMNIST",
        files="FashionMNIST/raw/train-images-idx3-ubyte, …",
    ),
    "cifar10": Source(
        10,
        (3, 32, 32),
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        pad=4,
        flip=True,
        torchvision="CIFAR10",
        files="cifar-10-batches-py/data_batch_1, …",
    ),
    "cifar100": Source(
        100,
        (3, 32, 32),
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        pad=4,
        flip=True,
        torchvision="CIFAR100",
        files="cifar-100-python/train, …",
    ),
    "stl10": Source(
        10,
        (3, 96, 96),
        (0.4467, 0.4398, 0.4066),
        (0.2603, 0.2566, 0.2713),
        pad=12,
        flip=True,
        torchvision="STL10",
        train=_split("train"),
        test=_split("test"),
        files="stl10_binary/train_X.bin, …",
    ),
    "flowers102": Source(
        102,
        (3, 224, 224),
        *IMAGENET,
        torchvision="Flowers102",
        train=_split("train", "val"),
        test=_split("test"),
        files="flowers-102/jpg, imagelabels.mat, setid.mat",
    ),
    "oxford_iiit_pet": Source(
        37,
        (3, 224, 224),
        *IMAGENET,
        torchvision="OxfordIIITPet",
        train=_split("trainval"),
        test=_split("test"),
        files="oxford-iiit-pet/images, annotations",
    ),
    "food101": Source(
        101,
        (3, 224, 224),
        *IMAGENET,
        torchvision="Food101",
        train=_split("train"),
        test=_split("test"),
        files="food-101/images, meta",
    ),
    "imagenet": Source(
        1000,
        (3, 224, 224),
        *IMAGENET,
        torchvision="ImageNet",
        train=_split("train"),
        test=_split("val"),
        files="ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar",
        downloads=False,
    ),
    "image_folder": Source(
        None, (3, 224, 224), *IMAGENET, files="train/CLASS/*.png, test/CLASS/*.png", downloads=False
    ),
}
"""Every set by name."""


def find_source(name: str) -> Source:
    """A set by name; torchvision's spelling (``FashionMNIST``, ``OxfordIIITPet``) is accepted too.

    Raises:
        ParamgenError: Unknown set; similar names are listed.
    """
    plain = {key.replace("_", ""): source for key, source in SOURCES.items()}
    match = plain.get(name.lower().replace("_", "").replace("-", ""))
    if match is None:
        raise ParamgenError(f"Unknown dataset {name!r}. {did_you_mean(name, SOURCES)}")
    return match


def data_root(root: str | None) -> Path:
    """Folder of the data: `root`, else ``$PARAMGEN_DATA``, else ``./data``; it need not exist.

    Raises:
        ParamgenError: The name is invalid, or the folder cannot be accessed.
    """
    path = Path(root or os.environ.get("PARAMGEN_DATA") or "data")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ParamgenError(
            f"cannot look for data in {str(path)!r:.80}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return path


def stratified(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Select `count` of M indices so that every class keeps its share.

    Args:
        labels: (M,) class of each.
        count: Number of indices to select.
        seed: Seed of the selection, which is the same on every machine.

    Returns:
        The selected indices (count,) and the others (M - count,), each in ascending order.
    """
    rng = np.random.default_rng(seed)  # numpy keeps its streams over versions
    classes, sizes = np.unique(labels.numpy(), return_counts=True)
    share = sizes * count / len(labels)
    take = np.floor(share).astype(int)
    take[np.argsort(take - share, kind="stable")[: count - take.sum()]] += 1  # largest remainders first
    selected = np.zeros(len(labels), dtype=bool)
    for label, n in zip(classes, take, strict=True):
        selected[rng.permutation(np.flatnonzero(labels.numpy() == label))[:n]] = True
    mask = torch.from_numpy(selected)
    return mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]


@dataclass(frozen=True)
class ImagePool:
    """All training images, or all test images, of a set.

    Args:
        labels: (M,) int64.
        num_classes: Classes of the set.
        raw: (M, C, H, W) uint8, or ``None`` where the images are streamed.
        dataset: Where they are streamed from.
    """

    labels: Tensor
    num_classes: int
    raw: Tensor | None = None
    dataset: Dataset[Any] | None = None


def load_pool(name: str, root: str | None, train: bool, download: bool = False, size: int | None = None) -> ImagePool:
    """Read the training or the test images of a set; of a folder of images see :mod:`paramgen.tasks.vision.folders`.

    Args:
        name: Its name.
        root: Its folder, see :func:`data_root`.
        train: Training or test images.
        download: Let torchvision fetch what is missing.
        size: Height and width that larger images in memory are shrunk to; ``None`` for their own.

    Raises:
        ParamgenError: No such set, or its files are not there; they and the way to get them are named.
    """
    source = find_source(name)
    if source is SOURCES["digits"]:
        raw, labels = _digits(train)
    else:
        parts = [
            _torchvision(name, source, data_root(root), download, how)
            for how in (source.train if train else source.test)
        ]
        labels = torch.cat([_labels(part) for part in parts])
        if source.streamed:
            return ImagePool(labels, source.num_classes or 0, dataset=ConcatDataset(parts))
        raw = torch.cat([_pixels(part) for part in parts])
    if size is not None and raw.shape[-1] > size:
        shrunk = F.interpolate(raw.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
        raw = shrunk.round().clamp(0, 255).byte()
    return ImagePool(labels, source.num_classes or 0, raw=raw)


def _digits(train: bool) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    target = torch.from_numpy(labels).long()
    indices = stratified(target, DIGITS_TEST, seed=0)[1 if train else 0]
    return torch.from_numpy(images).byte().view(-1, 1, 8, 8)[indices], target[indices]


def _torchvision(name: str, source: Source, root: Path, download: bool, how: dict[str, Any]) -> Dataset[Any]:
    from torchvision import datasets

    options = {"download": download} if source.downloads else {}
    try:
        dataset: Dataset[Any] = getattr(datasets, source.torchvision)(str(root), **how, **options)
    except (RuntimeError, OSError, ValueError) as error:  # torchvision has no single class for missing or damaged files
        fix = "download=true (in a zoo only with --trust true) fetches it, or " if source.downloads else ""
        raise ParamgenError(
            f"dataset {name!r} is not in {root.absolute()} (expected there: {source.files}); {fix}set root or PARAMGEN_DATA "
            f"({first_line(error)})"
        ) from error
    return dataset


def _labels(dataset: Any) -> Tensor:
    """Labels of a torchvision dataset, which has them under one of three names."""
    labels = next(getattr(dataset, name) for name in ("targets", "labels", "_labels") if hasattr(dataset, name))
    return torch.as_tensor(labels).long()


def _pixels(dataset: Any) -> Tensor:
    """Pixels of a torchvision dataset in memory as (M, C, H, W) uint8."""
    data = torch.as_tensor(dataset.data)
    if data.ndim == 3:  # MNIST: (M, H, W)
        return data[:, None]
    channels_first = data.shape[1] == 3  # STL10: (M, C, H, W), CIFAR: (M, H, W, C)
    return data if channels_first else data.permute(0, 3, 1, 2).contiguous()
