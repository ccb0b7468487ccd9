"""Steps of further training until networks are as good as the zoo: the value of a generated start.

R: networks trained at once. P: generated parameters.
"""

from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.tasks import Task, TaskFamily

MOST = 500  # maximum number of steps
STEPS_BETWEEN_SCORES = 5  # on the val split
SETTINGS = OptimSettings(optimizer="adam", lr=1e-3)


def validation_scores(
    task: Task, states: Sequence[StateDict], device: torch.device | str = "cpu"
) -> Tensor:  # (R,) float64
    """Scores of complete networks on the task's val split.

    Args:
        task: Gives the network and the data.
        states: R complete state dicts.
        device: Where they run.
    """
    return task.evaluate(states, "val", device=device).value


def steps_to_reach(
    task: Task,
    zoo: Zoo,
    weights: Tensor,
    target: float,
    *,
    most: int = MOST,
    every: int = STEPS_BETWEEN_SCORES,
    settings: OptimSettings = SETTINGS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Steps on train images after which each start first reaches a score on the val split; inf where it does not.

    The generated tensors alone are trained, all starts at once, each on its own order of the data.

    Args:
        task: Gives the network and the data; the test split is not used.
        zoo: Says which tensors are trained, and gives the others.
        weights: (R, P), the starts.
        target: The score to reach.
        most: Maximum number of steps.
        every: Steps between two evaluations.
        settings: Optimizer, rate and batch.
        seed: Of the order of the data.
        device: Device to train on, for example cuda.

    Returns:
        (R,) float64: 0 for a start that is good already, else a multiple of `every`, or inf.
    """
    states = [zoo.complete(zoo.spec.unflatten(row)) for row in weights.cpu()]
    needed = torch.where(task.score.good(validation_scores(task, states, device), target), 0.0, inf).double()  # (R,)
    if needed.isfinite().all():
        return needed
    group = NetworkGroup(task.build(), states, zoo.spec.names, device, loss=task.loss)
    trainer = GroupTrainer(group, task.data("train"), settings, [seed + r for r in range(len(states))], most)
    for step in trainer.run():
        if step % every:
            continue
        reached = task.score.good(validation_scores(task, group.states(), device), target)
        needed[reached & needed.isinf()] = step
        if needed.isfinite().all():
            break
    return needed


def steps_on_tasks(
    family: TaskFamily,
    zoo: Zoo,
    weights: Tensor,
    names: Sequence[str | None],
    targets: Mapping[str | None, float],
    *,
    most: int = MOST,
    device: torch.device | str = "cpu",
) -> Tensor:
    """As :func:`steps_to_reach`, each start on its own task; those of one task together.

    Args:
        family: The tasks.
        zoo: Says which tensors are trained, and gives the others.
        weights: (R, P), the starts.
        names: R tasks; None of a single task.
        targets: The score to reach on each task's val split.
        most: Maximum number of steps.
        device: Device to train on, for example cuda.

    Returns:
        (R,) float64.
    """
    needed = torch.empty(len(weights), dtype=torch.float64)
    for name in dict.fromkeys(names):
        own = torch.tensor([task == name for task in names])
        needed[own] = steps_to_reach(family.task(name), zoo, weights[own], targets[name], most=most, device=device)
    return needed
