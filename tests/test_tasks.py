"""Tasks: splits, normalisation, augmentation and torchvision's real readers on small files in the exact formats."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from paramgen.errors import ParamgenError
from paramgen.tasks import ClassificationTask, Task, load_task
from paramgen.tasks.items import spread
from paramgen.tasks.vision.datasets import SOURCES, find_source, stratified
from paramgen.tasks.vision.splits import TensorSplit, crop
from small_sets import LABELS, PIXELS, write_cifar, write_folder, write_mnist


def test_digits_splits_are_disjoint_and_cover_the_set():
    task = ClassificationTask(val_fraction=0.1)
    parts = {split: task.data(split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in parts.items()} == {"train": 1080, "val": 120, "test": 597}
    everything = torch.cat([data.raw for data in parts.values()]).flatten(1).numpy()
    original = load_digits().data.astype(np.uint8)
    assert np.array_equal(np.sort(everything.view("V64").ravel()), np.sort(original.view("V64").ravel()))


def test_val_depends_on_split_seed_and_test_does_not():
    first, second = ClassificationTask(split_seed=0), ClassificationTask(split_seed=1)
    assert not torch.equal(first.data("val").raw, second.data("val").raw)
    assert torch.equal(first.data("val").raw, ClassificationTask(split_seed=0).data("val").raw)
    assert torch.equal(first.data("test").raw, second.data("test").raw)


def test_every_class_keeps_its_share():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    chosen, rest = stratified(labels, 20, seed=3)
    assert torch.bincount(labels[chosen]).tolist() == [12, 6, 2]
    assert sorted([*chosen.tolist(), *rest.tolist()]) == list(range(100))


def test_train_images_are_standardised():
    images = ClassificationTask().data("train").images
    assert images.dtype == torch.float32
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02


def test_batches_give_every_image_once_in_order():
    data = ClassificationTask().data("val")
    x, y = (torch.cat(parts) for parts in zip(*data.batches(50), strict=True))
    assert torch.equal(x, data.images)
    assert torch.equal(y, data.targets)


def test_crop_equals_slicing():
    images = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6)
    found = crop(images, torch.tensor([[0, 2], [1, 1]]), (4, 4))
    assert torch.equal(found[0], images[0, :, 0:4, 2:6])
    assert torch.equal(found[1], images[1, :, 1:5, 1:5])


def test_augmented_images_are_shifted_or_flipped_originals_and_evaluation_is_plain():
    raw = torch.randint(1, 256, (6, 3, 8, 8), dtype=torch.uint8)
    data = TensorSplit(raw, torch.arange(6), (0.0,) * 3, (1.0,) * 3, pad=2, flip=True)
    order = torch.arange(6).view(1, 1, 6).expand(20, 1, 6)
    seen = torch.cat([x[0] for x, _ in data.training_batches(order, [torch.Generator().manual_seed(0)])])
    padded = torch.nn.functional.pad(raw, (2,) * 4).float() / 255
    allowed = [[p[:, r : r + 8, c : c + 8] for r in range(5) for c in range(5)] for p in padded]
    hits = [
        any(torch.allclose(x, w) or torch.allclose(x, w.flip(-1)) for w in allowed[i % 6]) for i, x in enumerate(seen)
    ]
    assert all(hits)
    assert len({x.numpy().tobytes() for x in seen}) > 60
    assert torch.allclose(data.images, raw.float() / 255)


def test_what_a_network_sees_does_not_depend_on_the_others():
    raw = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    data = TensorSplit(raw, torch.arange(20), (0.5,) * 3, (0.2,) * 3, pad=1, flip=True)
    order = torch.stack([torch.randperm(20) for _ in range(3)]).view(1, 3, 20)

    def images(runs):
        generators = [torch.Generator().manual_seed(run) for run in runs]
        return next(iter(data.training_batches(order[:, runs], generators)))[0]

    assert torch.equal(images([0, 1, 2])[2], images([2])[0])


# ---- torchvision's readers on files in their exact formats


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files_are_read(tmp_path, no_checksums, name, packed):
    write_mnist(tmp_path, name, packed)
    task = ClassificationTask(name, "mlp", root=str(tmp_path), download=packed, val_fraction=0.25)
    assert len(task.data("train")) == 30
    assert torch.equal(task.data("test").raw[:, 0], torch.from_numpy(PIXELS[:, :28, :28, 0].copy()))
    assert task.build()(task.data("val").images).shape == (10, 10)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files_are_read(tmp_path, no_checksums, name):
    write_cifar(tmp_path, name)
    task = ClassificationTask(name, "convnet3", root=str(tmp_path))
    test = task.data("test")
    assert torch.equal(test.raw, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert test.targets.tolist() == LABELS.tolist()
    assert test.raw.dtype == torch.uint8
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (SOURCES[name].mean, SOURCES[name].std))
    assert torch.allclose(test.images, (test.raw / 255 - mean) / std, atol=1e-5)
    assert task.build()(test.images[:2]).shape == (2, SOURCES[name].num_classes)


def test_images_in_memory_are_resized(tmp_path, no_checksums):
    write_cifar(tmp_path, "cifar10")
    task = ClassificationTask("CIFAR10", "cnn_small", root=str(tmp_path), image_size=28)
    assert task.data("test").raw.shape == (40, 3, 28, 28)
    assert sum(p.numel() for p in task.build().parameters()) == 2_864


def test_small_images_in_memory_are_enlarged_batch_by_batch(tmp_path, no_checksums):
    write_cifar(tmp_path, "cifar10")
    data = ClassificationTask("cifar10", root=str(tmp_path), image_size=64).data("test")
    assert data.raw.shape[-1] == 32
    assert next(data.batches(5))[0].shape == (5, 3, 64, 64)
    assert torch.allclose(
        torch.nn.functional.avg_pool2d(data.images, 2).mean((2, 3)), data.images.mean((2, 3)), atol=1e-4
    )


def test_spread_takes_evenly_spaced_images(tmp_path):
    data = ClassificationTask().data("train")
    part = spread(data, 100)
    assert torch.equal(part.images, data.images[torch.arange(100) * 1080 // 100])
    assert torch.equal(next(part.batches(100))[1], part.targets)
    assert spread(data, 2000) is data
    write_folder(tmp_path, 2, 20)
    streamed = ClassificationTask("image_folder", root=str(tmp_path), image_size=16, images="streamed").data("train")
    few = spread(streamed, 6)
    assert few.targets.tolist() == [0, 0, 0, 1, 1, 1]
    x, _ = next(streamed.batches(len(streamed)))
    assert torch.equal(next(few.batches(6))[0], x[torch.arange(6) * len(streamed) // 6])


def test_stl10_files_are_read(tmp_path, no_checksums):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = np.random.default_rng(1).integers(0, 256, (20, 3, 96, 96), dtype=np.uint8)
    for part in ("train", "test"):
        images.transpose(0, 1, 3, 2).tofile(folder / f"{part}_X.bin")  # the file stores columns first
        (np.arange(20, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    (folder / "unlabeled_X.bin").touch()
    (folder / "class_names.txt").write_text("\n".join(map(str, range(10))))
    data = ClassificationTask("stl10", root=str(tmp_path)).data("test")
    assert torch.equal(data.raw, torch.from_numpy(images))
    assert data.targets.tolist() == [i % 10 for i in range(20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_image_folder_is_streamed_and_workers_do_not_change_it(tmp_path, workers):
    write_folder(tmp_path / "train", 3, 4)
    write_folder(tmp_path / "test", 3, 2)
    task = ClassificationTask(
        "image_folder", "mlp", root=str(tmp_path), image_size=16, num_workers=workers, images="streamed"
    )
    assert (task.num_classes, len(task.data("train")), len(task.data("test"))) == (3, 11, 6)
    x, y = next(task.data("test").batches(6))
    assert x.shape == (6, 3, 16, 16)
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    train = task.data("train")
    order = torch.stack([torch.randperm(11, generator=torch.Generator().manual_seed(r)) for r in range(2)])[None]
    plain = ClassificationTask("image_folder", root=str(tmp_path), image_size=16, images="streamed").data("train")

    def batch(data, runs):
        generators = [torch.Generator().manual_seed(run) for run in runs]
        return next(iter(data.training_batches(order[:, runs], generators)))

    (x, y), (alone, _) = batch(train, [0, 1]), batch(plain, [1])
    assert x.shape == (2, 11, 3, 16, 16)
    assert torch.equal(y, train.targets[order[0]])
    assert torch.equal(x[1], alone[0])


def test_undivided_image_folder_keeps_a_fifth_for_the_test(tmp_path):
    write_folder(tmp_path, 2, 10)
    task = ClassificationTask("image_folder", root=str(tmp_path), image_size=16)
    assert (len(task.data("train")), len(task.data("val")), len(task.data("test"))) == (14, 2, 4)


def test_pets_are_read(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    lines = []
    for i in range(12):
        Image.fromarray(PIXELS[i]).save(folder / "images" / f"breed_{i}.jpg")
        lines.append(f"breed_{i} {i % 3 + 1} 1 1")
    for part in ("trainval", "test"):
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    data = ClassificationTask("OxfordIIITPet", root=str(tmp_path), image_size=24).data("test")
    assert next(data.batches(5))[0].shape == (5, 3, 24, 24)
    assert data.targets.tolist() == [i % 3 for i in range(12)]


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"digits"}))
def test_missing_data_names_the_files_the_folder_and_the_mend(tmp_path, name):
    with pytest.raises(ParamgenError) as error:
        ClassificationTask(name, root=str(tmp_path)).data("train")
    message = str(error.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert SOURCES[name].files.split(",")[0] in message
    assert ("download=true" in message) == SOURCES[name].downloads


def test_root_comes_from_the_environment(tmp_path, monkeypatch, no_checksums):
    write_cifar(tmp_path, "cifar10")
    monkeypatch.setenv("PARAMGEN_DATA", str(tmp_path))
    assert len(ClassificationTask("cifar10").data("test")) == 40


# ---- configuration


@pytest.mark.parametrize("spelling", ["FashionMNIST", "fashion_mnist", "fashion-mnist"])
def test_torchvision_spelling_is_understood(spelling):
    assert find_source(spelling) is SOURCES["fashion_mnist"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "cifra10"}, "Unknown dataset 'cifra10'. Did you mean 'cifar10'"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0, expected a number between 0 and 1"),
        ({"image_size": 0}, "image_size is 0"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    with pytest.raises(ParamgenError, match=message):
        ClassificationTask(**arguments)


def test_unknown_split_is_refused():
    with pytest.raises(ParamgenError, match="split is 'heldout', expected train, val or test"):
        ClassificationTask().data("heldout")


def test_recorded_task_builds_the_same_network_and_splits():
    task = ClassificationTask(network="mlp", network_args={"hidden": [20]}, val_fraction=0.2, split_seed=4)
    again = load_task(task.config())
    assert isinstance(again, Task)
    assert again.config() == task.config()
    assert again.build().layers[0].weight.shape == (20, 64)
    assert torch.equal(again.data("val").raw, task.data("val").raw)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_path": "ClassificatonTask"}, "Unknown task 'ClassificatonTask'. Did you mean 'ClassificationTask'"),
        ({"class_path": "torch.nn.Linear"}, "names the class torch.nn.Linear, which is not part of paramgen"),
        ({"class_path": "ClassificationTask", "init_args": {"datset": "digits"}}, "datset"),
        ({}, "Unknown task ''"),
    ],
)
def test_unknown_task_is_one_line_with_what_exists(config, message):
    with pytest.raises(ParamgenError, match=message):
        load_task(config)
