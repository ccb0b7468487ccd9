"""Whether a difference is more than chance: intervals within a seed, tests over seeds.

Within a seed, a bootstrap over both what was drawn (the networks of a row) and what it was measured on (the test images): each resample
draws networks and images with replacement, the same images for every row, so differences are paired on them. Over seeds, paired t-tests
with Holm's correction over the comparisons of one generator.

B: resamples. N: networks of a row. M: test images.
"""

from collections.abc import Sequence
from math import isnan
from statistics import mean, stdev
from typing import Literal, NamedTuple

import torch
from scipy import stats
from torch import Generator, Tensor

from paramgen.evaluation.thresholds import THRESHOLDS

RESAMPLES = 1000
_AT_ONCE = 100  # resamples in one matrix product: bounds memory at 100 x M floats
NAN = float("nan")
Verdict = Literal["better", "alike", "worse"]


class Interval(NamedTuple):
    """A difference and where it lies with 95 % confidence; nan where it cannot be had.

    Args:
        difference: As measured.
        low: Lower end.
        high: Upper end.
    """

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether the difference is above 0, below 0, or cannot be told from it."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "alike"


class Against(NamedTuple):
    """One row less another.

    Args:
        name: The other row.
        verdict: Whether the row is better in accuracy.
        accuracy: Of mean test accuracies.
        distance: Of median distances to the nearest training network, in the unit of distances; None where it is not compared.
    """

    name: str
    verdict: Verdict
    accuracy: Interval
    distance: Interval | None = None


class Resampled(NamedTuple):
    """What a row gives in each resample, the whole sample first: mean accuracy and median distance, (1 + B,) float64 each."""

    accuracy: Tensor
    distance: Tensor


class Bootstrap:
    """Resamples of test images, shared by all rows.

    Args:
        images: M.
        seed: Of the resamples.
        resamples: B.
    """

    def __init__(self, images: int, seed: int = 0, resamples: int = RESAMPLES) -> None:
        self.resamples = resamples
        self.generator = Generator().manual_seed(seed)
        self.images = torch.cat([counts.to(torch.uint8) for counts in self._counts(images)])  # (B, M)

    def resample(self, correct: Tensor, distance: Tensor) -> Resampled:
        """Draw networks of a row, independently of other rows.

        Args:
            correct: (N, M) bool, True where a network is right.
            distance: (N,) to the nearest training network, nan where there is none.
        """
        right, M = correct.float().cpu(), correct.shape[1]
        networks = torch.cat(list(self._counts(len(right))))  # (B, N)
        accuracy = [
            (some.float() @ right.T * drawn).sum(1).double() / (M * len(right))
            for some, drawn in zip(self.images.split(_AT_ONCE), networks.split(_AT_ONCE), strict=True)
        ]
        finite = distance[distance.isfinite()].double().cpu()
        middles = torch.full((1 + self.resamples,), NAN, dtype=torch.float64)
        if len(finite):
            drawn = torch.randint(len(finite), (self.resamples, len(finite)), generator=self.generator)
            middles = torch.cat([finite[None].quantile(0.5, 1), finite[drawn].quantile(0.5, 1)])
        return Resampled(torch.cat([right.double().mean()[None], *accuracy]), middles)

    def _counts(self, n: int) -> list[Tensor]:
        """How often each of n is drawn in each resample, a piece of the resamples at a time: (b, n) float32."""
        pieces = [min(_AT_ONCE, self.resamples - start) for start in range(0, self.resamples, _AT_ONCE)]
        return [
            torch.zeros(b, n).scatter_add_(1, torch.randint(n, (b, n), generator=self.generator), torch.ones(b, n))
            for b in pieces
        ]


def against(name: str, row: Resampled, other: Resampled) -> Against:
    """A row less another, by what they give in the same resamples.

    Args:
        name: The other row.
        row: As of :meth:`Bootstrap.resample`.
        other: The same.
    """
    accuracy, distance = _percentiles(row.accuracy - other.accuracy), _percentiles(row.distance - other.distance)
    return Against(name, accuracy.verdict, accuracy, None if isnan(distance.low) else distance)


def _percentiles(differences: Tensor) -> Interval:
    tail = (1 - THRESHOLDS.level) / 2
    low, high = differences[1:].quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(differences[0].item(), low, high)


def paired_interval(gaps: Sequence[float]) -> Interval:
    """Student's interval of the mean of paired differences: seeds, or tasks; nan with fewer than two."""
    if len(gaps) < 2:
        return Interval(mean(gaps), NAN, NAN)
    half = float(stats.t.ppf(0.5 + THRESHOLDS.level / 2, len(gaps) - 1)) * stdev(gaps) / len(gaps) ** 0.5
    return Interval(mean(gaps), mean(gaps) - half, mean(gaps) + half)


def paired_p(gaps: Sequence[float]) -> float:
    """p-value of a two-sided t-test of paired differences against 0; nan with fewer than two."""
    if len(gaps) < 2:
        return NAN
    if len(set(gaps)) == 1:  # no spread: scipy divides by it
        return 0.0 if gaps[0] else 1.0
    return float(stats.ttest_1samp(gaps, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: p-values so that the chance of one false finding among all of them stays at the level; nan ones stay apart.

    Args:
        p: Of every comparison of one family.
    """
    order = sorted((i for i, value in enumerate(p) if value == value), key=lambda i: p[i])
    corrected, worst = list(p), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = worst
    return corrected
