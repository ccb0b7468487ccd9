"""Structure, on zoos whose covariance is known."""

import math

import pytest
import torch
from torch import Tensor

from paramgen.core import distances
from paramgen.evaluation import metrics
from paramgen.evaluation.structure import Structure, Subspace

P, K = 400, 5


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def draw(rng):
    """Networks that vary along five directions, with a little noise on every weight."""
    mean, directions = 3 * torch.randn(P, generator=rng), torch.randn(K, P, generator=rng)

    def networks(n: int) -> Tensor:
        return mean + torch.randn(n, K, generator=rng) @ directions + 0.05 * torch.randn(n, P, generator=rng)

    return networks


def gaussian(zoo: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return zoo.mean(0) + zoo.std(0) * torch.randn(n, P, generator=rng)


@pytest.mark.parametrize("basis", ["held-out networks", "training runs left out", "training networks left out"])
def test_new_networks_have_structure_1_and_a_mean_with_noise_0(basis, draw, rng):
    zoo, heldout = draw(60), draw(20 if basis == "held-out networks" else 1)
    runs = torch.arange(60) // 5 if basis == "training runs left out" else torch.zeros(60, dtype=torch.int64)
    structure = Structure(zoo, runs, heldout)
    assert structure.reference.basis == basis
    noise = gaussian(zoo, 50, rng)
    assert metrics.dispersion(noise, zoo) == pytest.approx(1, abs=0.05)  # what dispersion cannot see
    assert structure.of(noise).structure == pytest.approx(0, abs=0.02)
    assert structure.of(draw(50)).structure == pytest.approx(1, abs=0.05)
    assert structure.of(zoo).structure == pytest.approx(1, abs=0.01)
    half = draw(50) + (draw(300) - zoo.mean(0)).std(0) * torch.randn(50, P, generator=rng)
    assert structure.of(half).structure == pytest.approx(0.5, abs=0.07)  # half of its variance is independent


def test_noise_on_few_weights_is_still_noise(rng):
    """Principal components along single weights hold independent noise too: it is taken off."""
    scale = torch.full((P,), 0.01)
    scale[:3] = 1
    zoo, heldout = (scale * torch.randn(n, P, generator=rng) for n in (80, 40))
    structure = Structure(zoo, torch.arange(80), heldout)
    assert structure.reference.share > 0.9
    assert not structure.reference.measurable


def test_small_zoos_are_corrected_by_leaving_networks_out(draw):
    zoo = draw(6)
    left_out = Structure(zoo, torch.zeros(6, dtype=torch.int64), zoo[:0])
    assert left_out.subspace.variance(zoo).share > 0.95  # of its own networks, by definition
    assert left_out.reference.share < 0.9  # of networks that it was not fitted on
    assert left_out.of(draw(40)).structure == pytest.approx(1, abs=0.1)


def test_where_new_runs_share_no_directions_only_structure_can_be_shown(rng):
    zoo, new = torch.randn(10, P, generator=rng), torch.randn(8, P, generator=rng)
    structure = Structure(zoo, torch.arange(10), new)
    assert not structure.reference.measurable
    assert math.isnan(structure.of(gaussian(zoo, 30, rng)).structure)
    assert math.isnan(structure.of(new).structure)
    inside = zoo.mean(0) + torch.randn(30, 10, generator=rng) @ (zoo - zoo.mean(0))
    assert structure.of(inside).structure == 1


def test_one_network_or_equal_ones_have_no_structure(draw):
    structure = Structure(draw(20), torch.arange(20), draw(5))
    assert math.isnan(structure.of(draw(1)).structure)
    assert math.isnan(structure.of(draw(1).expand(4, -1)).structure)
    assert math.isnan(structure.of(draw(1)[:0]).structure)


def test_a_subspace_in_column_pieces_equals_one_at_once(draw, monkeypatch):
    zoo, samples = draw(12), draw(7)
    whole = Subspace(zoo).variance(samples)
    monkeypatch.setattr(distances, "COLUMNS_AT_ONCE", 33)
    assert Subspace(zoo).variance(samples) == pytest.approx(whole)
    basis = torch.linalg.svd((zoo - zoo.mean(0)).double(), full_matrices=False)[2][: Subspace(zoo).dimensions]
    centred = (samples - samples.mean(0)).double()
    assert whole.share == pytest.approx(float((centred @ basis.T).square().sum() / centred.square().sum()))
