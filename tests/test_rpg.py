import importlib.util

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from conftest import write_zoo
from dotted import nest
from paramgen.backends.rpg import RPG
from paramgen.core.codec import TokenCodec
from paramgen.errors import ParamgenError
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.generators.sampling import SampleRequest
from paramgen.generators.sharding import FSDP2

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
    "max_epochs": -1,
}
SMALL = {
    "recurrence.d_model": [32, 32],
    "recurrence.d_state": 8,
    "head.kind": "mlp",
    "head.hidden": 32,
    "diffusion.num_inference_steps": 4,
    "diffusion.scheduler": "DDIM",
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("rpg") / "zoo", networks=12, runs=2)  # no validation run: K = 12, R = 2


def make(zoo, token_dim=4, data_arguments=None, **arguments):
    """A model and its data, joined as the trainer joins them."""
    seed_everything(0)
    data = ParameterDataModule(str(zoo.path), TokenCodec(token_dim), **{"batch_size": 6, **(data_arguments or {})})
    data.setup()
    model = RPG(data.seq_len, data.token_dim, data.num_networks, data.num_runs, **nest({**SMALL, **arguments}))
    model.codec, model.base, model.zoo_info = data.codec, {}, {"networks": range(12), "runs": range(2)}
    model.prototypes.positions.place(data.codec.positions)
    return model, data


def inputs_of(module, call):
    """What reaches a module's forward while `call` runs."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args))
    call()
    hook.remove()
    return seen


def tokens(model, n, **asked):
    return model.draw(SampleRequest(n, **asked)).tokens


def first_batch(data):
    return next(iter(data.train_dataloader()))


def test_padding_counts_neither_in_the_loss_nor_in_its_gradients(zoo):
    model, data = make(zoo, **{"diffusion.prediction_type": "sample"})
    batch = first_batch(data)
    assert not data.codec.mask.all()
    out = torch.zeros(batch.x.shape[0] * data.seq_len, data.token_dim, requires_grad=True)
    model._denoise = lambda c, x_t, t: out
    model.loss(batch)["loss"].backward()
    padding = ~data.codec.mask.repeat(len(batch.x), 1)
    assert (out.grad[padding] == 0).all()
    assert (out.grad[~padding] != 0).all()


def test_prototypes_are_computed_once_for_each_distinct_state(zoo):
    model, data = make(zoo, **{"state.kind": "run"})
    batch = first_batch(data)
    assert set(batch.run.tolist()) == {0, 1}
    seen = inputs_of(model.prototypes.recurrence, lambda: model.loss(batch))
    assert [args[0].shape[:2] for args in seen] == [(2, data.seq_len)]


def test_every_token_gets_the_prototype_of_its_own_network_and_place(zoo):
    model, data = make(zoo, data_arguments={"tokens_per_step": 3})
    batch = first_batch(data)
    ((x_t, _, c),) = inputs_of(model.head, lambda: model.loss(batch))
    assert x_t.shape == (6 * 3, data.token_dim)
    for b in range(6):
        weights = model.prototypes.states.weights(batch.index[b : b + 1])
        z = model.prototypes(weights)[0, batch.token]
        torch.testing.assert_close(c.view(6, 3, -1)[b], model.head.project(z), rtol=1e-4, atol=1e-5)


def test_diffusion_batch_states_and_draws_bound_what_the_networks_see(zoo):
    model, data = make(zoo, tokens_per_step=10, draws_per_token=3, states_per_step=2)
    batch = first_batch(data)
    (args,) = inputs_of(model.head, lambda: model.loss(batch))
    assert len(args[0]) == 30
    (args,) = inputs_of(model.prototypes.recurrence, lambda: model.loss(batch))
    assert len(args[0]) == 2


def test_states_per_step_runs_the_recurrence_on_its_own_states_alone(zoo):
    model, data = make(zoo, states_per_step=2)
    batch = first_batch(data)
    (args,) = inputs_of(model.head, lambda: model.loss(batch))
    assert len(args[0]) == 2 * data.seq_len


@pytest.mark.parametrize("recurrent", ["mamba", "mamba1", "lstm", "transformer", "none"])
def test_ways_of_sampling_differ_in_memory_alone(zoo, recurrent, monkeypatch):
    monkeypatch.setattr("paramgen.backends.rpg.PIECE", 6)
    model, _ = make(zoo, token_dim=2, **{"recurrence.kind": recurrent})
    states = [3, 1, 3, 7]
    drawn = []
    for model.sampling in ("sequential", "partial", "full"):
        drawn.append(tokens(model, 4, state=states, temperature=0.0))
    assert drawn[0].abs().sum() > 0
    torch.testing.assert_close(drawn[0], drawn[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn[1], drawn[2], rtol=1e-4, atol=1e-5)


def test_sequential_sampling_never_holds_more_than_one_place_and_one_piece(zoo, monkeypatch):
    monkeypatch.setattr("paramgen.backends.rpg.PIECE", 4)
    model, data = make(zoo, token_dim=2, sampling="sequential", **{"recurrence.kind": "none"})
    assert data.seq_len > 8
    rows = inputs_of(model.head, lambda: tokens(model, 5))
    assert {len(args[0]) for args in rows} == {5}
    pieces = inputs_of(model.prototypes.recurrence.layers, lambda: tokens(model, 5))
    assert max(args[0].shape[1] for args in pieces) == 4


@pytest.mark.parametrize("sampling", ["sequential", "partial", "full"])
def test_a_trajectory_ends_at_the_networks_that_are_drawn(zoo, sampling):
    model, _ = make(zoo, token_dim=2, sampling=sampling)
    asked = {"num_inference_steps": 20, "state": [3, 1, 3, 7, 2, 0, 1]}
    plain = tokens(model, 7, generator=torch.Generator().manual_seed(1), **asked)
    request = SampleRequest(7, generator=torch.Generator().manual_seed(1), keep_trajectory=True, **asked)
    watched, trajectory = (drawn := model.draw(request)).tokens, drawn.trajectory
    assert torch.equal(plain, watched)
    assert trajectory.shape == (10, *watched[:6].shape)
    assert torch.equal(trajectory[-1], watched[:6])
    assert not torch.allclose(trajectory[0], watched[:6], atol=1e-2)


def test_samples_have_zeros_on_padding(zoo):
    model, data = make(zoo)
    assert (tokens(model, 3)[:, ~data.codec.mask] == 0).all()


def test_every_draw_says_whose_states_it_had_and_mixtures_are_nobody_s(zoo):
    model, _ = make(zoo)
    first = model.draw(SampleRequest(12))
    chosen = model.draw(SampleRequest(3, state=[5, 0, 5]))
    mixed = model.draw(SampleRequest(2, state=torch.full((2, 12), 1 / 12)))
    assert sorted(first.identity) == list(range(12))  # also after the model has drawn again
    assert (chosen.identity, mixed.identity, chosen.run) == ([5, 0, 5], [None, None], None)
    by_run, _ = make(zoo, **{"state.kind": "run"})
    drawn = by_run.draw(SampleRequest(2))
    assert drawn.identity is None
    assert sorted(drawn.run) == [0, 1]


def test_identities_are_places_in_the_whole_train_split(zoo):
    model, data = make(zoo, data_arguments={"max_networks": 3})
    Trainer(max_steps=1, **QUIET).fit(model, data)
    used = [zoo.indices("train").index(i) for i in data.train_indices]
    assert used != [0, 1, 2]
    assert model.draw(SampleRequest(3, state=[0, 1, 1])).identity == [used[0], used[1], used[1]]


def test_samples_land_at_the_network_of_their_state(zoo):
    model, data = make(
        zoo,
        token_dim=8,
        data_arguments={"batch_size": 12, "steps_per_epoch": 150},
        **{
            "recurrence.d_model": [64, 64],
            "state.embedding": "normal",
            "head.hidden": 64,
            "diffusion.prediction_type": "sample",
            "optimizer.lr": 3e-3,
        },
    )
    trainer = Trainer(max_steps=150, gradient_clip_val=1.0, **QUIET)
    trainer.fit(model, data)
    networks = model.sample(12, state=list(range(12)), num_inference_steps=10)
    generated = zoo.spec.flatten_many(networks)
    trained = zoo.matrix(data.train_indices)
    assert torch.cdist(generated, trained).argmin(1).tolist() == list(range(12))


def test_condition_reaches_the_last_tokens_alone_where_asked(zoo):
    model, data = make(zoo, cond_dim=3, condition_tokens=2)
    keys = [torch.cat([torch.zeros(1, 12), torch.tensor([[v, v, v, 1]])], 1) for v in (1.0, 2.0)]
    u = [model.prototypes._inputs(key, slice(None))[0] for key in keys]
    changed = (u[0] != u[1]).any(1)
    assert changed.nonzero()[:, 0].tolist() == [data.seq_len - 2, data.seq_len - 1]


def test_conditions_share_prototypes_only_when_they_are_equal(zoo):
    model, data = make(zoo, cond_dim=2, **{"state.kind": "none", "condition.dropout": 0.0})
    batch = first_batch(data)
    condition = torch.tensor([[0.0, 1], [1, 0], [0, 1], [0, 1], [1, 0], [1, 1]])
    batch = batch._replace(condition=condition, same=torch.tensor([0, 1, 0, 0, 1, 2]))
    (args,) = inputs_of(model.prototypes.recurrence, lambda: model.loss(batch))
    assert len(args[0]) == 3
    assert tokens(model, 6, condition=condition).shape == (6, *data.codec.shape)
    with pytest.raises(ParamgenError, match="needs a condition of 2 numbers"):
        tokens(model, 2)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (12, "state 12 is out of range: the generator knows the states 0 to 11"),
        (-1, "state -1 is out of range"),
        ([0, 1], r"states of shape \(2, 12\)"),
        ("all", "expected a number, a list of 3 numbers, random or mixture"),
    ],
)
def test_states_that_do_not_exist_are_refused(zoo, state, message):
    model, _ = make(zoo)
    with pytest.raises(ParamgenError, match=message):
        tokens(model, 3, state=state)


def test_state_asked_of_a_generator_without_states_is_refused(zoo):
    model, _ = make(zoo, **{"state.kind": "none"})
    with pytest.raises(ParamgenError, match="has no states to sample from"):
        tokens(model, 3, state=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head.kind": "unet"}, "expected conv or mlp"),
        ({"state.kind": "seed"}, "expected checkpoint, run or none"),
        ({"tokens_per_step": 0}, "tokens_per_step is 0, expected 1 or more"),
        ({"recurrence.d_model": [48, 48]}, "multiple of headdim 64"),
        ({"recurrence.d_model": []}, "d_model is empty"),
        ({"recurrence.d_model": [0, 0]}, r"d_model is \[0, 0\], expected widths of 1 or more"),
        ({"recurrence.d_model": [66, 66], "recurrence.kind": "none"}, "multiple of 4, not 66"),
        (
            {"recurrence.d_model": [33], "recurrence.kind": "none", "position": "index"},
            "its width must be even, not 33",
        ),
        ({"recurrence.d_state": 0}, "d_state is 0, expected 1 or more"),
        ({"head.kind": "conv", "head.channels": [1, 0, 1]}, r"channels \[1, 0, 1\]"),
        ({"head.kind": "conv", "head.kernel_size": -1}, "kernel_size -1: expected an odd one"),
        ({"optimizer.lr": -1.0}, r"lr is -1\.0, expected more than 0"),
        ({"diffusion.num_inference_steps": 0}, "num_inference_steps is 0, expected 1 to num_train_timesteps = 1000"),
        ({"diffusion.scheduler": "PNDM"}, "Unknown scheduler 'PNDM'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(zoo, arguments, message):
    with pytest.raises(ParamgenError, match=message):
        make(zoo, **arguments)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_adamw8bit_without_its_library_names_the_install_line(zoo):
    model, data = make(zoo, **{"optimizer.name": "adamw8bit"})
    with pytest.raises(ParamgenError, match=r"pip install 'paramgen\[adamw8bit\]'"):
        Trainer(max_steps=1, **QUIET).fit(model, data)


def test_adamw8bit_is_refused_with_sharded_weights_before_they_are_made(zoo):
    model, _ = make(zoo, **{"optimizer.name": "adamw8bit"})
    model.trainer = Trainer(strategy=FSDP2(), devices=2, **QUIET)
    with pytest.raises(ParamgenError, match="'adamw8bit' cannot update sharded weights"):
        model.setup("fit")


def test_only_matrices_decay_and_the_rate_falls_to_zero(zoo):
    model, data = make(zoo, data_arguments={"steps_per_epoch": 5}, **{"optimizer.weight_decay": 0.5})
    trainer = Trainer(max_steps=5, **QUIET)
    trainer.fit(model, data)
    decayed, kept = trainer.optimizers[0].param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.5, 0.0)
    assert all(p.dim() >= 2 for p in decayed["params"])
    names = {n for n, p in model.named_parameters() if any(p is q for q in kept["params"])}
    assert {
        "prototypes.recurrence.layers.0.A_log",
        "prototypes.recurrence.layers.0.norm.weight",
        "head.enter.bias",
    } <= names
    assert decayed["lr"] == pytest.approx(0, abs=1e-9)


def test_checkpoint_made_with_other_tokens_is_refused(zoo, tmp_path):
    model, data = make(zoo, token_dim=4, data_arguments={"steps_per_epoch": 1})
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    other, data = make(zoo, token_dim=8)
    with pytest.raises(ParamgenError, match="made with the codec"):
        Trainer(max_steps=2, **QUIET).fit(other, data, ckpt_path=tmp_path / "x.ckpt")
    loaded = load_generator(tmp_path / "x.ckpt")
    with pytest.raises(ParamgenError, match="the generator was made for tokens"):
        Trainer(max_steps=2, **QUIET).fit(loaded, data)


def test_places_of_the_tokens_travel_in_the_checkpoint(zoo, tmp_path):
    model, data = make(zoo, position="learned", data_arguments={"steps_per_epoch": 2})
    trainer = Trainer(max_steps=2, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = load_generator(tmp_path / "x.ckpt")
    assert torch.equal(loaded.prototypes.positions.places, data.codec.positions)
    assert torch.equal(loaded.prototypes.positions.table, model.prototypes.positions.table)
