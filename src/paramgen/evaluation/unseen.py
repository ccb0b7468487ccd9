"""What needs no generator: weights for a new task from those of seen tasks, by the condition alone.

T: seen tasks. n: new tasks. C: numbers of a condition. P: generated parameters. Every generator of weights for unseen tasks
is compared with these.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_non_negative
from paramgen.tasks import TaskFamily, family_of, score_family
from paramgen.tasks.scoring import score_networks

PENALTIES = tuple(10.0**e for e in range(-3, 5))


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


def seen_tasks(zoo: Zoo) -> SeenTasks:
    """The seen tasks of a family's zoo.

    Raises:
        ParamgenError: The zoo has no tasks, or no conditions.
    """
    rows: dict[str, list[int]] = {}
    for i in zoo.indices("train"):
        entry = zoo.entries[i]
        if entry.task is None or entry.condition is None:
            raise ParamgenError(f"zoo {zoo.name!r} has no tasks with conditions; collect one with collect_tasks")
        rows.setdefault(entry.task, []).append(i)
    condition = torch.tensor([zoo.entries[indices[0]].condition for indices in rows.values()])
    weights = torch.stack([zoo.matrix(indices).mean(0) for indices in rows.values()])
    return SeenTasks(list(rows), condition, weights)


def neighbours(seen: SeenTasks, condition: Tensor, k: int) -> Tensor:
    """The k seen tasks nearest to each condition (n, C), nearest first: (n, k). Conditions are standardised over the seen tasks."""
    std = seen.condition.std(0, correction=0)
    scale = torch.where(std > 0, 1 / std, 0.0)
    return torch.cdist(condition * scale, seen.condition * scale).topk(min(k, len(seen.names)), largest=False).indices


def nearest(seen: SeenTasks, condition: Tensor) -> Tensor:
    """Retrieval: the nearest seen task's weights (n, P)."""
    return seen.weights[neighbours(seen, condition, 1)[:, 0]]


def average(seen: SeenTasks, condition: Tensor, k: int = 2) -> Tensor:
    """The mean of the k nearest seen tasks' weights (n, P)."""
    return seen.weights[neighbours(seen, condition, k)].mean(1)


def ridge(seen: SeenTasks, condition: Tensor) -> Tensor:
    """Ridge regression from condition to weights (n, P); its penalty is the one of :data:`PENALTIES` with the least leave-one-out error."""
    mean, target = seen.condition.mean(0), seen.weights.mean(0)
    X, Y = (seen.condition - mean).double(), (seen.weights - target).double()  # (T, C), (T, P)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    projected = U.T @ Y
    best, least = PENALTIES[0], float("inf")
    for penalty in PENALTIES:
        shrink = S**2 / (S**2 + penalty)
        leverage = (U.square() * shrink).sum(1) + 1 / len(X)  # (T,), with the intercept's
        residual = (Y - U @ (shrink[:, None] * projected)) / (1 - leverage).clamp_min(1e-9)[:, None]
        if float(residual.square().mean()) < least:
            best, least = penalty, float(residual.square().mean())
    B: Tensor = Vh.T @ ((S / (S**2 + best))[:, None] * projected)  # (C, P)
    return ((condition - mean).double() @ B).float() + target


def vote(
    zoo: Zoo, family: TaskFamily, seen: SeenTasks, names: Sequence[str], k: int = 5, split: str = "test"
) -> Tensor:
    """Accuracy (n,) of the majority of the k nearest seen tasks' networks, which all run on the new task's images."""
    condition = conditions_of(zoo, names)
    model, accuracy = family.build(), torch.empty(len(names), dtype=torch.float64)
    for i, (name, chosen) in enumerate(zip(names, neighbours(seen, condition, k), strict=True)):
        states = [zoo.complete(zoo.spec.unflatten(seen.weights[j])) for j in chosen]
        data = family.task(name).data(split)
        found = score_networks(family, model, states, data)
        assert found.predictions is not None  # classifiers vote
        accuracy[i] = (found.predictions.mode(0).values == data.targets).float().mean()
    return accuracy


def conditions_of(zoo: Zoo, names: Sequence[str]) -> Tensor:
    """Conditions (n, C) of tasks of a zoo.

    Raises:
        ParamgenError: The zoo holds no network of a task, so its condition was not recorded.
    """
    known = {entry.task: entry.condition for entry in zoo.entries}
    for name in names:
        if known.get(name) is None:
            raise ParamgenError(f"zoo {zoo.name!r} records no condition of task {name!r}; collect it with heldout=true")
    return torch.tensor([known[name] for name in names])


def scores_of(
    zoo: Zoo, family: TaskFamily, weights: Tensor, names: Sequence[str], split: str = "test", device: str = "cpu"
) -> Tensor:
    """Scores (n,) of networks (n, P), each on its own task."""
    return score_family(zoo, [zoo.spec.unflatten(row) for row in weights], names, split, family, device)


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


class TaskConditions(NamedTuple):
    """What is asked of a generator.

    Args:
        names: n names of tasks, one for each network to draw.
        condition: (n, C).
    """

    names: list[str]
    condition: Tensor


def tasks_to_draw(zoo: Zoo, per_task: int, seen_tasks: int) -> TaskConditions:
    """`per_task` networks for each unseen task of a zoo, then for each of its first `seen_tasks` seen tasks.

    Raises:
        ParamgenError: seen_tasks below 0, or as :func:`unseen_family` and :func:`conditions_of`.
    """
    require_non_negative(seen_tasks=seen_tasks)
    family = unseen_family(zoo)
    names = [name for name in [*family.unseen, *family.seen[:seen_tasks]] for _ in range(per_task)]
    return TaskConditions(names, conditions_of(zoo, names))


WEIGHTS: dict[str, Callable[[SeenTasks, Tensor], Tensor]] = {  # what gives weights (n, P) from conditions (n, C)
    "nearest": nearest,
    "average-2": average,
    "average-all": lambda seen, condition: seen.weights.mean(0).expand(len(condition), -1),
    "ridge": ridge,
}
VOTE, VOTERS = "vote-5", 5  # gives predictions and no weights
FAMILY_BASELINES = (*WEIGHTS, VOTE)
