"""D2NWG: the divergence of its latents, and that it is unconditional without conditions."""

import pytest
import torch

from conftest import write_zoo
from every_backend import build
from paramgen.backends.d2nwg import D2NWG
from paramgen.nn.condition import ConditionedDenoiser

SMALL = {"autoencoder": {"channels": [4, 4], "steps": 2}, "denoiser": {"channels": [4, 4]}}


def made(size=60, cond_dim=0, **autoencoder):
    arguments = {**SMALL, "autoencoder": {**SMALL["autoencoder"], **autoencoder}}
    model = D2NWG(1, size, 8, cond_dim, **arguments)
    model.mask = torch.ones(size, dtype=torch.bool)
    return model


def test_its_autoencoder_is_variational_and_its_latent_a_map():
    model = made()
    code = model.autoencoder.encode(torch.randn(3, 60))
    assert code.mu.shape == code.logvar.shape == (3, 4, 15)
    assert model.latent_shape == (4, 15)


def test_its_loss_adds_the_divergence_from_a_standard_normal():
    losses = {}
    x = torch.randn(5, 60)
    for weight in (1e-9, 2.0):
        torch.manual_seed(0)
        model = made(kl_weight=weight).eval()
        losses[weight] = model._reconstruction(x, 0.0, 0.0)
        posterior = torch.distributions.Normal(*_moments(model, x))
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    assert (losses[2.0] - losses[1e-9]).item() == pytest.approx(2 * divergence.item(), rel=1e-4)


def _moments(model, x):
    mu, logvar = model.autoencoder.encode(x)
    return mu, (logvar / 2).exp()


def test_latents_keep_their_shape_and_get_one_scale():
    model = made()
    networks = torch.randn(8, 1, 60)
    model.learn_latents([networks])
    assert (model.latent_std == model.latent_std.flatten()[0]).all()
    assert model._latents.square().mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("cond_dim", [0, 6])
def test_a_data_set_enters_every_layer_where_there_is_one(cond_dim):
    denoiser = made(cond_dim=cond_dim).denoiser
    assert isinstance(denoiser, ConditionedDenoiser) == bool(cond_dim)
    if cond_dim:
        assert denoiser.entry == "film"
        assert len(denoiser.denoiser.film) == 2


def test_a_zoo_without_tasks_makes_it_unconditional(tmp_path):
    model, _ = build({"model": {"class_path": "D2NWG", "init_args": SMALL}}, str(write_zoo(tmp_path / "zoo").path))
    assert model.cond_dim == 0
