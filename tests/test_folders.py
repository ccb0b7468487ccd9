"""Folders of images: what lies there decides how they are read."""

import numpy as np
import pytest
import torch
from PIL import Image

from paramgen.errors import ParamgenError
from paramgen.tasks import ClassificationTask, load_task
from paramgen.tasks.vision.splits import StreamedSplit, TensorSplit

RNG = np.random.default_rng(0)


def write(root, images, split="train"):
    """Images in two classes in turn; returns their pixels in the order that the split has them."""
    for i, image in enumerate(images):
        folder = root / split / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return [*images[::2], *images[1::2]]


def pixels(count, *shape):
    return [RNG.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]


def task(root, **arguments):
    return ClassificationTask("image_folder", root=str(root), **arguments)


@pytest.mark.parametrize("size", [None, 28])
def test_small_grey_images_are_taken_as_they_are(tmp_path, size):
    write(tmp_path, pixels(8, 28, 28))
    expected = write(tmp_path, pixels(4, 28, 28), "test")
    folder = task(tmp_path, image_size=size)
    assert folder.in_shape == (1, 28, 28)
    test = folder.data("test")
    assert isinstance(test, TensorSplit)
    x, labels = next(test.batches(4))
    mean, std = folder.source.mean[0], folder.source.std[0]
    assert torch.equal((255 * (x * std + mean)).round().byte(), torch.from_numpy(np.stack(expected))[:, None])
    assert labels.tolist() == [0, 0, 1, 1]
    assert folder.build()(x).shape == (4, 2)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    image = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    write(tmp_path, [image] * 10)
    raw = task(tmp_path).data("train").raw
    assert torch.equal(raw[0, 0], torch.from_numpy((image >> 8).astype(np.uint8)))


def test_one_image_in_colour_makes_all_three_channels(tmp_path):
    write(tmp_path, [*pixels(9, 12, 12), *pixels(1, 12, 12, 3)])
    folder = task(tmp_path)
    assert folder.in_shape == (3, 12, 12)
    raw = torch.cat([folder.data(split).raw for split in ("train", "val")])
    grey = (raw == raw[:, :1]).all(dim=(1, 2, 3))
    assert grey.sum() == len(raw) - 1


def test_images_of_other_sizes_are_resized_to_that_of_most(tmp_path):
    write(tmp_path, [*pixels(8, 20, 30, 3), *pixels(4, 40, 40, 3)])
    assert task(tmp_path).in_shape == (3, 20, 30)
    assert task(tmp_path).data("train").raw.shape[1:] == (3, 20, 30)
    assert next(task(tmp_path, image_size=10).data("train").batches(2))[0].shape == (2, 3, 10, 10)
    assert next(task(tmp_path, image_size=64).data("train").batches(2))[0].shape == (2, 3, 64, 64)


def test_large_images_are_streamed_in_their_colours(tmp_path):
    write(tmp_path, pixels(6, 120, 100))
    folder = task(tmp_path, image_size=32)
    assert folder.in_shape == (1, 32, 32)
    assert isinstance(folder.data("train"), StreamedSplit)
    assert next(folder.data("train").batches(2))[0].shape == (2, 1, 32, 32)


def test_what_does_not_fit_in_memory_is_streamed_unenlarged(tmp_path, monkeypatch):
    write(tmp_path, pixels(6, 16, 16, 3))
    expected = write(tmp_path, pixels(2, 16, 16, 3), "test")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 100})())
    folder = task(tmp_path)
    test = folder.data("test")
    assert isinstance(test, StreamedSplit)
    x = next(test.batches(2))[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (folder.source.mean, folder.source.std))
    assert torch.equal(
        (255 * (x * std + mean)).round().byte(), torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2)
    )


def test_zoos_recorded_before_keep_three_streamed_channels(tmp_path):
    write(tmp_path, pixels(8, 16, 16))
    recorded = task(tmp_path, image_size=16).config()
    assert load_task(recorded).in_shape == (1, 16, 16)
    del recorded["init_args"]["images"]
    old = load_task(recorded)
    assert old.in_shape == (3, 16, 16)
    assert isinstance(old.data("train"), StreamedSplit)


def test_other_sets_record_what_they_always_did():
    assert "images" not in ClassificationTask().config()["init_args"]


def test_a_damaged_image_is_named(tmp_path):
    write(tmp_path, pixels(4, 16, 16))
    damaged = tmp_path / "train" / "class0" / "000.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(ParamgenError, match=r"cannot read image .*000.png"):
        task(tmp_path).data("train")
