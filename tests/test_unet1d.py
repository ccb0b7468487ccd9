"""Denoisers: any latent, the time reaches the output, and each can learn a distribution."""

import pytest
import torch

from paramgen.diffusion import Diffusion
from paramgen.nn.unet1d import ConvChain, MLPDenoiser, UNet1d

DENOISERS = {
    "unet": lambda shape: UNet1d(shape[0], (8, 8, 8)),
    "conv": lambda shape: ConvChain(shape, (8, 16, 8)),
    "mlp": lambda shape: MLPDenoiser(shape, 64, 2),
}


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (1, 64), (3, 33), (2, 201)])
def test_prediction_has_the_latents_shape(name, shape):
    denoiser = DENOISERS[name](shape)
    z = torch.randn(3, *shape)
    assert denoiser(z, torch.tensor([1, 5, 900])).shape == z.shape
    assert denoiser(z, torch.tensor([7])).shape == z.shape


@pytest.mark.parametrize("name", DENOISERS)
def test_one_time_for_all_equals_the_same_time_for_each(name):
    torch.manual_seed(0)
    denoiser = DENOISERS[name]((2, 20)).eval()
    z = torch.randn(3, 2, 20)
    torch.testing.assert_close(denoiser(z, torch.tensor([7])), denoiser(z, torch.full((3,), 7)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DENOISERS)
def test_time_changes_the_prediction(name):
    torch.manual_seed(0)
    denoiser = DENOISERS[name]((2, 20)).eval()
    if name == "mlp":
        torch.nn.init.normal_(denoiser.last[1].weight)  # it starts at zero
    z = torch.randn(3, 2, 20)
    early, late = denoiser(z, torch.tensor([0])), denoiser(z, torch.tensor([999]))
    assert (early - late).std() > 0.03 * early.std()


@pytest.mark.parametrize("name", DENOISERS)
def test_denoiser_learns_two_points(name):
    torch.manual_seed(0)
    points = torch.randn(2, 1, 16)
    denoiser, diffusion = DENOISERS[name]((1, 16)), Diffusion(prediction_type="sample")
    optimizer = torch.optim.AdamW(denoiser.parameters(), 5e-3)
    for _ in range(150):
        loss = diffusion.loss(denoiser, points[torch.randint(2, (16,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = diffusion.sample(denoiser.eval(), (40, 1, 16), num_inference_steps=10)
    nearest = torch.cdist(x.flatten(1), points.flatten(1)).argmin(1)
    assert nearest.bincount(minlength=2).min() > 4
    apart = torch.dist(points[0], points[1])
    assert (x - points[nearest]).flatten(1).norm(dim=1).mean() < 0.3 * apart
