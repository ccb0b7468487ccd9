"""What baselines see of a zoo: what a generator sees, the train split and the scores recorded with it.

K: training networks. P: generated parameters. T: seen tasks. n: new tasks. C: numbers of a condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import TaskFamily


class SeenTasks(NamedTuple):
    """What is known of the seen tasks of a zoo.

    Args:
        names: T names.
        condition: (T, C).
        weights: (T, P), the mean of each task's networks.
    """

    names: list[str]
    condition: Tensor
    weights: Tensor


class NewTasks(NamedTuple):
    """The tasks that networks are wanted for, and the seen ones.

    Args:
        names: n names.
        condition: (n, C).
        seen: Of the zoo.
        split: Items that a method is scored on that gives predictions and no weights.
    """

    names: Sequence[str]
    condition: Tensor
    seen: SeenTasks
    split: str = "test"


@dataclass(frozen=True)
class Pool:
    """What a baseline may see.

    Args:
        weights: (K, P) training networks.
        goodness: (K,) train scores, higher ones better; None without scores.
        sizes: Of the tensors in P.
        zoo: Completes networks.
        tasks: Builds networks and gives data; None for a zoo without a task.
        new: The tasks that networks are wanted for; None for a zoo of one task.
        start: (P,) what all networks started from; None where they have no common start, or it is not known.
    """

    weights: Tensor
    goodness: Tensor | None
    sizes: tuple[int, ...]
    zoo: Zoo | None = None
    tasks: TaskFamily | None = None
    new: NewTasks | None = None
    start: Tensor | None = None

    def origin(self) -> Tensor:
        """Where task vectors begin (P,): the common start, the mean of the training networks where there is none."""
        return self.weights.mean(0) if self.start is None else self.start


def seen_tasks(zoo: Zoo, weights: Tensor | None = None) -> SeenTasks:
    """The seen tasks of a family's zoo.

    Args:
        zoo: Which.
        weights: (K, P) its training networks, where they are at hand.

    Raises:
        ParamgenError: The zoo has no tasks, or no conditions.
    """
    indices = zoo.indices("train")
    weights = zoo.matrix(indices) if weights is None else weights
    rows: dict[str, list[int]] = {}
    for row, index in enumerate(indices):
        entry = zoo.entries[index]
        if entry.task is None or entry.condition is None:
            raise ParamgenError(f"zoo {zoo.name!r} has no tasks with conditions; collect one with collect_tasks")
        rows.setdefault(entry.task, []).append(row)
    condition = torch.tensor([zoo.entries[indices[of[0]]].condition for of in rows.values()])
    return SeenTasks(list(rows), condition, torch.stack([weights[of].mean(0) for of in rows.values()]))


def conditions_of(zoo: Zoo, names: Sequence[str]) -> Tensor:
    """Conditions (n, C) of tasks of a zoo.

    Raises:
        ParamgenError: The zoo holds no network of a task, so its condition was not recorded.
    """
    recorded = {entry.task: entry.condition for entry in zoo.entries}
    for name in names:
        if recorded.get(name) is None:
            raise ParamgenError(f"zoo {zoo.name!r} records no condition of task {name!r}; collect it with heldout=true")
    return torch.tensor([recorded[name] for name in names])
