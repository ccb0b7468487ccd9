"""Distances between networks after alignment: a permuted copy is a copy.

N generated networks, K of the zoo, P parameters. Matching more than one group is a search (the exact problem is NP-hard), so what
is found is an upper bound of the true aligned distance; it never exceeds the distance without permutation.
"""

import torch
from torch import Tensor

from paramgen.core.distances import Nearest
from paramgen.symmetry.groups import PermutationSpec
from paramgen.symmetry.matching import align_matrix, match
from paramgen.symmetry.scale import balance_matrix

_NUMBERS = 1 << 19  # weights worked on at once: they stay in the cache


def aligned_distances(samples: Tensor, zoo: Tensor, spec: PermutationSpec, scale: bool = True) -> Tensor:
    """Distance of each sample to each neighbour after aligning the one to the other.

    It costs N * K matchings; :class:`AlignedZoo` finds the nearest neighbours with a tenth of them.

    Args:
        samples: (N, P).
        zoo: (K, P).
        spec: The architecture's symmetries.
        scale: Balance both sides first, so that rescaled copies are copies too.

    Returns:
        (N, K) float64; infinite where weights are NaN or infinite.
    """
    samples, zoo = _prepared(samples, spec, scale), _prepared(zoo, spec, scale)
    n, k = torch.meshgrid(torch.arange(len(samples)), torch.arange(len(zoo)), indexing="ij")
    return _pairs(samples, zoo, n.flatten(), k.flatten(), spec, keep_order=False).view(n.shape)


class AlignedZoo:
    """The zoo's networks, balanced and in one common order, ready to be compared with.

    Nearest neighbours are looked for among the `candidates` that are nearest in the common order, each of them then matched with the
    sample. A permuted copy has the same place in the common order as its original, so copies are always found.

    Args:
        zoo: (K, P) the networks to be compared with.
        spec: The architecture's symmetries.
        candidates: How many neighbours are matched with each sample.
        scale: Balance first, so that rescaled copies are copies too.
    """

    def __init__(self, zoo: Tensor, spec: PermutationSpec, candidates: int = 4, scale: bool = True) -> None:
        self.spec, self.candidates, self.scale = spec, candidates, scale
        zoo = _prepared(zoo, spec, scale)
        self.weights = align_matrix(zoo, spec, zoo[0], rounds=2).weights  # (K, P)
        self.centre = self.weights.mean(0, keepdim=True)  # (1, P)
        self.weights = match(self.centre, self.weights, spec).weights

    def nearest(self, samples: Tensor) -> Nearest:
        """The nearest training network of each sample (N, P), after alignment."""
        placed = match(self.centre, _prepared(samples, self.spec, self.scale), self.spec).weights
        return self._nearest(placed, self._rough(placed))

    def nearest_other(self, groups: Tensor | None = None) -> Nearest:
        """The nearest other training network of each training network, two of them at least.

        Args:
            groups: (K,) Only networks of another group are looked at; by default each is a group of its own.
        """
        if len(self.weights) < 2:
            raise ValueError(f"a nearest other needs at least 2 networks, got {len(self.weights)}")
        groups = torch.arange(len(self.weights)) if groups is None else groups
        return self._nearest(
            self.weights, self._rough(self.weights).masked_fill(groups[:, None] == groups, float("inf"))
        )

    def tau(self) -> float:
        """The zoo's own scale: median leave-one-out nearest-neighbour distance, after alignment."""
        return self.nearest_other().distance.quantile(0.5).item()

    def _rough(self, placed: Tensor) -> Tensor:
        """Distances in the common order (N, K), good enough to choose candidates by."""
        a, b = placed - self.centre, self.weights - self.centre
        distance = torch.cdist(a, b)
        return distance if distance.isfinite().all() else torch.cdist(a.double(), b.double())  # squares leave float32

    def _nearest(self, placed: Tensor, distance: Tensor) -> Nearest:
        """Match each network with those nearest by `distance` (N, K), infinite where they must not meet."""
        distance = distance.nan_to_num(nan=float("inf"), posinf=float("inf"))
        candidates = distance.topk(min(self.candidates, distance.shape[1]), largest=False)  # (N, m)
        n = torch.arange(len(placed))[:, None].expand_as(candidates.indices)
        exact = _pairs(placed, self.weights, n.flatten(), candidates.indices.flatten(), self.spec, keep_order=True)
        exact = exact.view(candidates.indices.shape)
        exact[candidates.values.isinf()] = float("inf")
        best = exact.min(1)
        return Nearest(best.values, candidates.indices.gather(1, best.indices[:, None])[:, 0])


def _prepared(W: Tensor, spec: PermutationSpec, scale: bool) -> Tensor:
    """Weights to compare, on the CPU, where assignments are solved."""
    W = W.detach().float().cpu()
    return balance_matrix(W, spec) if scale else W


def _pairs(samples: Tensor, zoo: Tensor, n: Tensor, k: Tensor, spec: PermutationSpec, keep_order: bool) -> Tensor:
    """Distance of samples[n] to zoo[k] after aligning, pair by pair: (M,) float64."""
    out = torch.empty(len(n), dtype=torch.float64)
    step = max(1, _NUMBERS // samples.shape[1])
    for start in range(0, len(n), step):
        rows = slice(start, start + step)
        queries, references = samples[n[rows]], zoo[k[rows]]
        plain = _gap(queries, references)
        out[rows] = torch.minimum(plain, _gap(match(references, queries, spec, keep_order).weights, references))
    return out.nan_to_num(nan=float("inf"), posinf=float("inf"))


def _gap(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square().sum(1).sqrt()
