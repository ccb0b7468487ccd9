"""Networks of any kind are run as they are: other dtypes, attention, scalars, tied weights, complex numbers, their own buffers."""

import pytest
import torch
from torch.backends import mha

import network_kinds
from paramgen.collect.train import NetworkGroup, OptimSettings, fresh_states
from paramgen.core.codec import FlatCodec, TokenCodec
from paramgen.core.io import write_tensors
from paramgen.core.params import ParamSpec, state_tensors
from paramgen.core.stored import StoredTensors
from paramgen.core.subsets import select_tensors
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.task_baselines import finetuned_copy
from paramgen.generators.behaviour import BehaviouralLoss
from paramgen.nn.statistics import with_statistics_gradients
from paramgen.symmetry import CannotAlign, PermutationSpec
from paramgen.tasks import ClassificationTask
from paramgen.tasks.batchnorm import recalibrate
from paramgen.tasks.forward import call, loadable
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks

KINDS = ["Double", "BFloat16", "Attention", "Encoder", "Scalar", "Tied", "ConvNorm", "Permuted", "Masked", "Complex"]
FLOAT_KINDS = [kind for kind in KINDS if kind not in ("Permuted", "Masked")]  # networks that differ in floats alone


def make(kind):
    return getattr(network_kinds, kind)()


def task_of(kind):
    return ClassificationTask(network=f"network_kinds.{kind}")


def zoo_of(kind, path, n=3):
    task = task_of(kind)
    states, spec = fresh_states(task.build, range(n)), ParamSpec.of(task.build())
    base = {name: t for name, t in states[0].items() if name not in {*spec.names, *spec.aliases}}
    writer = ZooWriter(path, spec, base, task.config(), {})
    for i, state in enumerate(states):
        writer.add(state, run=0, step=i, seed=0)
    return writer.close()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_module_that_loaded_the_state_dict(kind):
    data, module = ClassificationTask().data("val"), make(kind).eval()
    states = fresh_states(lambda: make(kind), range(3))
    dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
    found = score_networks(CLASSIFIES, make(kind), states, data)
    for i, state in enumerate(states):
        module.load_state_dict(state)
        with torch.no_grad():
            expected = torch.cat([module(x.to(dtype)) for x, _ in data.batches(100)]).argmax(-1)
        assert (found.predictions[i] == expected).float().mean() > 0.99  # a tie may fall either way


def test_float64_networks_are_scored_in_float64():
    network = make("Double").eval()
    logits = call(network, loadable(network, network.state_dict()), torch.randn(4, 1, 8, 8))
    assert logits.dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_left_as_it_was_also_where_modules_occur_twice(kind):
    network = make(kind)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    own = {name: id(p) for name, p in network.named_parameters(remove_duplicate=False)}
    score_networks(CLASSIFIES, network, fresh_states(lambda: make(kind), range(2)), ClassificationTask().data("val"))
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert {name: id(p) for name, p in network.named_parameters(remove_duplicate=False)} == own


@pytest.mark.parametrize("kind", ["Attention", "Encoder"])
def test_attention_in_evaluation_mode_has_the_gradients_of_training_mode(kind):
    network = make(kind)
    state = {
        name: t.requires_grad_() for name, t in loadable(network, fresh_states(lambda: make(kind), [3])[0]).items()
    }
    x = torch.randn(5, 1, 8, 8)
    found, expected = (
        torch.autograd.grad(call(module, state, x).square().sum(), list(state.values()))
        for module in (network.eval(), make(kind).train())  # without dropout both compute the same
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert mha.get_fastpath_enabled()


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_copies_of_any_kind_are_finetuned_and_lose_less(kind, tmp_path):
    task, zoo = task_of(kind), zoo_of(kind, tmp_path / "zoo")
    pool = Pool(zoo.matrix(zoo.indices("train")), None, (), zoo, task)
    drawn = finetuned_copy(pool, 4, torch.Generator().manual_seed(0), steps=10)
    assert drawn.shape == (4, zoo.spec.numel)
    data = task.data("val")
    loss = [
        score_networks(CLASSIFIES, task.build(), states, data).loss.mean()
        for states in ([*map(zoo.full, range(3))], completed(zoo, drawn))
    ]
    assert loss[1] < loss[0]


def completed(zoo, vectors):
    return [zoo.complete(zoo.spec.unflatten(v)) for v in vectors]


def test_recalibrated_networks_keep_their_own_integer_buffers():
    network, other = make("Permuted"), make("Permuted")
    state = {name: t.clone() for name, t in network.state_dict().items()}
    x = torch.randn(64, 1, 8, 8) * torch.arange(1, 65).view(8, 8)  # every pixel has a spread of its own
    (found,) = recalibrate(other, [state], [x])
    torch.testing.assert_close(found["n.running_var"], x.flatten(1)[:, state["perm"]].var(0))


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_a_group_of_any_kind_trains_each_network_as_if_alone(kind):
    states = fresh_states(lambda: make(kind), range(2))
    names = select_tensors(make(kind), ["all"])
    torch.manual_seed(0)
    x, y = torch.randn(2, 8, 1, 8, 8), torch.randint(10, (2, 8))
    results = []
    for members in ([0, 1], [0], [1]):
        group = NetworkGroup(make(kind), [states[i] for i in members], names)
        optimizer = OptimSettings("sgd", lr=0.1).make(list(group.leaves.values()))
        group.backward(x[members], y[members], [0] * len(members))
        optimizer.step()
        results.append(group.states())
    together, alone = results[0], [results[1][0], results[2][0]]
    for a, b, start in zip(together, alone, states, strict=True):
        assert list(a) == list(start)
        assert any(not torch.equal(a[name], start[name]) for name in names)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=2e-2 if kind == "BFloat16" else 1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["Attention", "Scalar", "Tied", "Double", "Complex"])
def test_the_behavioural_loss_reaches_every_tensor(kind, tmp_path):
    zoo, loss = zoo_of(kind, tmp_path / "zoo"), BehaviouralLoss()
    loss._network, loss._base, loss._family = with_statistics_gradients(make(kind)), zoo.base(), CLASSIFIES
    for loss._stacked in (True, False):
        networks = {t.name: torch.stack([s[t.name] for s in zoo]).requires_grad_() for t in zoo.spec.tensors}
        each = loss.task_loss(networks, torch.randn(3, 8, 1, 8, 8), torch.randint(10, (3, 8)))
        each.sum().backward()
        assert all(t.grad is not None and t.grad.isfinite().all() for t in networks.values())


def test_a_complex_tensor_is_generated_as_pairs_of_reals():
    spec = ParamSpec.of(make("Complex"))
    assert spec.numel == 2 * 16 * 64 + 170
    state = state_tensors(make("Complex"))
    vector = spec.flatten(state)
    assert torch.equal(vector[: 2 * 16 * 64], torch.view_as_real(state["w"]).flatten())
    back = spec.unflatten(vector)
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("codec", [FlatCodec(), TokenCodec(48), TokenCodec(48, "channel"), TokenCodec(48, "flatten")])
def test_a_codec_keeps_both_parts_of_complex_numbers(codec, tmp_path):
    states, spec = fresh_states(lambda: make("Complex"), range(3)), ParamSpec.of(make("Complex"))
    codec.bind(spec, states)
    tokens = codec.encode_many(states, torch.float64)
    for found, state in zip(codec.decode_many(tokens), states, strict=True):
        torch.testing.assert_close(found["w"], state["w"], rtol=1e-6, atol=1e-6)
    write_tensors(tmp_path / "n.safetensors", states[0])
    some = torch.tensor([0, codec.shape[0] - 1])
    read = codec.encode_tokens([StoredTensors(tmp_path / "n.safetensors")], some)
    assert torch.equal(read[0], codec.encode(states[0])[some])


def test_complex_networks_are_said_not_to_be_alignable():
    with pytest.raises(CannotAlign, match="'w' is complex"):
        PermutationSpec.of(make("Complex").eval(), torch.randn(2, 1, 8, 8), ParamSpec.of(make("Complex")))


def test_choosing_any_name_of_a_tied_tensor_chooses_the_tensor():
    spec = ParamSpec.of(make("Tied"), ["c.weight"])
    assert spec.names == ["a.weight"]
    assert set(spec.aliases) == {"c.weight", "again.0.weight"}


def test_an_empty_tensor_is_carried_and_not_generated(tmp_path):
    assert "nothing" not in select_tensors(make("Empty"), ["all"])
    zoo = zoo_of("Empty", tmp_path / "zoo")
    make("Empty").load_state_dict(zoo.full(1))


def test_tied_tensors_that_are_not_generated_are_stored(tmp_path):
    network = make("Tied")
    spec = ParamSpec.of(network, ["b.weight"])
    base = {name: t for name, t in network.state_dict().items() if name not in spec.names}
    writer = ZooWriter(tmp_path / "zoo", spec, base, task_of("Tied").config(), {})
    writer.add(network.state_dict(), run=0, step=0, seed=0)
    make("Tied").load_state_dict(writer.close().full(0))
