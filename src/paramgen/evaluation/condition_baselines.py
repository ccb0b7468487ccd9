"""Baselines that need conditions: weights for a new task from those of seen tasks, by the condition alone.

T: seen tasks. n: new tasks. C: numbers of a condition. P: generated parameters. Every generator of weights for unseen tasks
is compared with these.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from paramgen.evaluation.baseline import Baseline, Draw, Resource, Setting
from paramgen.evaluation.pool import Pool, SeenTasks
from paramgen.nn.condition import inverse_spread

PENALTIES = tuple(10.0**e for e in range(-3, 5))
VOTERS = 5
NOISE = 0.5  # of the zoo's spread, on a noised copy


def neighbours(seen: SeenTasks, condition: Tensor, k: int) -> Tensor:
    """The k seen tasks nearest to each condition (n, C), nearest first: (n, k). Conditions are standardised over the seen tasks."""
    scale = inverse_spread(seen.condition)
    return torch.cdist(condition * scale, seen.condition * scale).topk(min(k, len(seen.names)), largest=False).indices


def nearest_task(seen: SeenTasks, condition: Tensor) -> Tensor:
    """Retrieval: the nearest seen task's weights (n, P)."""
    return seen.weights[neighbours(seen, condition, 1)[:, 0]]


def average(seen: SeenTasks, condition: Tensor, k: int = 2) -> Tensor:
    """The mean of the k nearest seen tasks' weights (n, P)."""
    return seen.weights[neighbours(seen, condition, k)].mean(1)


def average_all(seen: SeenTasks, condition: Tensor) -> Tensor:
    """The mean of all seen tasks' weights (n, P)."""
    return seen.weights.mean(0).expand(len(condition), -1)


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


def vote(pool: Pool, k: int = VOTERS) -> Tensor:
    """Accuracy (n,) of the majority of the k nearest seen tasks' networks, which all run on the new task's items."""
    assert pool.tasks is not None
    assert pool.zoo is not None
    assert pool.new is not None
    zoo, new = pool.zoo, pool.new
    accuracy = torch.empty(len(new.names), dtype=torch.float64)
    for i, (name, near) in enumerate(zip(new.names, neighbours(new.seen, new.condition, k), strict=True)):
        states = [zoo.complete(zoo.spec.unflatten(new.seen.weights[j])) for j in near]
        task = pool.tasks.task(name)
        predictions = task.evaluate(states, new.split).predictions
        assert predictions is not None  # classifiers vote
        accuracy[i] = (predictions.mode(0).values == task.data(new.split).targets).float().mean()
    return accuracy


def nearest_noised(pool: Pool, n: int, generator: Generator, sigma: float = NOISE) -> Tensor:
    """The nearest seen task's weights (n, P) with white noise of sigma x the zoo's spread, weight by weight: a start to fine-tune from."""
    near = _drawn(nearest_task)(pool, n, generator)
    return near + sigma * pool.weights.std(0) * torch.randn(near.shape, generator=generator)


def _drawn(weights_for: Callable[[SeenTasks, Tensor], Tensor]) -> Draw:
    """Networks for the new tasks of a pool, from what gives weights (n, P) for conditions (n, C)."""

    def draw(pool: Pool, n: int, generator: Generator) -> Tensor:
        assert pool.new is not None
        return weights_for(pool.new.seen, pool.new.condition)

    return draw


def _baseline(
    draw: Draw | None = None, predict: Callable[[Pool], Tensor] | None = None, shown: Setting = "unseen_tasks"
) -> Baseline:
    needs: frozenset[Resource] = frozenset({"conditions"} if predict is None else {"conditions", "classes"})
    return Baseline(draw, predict, needs, frozenset({shown}), raw=True)


FROM_CONDITIONS: Mapping[str, Baseline] = MappingProxyType(
    {
        "nearest": _baseline(_drawn(nearest_task)),
        "average-2": _baseline(_drawn(average)),
        "average-all": _baseline(_drawn(average_all)),
        "ridge": _baseline(_drawn(ridge)),
        f"vote-{VOTERS}": _baseline(predict=vote),
        "nearest-noised": _baseline(nearest_noised, shown="starts"),
    }
)
