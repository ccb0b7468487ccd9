"""How many steps of fine-tuning a row's networks need to be as good as those of the first row, on val.

N: networks of a row. P: generated parameters.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor

from paramgen.collect.finetune import steps_to_reach, validation_scores
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.metrics import finite_mean
from paramgen.evaluation.network_set import NetworkSet
from paramgen.evaluation.score_store import Measure, ScoreStore
from paramgen.tasks import TaskFamily
from paramgen.tasks.score import Scores

STARTS = 16  # networks of a row that are trained on, for each task


class FineTuning:
    """Counts steps of training.

    Args:
        tasks: What the networks do.
        zoo: Says which tensors are trained, and gives the others.
        first: The first row. To be reached is the mean of its finite scores on val, task by task, less the score's margin.
        states: Its networks, complete.
        device: Where networks are trained.
        store: Steps and val scores that shards computed; None: all are computed here.

    Raises:
        ParamgenError: The tasks have no data.
    """

    def __init__(
        self,
        tasks: TaskFamily | None,
        zoo: Zoo,
        first: NetworkSet,
        states: Sequence[StateDict],
        device: torch.device,
        store: ScoreStore | None = None,
    ) -> None:
        if tasks is None or not tasks.has_data:
            raise ParamgenError(f"finetune needs a task with data, and zoo {zoo.name!r} has none; leave it out")
        self.tasks, self.zoo, self.device, self.store = tasks, zoo, device, store
        self.targets: dict[str | None, float] = {}
        names: Sequence[str | None] = tasks.unseen or [None]
        for name in names:
            trained = [state for state, task in zip(states, _tasks_of(first), strict=True) if task == name]
            score = finite_mean(validation_scores(tasks.task(name), trained, device))
            self.targets[name] = tasks.score.floor(score)

    def steps(self, networks: NetworkSet) -> float | None:
        """Median steps of the first 16 networks for each task; inf where half do not get there, None of a method without weights.

        Args:
            networks: A row.
        """
        if networks.weights is None:
            return None
        middle: float = median(self.counted(networks).tolist())
        return middle

    def counted(self, networks: NetworkSet) -> Tensor:
        """Steps (R,) of the first 16 networks for each task, task by task in the order of :attr:`targets`; inf where they do not get there.

        Args:
            networks: A row with weights.
        """
        found = [
            measure(range(len(states))) if self.store is None else self.store.scores(kind, states, names, measure)
            for kind, states, names, measure in self._parts(networks)
        ]
        return torch.cat([steps.value for steps in found])

    def share(self, networks: NetworkSet) -> None:
        """Count and store a shard's part of what :meth:`steps` needs; same argument."""
        assert self.store is not None
        for part in self._parts(networks) if networks.weights is not None else ():
            self.store.share(*part)

    def knows(self, networks: NetworkSet) -> bool:
        """Whether the store holds all that :meth:`steps` needs; same argument."""
        assert self.store is not None
        parts = self._parts(networks) if networks.weights is not None else ()
        return all(self.store.knows(*part[:3]) for part in parts)

    def _parts(self, networks: NetworkSet) -> Iterator[tuple[str, list[StateDict], list[str | None], Measure]]:
        """For each task: what is counted, the starts, their names and how to count; arguments of a store's methods."""
        assert networks.weights is not None
        tasks = _tasks_of(networks)
        for name, target in self.targets.items():
            starts = networks.weights[[i for i, task in enumerate(tasks) if task == name][:STARTS]]  # (R, P)
            names: list[str | None] = [f"{name} at place {place}" for place in range(len(starts))]
            count = partial(self._count, name, starts)
            yield f"steps to {target!r}", [{"start": start} for start in starts], names, count

    def _count(self, name: str | None, starts: Tensor, places: Sequence[int]) -> Scores:
        """Steps of some of the starts (R, P), which are given by their places."""
        task, target = self.tasks.task(name), self.targets[name]
        return Scores(steps_to_reach(task, self.zoo, starts, target, device=self.device, places=places))


def _tasks_of(networks: NetworkSet) -> Sequence[str | None]:
    return networks.tasks or [None] * len(networks)
