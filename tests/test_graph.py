"""Networks as graphs of hidden units: splitting, joining, and a denoiser that permutations pass through."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from paramgen.backends.graph import GraphDiffusion
from paramgen.collect.single import main as collect
from paramgen.core.codec import TokenCodec
from paramgen.errors import ParamgenError
from paramgen.generators.behaviour import BehaviouralLoss
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.nn.graph import GraphSettings
from paramgen.symmetry import CannotAlign, PermutationSpec, Place
from paramgen.symmetry.layout import UnitLayout, UnitParts
from paramgen.tasks import ClassificationTask, task_of
from paramgen.tasks.vision.networks import MLP, DigitsCNN
from test_align import ResidualCNN

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
SMALL = GraphSettings(width=16, pair_width=8, depth=2, heads=2)


def networks():
    """Architectures and an input of each."""
    digits = torch.zeros(2, 1, 8, 8)
    return {
        "one hidden layer": (MLP(10, (1, 8, 8), [6]), digits),
        "three hidden layers": (MLP(3, (1, 8, 8), [6, 5, 4]), digits),
        "batch norm": (DigitsCNN(10, (1, 8, 8), [3, 4, 5]), digits),
        "residual stream": (ResidualCNN(), torch.zeros(2, 3, 8, 8)),
    }


@pytest.fixture(scope="module", params=networks())
def architecture(request):
    network, inputs = networks()[request.param]
    spec = PermutationSpec.of(network, inputs)
    return spec, UnitLayout.of(spec)


def permuted(spec, x, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = x.clone()
    for group, units in spec.units.items():
        spec.permute_(x, group, torch.stack([torch.randperm(units, generator=generator) for _ in x]))
    return x


def test_joining_the_parts_of_a_network_gives_it_back(architecture):
    spec, layout = architecture
    x = torch.randn(2, spec.params.numel)
    assert torch.equal(layout.join(layout.split(x)), x)


def test_the_parts_hold_every_unit_of_every_group_and_every_number_once(architecture):
    spec, layout = architecture
    assert [count for count, _ in layout.unit_shapes] == list(spec.units.values())
    numbers = sum(count * features for count, features in layout.unit_shapes) + layout.rest_size
    for first, second, channels in layout.pair_shapes:
        numbers += layout.unit_shapes[first][0] * layout.unit_shapes[second][0] * channels
    assert numbers == layout.size == spec.params.numel


def test_a_permutation_of_units_permutes_rows_of_parts(architecture):
    spec, layout = architecture
    x = torch.arange(spec.params.numel, dtype=torch.float64)[None]
    before, after = layout.split(x), layout.split(permuted(spec, x))
    for old, new in zip(before.units, after.units, strict=True):
        assert sorted(map(tuple, old[0].tolist())) == sorted(map(tuple, new[0].tolist()))
    assert torch.equal(before.rest, after.rest)


def test_a_saved_layout_splits_alike(architecture):
    spec, layout = architecture
    x = torch.randn(1, spec.params.numel)
    again = UnitLayout.from_dict(layout.to_dict()).split(x)
    assert all(torch.equal(a, b) for a, b in zip(layout.split(x).pairs, again.pairs, strict=True))


def test_the_mean_over_units_is_the_same_after_a_permutation(architecture):
    spec, layout = architecture
    x = torch.randn(2, spec.params.numel, dtype=torch.float64)
    torch.testing.assert_close(layout.mean_over_units(x), layout.mean_over_units(permuted(spec, x)))


@pytest.mark.parametrize("name", networks())
def test_permuting_a_noised_network_permutes_the_prediction(name):
    network, inputs = networks()[name]
    spec = PermutationSpec.of(network, inputs)
    _check_equivariance(spec, UnitLayout.of(spec))


def test_units_joined_to_units_of_their_own_group_stay_equivariant():
    """A recurrent matrix (U, U): both its axes are of one group, and its diagonal joins a unit to itself."""
    groups = {"w": (Place("w", 0, 0, 5, 1), Place("w", 1, 0, 5, 1), Place("b", 0, 0, 5, 1))}
    layout = UnitLayout({"w": (5, 5), "b": (5,)}, groups)
    denoise = denoiser(layout)
    w, b = torch.randn(1, 5, 5), torch.randn(1, 5)
    order = torch.randperm(5)
    t = torch.tensor([3])

    def predicted(w, b):
        return layout.split(denoise(torch.cat([w.flatten(1), b], 1), t))

    plain, moved = predicted(w, b), predicted(w[:, order][:, :, order], b[:, order])
    torch.testing.assert_close(plain.pairs[0][:, order][:, :, order], moved.pairs[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.units[0][:, order], moved.units[0], atol=1e-5, rtol=1e-5)


def test_three_axes_of_units_are_refused_by_name():
    groups = {"a": (Place("w", 0, 0, 2, 1), Place("w", 1, 0, 2, 1), Place("w", 2, 0, 2, 1))}
    with pytest.raises(CannotAlign, match="'w' has 3 axes of hidden units, expected 2 at most"):
        UnitLayout({"w": (2, 2, 2)}, groups)


def denoiser(layout, settings=SMALL):
    """Predictions (B, P) of an untrained denoiser that uses every part of itself."""
    network = settings.make(layout.unit_shapes, layout.pair_shapes, layout.rest_size)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return lambda x, t: layout.join(UnitParts(*network(*layout.split(x), t)))


def _check_equivariance(spec, layout):
    denoise, x, t = denoiser(layout), torch.randn(2, spec.params.numel), torch.tensor([3, 700])
    predicted = denoise(x, t)
    torch.testing.assert_close(denoise(permuted(spec, x), t), permuted(spec, predicted), atol=1e-4, rtol=1e-4)
    assert (denoise(x, t.flip(0)) - predicted).abs().mean() > 1e-3  # time counts


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A zoo of trained networks with two hidden layers of 5 and 4 units."""
    folder = tmp_path_factory.mktemp("graph") / "zoo"
    task = ClassificationTask("digits", "mlp", network_args={"hidden": [5, 4]})
    collect(task, str(folder), mode="seeds", runs=8, checkpoints=1, epochs=1, val_runs=1, heldout_runs=1)
    return folder


def fitted(zoo, max_steps=4, behaviour=None, **data_arguments):
    seed_everything(0)
    data = ParameterDataModule(str(zoo), batch_size=4, **data_arguments)
    sizes = {"width": 16, "pair_width": 8, "depth": 1, "heads": 2}
    model = GraphDiffusion(data.seq_len, data.token_dim, data.layout, sizes, {"num_inference_steps": 3})
    callbacks = [] if behaviour is None else [behaviour]
    trainer = Trainer(accelerator="cpu", max_steps=max_steps, max_epochs=-1, callbacks=callbacks, **QUIET)
    trainer.fit(model, data)
    return model, data, trainer


def test_a_checkpoint_alone_draws_networks_of_the_task(zoo, tmp_path):
    model, data, trainer = fitted(zoo)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = load_generator(tmp_path / "x.ckpt")
    first, second = (m.sample(2, generator=torch.Generator().manual_seed(3)) for m in (model, again))
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    assert task_of(data.zoo).evaluate(second, "val").value.isfinite().all()


def test_tokens_of_any_codec_hold_the_same_networks(zoo):
    model, _, _ = fitted(zoo, codec=TokenCodec(token_dim=7))
    x = torch.randn(2, model.layout.size)
    assert torch.equal(model._flat(model._tokens(x)), x + model.centre)


def test_balanced_networks_compute_the_same_and_have_equal_norms_in_and_out(zoo):
    data = ParameterDataModule(str(zoo), balance=True)
    data.setup("fit")
    raw, balanced = data.zoo.full(0), {**data.zoo.base(), **data.networks([0])[0]}
    x = torch.randn(8, 1, 8, 8)
    network = task_of(data.zoo).build()
    torch.testing.assert_close(
        torch.func.functional_call(network, raw, x), torch.func.functional_call(network, balanced, x)
    )
    into = torch.cat([balanced["layers.0.weight"], balanced["layers.0.bias"][:, None]], 1).norm(dim=1)
    torch.testing.assert_close(into, balanced["layers.1.weight"].norm(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(data.training_weights()[0], data.zoo.spec.flatten(balanced), rtol=1e-4, atol=1e-5)


def test_networks_of_other_splits_are_balanced_too(zoo):
    data = ParameterDataModule(str(zoo), balance=True)
    data.setup("fit")
    (batch,) = data.val_dataloader()
    expected = data.codec.encode_many(data.networks(data.zoo.indices("val")))
    assert torch.equal(batch.x, expected)


def test_balance_is_refused_where_networks_stay_on_disk(zoo):
    with pytest.raises(ParamgenError, match=r"data\.balance needs all networks in memory"):
        ParameterDataModule(str(zoo), balance=True, residency="disk")


def test_the_behavioural_loss_uses_the_prediction_of_the_loss(zoo, monkeypatch):
    calls = []
    plain = GraphDiffusion._denoise
    monkeypatch.setattr(GraphDiffusion, "_denoise", lambda self, x, t: calls.append(1) or plain(self, x, t))
    model, _, trainer = fitted(zoo, behaviour=BehaviouralLoss(1.0, images_per_step=8), max_steps=3)
    assert len(calls) == 3 + trainer.num_val_batches[0] * trainer.current_epoch
    assert trainer.callback_metrics["train/behaviour_loss"] > 0
    assert model.uses_task_data


def test_a_network_whose_units_are_unknown_is_refused_before_the_fit(zoo, tmp_path):
    with pytest.raises(ParamgenError, match=r"model\.layout is missing"):
        GraphDiffusion(1, 3)
