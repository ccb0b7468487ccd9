"""The unseen tasks of a zoo, and which networks to draw for them. n: networks. C: numbers of a condition."""

from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core.spacing import evenly_spaced
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_non_negative
from paramgen.evaluation.pool import conditions_of
from paramgen.tasks import TaskFamily, family_of


def many_tasks(zoo: Zoo) -> bool:
    """Whether a zoo's networks are of several tasks, so that each is scored on its own."""
    return len({entry.task for entry in zoo.entries}) > 1


def unseen_family(zoo: Zoo) -> TaskFamily:
    """The family of a zoo of many tasks.

    Raises:
        ParamgenError: The zoo is of one task, or none of its tasks is unseen.
    """
    if not many_tasks(zoo):
        raise ParamgenError(f"zoo {zoo.name!r} has no tasks with conditions; collect one with collect_tasks")
    family = family_of(zoo)
    if not family.unseen:
        raise ParamgenError(f"zoo {zoo.name!r} has no unseen tasks")
    return family


def has_conditions(zoo: Zoo) -> bool:
    """Whether a zoo is of one task and its networks have conditions: labels of networks that are themselves data."""
    return not many_tasks(zoo) and any(entry.condition is not None for entry in zoo.entries)


class TaskConditions(NamedTuple):
    """What is requested of a generator.

    Args:
        names: n names of tasks, one for each network to draw.
        condition: (n, C).
    """

    names: list[str]
    condition: Tensor


def conditions_to_draw(zoo: Zoo, n: int) -> Tensor:
    """The conditions (n, C) of held-out networks of a zoo of one task, evenly spaced; of training networks where none is held out."""
    indices = zoo.indices("heldout") or zoo.indices("train")
    return torch.tensor([zoo.entries[indices[i]].condition for i in evenly_spaced(len(indices), n)])


def tasks_to_draw(zoo: Zoo, per_task: int, seen_tasks: int) -> TaskConditions:
    """`per_task` networks for each unseen task of a zoo, then for each of its first `seen_tasks` seen tasks.

    Raises:
        ParamgenError: seen_tasks below 0, or as :func:`unseen_family` and :func:`conditions_of`.
    """
    require_non_negative(seen_tasks=seen_tasks)
    family = unseen_family(zoo)
    names = [name for name in [*family.unseen, *family.seen[:seen_tasks]] for _ in range(per_task)]
    return TaskConditions(names, conditions_of(zoo, names))
