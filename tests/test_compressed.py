"""Pruned and int8 networks: every source of networks keeps the zoo's sparsity and its bits."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paramgen.cli.commands import evaluate
from paramgen.cli.commands.compare_steps import ZooSource, make_zoo
from paramgen.collect import single
from paramgen.collect.compressing import ORIGIN, prune, quantise
from paramgen.collect.importing import import_
from paramgen.collect.train import OptimSettings
from paramgen.core.codec import FlatCodec, ParamCodec, TokenCodec
from paramgen.core.discrete import rounded
from paramgen.core.io import read_json, read_tensors
from paramgen.core.params import ParamSpec
from paramgen.core.sample_writer import write_samples
from paramgen.core.samples import SampleInfo
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.studies import tickets
from paramgen.tasks import ClassificationTask, DetectionTask, PrunedTask, QuantisedTask, SegmentationTask, task_of
from paramgen.tasks.compressed import compressible
from paramgen.tasks.pruned import magnitude_masks, pruned_state
from paramgen.tasks.quantised import quantised_state
from whole_line import fitted_samples


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    task = ClassificationTask(network_args={"hidden": [16]})
    how = {"epochs": 0, "runs": 8, "checkpoints": 1, "save_every": 60, "heldout_runs": 2}
    optim = OptimSettings(lr=0.01)
    return single.main(task, str(tmp_path_factory.mktemp("dense") / "zoo"), **how, finetune=optim)


@pytest.fixture(scope="module")
def own(dense):
    return prune(
        str(dense.path), str(dense.path.with_name("own")), sparsity=0.75, steps=60, optim=OptimSettings(lr=0.01)
    )


@pytest.fixture(scope="module")
def int8(dense):
    return quantise(str(dense.path), str(dense.path.with_name("int8")))


def zeros(zoo, state):
    """Share of zeros in the weights that each layer runs with."""
    full = zoo.complete(state)
    masks = [name for name in full if name.endswith("weight_mask")]
    return [((full[name] * full[name.replace("_mask", "_orig")]) == 0).float().mean().item() for name in masks]


def masks(state):
    return [tensor for name, tensor in state.items() if name.endswith("_mask")]


@pytest.mark.parametrize("codec", [FlatCodec("centre"), TokenCodec(64, normalisation="layer")])
def test_generated_masks_are_masks_of_the_zoos_sparsity_whatever_is_drawn(own, codec):
    codec.bind(own.spec, own)
    again = ParamCodec.from_state_dict(codec.state_dict())
    states = codec.decode_many(codec.encode_many(list(own), torch.float64))
    for state, original in zip(states, own, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(masks(state), masks(original), strict=True))
    for state in again.decode_many(torch.randn(5, *codec.shape)):
        for mask, first in zip(masks(state), masks(own[0]), strict=True):
            assert set(mask.unique().tolist()) == {0, 1}
            assert mask.sum() == first.sum()


def test_a_zoo_of_pruned_networks_is_as_sparse_as_it_says_and_about_as_good(own, dense):
    assert isinstance(task_of(own), PrunedTask)
    for i in range(len(own)):
        assert zeros(own, own[i]) == pytest.approx([0.75, 0.75], abs=0.003)
    assert len({tuple(torch.cat([m.flatten() for m in masks(own[i])]).tolist()) for i in range(8)}) == 8
    mean = [sum(e.scores["val"]["score"] for e in z.entries) / len(z) for z in (own, dense)]
    assert mean[0] > mean[1] - 0.05


def test_a_shared_mask_is_kept_and_not_generated(dense):
    zoo = prune(str(dense.path), str(dense.path.with_name("shared")), sparsity=0.75, masks="shared", steps=5)
    assert not [name for name in zoo.spec.names if "mask" in name]
    assert len([name for name in zoo.base() if "mask" in name]) == 2
    drawn = zoo.spec.unflatten(torch.randn(zoo.spec.numel))
    assert zeros(zoo, drawn) == pytest.approx([0.75, 0.75], abs=0.003)


def test_int8_weights_are_stored_generated_and_scored_in_int8(int8, dense):
    task, plain = task_of(int8), task_of(dense)
    assert isinstance(task, QuantisedTask)
    kept = read_tensors(int8.file(0))
    assert {str(t.dtype) for n, t in kept.items() if n.endswith(("weight_int8", "zero_point"))} == {"torch.int8"}
    codec = TokenCodec(64, normalisation="centre").bind(int8.spec, int8)
    for state, original in zip(codec.decode_many(codec.encode_many(list(int8), torch.float64)), int8, strict=True):
        assert all(state[n].dtype == original[n].dtype for n in int8.spec.names)
        assert all(torch.equal(state[n], original[n]) for n in int8.spec.names if original[n].dtype == torch.int8)
    scores = [t.evaluate([z.full(i) for i in range(8)], "val").value for t, z in ((task, int8), (plain, dense))]
    assert (scores[0] - scores[1]).abs().max() < 0.03
    assert rounded(torch.tensor([300.0, -300.0, 1.5, float("nan")]), torch.int8).tolist() == [127, -128, 2, 0]


@pytest.mark.parametrize("compress", ["prune", "quantise"])
def test_a_score_that_is_not_a_mean_over_items_is_the_plain_tasks(compress):
    plain = SegmentationTask(scenes=6, network_args={"channels": [4, 4, 4, 4]})
    state = plain.build().state_dict()
    layers = compressible(plain.build())
    masks = magnitude_masks([state], layers, 0.5)
    task = PrunedTask(plain, 0.5) if compress == "prune" else QuantisedTask(plain)
    compressed = pruned_state(state, masks) if compress == "prune" else quantised_state(state, layers)
    network = task.build()
    network.load_state_dict(compressed)
    weights = {f"{name}.weight": network.get_submodule(name).plain().detach() for name in layers}
    found, expected = (t.evaluate([s], "val") for t, s in ((task, compressed), (plain, {**state, **weights})))
    assert torch.equal(found.value, expected.value)
    assert torch.equal(found.loss, expected.loss)
    x = torch.rand(2, 1, 32, 32)
    own = plain.build()
    own.load_state_dict(task.plain_state(compressed))
    assert torch.allclose(own.eval()(x), network.eval()(x), atol=1e-6)
    assert PrunedTask(DetectionTask(scenes=6)).takes_targets  # detectors are trained with their targets


def test_quantised_weights_are_within_half_a_step_of_the_plain_ones():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    network[0].weight.data[1] = 0  # a channel of zeros
    task = QuantisedTask.__new__(QuantisedTask)
    task.of = type("Plain", (), {"build": lambda self: network})()
    state, plain = quantised_state(network.state_dict(), compressible(network)), network.state_dict()
    quantised = task.build()
    quantised.load_state_dict(state)
    for name in ("0", "2"):
        layer = quantised.get_submodule(name)
        assert ((layer.plain() - plain[f"{name}.weight"]).abs() <= 0.51 * layer.scale).all()
    assert quantised(torch.randn(2, 3, 4, 4)).shape == (2, 5)


def test_every_row_of_a_report_has_the_zoos_sparsity_and_bits(own, int8, tmp_path):
    for zoo in (own, int8):
        copies = write_samples(tmp_path / zoo.name / "drawn", [zoo[0], zoo[1]], SampleInfo())
        generated = fitted_samples("pdiff_digits_common", zoo, tmp_path / zoo.name / "pdiff", n=2)
        out, baselines = tmp_path / zoo.name / "out", ["soup-2", "noise-0.5", "gaussian", "random-init"]
        evaluate.main(zoo=str(zoo.path), samples=[str(copies), str(generated)], out=str(out), n=2, baselines=baselines)
        results = read_json(out / "results.json")
        rows = {row["name"]: row["values"]["mean"] for row in results["rows"]}
        assert {
            "zoo",
            "held-out runs",
            "drawn",
            "pdiff",
            "soup-2",
            "noise-0.5",
            "gaussian",
            "random-init",
        } == rows.keys()
        assert rows["drawn"] > 0.7 > 0.4 > rows["random-init"]


def test_networks_of_another_sparsity_are_refused_by_name(own, dense):
    state = dense.full(0)
    other = pruned_state(state, magnitude_masks([state], ["layers.0", "layers.1"], 0.5))
    with pytest.raises(ParamgenError, match=r"weight_mask' keeps 512 weights, expected 256"):
        own.spec.check(other, "sample")


def test_masks_of_torchs_own_pruning_are_masks():
    layer = nn.utils.prune.l1_unstructured(nn.Linear(4, 5), "weight", 0.5)
    kinds = {t.name: (t.kind, t.ones) for t in ParamSpec.of(layer).tensors}
    assert kinds == {"bias": ("weight", None), "weight_orig": ("weight", None), "weight_mask": ("mask", 10)}


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_imported_masks_keep_their_number_of_ones(save, tmp_path):
    layer = nn.utils.prune.l1_unstructured(nn.Linear(4, 5), "weight", 0.5)
    (tmp_path / "theirs").mkdir()
    save(layer.state_dict(), tmp_path / "theirs" / ("0.safetensors" if save is save_file else "0.pth"))
    import_(str(tmp_path / "theirs"), str(tmp_path / "zoo"))
    assert {t.name: t.ones for t in Zoo(tmp_path / "zoo").spec.tensors}["weight_mask"] == 10


def test_tickets_are_trained_from_the_start_of_the_zoo_under_each_mask(own, dense, tmp_path):
    origin = read_tensors(own.path / ORIGIN)
    assert origin["layers.0.weight"].shape == (16, 64)
    samples = write_samples(tmp_path / "copies", [own[0], own[1]], SampleInfo())
    values = tickets.main(str(own.path), str(samples), n=2, steps=30, out=str(tmp_path), optim=OptimSettings(lr=0.01))
    rows = read_json(tmp_path / "tickets.json")["rows"]
    assert list(rows) == ["zoo", "copies", "random", "zoo, other start", "no mask"]
    assert rows["copies"] == rows["zoo"] == values["rows"]["zoo"]
    assert min(rows["zoo"]) > max(rows["random"])
    with pytest.raises(ParamgenError, match="no pruned networks with a common untrained start"):
        tickets.main(str(dense.path))


def test_a_comparison_prunes_and_quantises_a_zoo_that_came_before(dense, tmp_path):
    source = ZooSource(prune="dense", arguments={"sparsity": 0.5, "steps": 1, "masks": "shared"})
    made = make_zoo(tmp_path / "pruned", source, {"dense": dense}, seed=0)
    assert made.meta["recipe"]["sparsity"] == 0.5
    assert make_zoo(tmp_path / "pruned", source, {"dense": dense}, seed=0).path == made.path  # reused
    with pytest.raises(ParamgenError, match="must come before"):
        make_zoo(tmp_path / "int8", ZooSource(quantise="other"), {"dense": dense}, seed=0)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda zoo, out: prune(zoo, out, sparsity=1.0), "sparsity is 1.0, expected a number between 0 and 1"),
        (lambda zoo, out: quantise(str(Zoo(zoo).path.with_name("int8")), out), "networks of a QuantisedTask"),
    ],
)
def test_mistakes_with_compressed_zoos_are_named(make, expected, dense, int8, tmp_path):
    with pytest.raises(ParamgenError, match=expected):
        make(str(dense.path), str(tmp_path / "out"))
