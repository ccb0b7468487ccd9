"""Measures of copying and of coverage from the literature, as functions of tensors, for `planted_copies.py`.

N: networks measured. K: training networks. m: held-out networks, or one for each held-out run. M: images.
"""

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from paramgen.core import distances
from paramgen.core.components import principal_components
from paramgen.evaluation import metrics

NAN = float("nan")


def authentic(distance: Tensor, index: Tensor, own: Tensor) -> float:
    """AuthPct (Alaa et al. 2022, arXiv:2102.08921): share of networks farther from the nearest training network than that is from its own.

    Args:
        distance: (N,) to the nearest training network.
        index: (N,) which one that is.
        own: (K,) of the training networks to the nearest of another run.
    """
    return (distance > own[index]).double().mean().item()


def cells(weights: Tensor, runs: Tensor, count: int) -> Tensor:
    """Which of `count` cells each training network (K, P) belongs to: k-means of the runs' means in their principal components."""
    means = torch.stack([weights[runs == run].mean(0) for run in runs.unique()])  # (R, P)
    labels = kmeans2(principal_components(means, 64).z.double().numpy(), count, minit="++", seed=0)[1]
    return torch.as_tensor(labels, dtype=torch.int64)[torch.unique(runs, return_inverse=True)[1]]


def zu_by_cell(distance: Tensor, cell: Tensor, heldout: Tensor, heldout_cell: Tensor) -> float:
    """C_T (Meehan et al. 2020, arXiv:2004.05675): zu in each cell of the training networks, weighted by the cells' held-out shares.

    Args:
        distance: (N,) to the nearest training network.
        cell: (N,) that network's cell.
        heldout: (m,) the same distance, one a held-out run.
        heldout_cell: (m,).
    """
    total = weight = 0.0
    for c in heldout_cell.unique():
        mine, theirs = distance[cell == c], heldout[heldout_cell == c]
        if len(mine):
            total += len(theirs) * metrics.zu(mine, theirs)
            weight += len(theirs)
    return total / weight if weight else NAN


def radii(among: Tensor, k: int) -> Tensor:
    """Distance of each held-out network to the k-th nearest other one, (m,) of distances (m, m)."""
    return among.kthvalue(k + 1, 1).values  # the nearest is itself


def precision(distance: Tensor, radius: Tensor) -> float:
    """Share of networks inside the ball of a held-out one (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Args:
        distance: (N, m) to the held-out networks.
        radius: (m,) of their balls.
    """
    return (distance <= radius).any(1).double().mean().item()


def coverage(distance: Tensor, radius: Tensor) -> float:
    """Share of held-out networks whose ball holds one of the networks (Naeem et al. 2020, arXiv:2002.09797).

    Args:
        distance: (N, m) to the held-out networks.
        radius: (m,) of their balls.
    """
    return (distance <= radius).any(0).double().mean().item()


def vendi(kernel: Tensor) -> float:
    """Vendi score (Friedman and Dieng 2022, arXiv:2210.02410): exp of the entropy of the eigenvalues of (N, N) / N; 1 on the diagonal."""
    values = torch.linalg.eigvalsh(kernel.double() / len(kernel)).clamp_min(1e-12)
    return (-(values * values.log()).sum()).exp().item()


def matched(distance: Tensor, accuracy: Tensor, noise_distance: Tensor, noise_accuracy: Tensor) -> float:
    """Median distance over that of noised copies of the same mean accuracy.

    Args:
        distance: (N,) to the nearest training network.
        accuracy: (N,).
        noise_distance: (S,) medians of noised copies, from the least noise to the most.
        noise_accuracy: (S,) their mean accuracies.
    """
    as_good = (noise_accuracy >= accuracy.mean()).nonzero()[:, 0]  # where the same accuracy is still kept
    return distances.median(distance) / noise_distance[as_good.max() if len(as_good) else 0].item()
