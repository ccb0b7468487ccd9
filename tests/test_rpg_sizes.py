"""Every shipped RPG config builds on the meta device, with the sizes of the paper's Table 12."""

import re
from pathlib import Path

import pytest
import timm
import torch
import yaml

from paramgen.backends.rpg import RPG
from paramgen.core.codec import TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.core.paths import list_configs
from paramgen.tasks import DetectionTask, SegmentationTask
from paramgen.tasks.vision.networks import build_network

OURS = re.compile("digits|language|llama|shape|resnet18_cifar10")  # recipes that Tables 11 and 12 do not have
CONFIGS = {n: p for n, p in list_configs().items() if n.startswith("rpg_") and not OURS.search(n)}

# d_model -> (the paper's name, its count for the recurrent model, what its own shapes give by hand)
SIZES = {
    (256, 256): ("Tiny", 1.3e6, 2 * (256 * 1096 + 576 * 5 + 3 * 8 + 512 + 512 * 256)),
    (4096, 4096): ("Small", 256e6, 2 * (4096 * 16768 + 8448 * 5 + 3 * 128 + 8192 + 8192 * 4096)),
    (8192, 8192): ("Base", 1018e6, 2 * (8192 * 33280 + 16640 * 5 + 3 * 256 + 16384 + 16384 * 8192)),
    (12288, 16384): (
        "Large",
        3076e6,
        (12288 * 49792 + 24832 * 5 + 3 * 384 + 24576 + 24576 * 12288)
        + (12288 * 66304 + 33024 * 5 + 3 * 512 + 32768 + 32768 * 16384),
    ),
}

NETWORKS = {
    "rpg_tiny_paper": ("mlp", {"hidden": [32]}, 2_410),
    "rpg_cnn_small_cifar10": ("cnn_small", {}, 2_864),
    "rpg_resnet18": ("resnet18", None, 11.7e6),
    "rpg_resnet50": ("resnet50", None, 25.6e6),
    "rpg_vit_tiny": ("vit_tiny_patch16_224", None, 5.7e6),
    "rpg_vit_small": ("vit_small_patch16_224", None, 22.1e6),
    "rpg_vit_base": ("vit_base_patch16_224", None, 86.6e6),
    "rpg_convnext_atto": ("convnext_atto", None, 3.7e6),
    "rpg_convnext_large": ("convnext_large", None, 197.8e6),
    "rpg_upernet_ade20k": (lambda: SegmentationTask("ade20k", "vit_upernet").build(), None, 125.8e6),
    "rpg_vitdet_coco": (lambda: DetectionTask("coco", "vitdet", image_size=1024).build(), None, 109.3e6),
    "rpg_mobilenetv3": ("mobilenetv3_large_100", None, 4.2e6),
}


def read(name):
    return yaml.safe_load(Path(CONFIGS[name]).read_text())


def count(module):
    return sum(p.numel() for p in module.parameters())


def target(name):
    network, arguments, _ = NETWORKS[name]
    if callable(network):
        return network()
    if arguments is None:
        classes = 10 if name == "rpg_mobilenetv3" else 1000
        return timm.create_model(network, num_classes=classes)
    return build_network(network, 10, (1, 8, 8) if network == "mlp" else (3, 28, 28), **arguments)


def test_every_config_has_a_network_here():
    assert set(CONFIGS) == set(NETWORKS)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config_builds_on_the_meta_device_with_the_counts_of_its_shapes(name):
    config = read(name)
    arguments = config["model"]["init_args"]
    with torch.device("meta"):
        network = target(name)
        spec = ParamSpec.of(network)
        codec = TokenCodec(**config["data"]["codec"]["init_args"])
    codec.lay_out(spec)
    with torch.device("meta"):
        model = RPG(*codec.shape, num_networks=50, num_runs=1, **arguments)
    size, paper, by_hand = SIZES[tuple(arguments["recurrence"]["d_model"])]
    ours = count(model.prototypes.recurrence)
    print(
        f"{name}: {spec.numel / 1e6:.3f} M in {codec.shape[0]} tokens of {codec.shape[1]}; RPG-{size}: recurrent "
        f"{ours / 1e6:.1f} M (Table 12: {paper / 1e6:.0f} M), head {count(model.head) / 1e6:.1f} M"
    )
    assert ours == by_hand
    assert count(network) == pytest.approx(NETWORKS[name][2], rel=0.02)
    assert codec.shape[1] == arguments["recurrence"]["d_model"][-1]
    assert int(codec.mask.sum()) == spec.numel


@pytest.mark.parametrize("name", ["rpg_tiny_paper", "rpg_convnext_atto", "rpg_vit_tiny", "rpg_vit_base"])
def test_table_12_counts_the_whole_model_and_one_more_square_matrix(name):
    """256, 1,018 and 3,076 M are no recurrent model of the table's own shapes, but recurrence + head + token_dim squared."""
    config = read(name)
    width = config["model"]["init_args"]["recurrence"]["d_model"][-1]
    with torch.device("meta"):
        model = RPG(10, width, num_networks=50, num_runs=1, **config["model"]["init_args"])
    paper = SIZES[tuple(config["model"]["init_args"]["recurrence"]["d_model"])][1]
    assert count(model) + width**2 == pytest.approx(paper, rel=0.06 if width == 256 else 0.002)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config_follows_table_11(name):
    config = read(name)
    model, data, trainer = config["model"]["init_args"], config["data"], config["trainer"]
    large = NETWORKS[name][2] > 50e6
    optimizer, diffusion = model["optimizer"], model["diffusion"]
    assert (optimizer["lr"], optimizer["weight_decay"]) == (1e-5 if large else 3e-5, 1e-5)
    assert trainer["max_steps"] == (120_000 if large else 80_000)
    assert data["batch_size"] == (8 if large or name == "rpg_tiny_paper" else 16)
    assert model["tokens_per_step"] == (512 if large else 1024)
    assert (diffusion["scheduler"], diffusion["num_inference_steps"]) == (("DDIM", 60) if large else ("DDPM", 1000))
    assert optimizer.get("name", "adamw") == ("adamw8bit" if large else "adamw")


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_half_precision_is_for_the_middle_of_the_training(name):
    trainer = read(name)["trainer"]
    ends = (
        [{"class_path": "paramgen.generators.callbacks.Float32Ends"}]
        if trainer.get("precision") == "bf16-mixed"
        else None
    )
    assert trainer.get("callbacks") == ends
    assert bool(ends) == (NETWORKS[name][2] > 1e6)
