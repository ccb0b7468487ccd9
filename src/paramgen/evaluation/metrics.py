"""What is measured on generated networks, as functions of tensors.

N: networks generated, K: networks of the zoo's train split, P: generated parameters, M: test items, C: classes.
w_g, w_i: weights of a generated network and of a training one, as plain numbers (no normalisation): distances are L2 in weight space.
Shares are fractions in [0, 1], scores are in the task's own unit. ``nan``: there is no such figure (the spread of one network).

Sources: p-diff (Wang et al. 2024, arXiv:2402.13144) for the IoU of wrong predictions; Zeng et al. 2025 (arXiv:2506.07998) for distances to
the nearest training network in addition to accuracy; Meehan et al. 2020 (arXiv:2004.05675) for the copying statistic.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core.distances import column_slices, median, nearest_other
from paramgen.evaluation.thresholds import THRESHOLDS


class ScoreSummary(NamedTuple):
    """Scores of N networks on the test split; `selected` is the test score of the one best on train."""

    best: float
    mean: float
    median: float
    worst: float
    std: float
    selected: float


class WrongIoU(NamedTuple):
    """p-diff's Fig. 4a: mean IoU of wrong predictions in four comparisons; `nearest` is ``iou_wrong_max``."""

    zoo: float
    samples: float
    between: float
    nearest: float


def score_summary(test: Tensor, train: Tensor | None = None, sign: int = 1) -> ScoreSummary:
    """Best, mean, median, worst, spread, and p-diff's protocol (choose on train, report test). A score that is NaN or
    infinite counts as the worst.

    Args:
        test: (N,) test scores.
        train: (N,) train scores; without them `selected` is nan. Of equal ones the first is chosen.
        sign: 1 where higher is better, else -1.
    """
    test = test.double()
    ranked = torch.where(test.isfinite(), test, -sign * float("inf"))
    selected = float("nan")
    if train is not None:
        selected = test[torch.where(train.isfinite(), sign * train, -float("inf")).argmax()].item()
    return ScoreSummary(
        best=sign * (sign * ranked).max().item(),
        mean=test.mean().item(),
        median=median(ranked),
        worst=sign * (sign * ranked).min().item(),
        std=test.std().item() if len(test) > 1 else float("nan"),
        selected=selected,
    )


def finite_mean(scores: Tensor) -> float:
    """Mean of the finite ones among scores (N,); nan if there is none."""
    return scores[scores.isfinite()].double().mean().item()


def median_by_run(distance: Tensor, runs: Tensor) -> Tensor:
    """One value for each run, the median over its networks, in the order of the runs' numbers: (R,) float64.

    Checkpoints of a run are not independent of each other, so a run counts as one observation.

    Args:
        distance: (n,) of each network to its nearest training network.
        runs: (n,) the run of each network.
    """
    values = [distance[runs == run].double().quantile(0.5) for run in runs.unique()]
    return torch.stack(values) if values else torch.empty(0, dtype=torch.float64)


def tau(bank: Tensor) -> float:
    """The zoo's step: median distance of (K, P) to the nearest other network, within a run where runs have several checkpoints."""
    return median(nearest_other(bank).distance)


def nn_ratio(distance: Tensor, tau: float) -> float:
    """Median over samples of the distance to the nearest training network, over `tau`; 0 for copies.

    Where each run has one checkpoint it is about 1 for new networks. Where runs have several, `tau` is the step between neighbouring
    checkpoints, so a network can be many steps away and still lie within a run: see :mod:`paramgen.evaluation.novelty`.

    Args:
        distance: (N,) as of :func:`nearest`.
        tau: As of :func:`tau`.
    """
    return median(distance) / tau if tau > 0 else float("nan")


def zu(generated: Tensor, heldout: Tensor) -> float:
    """Copying statistic of Meehan et al. 2020: z = (U − mn/2) / √(mn(m+n+1)/12).

    U is Mann-Whitney's: the number of pairs (generated, held-out) where the generated network is the farther one. About 0 when
    generated networks are as far from the training ones as held-out runs are; far below 0: copying.

    Args:
        generated: (n,) distances of generated networks to their nearest training network.
        heldout: (m,) the same for held-out runs, one value for each run, as of :func:`median_by_run`.
    """
    n, m = len(generated), len(heldout)
    if not n or not m:
        return float("nan")
    gap = generated.double().cpu()[:, None] - heldout.double().cpu()  # (n, m)
    U = float((gap > 0).sum()) + 0.5 * float((gap == 0).sum())  # a tie counts half
    z: float = (U - m * n / 2) / (m * n * (m + n + 1) / 12) ** 0.5
    return z


def zu_limit(n: int, m: int) -> float:
    """The largest |zu| of n networks and m runs, √(3mn/(m+n+1)): reached when all n lie on the same side of all m; nan of none."""
    return (3 * m * n / (m + n + 1)) ** 0.5 if n and m else float("nan")


def id_match(index: Tensor, identity: Tensor) -> float:
    """Share of samples whose nearest training network (N,) is the one whose identity (N,) conditioned them."""
    return (index.cpu() == identity.cpu()).double().mean().item()


def wrong_iou(a: Tensor, b: Tensor) -> Tensor:
    """|E_a ∩ E_b| / |E_a ∪ E_b| of every pair (p-diff eq. 7), E the wrongly predicted items; 1 where neither errs.

    Args:
        a: (N, M) bool, True where network n is wrong on item m.
        b: (K, M) bool.

    Returns:
        (N, K) float32.
    """
    x, y = a.float(), b.float()
    both = x @ y.T  # (N, K), exact: counts below 2^24
    either = x.sum(1)[:, None] + y.sum(1)[None, :] - both
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def wrong_iou_averages(samples: Tensor, zoo: Tensor | None = None) -> WrongIoU:
    """The four averages of p-diff's Fig. 4a: among the zoo, among the samples, between them, and at each sample's largest.

    Args:
        samples: (N, M) bool, True where wrong.
        zoo: (K, M) bool; None: the samples are the zoo, and no network is compared with itself.
    """
    among = wrong_iou(samples, samples)
    if zoo is None:
        mean = _mean_off_diagonal(among)
        return WrongIoU(zoo=mean, samples=mean, between=mean, nearest=among.fill_diagonal_(-1).amax(1).mean().item())
    between = wrong_iou(samples, zoo)
    return WrongIoU(
        zoo=_mean_off_diagonal(wrong_iou(zoo, zoo)),
        samples=_mean_off_diagonal(among),
        between=between.mean().item(),
        nearest=between.amax(1).mean().item(),
    )


def disagreement(a: Tensor, b: Tensor) -> float:
    """Share of items on which two networks predict differently, averaged over rows of (N, M) and (N, M) int64."""
    return (a != b).double().mean().item()


def disagreement_among(classes: Tensor) -> float:
    """Mean :func:`disagreement` over all pairs of (N, M) int64; nan for one network."""
    n, items = classes.shape
    if n < 2:
        return float("nan")
    ordered = classes.T.sort(1).values  # (M, N): networks that agree on an item are next to each other
    starts = torch.cat([ordered.new_ones(items, 1, dtype=torch.bool), ordered[:, 1:] != ordered[:, :-1]], 1)
    first = starts.flatten().nonzero()[:, 0]
    agree = first.diff(append=first.new_tensor([n * items]))  # how many networks, for every item and prediction
    return 1 - (agree * (agree - 1)).sum().item() / (n * (n - 1) * items)


def majority_accuracy(classes: Tensor, labels: Tensor) -> float:
    """Accuracy of a majority vote of N networks; a tie goes to the lower class.

    Args:
        classes: (N, M) int64.
        labels: (M,) int64.
    """
    return (classes.mode(dim=0).values == labels).double().mean().item()


def cosine_max(queries: Tensor, bank: Tensor | None = None) -> float:
    """Mean over (N, P) of the largest cosine with a row of the bank (K, P); without a bank, with another row (Wild-P-Diff)."""
    other = queries if bank is None else bank
    dot = torch.zeros(len(queries), len(other), dtype=torch.float64, device=queries.device)
    for columns in column_slices(queries.shape[1]):
        dot += queries[:, columns].double() @ other[:, columns].double().T
    cosine = dot / (_norms(queries)[:, None] * _norms(other)[None, :]).clamp_min(1e-300)
    if bank is None:
        if len(queries) < 2:
            return float("nan")
        cosine.fill_diagonal_(-1.0)
    return cosine.amax(1).mean().clamp(-1, 1).item()


def dispersion(samples: Tensor, zoo: Tensor, spread: float | None = None) -> float:
    """‖std of the samples‖₂ ÷ ‖std of the zoo‖₂, std per weight across networks; nan where either has one network.

    Below 0.8 the generator narrows, below 0.5 it has collapsed, regardless of its score.

    Args:
        samples: (N, P).
        zoo: (K, P).
        spread: :func:`total_spread` of the zoo, where it is at hand.
    """
    if len(samples) < 2 or len(zoo) < 2:
        return float("nan")
    spread = total_spread(zoo) if spread is None else spread
    return total_spread(samples) / spread if spread > 0 else float("nan")


def total_spread(x: Tensor) -> float:
    """Norm of the standard deviation per weight across networks (N, P)."""
    spread: float = sum(x[:, c].double().var(0).sum().item() for c in column_slices(x.shape[1])) ** 0.5
    return spread


def novel_and_good(
    good: Tensor, distance: Tensor, scale: float, at: Sequence[float] = THRESHOLDS.curve
) -> dict[str, float]:
    """Share of networks that are good and at least c·scale away from the zoo, for each c.

    Args:
        good: (N,) bool, as of :meth:`paramgen.core.score.ScoreSpec.good`.
        distance: (N,) to the nearest training network.
        scale: How far a new run lies from its nearest training network: :class:`paramgen.evaluation.novelty.RunScale`.
        at: The factors c.

    Returns:
        ``{"0.25": share, …}``.
    """
    good = good.cpu()
    return {f"{c:g}": (good & (distance.cpu() >= c * scale)).double().mean().item() for c in at}


def near_share(distance: Tensor, scale: float) -> float:
    """Share of networks nearer to a training network than held-out runs lie: by less than :data:`THRESHOLDS.nearer` run scales.

    A share sees a few copies among many new networks, which a median does not: at 1 % where :func:`nn_ratio` needs 20 %.

    Args:
        distance: (N,) to the nearest training network.
        scale: How far a new run lies from its nearest training network: :class:`paramgen.evaluation.novelty.RunScale`.
    """
    return (distance < THRESHOLDS.nearer * scale).double().mean().item() if len(distance) else float("nan")


def same_predictions(classes: Tensor, zoo: Tensor | None = None) -> float:
    """Share of networks that predict the same as one training network on every item.

    It sees what computes the same function in other weights, without alignment: permuted and rescaled copies. Noise hides from it.

    Args:
        classes: (N, M) int64.
        zoo: (K, M) of the training networks; None: the networks are the zoo, and no network is compared with itself.
    """
    predictions = [row.numpy().tobytes() for row in classes.cpu()]
    of_zoo = Counter(predictions if zoo is None else (row.numpy().tobytes() for row in zoo.cpu()))
    same = sum(of_zoo[row] > (zoo is None) for row in predictions)
    return same / len(predictions) if predictions else float("nan")


def _norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)  # (N,)
    return norms


def _mean_off_diagonal(matrix: Tensor) -> float:
    n = len(matrix)
    return (
        ((matrix.double().sum() - matrix.diagonal().double().sum()) / (n * (n - 1))).item() if n > 1 else float("nan")
    )
