"""Checkpoints as data: what does not fit is named with its file, and nothing large is built for what a small file claims."""

import pytest
import torch

from fuzz import write_checkpoint, write_graph_checkpoint, write_zoo
from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.core.codec import FlatCodec
from paramgen.errors import ParamgenError
from paramgen.generators.loading import load_generator

RECURRENT = {
    "recurrence": {"kind": "none", "d_model": [8]},
    "head": {"kind": "mlp", "hidden": 4},
    "diffusion": {"num_inference_steps": 2},
    "state": {"embedding": "normal"},
}
SMALL = {"autoencoder": {"kind": "pca", "latent_dim": 2}, "denoiser": {"kind": "mlp", "width": 4, "depth": 1}}


WIDER = [  # as many tensors as the zoo's network has, two numbers more
    {"name": name, "shape": shape, "kind": "weight", "dtype": "float32"}
    for name, shape in {
        "0.weight": [2, 2],
        "0.bias": [2],
        "1.weight": [2],
        "1.bias": [2],
        "1.running_mean": [2],
        "x": [4],
    }.items()
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("restore") / "zoo")


@pytest.fixture(params=["rpg", "pdiff"])
def checkpoint(request, zoo, tmp_path):
    codec = FlatCodec().bind(zoo.spec, zoo)
    kind, settings = (RPG, RECURRENT) if request.param == "rpg" else (PDiff, SMALL)
    model = kind(*codec.shape, num_networks=3, **settings)
    write_checkpoint(tmp_path / "x.ckpt", zoo, model, codec)
    return tmp_path / "x.ckpt"


def test_a_whole_checkpoint_samples(checkpoint, zoo):
    (state,) = load_generator(checkpoint).sample(1)
    assert state.keys() == zoo.full(0).keys()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("paramgen.fit_seconds", float("nan"), "paramgen.fit_seconds is nan, expected a finite number"),
        ("paramgen.base", {"a": 1}, "paramgen.base.a is 1, expected a tensor"),
        ("paramgen.zoo", {"name": 3}, "paramgen.zoo.name is 3, expected a text"),
        ("paramgen.codec.spec.tensors", [], "paramgen.codec.spec.tensors has 0 items"),
        ("paramgen.codec.shift", torch.zeros(2), r"codec.shift is of shape \(2,\) torch.float32, expected"),
        ("paramgen.codec.scale", torch.full((4,), torch.nan, dtype=torch.float64), "codec.scale "),
        ("paramgen.codec.init_args", {"normalisation": "none"}, "normalisation"),
        ("paramgen.codec.spec.aliases", {"x": "y"}, "spec.aliases names 'y'"),
        ("state_dict", {1: torch.zeros(1)}, "state_dict has the key 1, expected texts as keys"),
        ("state_dict", {}, "does not fit its own"),
        ("callbacks", {"SampleQuality": {"history": [1]}}, r"callbacks.SampleQuality.history is \[1\], expected an object"),
        ("paramgen.codec.spec.tensors", WIDER, r"made for tokens \(1, 14\), the checkpoint.s codec gives \(1, 16\)"),
        ("hyper_parameters.lr", [torch.ones(2, 2)], r"hyper_parameters.lr\[0\] is tensor\("),
        ("paramgen.codec.shift", torch.zeros(6).to(torch.float8_e4m3fn), "codec.shift is of shape .* expected float32"),
        ("hyper_parameters.token_dim", 2**62, "does not fit its own"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit_is_named_with_its_file(checkpoint, place, value, message):
    saved = torch.load(checkpoint, weights_only=True)
    *way, last = place.split(".")
    within = saved
    for key in way:
        within = within[key]
    within[last] = value
    torch.save(saved, checkpoint)
    with pytest.raises(ParamgenError, match=message) as caught:
        load_generator(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sizes", [{"depth": 2**31}, {"width": 2**26}, {"width": 2**62}, {"kind": "unet", "channels": [2**12] * 4}]
)
def test_nothing_large_is_built_for_what_a_small_file_claims(zoo, tmp_path, sizes):
    codec = FlatCodec().bind(zoo.spec, zoo)
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, zoo, PDiff(*codec.shape, num_networks=3, **SMALL), codec)
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["denoiser"].update(sizes)
    torch.save(saved, path)
    with pytest.raises(
        ParamgenError, match=r"more (numbers|tensors|modules) than its weights have|does not fit its own"
    ):
        load_generator(path)


def test_a_codec_of_far_more_numbers_than_the_file_has_bytes_is_refused(zoo, tmp_path):
    codec = FlatCodec().bind(zoo.spec, zoo)
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, zoo, RPG(*codec.shape, num_networks=3, **RECURRENT), codec)
    saved = torch.load(path, weights_only=True)
    wide = {"class_path": "paramgen.core.codec.TokenCodec", "init_args": {"token_dim": 2**40, "strategy": "layer"}}
    for change in (
        {"spec": {**codec.spec.to_dict(), "tensors": [{**codec.spec.to_dict()["tensors"][0], "shape": [2**40]}]}},
        wide,
    ):
        torch.save(
            {**saved, "paramgen": {**saved["paramgen"], "codec": {**saved["paramgen"]["codec"], **change}}}, path
        )
        with pytest.raises(ParamgenError, match="cannot hold them"):
            load_generator(path)


def test_no_room_is_made_for_networks_that_a_file_does_not_hold(zoo, tmp_path):
    codec = FlatCodec().bind(zoo.spec, zoo)
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, zoo, RPG(*codec.shape, num_networks=3, **RECURRENT), codec)
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["num_networks"] = 2**20
    torch.save(saved, path)
    with pytest.raises(ParamgenError, match="more numbers than its weights have, seen at 'table'"):
        load_generator(path)


def test_a_number_of_networks_below_zero_is_named(zoo, tmp_path):
    codec = FlatCodec().bind(zoo.spec, zoo)
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, zoo, RPG(*codec.shape, num_networks=3, **RECURRENT), codec)
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["num_networks"] = -7
    torch.save(saved, path)
    with pytest.raises(ParamgenError, match="states is -7, expected 0 or more"):
        load_generator(path).sample(1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("shapes", [["0.weight", [2**14, 2**14]]], "more numbers than its weights have, seen at 'order'"),
        ("shapes", [["0.weight", ["9" * 9]]], "does not fit its own"),
        ("groups", [["hidden", [["0.weight", 0, 0, 2**40, 1]]]], "does not fit its own"),
        ("groups", [["hidden", [["0.bias", 0, 0, 0, 1]] * 9]], "group 'hidden': units is 0, expected 1 or more"),
        ("groups", [["hidden", [["0.bias", 0, 0, 1, 1]] * 2]], "hidden units overlap on axis 0 of '0.bias'"),
    ],
)
def test_a_layout_of_hidden_units_that_a_file_cannot_hold_is_refused(zoo, tmp_path, field, value, message):
    path = tmp_path / "x.ckpt"
    write_graph_checkpoint(path, zoo)
    assert load_generator(path).sample(1)[0].keys() == zoo.full(0).keys()
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["layout"][field] = value
    torch.save(saved, path)
    with pytest.raises(ParamgenError, match=message) as caught:
        load_generator(path)
    assert str(path) in str(caught.value)
