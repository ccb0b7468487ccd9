"""Autoencoders and PCA: any size, what they learn, what normalisation keeps apart."""

import pytest
import sklearn.decomposition
import torch

from paramgen.nn.autoencoder import ConvAutoencoder, LinearAutoencoder, make_norm
from paramgen.nn.pca import PCA


@pytest.mark.parametrize("length", [1, 20, 33, 1000, 20_003])
@pytest.mark.parametrize(
    "form",
    [
        {"channels": (4, 4, 4, 4)},
        {"channels": (4, 4, 4, 4), "latent_dim": 6},
        {"channels": (4, 8, 4), "convs": 1, "norm": "batch", "activation": "elu", "variational": True},
        {"channels": (4, 4), "latent_dim": 3, "variational": True, "norm": "none", "kernel_size": 3},
    ],
)
def test_networks_of_any_length_pass_through_a_latent_of_the_declared_shape(length, form):
    autoencoder = ConvAutoencoder(length, **form).eval()
    mu, logvar = autoencoder.encode(torch.randn(2, length))
    assert mu.shape == (2, *autoencoder.latent_shape)
    assert (logvar is not None) == form.get("variational", False)
    assert autoencoder.decode(mu).shape == (2, length)


def test_released_recipe_has_its_five_convolutions_and_a_linear_latent():
    autoencoder = ConvAutoencoder(2410, (64, 128, 256, 256, 32), convs=1, norm="batch", latent_dim=128)
    convolutions = [m for m in autoencoder.encoder.modules() if isinstance(m, torch.nn.Conv1d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride) for c in convolutions] == [
        (i, o, (7,), (2,)) for i, o in ((1, 64), (64, 128), (128, 256), (256, 256), (256, 32))
    ]
    assert autoencoder.latent_shape == (1, 128)
    assert sum(isinstance(m, torch.nn.ConvTranspose1d) for m in autoencoder.decoder.modules()) == 5


def test_paper_has_two_normalised_convolutions_in_each_of_four_layers():
    autoencoder = ConvAutoencoder(100)
    assert [sum(isinstance(m, torch.nn.Conv1d) for m in layer) for layer in autoencoder.encoder[:4]] == [2, 2, 2, 2]
    assert sum(isinstance(m, torch.nn.InstanceNorm1d) for m in autoencoder.encoder.modules()) == 8


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_networks_of_a_batch_do_not_see_each_other(norm):
    autoencoder = ConvAutoencoder(50, (4, 4), norm=norm)
    x = torch.randn(3, 50)
    alone, together = autoencoder.encode(x[:1]).mu, autoencoder.encode(x).mu[:1]
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_batch_norm_decodes_alone_as_in_a_batch_once_in_eval():
    autoencoder = ConvAutoencoder(50, (4, 4), norm="batch")
    autoencoder.decode(autoencoder.encode(torch.randn(8, 50)).mu)
    autoencoder.eval()
    x = torch.randn(3, 50)
    torch.testing.assert_close(autoencoder.encode(x[:1]).mu, autoencoder.encode(x).mu[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 6, 20])
def test_group_norm_fits_any_number_of_channels(channels):
    assert make_norm("group", channels)(torch.randn(2, channels, 5)).shape == (2, channels, 5)


@pytest.mark.parametrize("autoencoder", [ConvAutoencoder(64, (8, 8), convs=1), LinearAutoencoder(64, (32,), 4)])
def test_autoencoder_learns_to_reconstruct(autoencoder):
    torch.manual_seed(0)
    x = torch.randn(16, 3) @ torch.randn(3, 64)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), 5e-3)
    for _ in range(100):
        loss = (autoencoder.decode(autoencoder.encode(x).mu) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * x.var()


def test_pca_equals_sklearn():
    x = torch.randn(12, 40, generator=torch.Generator().manual_seed(0))
    ours, theirs = PCA(40, 5), sklearn.decomposition.PCA(5).fit(x.numpy())
    ours.fit(x)
    coded = ours.encode(x)[:, 0]
    reference = torch.from_numpy(theirs.transform(x.numpy()))
    signs = (coded * reference).sum(0).sign()
    torch.testing.assert_close(coded, reference * signs, rtol=0, atol=1e-4)


def test_pca_with_all_components_is_exact():
    x = 100 + torch.randn(12, 1000, generator=torch.Generator().manual_seed(0))
    pca = PCA(1000, 11)
    pca.fit(x)
    torch.testing.assert_close(pca.decode(pca.encode(x)), x, rtol=0, atol=1e-3)
    torch.testing.assert_close(pca.components @ pca.components.T, torch.eye(11), rtol=0, atol=1e-5)


def test_pca_of_fewer_directions_than_components_leaves_the_rest_zero():
    x = torch.randn(10, 2) @ torch.randn(2, 30)
    pca = PCA(30, 9)
    pca.fit(x)
    assert torch.isfinite(pca.components).all()
    assert (pca.components.norm(dim=1) > 0.5).sum() == 2
    torch.testing.assert_close(pca.decode(pca.encode(x)), x, rtol=0, atol=1e-4)
    pca.fit(torch.ones(10, 30))  # no direction at all
    torch.testing.assert_close(pca.decode(pca.encode(x[:1])), torch.ones(1, 30))
