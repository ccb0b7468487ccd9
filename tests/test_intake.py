"""Every tensor of every network is generated, equal in all, or refused by name; batch norm's counters alone are exempt."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import network_kinds
from paramgen.collect.single import main as collect
from paramgen.collect.train import OptimSettings
from paramgen.core.intake import Architecture, same_values
from paramgen.core.io import write_tensors
from paramgen.core.params import ParamSpec, state_tensors
from paramgen.core.samples import read_samples
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.tasks import ClassificationTask
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.weights import load_weights, load_weights_file


def make(kind, seed=0):
    torch.manual_seed(seed)
    return getattr(network_kinds, kind)()


def task_of(kind):
    return ClassificationTask(network=f"network_kinds.{kind}")


def as_type(dtype):
    return lambda state: {name: t.to(dtype) for name, t in state.items()}


def put(name, value):
    return lambda state: {**state, name: value(state[name]) if callable(value) else value}


def without(*names):
    return lambda state: {name: t for name, t in state.items() if name not in names}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("Plain", lambda s: {n: (t * 99).to(torch.int8) for n, t in s.items()}, "'a.weight' is int8, expected float32; convert"),
        ("Plain", as_type(torch.float8_e4m3fn), "'a.weight' is float8_e4m3fn, expected float32; convert quantized"),
        ("Plain", as_type(torch.complex64), "'a.weight' is complex64, expected float32"),
        ("Plain", put("b.bias", lambda t: t.double() + 1e-12), "'b.bias' is float64 and has digits that the network's float32"),
        ("BFloat16", as_type(torch.float32), None),
        ("BFloat16", lambda s: {n: t.float() * 1.001 for n, t in s.items()}, "is float32 and has digits .* bfloat16"),
        ("Plain", put("a.bias", lambda t: t.to_sparse()), "'a.bias' is sparse; convert it with to_dense"),
        ("Plain", put("a.bias", lambda t: t.to("meta")), "'a.bias' has no values"),
        ("Plain", put("a.bias", [0.0] * 16), "'a.bias' is a list, expected a tensor"),
        ("Plain", put("a.bias", lambda t: t[:4]), r"'a.bias' has shape \(4,\), expected \(16,\)"),
        ("Plain", without("a.bias", "b.bias"), r"no tensor 'a.bias' \(2 missing\); it has a.weight, b.weight"),
        ("Plain", lambda s: {f"module.{n}": t for n, t in s.items()}, "no tensor 'a.weight' .* cut off the prefix 'module.'"),
        ("Plain", put("c.bias", torch.zeros(1)), "'c.bias' is not in the network"),
        ("Complex", put("w", lambda t: t.real), "'w' is float32, expected complex64"),
        ("Tied", put("c.weight", lambda t: t + 1), "'c.weight' and 'a.weight' are one tensor in the network .* differ here"),
        ("Extra", put("_extra_state", {"version": 3}), "extra state '_extra_state' is {'version': 3}, expected the network's own"),
        ("Plain", put("_extra_state", {"version": 3}), "'_extra_state' is not in the network"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(kind, change, message):
    state, architecture = change(make(kind, 1).state_dict()), Architecture(make(kind))
    if message is None:
        make(kind).load_state_dict(architecture.fit(state, "file.pt"))
        return
    with pytest.raises(ParamgenError, match=rf"^file\.pt: .*{message}"):
        architecture.fit(state, "file.pt")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Tied", without("c.weight", "again.0.weight")),
        ("Tied", without("a.weight", "c.weight")),  # safetensors' save_model keeps any one of the names
        ("ConvNorm", without("n.num_batches_tracked")),
        ("Plain", lambda s: {name: t.bfloat16() for name, t in s.items()}),
        ("Extra", without("_extra_state")),
        ("Extra", lambda s: s),
        ("Empty", lambda s: s),
        ("Plain", lambda s: {**s, "epoch": 3}),
    ],
)
def test_what_a_strict_load_accepts_is_completed(kind, change):
    network, plain = make(kind, 1), make(kind)
    given = change(network.state_dict())
    fitted = Architecture(make(kind)).fit(given, "file.pt")
    plain.load_state_dict({**Architecture(plain).extra, **fitted}, strict=True)
    for name, tensor in state_tensors(network).items():
        kept = given.get(name, tensor)  # what was stored in bfloat16 has lost its digits already
        assert torch.equal(plain.state_dict()[name], kept.to(tensor.dtype))


@pytest.mark.parametrize(
    ("make_network", "message"),
    [
        (lambda: nn.LazyLinear(10), "'weight' of the network has no shape yet"),
        (lambda: nn.Linear(4, 2, dtype=torch.complex128), "'weight' of the network is complex128, .* use complex64"),
        (lambda: nn.Linear(4, 2, device="meta"), "'weight' of the network has no values"),
    ],
)
def test_an_architecture_that_a_zoo_cannot_hold_is_refused(make_network, message):
    with pytest.raises(ParamgenError, match=message):
        Architecture(make_network())


def test_lazily_shaped_layers_get_their_shape_from_the_images():
    network = build_network("network_kinds.Lazy", 10, (1, 8, 8))
    assert network.b.weight.shape == (10, 64)
    assert network.training


@pytest.mark.parametrize("kind", ["Permuted", "Masked"])
def test_collect_refuses_buffers_that_differ_before_it_trains(kind, tmp_path):
    small = {"runs": 2, "epochs": 100_000, "checkpoints": 1}
    with pytest.raises(
        ParamgenError, match=r"run 1 before training: '(perm|keep)' \((int64|bool)\) differs between networks"
    ):
        collect(task_of(kind), str(tmp_path / "zoo"), mode="seeds", **small)
    assert not (tmp_path / "zoo").exists()


def test_branches_of_one_network_keep_its_integer_buffers(tmp_path):
    small = {"runs": 2, "epochs": 1, "checkpoints": 2}
    collect(task_of("Permuted"), str(tmp_path / "zoo"), mode="trajectory", **small)
    zoo = Zoo(tmp_path / "zoo")
    assert all(torch.equal(zoo.full(i)["perm"], zoo.base()["perm"]) for i in range(len(zoo)))
    assert zoo.entries[0].scores["val"]["score"] > 0.3


@pytest.mark.parametrize("kind", ["Complex", "Double", "Tied", "Extra", "Scalar"])
def test_a_collected_network_of_any_kind_is_the_one_that_was_trained(kind, tmp_path):
    task = task_of(kind)
    collect(task, str(tmp_path / "zoo"), mode="seeds", runs=2, epochs=2, checkpoints=1, optim=OptimSettings(lr=0.01))
    zoo, network, data = Zoo(tmp_path / "zoo"), task.build(), task.data("val")
    for i, entry in enumerate(zoo.entries):
        network.load_state_dict({**Architecture(network).extra, **zoo.full(i)})
        dtype = next(p.dtype for p in network.parameters() if p.is_floating_point())
        with torch.no_grad():
            classes = torch.cat([network.eval()(x.to(dtype)).argmax(-1) for x, _ in data.batches(100)])
        assert (classes == data.targets).float().mean().item() == pytest.approx(entry.scores["val"]["score"], abs=0.01)


def test_dtype_of_storage_leaves_complex_tensors_as_they_are(tmp_path):
    small = {"runs": 2, "epochs": 1, "checkpoints": 1}
    collect(task_of("Complex"), str(tmp_path / "zoo"), mode="seeds", dtype="bfloat16", **small)
    assert {t.name: t.dtype for t in Zoo(tmp_path / "zoo").spec.tensors} == {
        "w": "complex64",
        "b.weight": "bfloat16",
        "b.bias": "bfloat16",
    }


def zoo_of(kind, path, seed=0):
    network = make(kind, seed)
    spec = ParamSpec.of(network)
    base = {name: t for name, t in state_tensors(network).items() if name not in {*spec.names, *spec.aliases}}
    return ZooWriter(path, spec, base, task_of(kind).config(), {}), network.state_dict()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("Permuted", put("perm", lambda t: t.flip(0)), r"'perm' \(int64\) differs between networks"),
        ("Masked", put("keep", lambda t: ~t), r"'keep' \(bool\) differs between networks"),
        ("Masked", put("keep", lambda t: t.int()), r"'keep' \(bool\) differs between networks"),
        ("Tied", put("c.weight", lambda t: t + 1), "'c.weight' is tied to 'a.weight', but differs"),
        ("Plain", put("more", torch.zeros(1)), "'more' is neither generated nor kept fixed"),
        ("Plain", put("b.bias", lambda t: t.to(torch.int8)), "'b.bias' is int8, expected float32"),
        ("ConvNorm", put("n.num_batches_tracked", torch.tensor(99)), None),
    ],
)
def test_a_zoo_and_an_evaluation_take_no_network_that_would_come_back_as_another(kind, change, message, tmp_path):
    writer, state = zoo_of(kind, tmp_path / "zoo")
    writer.add(state, run=0, step=0, seed=0)
    changed = change(state)
    write_tensors(tmp_path / "samples" / "n.safetensors", changed)
    if message is None:
        writer.add(changed, run=0, step=1, seed=0)
        assert len(read_samples(tmp_path / "samples", writer.close()).weights) == 1
        return
    with pytest.raises(ParamgenError, match=f"run 0, step 1: {message}"):
        writer.add(changed, run=0, step=1, seed=0)
    with pytest.raises(ParamgenError, match=rf"n\.safetensors: {message}"):
        read_samples(tmp_path / "samples", writer.close())


def test_an_unfinished_zoo_goes_on_with_the_tensors_that_its_networks_share_and_no_others(tmp_path):
    writer, state = zoo_of("Permuted", tmp_path / "zoo")
    writer.add(state, run=0, step=0, seed=0)
    again, _ = zoo_of("Permuted", tmp_path / "zoo")
    assert again.done == {(0, 0)}
    with pytest.raises(ParamgenError, match="incomplete zoo with another 'perm'"):
        zoo_of("Permuted", tmp_path / "zoo", seed=1)


def test_a_weights_file_whose_names_all_begin_like_a_wrappers_prefix_is_loaded(tmp_path):
    inner = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})
    for name, prefix in (("own", ""), ("wrapped", "module.")):
        save_file({prefix + k: v for k, v in inner.state_dict().items()}, tmp_path / f"{name}.safetensors")
        other = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})
        load_weights_file(other, tmp_path / f"{name}.safetensors")
        assert torch.equal(other["model"].weight, inner["model"].weight)


def test_start_weights_are_checked_like_any_others():
    load_weights(make("Tied"), without("c.weight")(make("Tied", 1).state_dict()), "file.pt")
    with pytest.raises(ParamgenError, match=r"file\.pt: 'a.weight' is int8"):
        load_weights(make("Plain"), as_type(torch.int8)(make("Plain").state_dict()), "file.pt")


def test_same_values_know_nan_kinds_and_shapes():
    nan = torch.tensor([torch.nan, 1.0])
    assert same_values(nan, nan.clone())
    assert same_values(torch.ones(2), torch.ones(2).bfloat16())
    assert not same_values(torch.ones(2), torch.ones(2).long())
    assert not same_values(torch.ones(2), torch.ones(1))
    assert not same_values(torch.ones(2), torch.ones(2) + 1e-6)
    assert same_values(torch.ones(2), torch.ones(2) + 1e-6, rtol=1e-3)
