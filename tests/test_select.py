"""Choosing tensors by glob, regular expression and the papers' subsets."""

import pytest
import torch
from torch import nn

from paramgen.core.subsets import select_tensors
from paramgen.errors import ParamgenError
from paramgen.tasks.vision.networks import build_network


@pytest.fixture(scope="module")
def cnn():
    return build_network("cnn_digits", 10, (1, 8, 8))


def test_globs_and_expressions_choose_by_name_in_the_order_of_the_state_dict(cnn):
    assert select_tensors(cnn, ["norms.0.weight", "convs.*"]) == [
        "convs.0.weight",
        "convs.1.weight",
        "convs.2.weight",
        "norms.0.weight",
    ]
    assert select_tensors(cnn, [r"re:norms\.\d\.(weight|bias)"]) == [
        f"norms.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")
    ]


def test_all_is_every_floating_tensor_and_never_a_counter(cnn):
    chosen = select_tensors(cnn, ["all"])
    assert set(chosen) == {n for n, t in cnn.state_dict().items() if not n.endswith("num_batches_tracked")}


def test_last_two_norms_of_resnet18_are_the_papers_2048_numbers():
    resnet = build_network("timm:resnet18", 10, (3, 32, 32))
    chosen = select_tensors(resnet, ["last_two_norms"])
    assert chosen == [f"layer4.1.bn{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
    assert sum(resnet.state_dict()[name].numel() for name in chosen) == 2048


def test_norms_hold_their_statistics_and_classifier_is_the_last_layer(cnn):
    assert "norms.2.running_var" in select_tensors(cnn, ["norms"])
    assert select_tensors(cnn, ["classifier"]) == ["classifier.weight", "classifier.bias"]
    vit = build_network("timm:vit_tiny_patch16_224", 10, (3, 224, 224))
    assert select_tensors(vit, ["classifier"]) == ["head.weight", "head.bias"]
    assert select_tensors(vit, ["last_two_norms"])[-1] == "norm.bias"


def test_tied_tensors_are_chosen_under_both_names():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    assert select_tensors(network, ["all"]) == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["convs.0.wieght"], "'convs.0.wieght' matches nothing. Did you mean 'convs.0.weight'"),
        (["all", "layer4.*"], r"'layer4.\*' matches nothing"),
        (["last_two_norm"], "Did you mean 'last_two_norms'"),
        (["re:("], "not a valid regular expression"),
        (["norms.0.num_batches_tracked"], "matches nothing"),
        ([], "no parameters selected"),
    ],
)
def test_pattern_that_selects_nothing_is_one_line_with_near_names(cnn, patterns, message):
    with pytest.raises(ParamgenError, match=message):
        select_tensors(cnn, patterns)


def test_network_without_norms_has_no_last_two():
    with pytest.raises(ParamgenError, match="'last_two_norms' matches nothing"):
        select_tensors(nn.Linear(2, 2, dtype=torch.float32), ["last_two_norms"])
