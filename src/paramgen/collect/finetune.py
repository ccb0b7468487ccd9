"""Steps of further training until networks are as good as the zoo: the value of a generated start.

R: networks trained at once. P: generated parameters.
"""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.tasks import Task

MOST = 500  # maximum number of steps
STEPS_BETWEEN_SCORES = 5  # on the val split
SETTINGS = OptimSettings(optimizer="adam", lr=1e-3)


def validation_scores(task: Task, states: Sequence[StateDict], device: torch.device | str = "cpu") -> Tensor:
    """Scores (R,) float64 of complete networks on the task's val split.

    Args:
        task: Gives the network and the data.
        states: R complete state dicts.
        device: Where they run.
    """
    return task.evaluate(states, "val", device=device).value


def steps_to_reach(
    task: Task,
    zoo: Zoo,
    starts: Tensor,
    target: float,
    *,
    most: int = MOST,
    settings: OptimSettings = SETTINGS,
    device: torch.device | str = "cpu",
    places: Sequence[int] | None = None,
) -> Tensor:
    """Steps on train images after which each start first reaches a score on the val split; inf where it does not.

    The generated tensors alone are trained, all starts at once, each on its own order of the data, which its place seeds.

    Args:
        task: Gives the network and the data; the test split is not used.
        zoo: Says which tensors are trained, and gives the others.
        starts: (R, P).
        target: The score to reach.
        most: Maximum number of steps.
        settings: Optimizer, rate and batch.
        device: Device to train on, for example cuda.
        places: Places r of the starts to train; each needs the steps that it would need among all. Default: all.

    Returns:
        Float64, one number per place: 0 for a start that is good already, else a multiple of :data:`STEPS_BETWEEN_SCORES`, or inf.
    """
    chosen = list(range(len(starts)) if places is None else places)
    states = [zoo.complete(zoo.spec.unflatten(row)) for row in starts[chosen].cpu()]
    needed = torch.where(task.score.good(validation_scores(task, states, device), target), 0.0, inf).double()  # (R,)
    if needed.isfinite().all():
        return needed
    group = NetworkGroup(
        task.build(), states, zoo.spec.names, device, loss=task.loss, with_targets=task.takes_targets, among=len(starts)
    )
    trainer = GroupTrainer(group, task.items("train"), settings, chosen, most)
    for step in trainer.run():
        if step % STEPS_BETWEEN_SCORES:
            continue
        reached = task.score.good(validation_scores(task, group.states(), device), target)
        needed[reached & needed.isinf()] = step
        if needed.isfinite().all():
            break
    return needed
