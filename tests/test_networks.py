"""Target networks: the papers' parameter counts, names, and start weights."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from paramgen.errors import ParamgenError
from paramgen.tasks.vision.networks import NETWORKS, build_network

CIFAR, SMALL, MNIST, DIGITS = (3, 32, 32), (3, 28, 28), (1, 28, 28), (1, 8, 8)

COUNTS = [
    ("convnet3", 10, CIFAR, {}, 24_714),
    ("convnet3", 100, CIFAR, {}, 70_884),
    ("mlp3", 10, CIFAR, {}, 155_135),
    ("mlp3", 10, MNIST, {"hidden": [50], "first_bias": True}, 39_760),
    ("mlp3", 10, MNIST, {"first_bias": True}, 40_785),
    ("cnn_small", 10, SMALL, {}, 2_864),
    ("cnn_medium", 10, CIFAR, {}, 10_853),
    ("mlp", 10, DIGITS, {}, 5_018),
    ("mlp", 10, DIGITS, {"hidden": [128]}, 64 * 128 + 128 + 128 * 10 + 10),
    ("cnn_digits", 10, DIGITS, {}, 4_258),
]


@pytest.mark.parametrize(("name", "classes", "shape", "args", "count"), COUNTS)
def test_network_has_the_papers_parameter_count(name, classes, shape, args, count):
    network = build_network(name, classes, shape, **args)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.eval()(torch.zeros(2, *shape)).shape == (2, classes)


def test_every_named_network_is_counted():
    assert {name for name, *_ in COUNTS} == set(NETWORKS)


def test_timm_and_torchvision_networks_take_the_tasks_shape():
    timm = build_network("timm:resnet18", 7, (1, 32, 32))
    assert timm.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 7)
    vision = build_network("torchvision:squeezenet1_1", 5, CIFAR)
    assert vision.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_imported_class_gets_only_the_arguments_it_has():
    network = build_network("torch.nn.Linear", 10, DIGITS, in_features=3, out_features=4)
    assert network.weight.shape == (4, 3)
    ours = build_network("paramgen.tasks.vision.networks.MLP", 10, DIGITS)
    assert sum(p.numel() for p in ours.parameters()) == 5_018


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("mpl", {}, "Unknown network 'mpl'. Did you mean 'mlp'"),
        ("timm:resnet_18", {}, "Unknown timm network 'resnet_18'. Did you mean 'resnet18'"),
        ("torchvision:resnet_18", {}, "Unknown torchvision network 'resnet_18'. Did you mean 'resnet18'"),
        ("torch.nn.Linaer", {}, "cannot import network 'torch.nn.Linaer'"),
        ("collections.OrderedDict", {}, "expected a subclass of Module"),
        ("mlp", {"widths": [3]}, "widths"),
        ("mlp", {"pretrained": True}, "no published weights"),
        ("cnn_small", {}, "too small"),
    ],
)
def test_wrong_name_or_argument_is_one_line_with_what_exists(name, args, message):
    with pytest.raises(ParamgenError, match=message) as error:
        build_network(name, 10, DIGITS, **args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}}])
def test_checkpoint_becomes_the_start_weights(tmp_path, wrap):
    source = build_network("mlp", 10, DIGITS)
    torch.save(wrap(source.state_dict()), tmp_path / "w.pt")
    loaded = build_network("mlp", 10, DIGITS, checkpoint=tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("name", ["torchvision:mnasnet0_5", "torchvision:mnasnet1_0"])
def test_networks_that_load_no_state_dict_without_versions_are_loaded(tmp_path, name):
    source = build_network(name, 10, CIFAR)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = build_network(name, 10, CIFAR, checkpoint=tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True))


def test_published_weights_that_cannot_be_fetched_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    message = (
        rf"weights of torchvision:squeezenet1_1 cannot be fetched .*; put https://.*\.pth in {tmp_path}/hub/checkpoints"
    )
    with pytest.raises(ParamgenError, match=message):
        build_network("torchvision:squeezenet1_1", 5, CIFAR, pretrained=True)


def test_checkpoint_that_does_not_fit_names_the_tensor(tmp_path):
    save_file(build_network("mlp", 10, DIGITS, hidden=[40, 32]).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ParamgenError, match=r"'layers.0.weight' has shape \(40, 64\), expected \(48, 64\)"):
        build_network("mlp", 10, DIGITS, checkpoint=tmp_path / "w.safetensors")
    save_file(build_network("mlp", 10, DIGITS, hidden=[48]).state_dict(), tmp_path / "short.safetensors")
    with pytest.raises(ParamgenError, match=r"no tensor 'layers.2.weight' \(2 missing\)"):
        build_network("mlp", 10, DIGITS, checkpoint=tmp_path / "short.safetensors")


class _Payload:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickle_with_code_is_refused_and_does_not_run(tmp_path, capsys):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"w": _Payload()}))
    with pytest.raises(ParamgenError, match="cannot read"):
        build_network("mlp", 10, DIGITS, checkpoint=tmp_path / "evil.pt")
    assert "code ran" not in capsys.readouterr().out
