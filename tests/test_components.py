"""Principal components of networks: against scikit-learn, and the same wherever they are used."""

import pytest
import torch
from sklearn import decomposition

from paramgen.core import distances
from paramgen.core.components import principal_axes, principal_components
from paramgen.evaluation.structure import Subspace
from paramgen.nn.pca import PCA


@pytest.fixture
def networks() -> torch.Tensor:
    """Nine networks (9, 40) of unequal spread, far from the origin."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(9, 40, generator=g) @ torch.diag(torch.linspace(0.1, 3, 40)) + 5


def test_components_are_those_of_sklearn_also_in_pieces(networks, monkeypatch):
    monkeypatch.setattr(distances, "COLUMNS_AT_ONCE", 7)
    theirs = decomposition.PCA(8).fit(networks.double().numpy())
    found = principal_components(networks.double(), 8)
    assert torch.allclose(found.basis.flip(0).abs(), torch.from_numpy(theirs.components_).abs())
    assert torch.allclose(found.z.flip(1).var(0), torch.from_numpy(theirs.explained_variance_))
    assert torch.allclose(found.mean + found.z @ found.basis, networks.double())


def test_the_latent_the_baselines_and_the_subspace_have_the_same_components(networks):
    found = principal_components(networks, 4)
    latent = PCA(40, 4)
    latent.fit(networks)
    assert torch.equal(latent.components, found.basis.flip(0))
    subspace = Subspace(networks, share=0.99)
    basis = subspace.axes.T @ (networks.double() - subspace.mean)  # (k, P)
    assert torch.allclose(basis[:4].float(), latent.components, atol=1e-6)


def test_networks_with_fewer_directions_have_zeros_for_the_rest(networks):
    twice = torch.cat([networks[:3], networks[:3]])  # 6 networks, 2 directions
    axes = principal_axes(twice)
    assert (axes.values > 0).tolist() == [False] * 4 + [True] * 2
    latent = PCA(40, 5)
    latent.fit(twice)
    found = principal_components(twice, 5)
    for basis in (latent.components, found.basis.flip(0)):
        assert torch.allclose(basis[:2] @ basis[:2].T, torch.eye(2), atol=1e-5)
        assert (basis[2:] == 0).all()
    assert principal_components(networks[:1], 2).z.tolist() == [[0.0]]
