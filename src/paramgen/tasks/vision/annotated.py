"""Pictures with annotations in the folder layouts of COCO, PASCAL VOC and ADE20K, by torchvision's and pycocotools' own readers.

A dataset yields (image, target): a PIL image, and for segmentation a mask (H, W) of classes with :data:`VOID` where there is none, for
detection boxes (n, 6) of left, top, right, bottom, class and whether the box holds a crowd. Class 0 is the background in both but ADE20K.
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from paramgen.errors import ParamgenError, did_you_mean, one_line

VOID = 255  # pixels without a class
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOC_IN_COCO = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)  # categories, in VOC's order
COCO_CLASSES = 91  # the largest category is 90
COCO_PARTS = {"train": "train2017", "test": "val2017"}
ADE_PARTS = {"train": "training", "test": "validation"}


class _Pairs(Dataset[tuple[Any, Tensor]]):
    """A dataset of torchvision, with its targets as tensors."""

    def __init__(self, source: Any, target: Callable[[Any], Tensor]) -> None:
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image, target = self.source[index]
        return image.convert("RGB"), self.target(target)


class _AdePairs(Dataset[tuple[Any, Tensor]]):
    """Images and masks of ``ADEChallengeData2016``."""

    def __init__(self, root: Path, part: str) -> None:
        self.images = sorted((root / "images" / part).glob("*.jpg"))
        self.masks = [root / "annotations" / part / f"{path.stem}.png" for path in self.images]
        if not self.images:
            raise FileNotFoundError(f"no images/{part}/*.jpg in {root}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        with Image.open(self.images[index]) as image, Image.open(self.masks[index]) as mask:
            classes = torch.from_numpy(np.asarray(mask).astype(np.int64)) - 1  # 0 is "other"
            return image.convert("RGB"), classes.where(classes >= 0, VOID)


def _voc_masks(root: Path, part: str) -> Dataset[Any]:
    from torchvision.datasets import VOCSegmentation

    source = VOCSegmentation(str(root), image_set="train" if part == "train" else "val")
    return _Pairs(source, lambda mask: torch.from_numpy(np.asarray(mask).astype(np.int64)))


def _voc_boxes(root: Path, part: str) -> Dataset[Any]:
    from torchvision.datasets import VOCDetection

    return _Pairs(VOCDetection(str(root), image_set="train" if part == "train" else "val"), _voc_rows)


def _voc_rows(annotation: dict[str, Any]) -> Tensor:
    rows = []
    for thing in annotation["annotation"].get("object", []):
        corners = [float(thing["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
        corners[0], corners[1] = corners[0] - 1, corners[1] - 1  # VOC counts pixels from 1
        if thing["name"] not in VOC_CLASSES:
            raise ValueError(f"{thing['name']!r} is no class of VOC. {did_you_mean(thing['name'], VOC_CLASSES)}")
        rows.append([*corners, VOC_CLASSES.index(thing["name"]) + 1, int(thing.get("difficult", "0"))])
    return torch.tensor(rows, dtype=torch.float32).view(-1, 6)


def _coco(root: Path, part: str) -> Any:
    from torchvision.datasets import CocoDetection

    name = COCO_PARTS[part]
    with redirect_stdout(StringIO()):  # pycocotools prints what it does
        dataset = CocoDetection(str(root / name), str(root / "annotations" / f"instances_{name}.json"))
    if (largest := max(dataset.coco.getCatIds(), default=0)) >= COCO_CLASSES:
        raise ValueError(f"category {largest} is not among COCO's, which are 1 to {COCO_CLASSES - 1}")
    return dataset


def _coco_boxes(root: Path, part: str) -> Dataset[Any]:
    return _Pairs(_coco(root, part), _coco_rows)


def _coco_rows(things: list[dict[str, Any]]) -> Tensor:
    rows = [
        [x, y, x + width, y + height, thing["category_id"], thing.get("iscrowd", 0)]
        for thing in things
        for x, y, width, height in [thing["bbox"]]
        if width > 0 and height > 0
    ]
    return torch.tensor(rows, dtype=torch.float32).view(-1, 6)


def _coco_voc_masks(root: Path, part: str) -> Dataset[Any]:
    """COCO's images, with the categories that VOC has; pixels of two things have no class, as torchvision's reference training has it."""
    source = _coco(root, part)
    classes = {category: i + 1 for i, category in enumerate(VOC_IN_COCO)}

    def mask(things: list[dict[str, Any]], size: tuple[int, int]) -> Tensor:
        covered, found = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
        for thing in things:
            if thing["category_id"] in classes:
                shape = torch.from_numpy(source.coco.annToMask(thing)).bool()
                found[shape] = classes[thing["category_id"]]
                covered += shape
        return found.where(covered < 2, VOID)

    return _CocoMasks(source, mask)


class _CocoMasks(_Pairs):
    """COCO's images and masks, which are of the images' size."""

    def __init__(self, source: Any, mask: Callable[[Any, tuple[int, int]], Tensor]) -> None:
        super().__init__(source, lambda target: target)
        self.mask = mask

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image, things = self.source[index]
        return image.convert("RGB"), self.mask(things, (image.height, image.width))


@dataclass(frozen=True)
class Annotated:
    """A set in its folder layout.

    Args:
        open: From the folder of the data and ``train`` or ``test`` to a dataset; FileNotFoundError where files are missing.
        num_classes: Number of classes, with the background where it has one.
        folder: Its folder in the folder of the data.
        files: The files expected there, for messages.
    """

    open: Callable[[Path, str], Dataset[Any]]
    num_classes: int
    folder: str
    files: str


_COCO_FILES = "train2017/*.jpg, val2017/*.jpg, annotations/instances_train2017.json, annotations/instances_val2017.json"
SEGMENTED = {
    "voc": Annotated(
        _voc_masks,
        21,
        "",
        "VOCdevkit/VOC2012/JPEGImages, SegmentationClass, ImageSets/Segmentation/train.txt and val.txt",
    ),
    "coco_voc": Annotated(_coco_voc_masks, 21, "coco", _COCO_FILES),
    "ade20k": Annotated(
        lambda root, part: _AdePairs(root, ADE_PARTS[part]),
        150,
        "ADEChallengeData2016",
        "images/training/*.jpg, images/validation/*.jpg, annotations/training/*.png, annotations/validation/*.png",
    ),
}
DETECTED = {
    "voc": Annotated(
        _voc_boxes, 21, "", "VOCdevkit/VOC2012/JPEGImages, Annotations, ImageSets/Main/train.txt and val.txt"
    ),
    "coco": Annotated(_coco_boxes, COCO_CLASSES, "coco", _COCO_FILES),
}


def open_annotated(name: str, sets: dict[str, Annotated], root: Path, part: str) -> Dataset[Any]:
    """One part of a set.

    Args:
        name: Key of `sets`.
        sets: :data:`SEGMENTED` or :data:`DETECTED`.
        root: Folder of the data.
        part: ``train`` or ``test``.

    Raises:
        ParamgenError: Files are missing or damaged, or pycocotools is not installed.
    """
    described = sets[name]
    folder = root / described.folder
    try:
        return described.open(folder, part)
    except ImportError as error:
        raise ParamgenError(f"dataset {name!r} needs pycocotools: pip install 'paramgen[vision]'") from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ParamgenError(
            f"dataset {name!r} cannot be read in {folder.absolute()}: {one_line(error)}. Expected there: {described.files}; set root or "
            "PARAMGEN_DATA"
        ) from error
