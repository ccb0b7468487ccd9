"""Intervals and tests, against known answers and against scipy."""

import math

import pytest
import torch
from scipy import stats

from paramgen.evaluation.intervals import Bootstrap, against, holm, paired_interval, paired_p


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rows(
    rng: torch.Generator, shift: float, networks: int = 40, images: int = 300
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of networks on the same images, some images harder than others; the first is right more often by `shift`."""
    hard = torch.rand(images, generator=rng) * 0.3
    return tuple(torch.rand(networks, images, generator=rng) < 1 - hard + shift * first for first in (1, 0))


def compared(first: torch.Tensor, second: torch.Tensor, distance: tuple[float, float] = (1.0, 1.0)):
    bootstrap, n = Bootstrap(first.shape[1]), len(first)
    a, b = (
        bootstrap.resample(name, right.double().mean(1), right, d * torch.ones(n))
        for name, right, d in zip(("first", "second"), (first, second), distance, strict=True)
    )
    return against("other", a, b)


def test_a_tenth_of_a_point_is_no_finding_and_five_points_are(rng):
    small, large = compared(*rows(rng, 0.001)), compared(*rows(rng, 0.05))
    assert small.verdict == "alike"
    assert small.score.low < 0 < small.score.high
    assert large.verdict == "better"
    first, second = rows(rng, 0.05)
    assert compared(second, first).verdict == "worse"
    assert compared(first, second).score.difference == pytest.approx(
        float(first.double().mean() - second.double().mean())
    )


def test_intervals_cover_the_truth_about_as_often_as_they_say(rng):
    covered = [compared(*rows(rng, 0.0, networks=15, images=100)).verdict == "alike" for _ in range(60)]
    assert sum(covered) >= 54  # of 60: 57 at 95 %


@pytest.mark.parametrize("networks", [2, 10])
def test_resampled_means_vary_as_the_mean_of_new_networks_would(rng, networks):
    variance, B = [], 200
    for seed in range(300):  # s^2 / N is unbiased
        scores = torch.randn(networks, generator=rng, dtype=torch.float64)
        drawn = Bootstrap(0, seed=seed, resamples=B).resample("row", scores, None, torch.ones(networks)).score
        variance.append(float(drawn[1:].var(correction=0)))
    assert sum(variance) / 300 == pytest.approx(1 / networks, rel=0.15)


def test_one_network_is_told_apart_from_none():
    right = torch.ones(1, 50, dtype=torch.bool)
    found = compared(right, ~right)
    assert (found.verdict, found.score.difference, found.distance) == ("alike", 1, None)


def test_images_are_resampled_together_and_networks_apart(rng):
    hard = torch.rand(200, generator=rng) < 0.5
    same = hard.expand(10, -1)  # all right on the same half of the images
    assert compared(same, same).score[1:] == (0, 0)
    uneven = torch.stack([torch.ones(200), torch.zeros(200)]).bool()  # two networks: which ones are drawn matters
    assert compared(uneven, uneven).score.high == pytest.approx(1)


def test_distances_are_compared_by_medians_of_finite_networks(rng):
    first, second = rows(rng, 0.0, networks=20)
    assert compared(first, second, (2.0, 1.5)).distance == pytest.approx((0.5, 0.5, 0.5))
    assert compared(first, second, (float("nan"), 1.5)).distance is None


def test_a_bootstrap_draws_the_same_for_the_same_seed(rng):
    first, second = rows(rng, 0.01)
    assert compared(first, second) == compared(first, second)


def test_paired_tests_are_scipy_s():
    gaps = [0.01, 0.03, -0.005, 0.02]
    textbook = stats.ttest_1samp(gaps, 0)
    found = paired_interval(gaps)
    assert (found.low, found.high) == pytest.approx(tuple(textbook.confidence_interval(0.95)))
    assert paired_p(gaps) == pytest.approx(textbook.pvalue)
    assert (paired_p([0.1, 0.1]), paired_p([0.0, 0.0])) == (0, 1)
    assert math.isnan(paired_p([0.1]))
    assert math.isnan(paired_interval([0.1]).low)


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    corrected = holm([0.02, float("nan"), 0.01])
    assert corrected[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(corrected[1])
    assert holm([]) == []
