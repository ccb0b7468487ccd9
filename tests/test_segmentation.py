"""Semantic segmentation: masks of real layouts, scores over all pixels, torchvision's networks, and the line from recipe to report."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from dense_folders import SIZE, WRITERS, pictures
from paramgen.core.params import state_tensors
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import SegmentationTask
from paramgen.tasks.vision.annotated import VOID
from paramgen.tasks.vision.scenes import digit_scenes
from whole_line import collecting, line_to_report, rows, run

LAYOUTS = ("voc", "coco_voc", "ade20k")


def fitted_masks(task, split):
    """All images and masks of a split."""
    return next(iter(task.data(split).batches(100)))


def test_composed_pictures_of_the_test_split_show_other_digits_and_a_box_is_as_tight_as_its_mask():
    train, test = digit_scenes("train", 40), digit_scenes("test", 40)
    assert not torch.equal(train.images, test.images)
    for image, mask, boxes in zip(train.images, train.masks, train.boxes, strict=True):
        assert (image[0][mask > 0] > 0).all()
        things = [row for row in boxes if row[4] > 0]
        inside = torch.zeros_like(mask)
        for left, top, right, bottom, kind, _ in torch.stack(things).int().tolist():
            shape = mask[top:bottom, left:right] == kind
            assert shape.any(0)[[0, -1]].all()
            assert shape.any(1)[[0, -1]].all()
            inside[top:bottom, left:right] = 1
        assert not mask[inside == 0].any()


@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_of_a_real_folder_layout_are_those_that_were_written(name, tmp_path):
    WRITERS[name](tmp_path)
    task = SegmentationTask(name, "torchvision:fcn_resnet50", root=str(tmp_path), image_size=SIZE[1])
    images, masks = fitted_masks(task, "test")
    assert images.shape == (6, 3, SIZE[1], SIZE[1])
    assert (masks[:, SIZE[0] :] == VOID).all()  # padding has no class
    for found, (_, _, written, boxes) in zip(masks[:, : SIZE[0]], pictures("test", 6), strict=True):
        expected = torch.from_numpy(written.astype(np.int64))
        if name == "ade20k":
            expected = torch.where(expected == 0, VOID, expected - 1)
        if name == "coco_voc":  # polygons of boxes
            expected = torch.zeros_like(expected)
            for left, top, right, bottom, kind, _ in boxes:
                expected[int(top) : int(bottom), int(left) : int(right)] = int(kind)
        assert torch.equal(found, expected)
    both = [len(task.data(split)) for split in ("train", "val")]
    assert both == [5, 1]


def test_turned_and_cropped_pictures_keep_their_masks_and_do_not_depend_on_their_neighbours(tmp_path):
    WRITERS["voc"](tmp_path)
    task = SegmentationTask("voc", "torchvision:fcn_resnet50", root=str(tmp_path), image_size=SIZE[1])
    data = task.data("train")

    def batch(seeds):
        order = torch.tensor([[[0, 1]] * len(seeds)])
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        ((x, y),) = data.training_batches(order, generators)
        return x, y

    x, y = batch([0, 1, 2])
    assert x.shape == (3, 2, 3, 32, 32)
    assert all(torch.equal(a[1], b[0]) for a, b in zip((x, y), batch([1]), strict=True))
    bright = (x * data.std + data.mean).mean(2)  # (R, B, S, S)
    assert bright[(y > 0) & (y < VOID)].mean() > 0.35
    assert bright[y == 0].mean() < 0.1


@pytest.mark.parametrize("metric", ["mIoU", "mAcc", "accuracy"])
def test_scores_are_those_of_scikit_learn_over_all_pixels(metric):
    task = SegmentationTask(metric=metric)
    torch.manual_seed(0)
    network = task.build().eval()
    data = task.items("test", 20)
    images, masks = next(iter(data.batches(100)))
    for _ in range(3):  # so that batch norm and the classes are not degenerate
        network.train()(images)
    network.eval()
    found = task.evaluate([state_tensors(network)], "test", most=20)
    predicted, truth = network(images).argmax(1).flatten().numpy(), masks.flatten().numpy()
    present = np.union1d(truth, predicted)
    counts = confusion_matrix(truth, predicted, labels=range(11))
    expected = {
        "mIoU": jaccard_score(truth, predicted, average="macro", labels=present),
        "mAcc": np.mean([counts[c, c] / counts[c].sum() for c in range(11) if counts[c].sum()]),
        "accuracy": (truth == predicted).mean(),
    }
    assert found.value.item() == pytest.approx(expected[metric], rel=1e-4)
    assert found.loss.item() == pytest.approx(task.loss(network(images)[None], masks[None]).mean().item(), rel=1e-4)


def test_pixels_without_a_class_count_neither_in_the_loss_nor_in_the_score():
    task, logits = SegmentationTask(), torch.randn(1, 2, 11, 4, 4)
    classes = torch.randint(11, (1, 2, 4, 4))
    classes[0, 0, :2] = VOID
    cut = task.loss(logits[:, :1, :, 2:], classes[:, :1, 2:])
    assert task.loss(logits, classes)[0, 0].item() == pytest.approx(cut.item())
    assert task.loss(logits, torch.full_like(classes, VOID)).tolist() == [[0, 0]]


def test_one_class_everywhere_has_the_score_of_chance():
    for metric in ("mIoU", "accuracy"):
        task = SegmentationTask(metric=metric)
        network = task.build()
        for name, parameter in network.named_parameters():
            parameter.data.zero_()
            if name == "classifier.0.bias":
                parameter.data[0] = 1
        found = task.evaluate([state_tensors(network)], "test").value.item()
        assert found == pytest.approx(task.chance(task.data("test").targets), abs=1e-3)


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(ParamgenError, match=r"Unknown dataset 'vox'\. Did you mean 'voc'"):
        SegmentationTask("vox")
    with pytest.raises(ParamgenError, match="metric is 'IoU', expected mIoU, mAcc or accuracy"):
        SegmentationTask(metric="IoU")
    for name in LAYOUTS:
        with pytest.raises(ParamgenError, match=rf"dataset '{name}' cannot be read in .*Expected there"):
            SegmentationTask(name, root=str(tmp_path)).data("train")


def test_recipe_and_generator_config_lead_to_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--checkpoints", "3", "--epochs", "8", "--task.init_args.scenes", "120", "--optim.batch_size", "16"]
    collect = collecting("digits_fcn_trajectory", *small)
    run(capsys, collect, *line_to_report("zoo", "pdiff_digits_fcn"))
    found = rows()
    task = SegmentationTask(scenes=120)
    assert found["zoo"]["values"]["mean"] > 1.2 * task.chance(task.data("test").targets)
    assert found["samples"]["values"]["mean"] == pytest.approx(found["zoo"]["values"]["mean"], abs=0.05)


def test_a_subset_of_a_network_of_torchvision_is_generated_from_a_folder_of_ade20k(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    WRITERS["ade20k"](tmp_path)
    task = {
        "dataset": "ade20k",
        "network": "torchvision:lraspp_mobilenet_v3_large",
        "root": str(tmp_path),
        "image_size": "32",
        "metric": "mAcc",
    }
    given = [word for name, value in task.items() for word in (f"--task.{name}", value)]
    collect = [
        "collect",
        "--task",
        "SegmentationTask",
        *given,
        "--parameters",
        "[classifier.high_classifier.*]",
        "--out",
        "zoo",
    ]
    run(
        capsys,
        [
            *collect,
            "--checkpoints",
            "3",
            "--epochs",
            "1",
            "--optim.batch_size",
            "2",
            "--runs",
            "2",
            "--heldout_runs",
            "1",
        ],
    )
    run(capsys, *line_to_report("zoo", "pdiff_digits_fcn"))
    zoo = Zoo("zoo")
    assert zoo.spec.names == ["classifier.high_classifier.weight", "classifier.high_classifier.bias"]
    assert rows()["samples"]["values"]["mean"] is not None


def test_upernet_gives_every_pixel_logits_and_its_backbone_has_timms_names():
    arguments = {"backbone": "vit_tiny_patch16_224", "channels": 8, "pools": [1, 2]}
    task = SegmentationTask("ade20k", "vit_upernet", arguments, image_size=64)
    network = task.build().eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 150, 64, 64)
    assert "pyramid.vit.blocks.11.attn.qkv.weight" in network.state_dict()
