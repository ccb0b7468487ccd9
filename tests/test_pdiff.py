"""p-diff: two phases in one fit, latents computed once, and what it draws."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from conftest import write_zoo
from dotted import nest
from paramgen.backends.pdiff import PDiff
from paramgen.errors import ParamgenError
from paramgen.generators.batches import ParamBatch
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.generators.optim import EMA, lr_factor
from paramgen.generators.sampling import SampleRequest

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
SMALL = {"autoencoder.channels": [4, 4], "denoiser.channels": [4, 4], "diffusion.num_inference_steps": 5}
AE_STEPS = 4


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("zoo") / "zoo", networks=24)


def make(zoo, **arguments):
    data = ParameterDataModule(str(zoo.path), batch_size=8, steps_per_epoch=5)
    sizes = {"seq_len": data.seq_len, "token_dim": data.token_dim, "num_networks": data.num_networks}
    return PDiff(**sizes, **nest({"autoencoder.steps": AE_STEPS, **SMALL, **arguments})), data


def fit(zoo, steps, callbacks=(), ckpt_path=None, trainer_arguments=None, **arguments):
    seed_everything(0)
    model, data = make(zoo, **arguments)
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, callbacks=[*callbacks], **QUIET, **(trainer_arguments or {})
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return model, trainer


class Watch(Callback):
    """Weights before and after every step, and which loss was logged."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, model, *_):
        self.before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def on_train_batch_end(self, trainer, model, *_):
        moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, self.before[n])}
        self.steps.append(
            (moved, {n for n in trainer.callback_metrics if n != "train/loss" and n.startswith("train/")})
        )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_each_phase_moves_its_own_weights_and_no_bit_of_the_others(zoo, precision):
    watch = Watch()
    fit(zoo, 9, [watch], trainer_arguments={"precision": precision}, **{"optimizer.weight_decay": 0.5})
    assert [moved for moved, _ in watch.steps] == [{"autoencoder"}] * AE_STEPS + [{"denoiser"}] * 5
    assert watch.steps[AE_STEPS - 1][1] == {"train/ae_loss"}
    assert "train/diffusion_loss" in watch.steps[-1][1]


@pytest.mark.parametrize(("stop", "moves"), [(2, ["autoencoder", "autoencoder", "denoiser"]), (6, ["denoiser"] * 3)])
def test_resume_lands_in_the_right_phase(zoo, tmp_path, stop, moves):
    seed_everything(0)
    model, data = make(zoo)
    trainer = Trainer(accelerator="cpu", max_steps=9, max_epochs=-1, callbacks=[Stop(stop)], **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    watch = Watch()
    resumed, _ = fit(zoo, stop + 3, [watch], tmp_path / "x.ckpt")
    assert [moved for moved, _ in watch.steps] == [{m} for m in moves]
    if stop > AE_STEPS:
        torch.testing.assert_close(resumed.latent_mean, model.latent_mean, rtol=0, atol=0)


class Stop(Callback):
    """Ends a fit early, as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= self.step


def test_latents_are_encoded_once_in_eval_mode(zoo, monkeypatch):
    seen = []
    encode = PDiff._encode

    def counted(self, x):
        seen.append((len(x), self.autoencoder.training))
        return encode(self, x)

    monkeypatch.setattr(PDiff, "_encode", counted)
    model, trainer = fit(zoo, 9, trainer_arguments={"limit_val_batches": 0}, **{"autoencoder.norm": "batch"})
    assert sum(n for n, _ in seen) == trainer.datamodule.num_networks
    assert not any(training for _, training in seen)
    assert model._latents is not None


def test_latents_of_a_batch_are_those_of_its_networks(zoo):
    model, trainer = fit(zoo, 5, **{"autoencoder.kind": "pca"})
    batch = next(iter(trainer.datamodule.train_dataloader()))
    z = (model._encode(batch.x.flatten(1)) - model.latent_mean) / model.latent_std
    torch.testing.assert_close(model._latents[batch.index], z, rtol=0, atol=1e-4)


@pytest.mark.parametrize("how", ["each", "whole", "none"])
def test_standardised_latents_have_unit_variance(zoo, how):
    model, _ = fit(zoo, 5, **{"autoencoder.kind": "pca", "autoencoder.standardise": how, "autoencoder.latent_dim": 4})
    std, z = model._latents.std(0, correction=0).flatten(), model._latents
    if how == "each":
        torch.testing.assert_close(std, torch.ones(4), rtol=0, atol=1e-4)
    elif how == "whole":
        assert z.square().mean().sqrt().item() == pytest.approx(1, abs=1e-4)
        assert std[0] > std[-1]  # the shape is kept
    else:
        torch.testing.assert_close(z, torch.cat([model._encode(zoo_tokens(model, zoo))]))


def zoo_tokens(model, zoo):
    return model.codec.encode_many([zoo[i] for i in zoo.indices("train")]).flatten(1)


VARIANTS = {
    "paper": {},
    "released": {
        "autoencoder.convs": 1,
        "autoencoder.norm": "batch",
        "autoencoder.latent_dim": 6,
        "denoiser.kind": "conv",
        "denoiser.norm": "batch",
    },
    "linear": {"autoencoder.kind": "linear", "autoencoder.latent_dim": 5, "denoiser.kind": "mlp", "denoiser.width": 16},
    "variational": {"autoencoder.kl_weight": 1e-3},
    "vae alone": {"autoencoder.kl_weight": 1e-3, "denoiser.kind": "none"},
    "pca": {
        "autoencoder.kind": "pca",
        "denoiser.kind": "mlp",
        "denoiser.width": 16,
        "diffusion.prediction_type": "v_prediction",
    },
    "weights": {"autoencoder.kind": "none", "diffusion.prediction_type": "sample"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_fits_and_its_checkpoint_draws(zoo, tmp_path, name):
    _, trainer = fit(zoo, 6, **VARIANTS[name])
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    model = load_generator(tmp_path / "x.ckpt")
    drawn = model.draw(SampleRequest(5, generator=torch.Generator().manual_seed(0)))
    assert (drawn.scheduler is None) == (name == "vae alone")
    x = drawn.tokens
    assert x.shape == (5, *model.codec.shape)
    assert torch.isfinite(x).all()


def test_pca_p_diff_draws_from_the_zoo_it_was_fitted_on(zoo, tmp_path):
    arguments = {
        "autoencoder.kind": "pca",
        "denoiser.kind": "mlp",
        "denoiser.width": 64,
        "diffusion.prediction_type": "sample",
        "diffusion.scheduler": "DDIM",
    }
    model, _ = fit(
        zoo, 250, **{**arguments, "diffusion.num_inference_steps": 20}, trainer_arguments={"limit_val_batches": 0}
    )
    x = zoo_tokens(model, zoo)
    drawn = model.draw(SampleRequest(64, generator=torch.Generator().manual_seed(0))).tokens.flatten(1)
    between = torch.cdist(x, x).fill_diagonal_(float("inf")).min(1).values.median()
    assert torch.cdist(drawn, x).min(1).values.median() < between  # closer to a network than these are to each other
    assert torch.cdist(drawn, x).argmin(1).unique().numel() > len(x) // 2  # and to many of them


def test_a_trajectory_ends_at_the_networks_that_are_drawn(zoo, monkeypatch):
    model, _ = fit(zoo, 8)
    asked = {"num_inference_steps": 20, "scheduler": "DDIM"}
    plain = model.draw(SampleRequest(8, generator=torch.Generator().manual_seed(1), **asked)).tokens
    request = SampleRequest(8, generator=torch.Generator().manual_seed(1), keep_trajectory=True, **asked)
    watched, trajectory = (drawn := model.draw(request)).tokens, drawn.trajectory
    assert torch.equal(plain, watched)
    assert trajectory.shape == (10, *watched[:6].shape)
    assert torch.allclose(trajectory[-1], watched[:6], atol=1e-6)
    assert not torch.allclose(trajectory[0], watched[:6], atol=1e-2)
    monkeypatch.setattr("paramgen.backends.pdiff.CHUNK", 1)  # one network at a time
    alone = model.draw(SampleRequest(2, keep_trajectory=True, **asked)).trajectory
    assert alone.shape[:2] == (10, 1)


def test_chunks_do_not_change_how_many_are_drawn(zoo, monkeypatch):
    model, _ = fit(zoo, 6)
    monkeypatch.setattr("paramgen.backends.pdiff.CHUNK", 3 * model.shape[1])
    assert model.draw(SampleRequest(8)).tokens.shape == (8, *model.shape)


def test_ema_follows_exactly_in_the_first_phase_and_keeps_that_autoencoder(zoo):
    watched = {}

    class Look(Callback):
        def on_train_batch_end(self, trainer, model, *_):
            if trainer.global_step == AE_STEPS:
                watched["autoencoder"] = copy.deepcopy(model.autoencoder.state_dict())
            watched["denoiser"] = copy.deepcopy(model.denoiser.state_dict())

    model, _ = fit(zoo, 12, [EMA(0.9, start=AE_STEPS), Look()])
    for name, value in model.autoencoder.state_dict().items():
        torch.testing.assert_close(value, watched["autoencoder"][name], rtol=0, atol=1e-6)
    assert any(not torch.equal(v, watched["denoiser"][n]) for n, v in model.denoiser.state_dict().items())


def test_lr_factors_rise_hold_and_fall():
    assert [lr_factor("constant", 10, 2)(s) for s in (0, 1, 5, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert [lr_factor("linear", 4)(s) for s in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert lr_factor("cosine", 4)(2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"autoencoder.kind": "vae"},
        {"autoencoder.kind": "gru"},
        {"denoiser.kind": "transformer"},
        {"denoiser.kind": "none", "autoencoder.kind": "pca"},
        {"diffusion.prediction_type": "x0"},
    ],
)
def test_unknown_choices_are_refused(zoo, wrong):
    with pytest.raises(ParamgenError, match=next(iter(wrong))):
        make(zoo, **wrong)


def test_the_first_phase_takes_as_many_networks_a_step_as_asked(zoo, monkeypatch):
    taken = []
    reconstruction = PDiff._reconstruction
    monkeypatch.setattr(
        PDiff, "_reconstruction", lambda s, x, *noise: taken.append(len(x)) or reconstruction(s, x, *noise)
    )
    model, _ = fit(zoo, AE_STEPS + 1, trainer_arguments={"limit_val_batches": 0}, **{"autoencoder.batch_size": 3})
    assert taken == [3] * AE_STEPS
    assert model.learned


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"autoencoder.batch_size": 0}, "autoencoder.batch_size is 0, expected 1 or more"),
        ({"optimizer.lr": -1.0}, "optimizer.lr is -1.0, expected more than 0"),
        ({"diffusion.num_inference_steps": 1001}, "num_inference_steps is 1001, expected 1 to"),
        ({"diffusion.scheduler": "DDIMM"}, "Did you mean 'DDIM'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_fit(zoo, wrong, message):
    with pytest.raises(ParamgenError, match=message):
        make(zoo, **wrong)


def test_first_phase_must_leave_steps_for_the_second(zoo):
    with pytest.raises(ParamgenError, match=r"autoencoder\.steps is 4"):
        fit(zoo, AE_STEPS)


def test_parts_of_networks_are_refused(zoo):
    model, _ = make(zoo)
    x = torch.zeros(2, *model.shape)
    with pytest.raises(ParamgenError, match="tokens_per_step"):
        model.loss(ParamBatch(x, None, torch.arange(2), torch.arange(2), torch.arange(1)))
