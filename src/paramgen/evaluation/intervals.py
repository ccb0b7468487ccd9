"""Whether a difference is more than chance: intervals within a seed, tests over seeds.

Within a seed, a bootstrap over both what was drawn (the networks of a row) and what it was measured on (the test items): each resample
draws networks and test items with replacement, the same items for every row, so differences are paired on them. Of N networks it draws
N - 1, which makes the variance of their mean unbiased (Rao and Wu 1988, *Resampling inference with complex survey data*). One network says
nothing of a generator's other networks: there is no interval.
Over seeds, paired t-tests with Holm's correction over the comparisons of one generator.

B: resamples. N: networks of a row. M: test items.
"""

import zlib
from collections.abc import Callable, Sequence
from math import isnan, nan
from statistics import mean, stdev
from typing import Literal, NamedTuple

import torch
from scipy import stats
from torch import Generator, Tensor

from paramgen.evaluation.thresholds import THRESHOLDS

RESAMPLES = 1000
_AT_ONCE = 100  # resamples in one matrix product: bounds memory at 100 x M floats
ROUNDING = 1e-12  # relative error of means in float64, with room
Verdict = Literal["better", "alike", "worse"]


def _mean(items: Tensor) -> Tensor:
    return items.double().mean(1)


class Interval(NamedTuple):
    """A difference and where it lies with 95 % confidence; nan if it cannot be computed.

    Args:
        difference: As measured.
        low: Lower end.
        high: Upper end.
    """

    difference: float
    low: float
    high: float

    def verdict(self, sign: int = 1) -> Verdict:
        """Whether the row is better, worse, or cannot be told apart.

        Args:
            sign: 1 where higher is better, else -1.
        """
        low, high = sorted((sign * self.low, sign * self.high)) if not isnan(self.low) else (nan, nan)
        return "better" if low > 0 else "worse" if high < 0 else "alike"


class Against(NamedTuple):
    """The difference between a row and another one.

    Args:
        name: The other row.
        verdict: Whether the row has the better score.
        score: Difference of mean test scores.
        distance: Difference of median distances to the nearest training network, in the unit of distances; None if it is not compared.
    """

    name: str
    verdict: Verdict
    score: Interval
    distance: Interval | None = None


class Resampled(NamedTuple):
    """A row's mean score and median distance, first over all of it, then in each resample: (1 + B,) float64 each."""

    score: Tensor
    distance: Tensor


class Bootstrap:
    """Resamples of test items, shared by all rows.

    Args:
        items: M; 0 for a score that is no function of single items: networks alone are resampled.
        value: Scores (N,) from items (N, M), as of :meth:`paramgen.tasks.score.Scored.value`.
        seed: Of the resamples.
        resamples: B.
    """

    def __init__(
        self, items: int, value: Callable[[Tensor], Tensor] = _mean, seed: int = 0, resamples: int = RESAMPLES
    ) -> None:
        self.seed, self.resamples, self.value = seed, resamples, value
        stream = Generator().manual_seed(seed)
        self.items = (
            [counts.to(torch.uint8) for counts in self._counts(items, items, stream)] if items else []
        )  # (b, M) each

    def resample(self, name: str, scores: Tensor, items: Tensor | None, distance: Tensor) -> Resampled:
        """Draw networks of a row, independently of other rows and of which rows there are; nan in the resamples of fewer than two.

        Args:
            name: Of the row, which has a stream of its own.
            scores: (N,).
            items: (N, M) what they are computed from; None where they are no function of single items.
            distance: (N,) to the nearest training network, nan where there is none.
        """
        scores = scores.double().cpu()
        stream = Generator().manual_seed((self.seed + zlib.crc32(name.encode())) % 2**31)
        if len(scores) < 2:
            return Resampled(*(self._unknown(values) for values in (scores, distance.double().cpu())))
        networks = self._counts(len(scores), len(scores) - 1, stream)  # (b, N) each
        resampled = (
            [scores.expand(len(drawn), -1) for drawn in networks]
            if items is None
            else [self._scores(scores, items.cpu(), some) for some in self.items]
        )
        means = [(row * drawn).sum(1) / (len(scores) - 1) for row, drawn in zip(resampled, networks, strict=True)]
        finite = distance[distance.isfinite()].double().cpu()
        if len(finite) < 2:
            middles = self._unknown(finite)
        else:
            drawn = torch.randint(len(finite), (self.resamples, len(finite) - 1), generator=stream)
            middles = torch.cat([finite[None].quantile(0.5, 1), finite[drawn].quantile(0.5, 1)])
        return Resampled(torch.cat([scores.mean()[None], *means]), middles)

    def _unknown(self, values: Tensor) -> Tensor:
        """The mean of at most one value, and nan in every resample: (1 + B,)."""
        return torch.cat([values.mean()[None], torch.full((self.resamples,), nan, dtype=torch.float64)])

    def _scores(self, scores: Tensor, items: Tensor, counts: Tensor) -> Tensor:
        """Scores (b, N) of the items (N, M) that each resample draws, by how often (b, M)."""
        values = items.float()
        if torch.allclose(self.value(values.double().mean(1, keepdim=True)), scores, rtol=1e-4, equal_nan=True):
            # a function of the mean over items, as accuracy, PSNR and perplexity are: one matrix product
            means = (counts.float() @ values.T).double() / items.shape[1]  # (b, N)
            return self.value(means.reshape(-1, 1)).view(means.shape)
        drawn = [torch.arange(items.shape[1]).repeat_interleave(count.long()) for count in counts]  # (M,) each
        return torch.stack([self.value(items[:, index]).double() for index in drawn])

    def _counts(self, n: int, draws: int, stream: Generator) -> list[Tensor]:
        """How often each of n is among the draws of each resample, a piece of the resamples at a time: (b, n) float32."""
        pieces = [min(_AT_ONCE, self.resamples - start) for start in range(0, self.resamples, _AT_ONCE)]
        return [
            torch.zeros(b, n).scatter_add_(1, torch.randint(n, (b, draws), generator=stream), torch.ones(b, draws))
            for b in pieces
        ]


def against(name: str, row: Resampled, other: Resampled, sign: int = 1) -> Against:
    """The difference between a row and another one, with its intervals over the same resamples.

    Args:
        name: The other row.
        row: As of :meth:`Bootstrap.resample`.
        other: The same.
        sign: 1 where a higher score is better, else -1.
    """
    score, distance = _percentiles(row.score, other.score), _percentiles(row.distance, other.distance)
    return Against(name, score.verdict(sign), score, None if isnan(distance.low) else distance)


def _percentiles(row: Tensor, other: Tensor) -> Interval:
    differences = row - other
    differences[differences.abs() <= ROUNDING * row.abs()] = 0.0  # equal rows differ by nothing
    tail = (1 - THRESHOLDS.level) / 2
    if differences[1:].isnan().any():  # a score that overflows, in both rows
        return Interval(differences[0].item(), nan, nan)
    low, high = differences[1:].quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(differences[0].item(), low, high)


def paired_interval(gaps: Sequence[float]) -> Interval:
    """Student's interval of the mean of paired differences: seeds, or tasks; nan with fewer than two, or where one is nan."""
    if len(gaps) < 2 or any(map(isnan, gaps)):
        return Interval(mean(gaps), nan, nan)
    half = float(stats.t.ppf(0.5 + THRESHOLDS.level / 2, len(gaps) - 1)) * stdev(gaps) / len(gaps) ** 0.5
    return Interval(mean(gaps), mean(gaps) - half, mean(gaps) + half)


def paired_p(gaps: Sequence[float]) -> float:
    """p-value of a two-sided t-test of paired differences against 0; nan with fewer than two, or where one is nan."""
    if len(gaps) < 2 or any(map(isnan, gaps)):
        return nan
    if stdev(gaps) <= ROUNDING * abs(mean(gaps)):  # no spread: scipy divides by it
        return 0.0 if mean(gaps) else 1.0
    return float(stats.ttest_1samp(gaps, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: p-values for which the chance of any false finding among all of them is at most the level; nan stays nan.

    Args:
        p: One for each comparison.
    """
    order = sorted((i for i, value in enumerate(p) if value == value), key=lambda i: p[i])
    corrected, worst = list(p), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = worst
    return corrected
