"""Whether networks share the zoo's structure, or are its mean with independent noise on each weight.

Dispersion cannot tell the two apart: one Gaussian a weight has the zoo's spread. But the zoo's networks vary together, in a subspace of few
dimensions, and independent noise spreads over all of them.

K: training networks. N: networks measured. P: generated parameters. k: dimensions of the subspace.

The subspace is that of the training networks' largest principal components that hold 95 % of their variance. `inside` is the share of
the networks' variance about their own mean that lies in it. `independent` is the share that would lie in it if each weight kept its
variance but varied independently of the others. Structure is `inside` less `independent`, over the same of held-out networks: 0 for a mean
with independent noise, 1 for networks that vary as held-out networks do, and at most 1, because more than that shows no more structure:
training networks lie in their own subspace better than any held-out network can.

Where runs differ in every direction (a few seeds of a network), the subspace of some runs holds next to nothing of another run, and a new
run looks like independent noise. Structure is then 1 for networks that do lie in the subspace, and cannot be measured for the others.
"""

from math import nan
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from paramgen.core.components import principal_axes
from paramgen.core.distances import column_slices
from paramgen.core.spacing import first_to_last
from paramgen.evaluation.thresholds import THRESHOLDS

MOST_NETWORKS = 500  # that a subspace is fitted on, evenly spaced: the decomposition takes time cubic in them
FOLDS = 10


class Variance(NamedTuple):
    """Sums of squares about a mean: inside the subspace, there if the weights were independent, and in all."""

    inside: float
    independent: float
    total: float

    @property
    def share(self) -> float:
        """Share of the variance inside the subspace; nan where nothing varies."""
        return self.inside / self.total if self.total > 0 else nan

    @property
    def excess(self) -> float:
        """That share less the share of independent weights."""
        return (self.inside - self.independent) / self.total if self.total > 0 else nan


class Subspace:
    """The principal subspace of training networks.

    Args:
        weights: (K, P), K at least 2.
        share: Of their variance that it holds.
    """

    def __init__(self, weights: Tensor, share: float = THRESHOLDS.subspace) -> None:
        self.weights = weights
        self.mean, values, axes = principal_axes(weights)
        values, axes = values.flip(0), axes.flip(1)  # the largest first
        k = int((values.cumsum(0) < share * values.sum()).sum()) + 1
        self.axes = axes[:, :k]  # (K, k): the basis is axes.T @ centred weights
        self.leverage = torch.empty_like(self.mean)  # (P,) squared length of each weight's unit vector inside
        for columns in column_slices(weights.shape[1]):
            self.leverage[columns] = (self.axes.T @ self._centred(columns)).square().sum(0)

    @property
    def dimensions(self) -> int:
        """Number of dimensions, k."""
        k: int = self.axes.shape[1]
        return k

    def variance(self, networks: Tensor, about: Tensor | None = None) -> Variance:
        """Of networks (N, P) about a mean (P,), their own by default."""
        inside = torch.zeros(self.dimensions, len(networks), dtype=torch.float64, device=networks.device)
        independent = total = 0.0
        for columns in column_slices(networks.shape[1]):
            Y = networks[:, columns].double()
            Y = Y - (Y.mean(0) if about is None else about[columns])  # (N, p)
            inside += self.axes.T @ (self._centred(columns) @ Y.T)
            square = Y.square().sum(0)  # (p,)
            independent += float(square @ self.leverage[columns])
            total += float(square.sum())
        return Variance(float(inside.square().sum()), independent, total)

    def _centred(self, columns: slice) -> Tensor:
        return self.weights[:, columns].double() - self.mean[columns]


StructureBasis = Literal["held-out networks", "training runs left out", "training networks left out"]


class StructureReference(NamedTuple):
    """What structure is measured by.

    Args:
        dimensions: k.
        networks: Training networks that the subspace was fitted on.
        share: Of the variance of networks that it was not fitted on, inside the subspace.
        excess: That share less the share of independent weights.
        basis: Which networks these are.
    """

    dimensions: int
    networks: int
    share: float
    excess: float
    basis: StructureBasis

    @property
    def measurable(self) -> bool:
        """Whether the subspace tells held-out networks from independent weights."""
        return self.excess >= THRESHOLDS.measurable


class Structure:
    """Measures structure against one zoo.

    Args:
        weights: (K, P) training networks, K at least 2.
        runs: (K,) the run of each.
        heldout: (m, P) held-out networks. Where there are fewer than two, the reference is training networks left out of the fit, whole
            runs where there are several.
    """

    def __init__(self, weights: Tensor, runs: Tensor, heldout: Tensor) -> None:
        indices = first_to_last(len(weights), min(len(weights), MOST_NETWORKS))
        weights, runs = weights[indices.to(weights.device)], runs[indices]
        self.subspace = Subspace(weights)
        basis: StructureBasis = "held-out networks"
        variance = self.subspace.variance(heldout)
        if len(heldout) < 2 or not variance.total > 0:
            several = len(runs.unique()) > 1
            basis = "training runs left out" if several else "training networks left out"
            variance = _left_out(weights, runs if several else torch.arange(len(runs)))
        self.reference = StructureReference(
            self.subspace.dimensions, len(weights), variance.share, variance.excess, basis
        )

    def of(self, networks: Tensor) -> "RowStructure":
        """Of networks (N, P), all finite."""
        variance = self.subspace.variance(networks)
        if len(networks) < 2 or not variance.total > 0:
            return RowStructure(nan, nan)
        if self.reference.measurable:
            return RowStructure(variance.share, min(max(variance.excess / self.reference.excess, 0.0), 1.0))
        # held-out networks look like independent noise here: less than they show proves nothing, more than that is structure
        return RowStructure(variance.share, 1.0 if variance.excess >= THRESHOLDS.measurable else nan)


class RowStructure(NamedTuple):
    """Share of a row's variance inside the zoo's subspace, and structure; nan where it cannot be measured."""

    inside: float
    structure: float


def _left_out(weights: Tensor, groups: Tensor) -> Variance:
    """Variance of training networks (K, P), each measured by a subspace fitted without its group (K,), in ten folds at most."""
    fold = torch.unique(groups, return_inverse=True)[1] % FOLDS  # neighbouring checkpoints fall into different folds
    parts = []
    for f in fold.unique():
        out = (fold == f).to(weights.device)
        if (~out).sum() > 1:
            subspace = Subspace(weights[~out])
            parts.append(subspace.variance(weights[out], about=subspace.mean))
    return Variance(*(sum(part) for part in zip(*parts, strict=True))) if parts else Variance(0.0, 0.0, 0.0)
