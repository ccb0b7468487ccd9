"""The networks of a zoo that rows are compared with, read once, and how far other networks lie from them.

K: training networks. m: held-out networks. N: networks of a row. P: generated parameters.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core import distances
from paramgen.core.distances import Nearest
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.novelty import Novelty, Ratios, RawBank
from paramgen.evaluation.results import Role
from paramgen.symmetry import AlignedZoo, PermutationSpec


@dataclass(frozen=True)
class ZooWeights:
    """Networks of a zoo.

    Args:
        training: (K, P), K at least 2.
        runs: (K,) which of the training runs each is of, from 0.
        heldout: (m, P), m may be 0.
        heldout_runs: (m,) the run of each.
    """

    training: Tensor
    runs: Tensor
    heldout: Tensor
    heldout_runs: Tensor

    @cached_property
    def checkpoints(self) -> int:
        """The most training networks of one run."""
        return int(self.runs.bincount().max())


def zoo_weights(zoo: Zoo, device: torch.device) -> ZooWeights:
    """Read the networks of a zoo.

    Args:
        zoo: Which.
        device: Where they go.

    Raises:
        ParamgenError: It has fewer than two training networks.
    """
    train, heldout = zoo.indices("train"), zoo.indices("heldout")
    if len(train) < 2:
        raise ParamgenError(
            f"zoo {zoo.name!r} has {len(train)} training network, expected at least 2 to measure distances by"
        )
    runs, heldout_runs = (torch.tensor([zoo.entries[i].run for i in of], dtype=torch.int64) for of in (train, heldout))
    return ZooWeights(
        zoo.matrix(train).to(device),
        torch.unique(runs, return_inverse=True)[1],
        zoo.matrix(heldout).to(device),
        heldout_runs,
    )


class Distances(NamedTuple):
    """How far the n finite networks of a row lie from the training networks.

    Args:
        near: The nearest training network of each.
        shown: (n,) distances that pictures show.
        raw: Median ratios.
        aligned: The same after alignment; None where it is not measured.
        compared: Distances that `zu` compares with those of held-out runs, (n,) or fewer.
    """

    near: Nearest
    shown: Tensor
    raw: Ratios
    aligned: Ratios | None
    compared: Tensor


class ZooDistances:
    """Measures distances to the training networks of a zoo.

    Args:
        weights: Of the zoo.
    """

    def __init__(self, weights: ZooWeights) -> None:
        self.weights = weights
        self.raw = Novelty(RawBank(weights.training), weights.runs, weights.heldout, weights.heldout_runs)
        self.symmetries: PermutationSpec | None = None

    def align(self, spec: PermutationSpec) -> None:
        """Also measure distances after alignment.

        Args:
            spec: The network's symmetries.
        """
        self.symmetries = spec

    @cached_property
    def aligned(self) -> Novelty | None:
        """Distances after alignment, computed for the first row that needs them; None where they are not measured."""
        if self.symmetries is None:
            return None
        bank = AlignedZoo(self.weights.training.cpu(), self.symmetries)
        return Novelty(bank, self.weights.runs, self.weights.heldout.cpu(), self.weights.heldout_runs)

    def of(self, role: Role, networks: Tensor) -> Distances:
        """Of a row.

        Args:
            role: The zoo's own networks are compared with each other, held-out ones run by run.
            networks: (n, P) its finite networks.
        """
        if role == "zoo":
            return self._own()
        near = distances.nearest(networks, self.weights.training)
        if role == "heldout":
            ratios = None if self.aligned is None else self.aligned.heldout_ratios()
            return Distances(near, near.distance, self.raw.heldout_ratios(), ratios, torch.empty(0))
        ratios = None
        if self.aligned is not None:
            ratios = self.aligned.ratios(self.aligned.bank.nearest(networks.cpu()).distance)
        return Distances(near, near.distance, self.raw.ratios(near.distance), ratios, near.distance)

    def _own(self) -> Distances:
        runs = torch.empty(0) if self.raw.training_runs is None else self.raw.training_runs
        ratios = None if self.aligned is None else self.aligned.own_ratios()
        return Distances(self.raw.near, self.raw.own, self.raw.own_ratios(), ratios, runs)
