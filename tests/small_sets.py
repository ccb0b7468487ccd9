"""Tiny sets in the exact formats of torchvision's MNIST and CIFAR, and folders of images."""

import gzip
import pickle
import struct

import numpy as np
from PIL import Image

from paramgen.tasks.vision.datasets import SOURCES

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(40) % 10


def idx(array):
    """The idx format of MNIST."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(root, name, packed=False):
    folder = root / SOURCES[name].torchvision / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", PIXELS[:, :28, :28, 0].copy()), ("labels-idx1", LABELS.astype(np.uint8))):
            data, path = idx(array), folder / f"{part}-{kind}-ubyte"
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(data)) if packed else path.write_bytes(data)


def write_cifar(root, name):
    folder = root / ("cifar-10-batches-py" if name == "cifar10" else "cifar-100-python")
    folder.mkdir()
    rows = PIXELS.transpose(0, 3, 1, 2).reshape(40, -1)
    key = b"labels" if name == "cifar10" else b"fine_labels"
    parts = [*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"] if name == "cifar10" else ["train", "test"]
    for part in parts:
        content = {b"data": rows, key: LABELS.tolist()}
        (folder / part).write_bytes(pickle.dumps({k.decode(): v for k, v in content.items()}))
    meta, key = ("batches.meta", "label_names") if name == "cifar10" else ("meta", "fine_label_names")
    (folder / meta).write_bytes(pickle.dumps({key: [str(i) for i in range(SOURCES[name].num_classes)]}))


def write_folder(root, classes, per_class):
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(PIXELS[(label * per_class + i) % 40]).save(root / f"class{label}" / f"{i}.png")
