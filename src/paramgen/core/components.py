"""Principal components of networks as vectors, by their Gram matrix: P may be large, K is not.

K: networks. P: parameters.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from paramgen.core.distances import column_slices

LEAST_SHARE = 1e-12  # relative to the largest variance; a smaller one is a rounding error and not a direction


class Axes(NamedTuple):
    """Principal directions of K networks, in rising order of their variance.

    Args:
        mean: (P,) float64.
        values: (K,) float64, sums of squares along each direction; 0 where there is none.
        weights: (K, K) float64; direction i is the unit vector ``weights[:, i] @ (W - mean)``, or 0 where there is none.
    """

    mean: Tensor
    values: Tensor
    weights: Tensor


class Components(NamedTuple):
    """Principal components, largest last: mean (P,), orthonormal basis (k, P), coordinates z (K, k).

    Rows of the basis and columns of z are zero where the networks have fewer directions.
    """

    mean: Tensor
    basis: Tensor
    z: Tensor

    def place(self, W: Tensor) -> Tensor:
        """Coordinates (n, 2) of (n, P) in the two largest components, the largest first; 0 for the second of two networks."""
        xy = (W - self.mean) @ self.basis.flip(0)[:2].T  # (n, 2), or (n, 1)
        return F.pad(xy, (0, 2 - xy.shape[1]))


def principal_axes(W: Tensor) -> Axes:
    """All principal directions of networks (K, P)."""
    mean = W.double().mean(0) if len(W) else torch.zeros(W.shape[1], dtype=torch.float64, device=W.device)
    gram = torch.zeros(len(W), len(W), dtype=torch.float64, device=W.device)
    for columns in column_slices(W.shape[1]):
        X = W[:, columns].double() - mean[columns]
        gram += X @ X.T
    values, vectors = torch.linalg.eigh(gram)  # rising
    values = torch.where(values > LEAST_SHARE * values[-1:], values, 0.0)
    scale = torch.where(values > 0, values, 1.0).rsqrt() * (values > 0)
    return Axes(mean, values, vectors * scale)


def principal_components(W: Tensor, components: int) -> Components:
    """The largest principal components of networks (K, P), at most K - 1, in the dtype of `W`."""
    axes = principal_axes(W)
    k = min(components, max(1, len(W) - 1))
    weights = axes.weights[:, -k:]  # (K, k)
    basis = W.new_empty(k, W.shape[1])
    for columns in column_slices(W.shape[1]):
        basis[:, columns] = (weights.T @ (W[:, columns].double() - axes.mean[columns])).to(W.dtype)
    return Components(axes.mean.to(W.dtype), basis, (weights * axes.values[-k:]).to(W.dtype))
