"""Zoos with many held-out runs, and copies of their training networks in five disguises: what `planted_copies.py` mixes.

K: training networks. m: networks of the held-out runs that the evaluation compares with. H: networks of further runs, which stand for an
honest generator. P: parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings, fresh_states
from paramgen.core import distances
from paramgen.core.params import ParamSpec
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.weight_baselines import noise
from paramgen.symmetry import PermutationSpec
from paramgen.tasks import ClassificationTask

AT_ONCE = 100  # networks trained together
SCALES = 4.0  # a rescaled unit is multiplied by a factor of up to this, or divided by it
SIGMA = 0.1  # noise, of the zoo's own spread


@dataclass(frozen=True)
class Recipe:
    """How the networks of a study's zoo are trained.

    Args:
        title: Stands in tables and pictures.
        runs: Training runs.
        checkpoints: Networks kept of each.
        epochs: Of each run.
        optim: Optimizer, rate and schedule.
        reference: Held-out runs that the evaluation compares with, as many checkpoints each.
        honest: Further runs, one network each.
        save_every: Optimizer steps between two checkpoints.
    """

    title: str
    runs: int
    checkpoints: int
    epochs: int
    optim: OptimSettings
    reference: int = 40
    honest: int = 400
    save_every: int = 4


@dataclass(frozen=True)
class Planted:
    """The networks of one study.

    Args:
        spec: The architecture's tensors.
        symmetries: Its permutations and scales.
        weights: (K, P) training networks.
        runs: (K,) the run of each.
        heldout: (m, P) networks of the reference runs.
        heldout_runs: (m,) the run of each.
        honest: (H, P), each of a run of its own.
    """

    spec: ParamSpec
    symmetries: PermutationSpec
    weights: Tensor
    runs: Tensor
    heldout: Tensor
    heldout_runs: Tensor
    honest: Tensor


def make(task: ClassificationTask, recipe: Recipe, seed: int = 0) -> Planted:
    """Train every run of a recipe from its own seed, and split the runs."""
    spec = ParamSpec.of(task.build())
    first, second = recipe.runs, recipe.runs + recipe.reference
    total = second + recipe.honest
    batches = [range(start, min(start + AT_ONCE, total)) for start in range(0, total, AT_ONCE)]
    trained = torch.cat([_train(task, recipe, [10_000 * seed + run for run in runs], spec) for runs in batches])
    parts = trained[:first], trained[first:second]  # (runs, checkpoints, P) each
    runs = [torch.arange(len(part)).repeat_interleave(recipe.checkpoints) for part in parts]
    which = torch.randint(recipe.checkpoints, (recipe.honest,), generator=Generator().manual_seed(seed))
    example = next(iter(task.data("train").batches(2)))[0]
    return Planted(
        spec=spec,
        symmetries=PermutationSpec.of(task.build().eval(), example, spec),
        weights=parts[0].flatten(0, 1),
        runs=runs[0],
        heldout=parts[1].flatten(0, 1),
        heldout_runs=runs[1] + recipe.runs,
        honest=trained[second:][torch.arange(recipe.honest), which],
    )


def _train(task: ClassificationTask, recipe: Recipe, seeds: list[int], spec: ParamSpec) -> Tensor:
    """The last checkpoints of some runs, trained together: (R, checkpoints, P)."""
    group = NetworkGroup(task.build(), fresh_states(task.build, seeds), spec.names)
    steps = recipe.epochs * (len(task.data("train")) // recipe.optim.batch_size)
    kept = {steps - recipe.save_every * k for k in range(recipe.checkpoints)}
    trainer = GroupTrainer(group, task.data("train"), recipe.optim, seeds, steps)
    return torch.stack([spec.flatten_many(group.states()) for step in trainer.run() if step in kept], 1)


def permuted(W: Tensor, symmetries: PermutationSpec, generator: Generator) -> Tensor:
    """Networks (n, P) with the hidden units of each in a random order: the same functions."""
    W = W.clone()
    for group, units in symmetries.units.items():
        symmetries.permute_(W, group, torch.rand(len(W), units, generator=generator).argsort(1))
    return W


def rescaled(W: Tensor, symmetries: PermutationSpec, generator: Generator) -> Tensor:
    """Networks (n, P) with each ReLU unit's input weights multiplied, and its output weights divided, by a random factor."""
    W = W.clone()
    for gauge, places in symmetries.gauges.items():
        exponent = 2 * torch.rand(len(W), places[0].units, generator=generator) - 1
        symmetries.rescale_(W, gauge, SCALES**exponent)
    return W


def noised(zoo: Planted, n: int, generator: Generator) -> Tensor:
    """Copies of n random training networks with white noise, as the baseline noise-0.1 draws them."""
    pool = Pool(zoo.weights, torch.empty(0), tuple(t.numel for t in zoo.spec.tensors))
    return noise(pool, n, generator, SIGMA)


def half_way(zoo: Planted, chosen: Tensor) -> Tensor:
    """The middle between training networks `chosen` (n,) and the training network nearest to each."""
    nearest = distances.nearest_other(zoo.weights).index
    return (zoo.weights[chosen] + zoo.weights[nearest[chosen]]) / 2


COPIES: Mapping[str, Callable[[Planted, Tensor, Generator], Tensor]] = MappingProxyType(
    {
        "raw": lambda zoo, chosen, generator: zoo.weights[chosen],
        "permuted": lambda zoo, chosen, generator: permuted(zoo.weights[chosen], zoo.symmetries, generator),
        "rescaled": lambda zoo, chosen, generator: rescaled(zoo.weights[chosen], zoo.symmetries, generator),
        "noised": lambda zoo, chosen, generator: noised(zoo, len(chosen), generator),
        "half-way": lambda zoo, chosen, generator: half_way(zoo, chosen),
    }
)
