"""How many steps of fine-tuning a row's networks need to be as good as those of the first row, on val.

N: networks of a row. P: generated parameters.
"""

from collections.abc import Sequence
from statistics import median

import torch

from paramgen.collect.finetune import steps_on_tasks, validation_scores
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.network_set import NetworkSet
from paramgen.tasks import TaskFamily

STARTS = 16  # networks of a row that are trained on, for each task


class FineTuning:
    """Counts steps of training.

    Args:
        tasks: What the networks do.
        zoo: Says which tensors are trained, and gives the others.
        first: The first row. To be reached is its mean on val, task by task, less the score's margin.
        states: Its networks, complete.
        device: Where networks are trained.

    Raises:
        ParamgenError: The tasks have no data.
    """

    def __init__(
        self, tasks: TaskFamily | None, zoo: Zoo, first: NetworkSet, states: Sequence[StateDict], device: torch.device
    ) -> None:
        if tasks is None or not tasks.has_data:
            raise ParamgenError(f"finetune needs a task with data, and zoo {zoo.name!r} has none; leave it out")
        self.tasks, self.zoo, self.device = tasks, zoo, device
        self.targets: dict[str | None, float] = {}
        names: Sequence[str | None] = tasks.unseen or [None]
        for name in names:
            trained = [state for state, task in zip(states, _tasks_of(first), strict=True) if task == name]
            score = validation_scores(tasks.task(name), trained, device).mean().item()
            self.targets[name] = tasks.score.floor(score)

    def steps(self, networks: NetworkSet) -> float | None:
        """Median steps of the first 16 networks for each task; inf where half do not get there, None of a method without weights.

        Args:
            networks: A row.
        """
        if networks.weights is None:
            return None
        tasks = _tasks_of(networks)
        places = [i for name in self.targets for i in [i for i, task in enumerate(tasks) if task == name][:STARTS]]
        starts, names = networks.weights[places], [tasks[i] for i in places]
        steps = steps_on_tasks(self.tasks, self.zoo, starts, names, self.targets, device=self.device)
        middle: float = median(steps.tolist())
        return middle


def _tasks_of(networks: NetworkSet) -> Sequence[str | None]:
    return networks.tasks or [None] * len(networks)
