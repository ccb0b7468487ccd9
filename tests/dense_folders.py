"""Tiny datasets in the folder layouts of COCO, PASCAL VOC and ADE20K, from composed digits."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from paramgen.tasks.vision.annotated import VOC_CLASSES, VOC_IN_COCO
from paramgen.tasks.vision.scenes import digit_scenes

SIZE = (24, 32)  # height and width of the pictures: the lower rows are cut off


def pictures(part, count):
    """File name, image, mask and boxes of some pictures; classes 1 to 10, those of boxes below the cut are left out."""
    scenes = digit_scenes(part, count)
    for i in range(count):
        image = Image.fromarray((255 * scenes.images[i, 0, : SIZE[0]]).byte().numpy()).convert("RGB")
        boxes = [row.tolist() for row in scenes.boxes[i] if row[4] > 0 and row[3] <= SIZE[0]]
        yield f"{part}{i}", image, scenes.masks[i, : SIZE[0]].numpy().astype(np.uint8), boxes


def write_coco(root: Path, count=6):
    """``coco/train2017``, ``coco/val2017`` and their json, with digits as the first ten classes of VOC, each as a polygon of its box."""
    for folder, part in (("train2017", "train"), ("val2017", "test")):
        (root / "coco" / folder).mkdir(parents=True)
        (root / "coco" / "annotations").mkdir(exist_ok=True)
        images, things = [], []
        for i, (name, image, _, boxes) in enumerate(pictures(part, count)):
            image.save(root / "coco" / folder / f"{name}.jpg")
            images.append({"id": i, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
            for left, top, right, bottom, kind, _crowd in boxes:
                things.append(
                    {
                        "id": len(things) + 1,
                        "image_id": i,
                        "category_id": VOC_IN_COCO[int(kind) - 1],
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": 0,
                        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                    }
                )
        categories = [{"id": number, "name": name} for number, name in zip(VOC_IN_COCO, VOC_CLASSES, strict=True)]
        index = {"images": images, "annotations": things, "categories": categories}
        (root / "coco" / "annotations" / f"instances_{folder}.json").write_text(json.dumps(index))


def write_voc(root: Path, count=6):
    """``VOCdevkit/VOC2012`` with images, masks, boxes and lists of both parts."""
    base = root / "VOCdevkit" / "VOC2012"
    for folder in (
        "JPEGImages",
        "SegmentationClass",
        "Annotations",
        "ImageSets/Segmentation",
        "ImageSets/Main",
    ):
        (base / folder).mkdir(parents=True)
    for list_name, part in (("train", "train"), ("val", "test")):
        names = []
        for name, image, mask, boxes in pictures(part, count):
            image.save(base / "JPEGImages" / f"{name}.jpg")
            Image.fromarray(mask).save(base / "SegmentationClass" / f"{name}.png")
            things = "".join(
                f"<object><name>{VOC_CLASSES[int(kind) - 1]}</name><difficult>0</difficult><bndbox><xmin>{left + 1:.0f}</xmin>"
                f"<ymin>{top + 1:.0f}</ymin><xmax>{right:.0f}</xmax><ymax>{bottom:.0f}</ymax></bndbox></object>"
                for left, top, right, bottom, kind, _crowd in boxes
            )
            (base / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.jpg</filename>{things}</annotation>"
            )
            names.append(name)
        for kind in ("Segmentation", "Main"):
            (base / "ImageSets" / kind / f"{list_name}.txt").write_text("\n".join(names))


def write_ade20k(root: Path, count=6):
    """``ADEChallengeData2016``: the background is 0, "other", and digit d is d + 1."""
    base = root / "ADEChallengeData2016"
    for folder, part in (("training", "train"), ("validation", "test")):
        for kind in ("images", "annotations"):
            (base / kind / folder).mkdir(parents=True)
        for name, image, mask, _ in pictures(part, count):
            image.save(base / "images" / folder / f"{name}.jpg")
            Image.fromarray(mask).save(base / "annotations" / folder / f"{name}.png")


WRITERS = {"coco": write_coco, "coco_voc": write_coco, "voc": write_voc, "ade20k": write_ade20k}
