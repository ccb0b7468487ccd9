"""Object detection: boxes of real layouts, mAP, torchvision's detectors as networks of tensors, and the line from recipe to report."""

import pytest
import torch

from dense_folders import SIZE, WRITERS, pictures
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.params import state_tensors
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import DetectionTask
from paramgen.tasks.vision.annotated import VOC_IN_COCO
from paramgen.tasks.vision.detectors import MOST_DETECTIONS, box_lists
from whole_line import collecting, line_to_report, rows, run


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_boxes_of_a_real_folder_layout_are_those_that_were_written(name, tmp_path):
    WRITERS[name](tmp_path)
    task = DetectionTask(name, "torchvision:fcos_resnet50_fpn", root=str(tmp_path), image_size=2 * SIZE[1])
    images, boxes = next(iter(task.data("test").batches(100)))
    assert images.shape == (6, 3, 64, 64)
    assert 0 <= images.min() < images.max() <= 1
    for found, (_, _, _, written) in zip(boxes, pictures("test", 6), strict=True):
        expected = torch.tensor(written).view(-1, 6)
        expected[:, :4] *= 2  # twice the size
        if name == "coco":
            expected[:, 4] = torch.tensor([VOC_IN_COCO[int(kind) - 1] for kind in expected[:, 4]])
        torch.testing.assert_close(found[found[:, 4] > 0], expected)
    assert task.num_classes == (91 if name == "coco" else 21)


def test_boxes_follow_their_turned_and_cropped_pictures(tmp_path):
    WRITERS["voc"](tmp_path)
    task = DetectionTask("voc", "torchvision:fcos_resnet50_fpn", root=str(tmp_path), image_size=64)
    order, generators = torch.arange(5).view(1, 1, 5).repeat(4, 1, 1), [torch.Generator().manual_seed(0)]
    found = 0
    for images, boxes in task.data("train").training_batches(order, generators):
        for image, things in zip(images[0], boxes[0], strict=True):
            for left, top, right, bottom, kind, _ in things.tolist():
                if kind and right - left > 6 and bottom - top > 6:
                    inside = image[:, int(top) : int(bottom), int(left) : int(right)]
                    found += 1
                    assert inside.mean() > 0.2
    assert found > 10


class Oracle(torch.nn.Module):
    """Detects what it is given in every picture."""

    def __init__(self, boxes):
        super().__init__()
        self.register_buffer("boxes", boxes)  # (M, K, 6)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images):
        return [{**found, "scores": torch.ones(len(found["labels"]))} for found in box_lists(self.boxes[: len(images)])]


def test_map_of_perfect_wrong_and_no_detections():
    task = DetectionTask()
    truth = task.items("test", 20).targets
    shifted, other, none = truth.clone(), truth.clone(), torch.zeros_like(truth)
    shifted[..., :4] += 1
    other[..., 4] = (other[..., 4] % 10 + 1) * (truth[..., 4] > 0)
    for boxes, low, high in ((truth, 0.999, 1), (shifted, 0.05, 0.6), (other, 0, 0), (none, 0, 0)):
        task.architecture = task.prepared(Oracle(boxes))  # a cached property
        assert low <= task.evaluate([state_tensors(task.architecture)], "test", most=20).value.item() <= high


def test_a_detector_of_torchvision_takes_and_returns_tensors_and_its_loss_is_its_own():
    task = DetectionTask(scenes=20)
    torch.manual_seed(0)
    network = task.build()
    images, boxes = next(iter(task.data("train").batches(4)))
    losses = network(images, boxes)
    network.eval()
    assert network(images).shape == (4, MOST_DETECTIONS, 6)
    assert losses.shape == (4,)
    plain = task.build()
    plain._forward_hooks.clear()
    plain._forward_pre_hooks.clear()
    plain.load_state_dict(network.state_dict())
    own = plain.train()(list(images), box_lists(boxes))
    assert losses[0].item() == pytest.approx(sum(own.values()).item(), rel=1e-4)


def test_networks_that_take_targets_are_trained_alone_or_among_others_alike():
    task = DetectionTask(scenes=20)
    starts = []
    for seed in range(2):
        torch.manual_seed(seed)
        starts.append(state_tensors(task.build()))
    names = [name for name in starts[0] if name.startswith("head.")]

    def trained(some):
        group = NetworkGroup(task.build(), [starts[i] for i in some], names, loss=task.loss, with_targets=True)
        settings = OptimSettings(batch_size=4)
        for _ in GroupTrainer(group, task.items("train"), settings, list(some), 2).run():
            pass
        return group.states()

    both, (second,) = trained((0, 1)), trained((1,))
    assert all(torch.equal(both[1][name], second[name]) for name in second)
    assert not torch.equal(both[1][names[0]], starts[1][names[0]])


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(ParamgenError, match=r"Unknown dataset 'coc'\. Did you mean 'coco'"):
        DetectionTask("coc")
    with pytest.raises(ParamgenError, match="metric is 'AP', expected mAP or mAP50"):
        DetectionTask(metric="AP")
    with pytest.raises(ParamgenError, match="network 'torchvision:resnet18' does not take these arguments"):
        DetectionTask(network="torchvision:resnet18").build()
    with pytest.raises(ParamgenError, match="dataset 'coco' cannot be read in"):
        DetectionTask("coco", root=str(tmp_path)).data("train")
    WRITERS["voc"](tmp_path, count=3)
    data = DetectionTask("voc", "torchvision:fcos_resnet50_fpn", root=str(tmp_path), image_size=32).data("test")
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for path in (base / "Annotations").glob("test*.xml"):
        path.write_text(path.read_text().replace("<name>", "<name>flying "))
    with pytest.raises(ParamgenError, match=r"cannot read image \d and its annotation: 'flying .*is no class of VOC"):
        next(data.batches(4))
    (base / "JPEGImages" / "test0.jpg").write_bytes(b"damaged")
    with pytest.raises(ParamgenError, match="cannot read image 0 and its annotation: cannot identify"):
        next(data.batches(4))


def test_recipe_and_generator_config_lead_to_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--checkpoints", "3", "--epochs", "2", "--task.init_args.scenes", "30", "--score_images", "10"]
    collect = collecting("digits_fcos_trajectory", *small, "--runs", "2", "--val_runs", "0")
    run(capsys, collect, *line_to_report("zoo", "rpg_digits_fcos", steps="3"))
    zoo = Zoo("zoo")
    assert zoo.spec.names[0].startswith("head.classification_head.cls_logits")
    assert 0 <= rows()["samples"]["values"]["mean"] <= 1


def test_a_box_predictor_of_torchvision_is_generated_from_a_folder_of_coco(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    WRITERS["coco"](tmp_path, count=3)
    task = {
        "dataset": "coco",
        "network": "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn",
        "network_args": "{box_detections_per_img: 5, rpn_post_nms_top_n_test: 20, rpn_post_nms_top_n_train: 20}",
        "root": str(tmp_path),
        "image_size": "64",
    }
    given = [word for name, value in task.items() for word in (f"--task.{name}", value)]
    which = [
        "--parameters",
        "[roi_heads.box_predictor.bbox_pred.*]",
        "--out",
        "zoo",
        "--checkpoints",
        "2",
        "--epochs",
        "1",
    ]
    run(capsys, ["collect", "--task", "DetectionTask", *given, *which, "--optim.batch_size", "2"])
    zoo = Zoo("zoo")
    assert zoo.spec.names == ["roi_heads.box_predictor.bbox_pred.weight", "roi_heads.box_predictor.bbox_pred.bias"]
    assert zoo.entries[0].scores["train"]["score"] is not None


def test_vitdet_is_a_detector_on_four_maps_of_timms_vit(tmp_path):
    WRITERS["voc"](tmp_path, count=2)
    arguments = {"backbone": "vit_tiny_patch16_224", "channels": 8, "rpn_post_nms_top_n_test": 10}
    network = DetectionTask("voc", "vitdet", arguments, root=str(tmp_path), image_size=64).build()
    images = torch.zeros(1, 3, 64, 64)
    assert network(images, torch.tensor([[[5.0, 5, 40, 40, 3, 0]]])).isfinite().all()
    sides = [features.shape[-1] for features in network.backbone(images).values()]
    assert sides == [16, 8, 4, 2, 1]
    assert network.eval()(images).shape == (1, MOST_DETECTIONS, 6)
