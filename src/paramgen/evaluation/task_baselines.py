"""Baselines that need the task: a network to build, or data to train on. P: parameters. n: networks drawn."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.params import state_tensors
from paramgen.core.seeds import mix
from paramgen.core.zoo import Zoo
from paramgen.evaluation.baseline import Baseline
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.weight_baselines import copy
from paramgen.tasks import TaskFamily

FINETUNED_AT_ONCE = 32  # networks in memory with their gradients and Adam's moments
STEPS = 20


def fresh_networks(tasks: TaskFamily, zoo: Zoo, n: int, seed: int) -> Tensor:
    """Freshly initialised networks (n, P); the global seed is left as it was.

    Args:
        tasks: Builds them.
        zoo: Says which tensors they are.
        n: How many.
        seed: Of all of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return zoo.spec.flatten_many([state_tensors(tasks.build()) for _ in range(n)])  # (n, P)


def random_init(pool: Pool, n: int, generator: Generator) -> Tensor:
    """The network's own initialisation, n times."""
    assert pool.tasks is not None
    assert pool.zoo is not None
    return fresh_networks(pool.tasks, pool.zoo, n, generator.initial_seed())


def finetuned_copy(
    pool: Pool, n: int, generator: Generator, steps: int = STEPS, batch_size: int = 64, lr: float = 1e-3
) -> Tensor:
    """Copies trained a few steps further on train data with Adam, each in its own order; batch-norm statistics stay as copied."""
    assert pool.tasks is not None
    assert pool.zoo is not None
    zoo, task, seed = pool.zoo, pool.tasks.task(), generator.initial_seed()
    settings = OptimSettings("adam", lr=lr, batch_size=batch_size)
    trained = [t.name for t in zoo.spec.tensors if t.kind == "weight"]
    copies, data = copy(pool, n, generator), task.data("train")
    parts = []
    for start in range(0, n, FINETUNED_AT_ONCE):
        part = copies[start : start + FINETUNED_AT_ONCE]
        states = [zoo.complete(zoo.spec.unflatten(vector)) for vector in part]
        group = NetworkGroup(task.build(), states, trained, loss=task.loss, with_targets=task.takes_targets)
        seeds = [mix(seed, start + i) for i in range(len(part))]
        for _ in GroupTrainer(group, data, settings, seeds, steps).run():
            pass
        parts.append(zoo.spec.flatten_many(group.states()))
    return torch.cat(parts)  # (n, P)


FROM_TASK: Mapping[str, Baseline] = MappingProxyType(
    {
        "random-init": Baseline(
            random_init,
            needs=frozenset({"network"}),
            shown=frozenset({"one_task", "starts"}),
            raw=True,
            untrained=True,
        ),
        "finetuned-copy": Baseline(finetuned_copy, needs=frozenset({"network", "data"}), raw=True),
    }
)
