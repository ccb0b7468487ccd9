"""How far networks lie from the training networks, in two scales: the zoo's step, and the distance of a new run.

K: training networks. m: networks of held-out runs. R: runs. P: generated parameters.

The step, tau, is the median distance between a training network and its nearest other one. Where a run has several checkpoints that is the
step between neighbouring checkpoints, and says nothing about new networks: a sample 30 steps away can lie well within a run. The run scale
is the distance at which a network from a run that is not in the zoo lies from its nearest training network. Checkpoints of one run are not
independent, so each run counts as one observation: the median over its checkpoints.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from paramgen.core import distances
from paramgen.core.distances import Nearest
from paramgen.evaluation import metrics

ScaleBasis = Literal["held-out runs", "training runs left out"]
DistanceUnit = Literal["run", "step"]


class RunScale(NamedTuple):
    """How far a new run lies from its nearest training network.

    Args:
        value: Median over runs of the median over a run's checkpoints.
        basis: The held-out runs, or, without any, the training runs, each measured against the others.
        runs: How many runs that is.
    """

    value: float
    basis: ScaleBasis
    runs: int


class Bank(Protocol):
    """Training networks to be compared with: raw, or after alignment (:class:`paramgen.symmetry.AlignedZoo`)."""

    def nearest(self, samples: Tensor) -> Nearest:
        """The nearest training network of each sample (N, P)."""
        ...

    def nearest_other(self, groups: Tensor | None = None) -> Nearest:
        """The nearest other training network of each, of another group where groups (K,) are given."""
        ...


@dataclass(frozen=True)
class RawBank:
    """Training networks (K, P), compared without alignment."""

    weights: Tensor

    def nearest(self, samples: Tensor) -> Nearest:
        """The nearest training network of each sample (N, P)."""
        return distances.nearest(samples, self.weights)

    def nearest_other(self, groups: Tensor | None = None) -> Nearest:
        """The nearest other training network of each, of another group where groups (K,) are given."""
        groups = torch.arange(len(self.weights)) if groups is None else groups
        same = (groups[:, None] == groups).to(self.weights.device)  # (K, K)
        return distances.exact_nearest(self.weights, self.weights, self._square.masked_fill(same, float("inf")))

    @cached_property
    def _square(self) -> Tensor:
        return distances.squared_distances(self.weights, self.weights)  # (K, K)


class Novelty:
    """Both scales of a zoo, and what is measured in them.

    Args:
        bank: The K training networks.
        runs: (K,) the run of each.
        heldout: (m, P) networks of held-out runs; m may be 0.
        heldout_runs: (m,) the run of each.
    """

    def __init__(self, bank: Bank, runs: Tensor, heldout: Tensor, heldout_runs: Tensor) -> None:
        self.bank = bank
        self.near = bank.nearest_other()  # within a run, where it has several checkpoints
        self.tau = distances.median(self.near.distance)
        count = len(runs.unique())
        one_each = count == len(runs)
        self.others: Tensor | None = None  # (K,) to the nearest network of another run
        if count > 1:
            self.others = (self.near if one_each else bank.nearest_other(runs)).distance.cpu()
        self.training_runs = None if self.others is None else metrics.median_by_run(self.others, runs)  # (R,)
        self.heldout = bank.nearest(heldout).distance.cpu() if len(heldout) else torch.empty(0)  # (m,)
        self.heldout_runs = metrics.median_by_run(self.heldout, heldout_runs)
        self.run_scale = self._run_scale()

    @property
    def own(self) -> Tensor:
        """Distances (K,) of the training networks to those of other runs; to the others of the run where there is one run alone."""
        return self.near.distance.cpu() if self.others is None else self.others

    @property
    def unit(self) -> DistanceUnit:
        """What distances are shown in: the run scale where there is one, else the step."""
        return "step" if self.run_scale is None else "run"

    @property
    def length(self) -> float:
        """The unit's length, 1 where the zoo has no scale at all."""
        return (self.tau if self.run_scale is None else self.run_scale.value) or 1.0

    def ratios(self, distance: Tensor) -> "Ratios":
        """Median distance (N,) over both scales."""
        scale = self.run_scale
        run = None if scale is None else metrics.nn_ratio(distance, scale.value)
        near = None if scale is None else metrics.near_share(distance, scale.value)
        return Ratios(run, metrics.nn_ratio(distance, self.tau), near)

    def own_ratios(self) -> "Ratios":
        """Of the training networks: run by run against the other runs, network by network against the other networks."""
        run = self.ratios(self.own if self.training_runs is None else self.training_runs).run
        return Ratios(run, metrics.nn_ratio(self.near.distance, self.tau), self.ratios(self.own).near)

    def heldout_ratios(self) -> "Ratios":
        """Of the held-out runs, run by run; network by network in steps."""
        return self.ratios(self.heldout)._replace(run=self.ratios(self.heldout_runs).run)

    def _run_scale(self) -> RunScale | None:
        basis: ScaleBasis = "held-out runs" if len(self.heldout_runs) else "training runs left out"
        runs = self.heldout_runs if len(self.heldout_runs) else self.training_runs
        if runs is None or not (value := distances.median(runs)) > 0:
            return None
        return RunScale(value, basis, len(runs))


class Ratios(NamedTuple):
    """A median distance over both scales, and how many networks lie near.

    Args:
        run: Over the run scale; None where there is none.
        step: Over the step.
        near: Share of networks nearer to a training network than new runs (:func:`metrics.near_share`); None without a run scale.
    """

    run: float | None
    step: float
    near: float | None
