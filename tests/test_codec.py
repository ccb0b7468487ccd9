"""Round trips over random specs, and each normalisation against a plain computation."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TinyNet, vary
from paramgen.core.codec import FlatCodec, ParamCodec, TokenCodec
from paramgen.core.io import write_tensors
from paramgen.core.params import ParamSpec
from paramgen.core.stored import StoredTensors
from paramgen.errors import ParamgenError

NORMALISATIONS = ("layer", "weight", "centre")
STRATEGIES = ("layer", "channel", "flatten")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@st.composite
def networks(draw):
    """K state dicts of one random architecture: any shapes, dtypes, statistics, constants, offsets."""
    shapes = draw(st.lists(st.lists(st.integers(1, 5), max_size=4).map(tuple), min_size=1, max_size=5))
    count = draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    columns = {}
    for i, shape in enumerate(shapes):
        dtype = draw(st.sampled_from(DTYPES))
        scale = draw(st.sampled_from([1e-3, 1.0, 30.0]))
        habit = draw(st.sampled_from(["varied", "zero_variance", "constant_within", "running_var", "running_mean"]))
        values = torch.randn(count, *shape, generator=generator) * scale + draw(st.sampled_from([0.0, 5.0]))
        if habit == "zero_variance":
            values = values[:1].expand_as(values)
        elif habit == "constant_within":
            values = values.reshape(count, -1)[:, :1].reshape(count, *[1] * len(shape)).expand_as(values)
        name = f"layer{i}.{habit}" if habit.startswith("running") else f"layer{i}.{habit}.weight"
        columns[name] = (values.abs() if habit == "running_var" else values).to(dtype)
    return [{name: c[k].clone() for name, c in columns.items()} for k in range(count)]


def tolerance(original: torch.Tensor, name: str) -> float:
    """One rounding of the tensor's own dtype at its largest value; running_var passes through log and exp, at least 1e-5 in size."""
    return (
        2
        * torch.finfo(original.dtype).eps
        * max(original.abs().max().item(), 1e-5 if name.endswith("running_var") else 1e-30)
    )


def check_round_trip(codec, nets):
    spec = ParamSpec.of(nets[0])
    codec.bind(spec, nets)
    tokens = codec.encode_many(nets, torch.float64)
    assert tokens.shape == (len(nets), *codec.shape)
    assert torch.isfinite(tokens).all()
    assert not tokens[:, ~codec.mask].any()
    assert int(codec.mask.sum()) == spec.numel
    for original, decoded in zip(nets, codec.decode_many(tokens), strict=True):
        for name, tensor in original.items():
            assert decoded[name].dtype == tensor.dtype
            assert decoded[name].shape == tensor.shape
            error = (decoded[name].double() - tensor.double()).abs().max().item()
            assert error <= tolerance(tensor, name), name


@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from(NORMALISATIONS))
def test_flat_decode_inverts_encode(nets, normalisation):
    check_round_trip(FlatCodec(normalisation), nets)


@settings(max_examples=100, deadline=None)
@given(networks(), st.sampled_from(NORMALISATIONS), st.sampled_from(STRATEGIES), st.integers(1, 9))
def test_token_decode_inverts_encode(nets, normalisation, strategy, token_dim):
    check_round_trip(TokenCodec(token_dim, strategy, normalisation), nets)


@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from(NORMALISATIONS), st.sampled_from(STRATEGIES), st.integers(1, 9), st.randoms())
def test_tokens_read_from_files_are_bit_for_bit_those_of_the_networks(nets, normalisation, strategy, token_dim, random):
    codec = TokenCodec(token_dim, strategy, normalisation).bind(ParamSpec.of(nets[0]), nets)
    length = codec.shape[0]
    token = torch.tensor(sorted(random.sample(range(length), random.randint(1, length))))
    with TemporaryDirectory() as folder:
        files = [Path(folder, f"{k}.safetensors") for k in (0, 1)]
        for file, net in zip(files, nets[:2], strict=True):
            write_tensors(file, net)
        read = codec.encode_tokens([StoredTensors(file) for file in files], token)
    assert torch.equal(read, codec.encode_many(nets[:2])[:, token])


@settings(max_examples=30, deadline=None)
@given(networks(), st.sampled_from(NORMALISATIONS), st.sampled_from(STRATEGIES))
def test_codec_survives_its_state_dict(nets, normalisation, strategy):
    codec = TokenCodec(4, strategy, normalisation).bind(ParamSpec.of(nets[0]), nets)
    again = ParamCodec.from_state_dict(codec.state_dict())
    assert torch.equal(again.encode(nets[0]), codec.encode(nets[0]))
    assert torch.equal(again.mask, codec.mask)


def test_float32_tokens_keep_float32_weights_to_rounding():
    nets = [vary(TinyNet(), seed) for seed in range(5)]
    spec = ParamSpec.of(TinyNet())
    codec = FlatCodec().bind(spec, nets)
    for net, decoded in zip(nets, codec.decode_many(codec.encode_many(nets)), strict=True):
        for name in spec.names:
            torch.testing.assert_close(decoded[name], net[name], rtol=1e-6, atol=1e-6)


def test_tied_names_come_back():
    nets = [vary(TinyNet(), seed) for seed in range(3)]
    codec = FlatCodec().bind(ParamSpec.of(TinyNet()), nets)
    decoded = codec.decode(codec.encode(nets[0]))
    assert decoded["out.weight"] is decoded["linear.weight"]


def test_layer_normalisation_is_one_mean_and_std_a_tensor():
    nets = [vary(TinyNet(), seed) for seed in range(4)]
    codec = FlatCodec("layer").bind(ParamSpec.of(TinyNet()), nets)
    encoded = codec.spec.unflatten(codec.encode(nets[2])[0])["linear.weight"]
    pooled = torch.stack([n["linear.weight"] for n in nets]).double()
    expected = (nets[2]["linear.weight"].double() - pooled.mean()) / pooled.std(correction=0)
    torch.testing.assert_close(encoded.double(), expected, rtol=1e-5, atol=1e-6)


def test_weight_normalisation_standardises_each_weight():
    nets = [vary(TinyNet(), seed) for seed in range(6)]
    tokens = FlatCodec("weight").bind(ParamSpec.of(TinyNet()), nets).encode_many(nets, torch.float64)
    torch.testing.assert_close(tokens.mean(0), torch.zeros_like(tokens[0]), atol=1e-12, rtol=0)
    torch.testing.assert_close(tokens.std(0, correction=0), torch.ones_like(tokens[0]))


def test_centre_subtracts_the_mean_network_and_scales_per_tensor():
    nets = [vary(TinyNet(), seed) for seed in range(6)]
    codec = FlatCodec("centre").bind(ParamSpec.of(TinyNet()), nets)
    tokens = codec.encode_many(nets, torch.float64)
    torch.testing.assert_close(tokens.mean(0), torch.zeros_like(tokens[0]), atol=1e-12, rtol=0)
    weight = torch.stack([n["linear.weight"] for n in nets]).double()
    residual = weight - weight.mean(0)
    expected = residual[1] / residual.square().mean().sqrt()
    encoded = codec.spec.unflatten(tokens[1, 0])["linear.weight"]
    torch.testing.assert_close(encoded, expected.float(), rtol=1e-6, atol=1e-6)


def test_tensor_constant_within_each_network_but_different_between_them_has_a_spread():
    nets = [{"a.weight": torch.full((5,), value)} for value in (1.0, 2.0, 3.0)]
    codec = FlatCodec().bind(ParamSpec.of(nets[0]), nets)
    tokens = codec.encode_many(nets)
    assert tokens[0].abs().min() > 1
    torch.testing.assert_close(codec.decode(tokens[2])["a.weight"], nets[2]["a.weight"])


def test_what_never_varies_is_decoded_exactly_from_any_noise():
    nets = [{"a.weight": torch.tensor([0.1, 0.2]), "b.weight": torch.randn(3)} for _ in range(3)]
    for normalisation in NORMALISATIONS:
        codec = FlatCodec("weight" if normalisation == "layer" else normalisation).bind(ParamSpec.of(nets[0]), nets)
        assert torch.equal(codec.decode(torch.randn(codec.shape) * 100)["a.weight"], nets[0]["a.weight"])


def test_no_sample_has_a_negative_variance():
    nets = [vary(TinyNet(), seed) for seed in range(4)]
    codec = FlatCodec().bind(ParamSpec.of(TinyNet()), nets)
    for state in codec.decode_many(torch.randn(50, *codec.shape) * 10):
        assert (state["norm.running_var"] >= 0).all()


def test_one_element_tensors_and_scalars_are_generated():
    nets = [vary(TinyNet(), seed) for seed in range(4)]
    codec = FlatCodec().bind(ParamSpec.of(TinyNet()), nets)
    scales = {state["scale"].item() for state in codec.decode_many(torch.randn(8, *codec.shape))}
    assert len(scales) == 8


def test_positions_name_each_tokens_tensor_and_place():
    codec = TokenCodec(5)
    codec.lay_out(ParamSpec.of({"a.weight": torch.zeros(3, 4), "b.bias": torch.zeros(2)}))
    assert codec.positions.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert codec.mask.sum(1).tolist() == [5, 5, 2, 2]


def test_channel_strategy_gives_each_output_channel_its_own_tokens():
    codec = TokenCodec(4, "channel")
    weight = torch.arange(15.0).view(3, 5)
    codec.bind(ParamSpec.of({"a.weight": weight}), [{"a.weight": weight}, {"a.weight": weight + 1}])
    assert codec.shape == (6, 4)
    assert codec.mask.sum(1).tolist() == [4, 1, 4, 1, 4, 1]


def test_files_in_other_dtypes_give_the_same_tokens_from_disk(tmp_path):
    nets = [vary(TinyNet(), seed) for seed in range(3)]
    codec = TokenCodec(4, "flatten").bind(ParamSpec.of(TinyNet()), nets)
    given = [{k: nets[0][k].double() / 3 for k in codec.spec.names}, {k: nets[1][k] for k in codec.spec.names}]
    for k, net in enumerate(given):
        write_tensors(tmp_path / f"{k}.safetensors", net)
    token = torch.tensor([0, 2, codec.shape[0] - 1])
    read = codec.encode_tokens([StoredTensors(tmp_path / f"{k}.safetensors") for k in (0, 1)], token)
    assert torch.equal(read, codec.encode_many(given)[:, token])


def test_statistics_survive_a_mean_far_larger_than_the_spread():
    nets = [{"a.weight": torch.tensor([1000.0 + k / 64, 1000.0 - k / 64])} for k in range(4)]
    codec = FlatCodec("weight").bind(ParamSpec.of(nets[0]), nets)
    expected = math.sqrt(sum((k / 64 - 1.5 / 64) ** 2 for k in range(4)) / 4)
    torch.testing.assert_close(codec.scale, torch.full((2,), expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlatCodec("z-score"), "z-score"),
        (lambda: TokenCodec(0), "token_dim is 0"),
        (lambda: TokenCodec(4, "rows"), "'rows', expected layer, channel or flatten"),
        (lambda: FlatCodec().bind(ParamSpec.of(TinyNet()), []), "no training network"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ParamgenError, match=message):
        make()


def test_tokens_of_another_shape_are_refused():
    codec = FlatCodec().bind(ParamSpec.of(TinyNet()), [vary(TinyNet(), 0)])
    with pytest.raises(ValueError, match="expected tokens"):
        codec.decode_many(torch.zeros(2, 1, 5))
