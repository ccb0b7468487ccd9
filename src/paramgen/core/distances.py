"""Distances between networks as vectors, by matrix products.

N: queried networks. K: networks of a bank. P: parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

COLUMNS_AT_ONCE = 1 << 18  # weights processed at a time: bounds memory at N x 2^18 doubles for any P


@dataclass(frozen=True)
class Nearest:
    """For each network its nearest neighbour: how far (N,) float64, and which (N,) int64."""

    distance: Tensor
    index: Tensor


def nearest(queries: Tensor, bank: Tensor) -> Nearest:
    """min_i ‖w_g − w_i‖₂ over the bank, by matrix products: nothing of size (N, K, P) is made.

    Squares are summed in float64 about the bank's mean, and the smallest distance is computed directly: a copy has distance 0.

    Args:
        queries: (N, P).
        bank: (K, P).
    """
    return exact_nearest(queries, bank, squared_distances(queries, bank))


def nearest_other(bank: Tensor) -> Nearest:
    """Leave-one-out: each network's nearest neighbour among the others of (K, P), K at least 2."""
    if len(bank) < 2:
        raise ValueError(f"a nearest other needs at least 2 networks, got {len(bank)}")
    square = squared_distances(bank, bank)  # (K, K)
    square.fill_diagonal_(float("inf"))
    return exact_nearest(bank, bank, square)


def median(x: Tensor) -> float:
    """Median of (N,): the mean of the two middle values if N is even, NaN if N is 0."""
    return x.double().quantile(0.5).item() if len(x) else float("nan")


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(N, K) float64; centred on the mean of `b`, because |a|² + |b|² − 2ab cancels when both are far from the origin."""
    out = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for columns in column_slices(a.shape[1]):
        y = b[:, columns].double()
        centre = y.mean(0)
        y, x = y - centre, a[:, columns].double() - centre
        out += x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * x @ y.T
    return out.clamp_min_(0)


def exact_nearest(queries: Tensor, bank: Tensor, square: Tensor) -> Nearest:
    """The neighbour that is nearest by squared distances (N, K), and its distance computed directly: a copy is at 0."""
    index = square.argmin(1)  # (N,)
    exact = torch.zeros(len(queries), dtype=torch.float64, device=queries.device)
    for columns in column_slices(queries.shape[1]):
        exact += (queries[:, columns].double() - bank[index, columns].double()).square().sum(1)
    return Nearest(exact.sqrt(), index)


def column_slices(P: int) -> list[slice]:
    """Pieces of P columns that bound the memory of float64 work."""
    return [slice(start, start + COLUMNS_AT_ONCE) for start in range(0, P, COLUMNS_AT_ONCE)]
