"""How the networks of a row are scored, each on its own task, on the splits that only the evaluation sees. N: networks. M: test items."""

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor

from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.evaluation.context import RowScores
from paramgen.evaluation.network_set import NetworkSet
from paramgen.evaluation.results import TaskScores
from paramgen.evaluation.task_baselines import fresh_networks
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.tasks import TaskFamily
from paramgen.tasks.base import FirstImages, SplitData
from paramgen.tasks.batchnorm import calibration_inputs, has_statistics, recalibrate
from paramgen.tasks.score import Scores

UNTRAINED = 8  # networks that show what no training reaches, where the task does not say


class Scoring:
    """Scores rows, and remembers what could not be scored.

    Args:
        tasks: What the networks do.
        device: Where networks run.
        split: Items that networks are scored on; what is chosen must be chosen on ``val``.
        train_items: `selected` is chosen on at most this many train items; of a family nothing is chosen.
    """

    def __init__(self, tasks: TaskFamily, device: torch.device, split: str, train_items: int) -> None:
        self.tasks, self.device, self.split, self.most = tasks, device, split, train_items
        self.spec, self.unseen = tasks.score, tasks.unseen
        self.task = None if tasks.unseen else tasks.task()  # the only one
        self.seconds, self.notes = 0.0, list[str]()
        self.test_items = self.train_items = 0
        self.train: SplitData | None = None
        self.targets: Tensor | None = None  # (M, ...) of the only task
        if tasks.has_data:
            self.train = FirstImages(tasks.task(tasks.names[0]).data("train"), train_items)
            self.train_items = len(self.train)
            splits = [tasks.task(name).data(split) for name in tasks.unseen or tasks.names]
            self.test_items = min(len(data) for data in splits)
            self.targets = None if self.task is None else splits[0].targets
        self._inputs = self._recalibration_inputs()

    def score(self, networks: NetworkSet, states: Sequence[StateDict]) -> RowScores:
        """Scores of a row's networks on their own tasks.

        Of one task also those on train, and on test with batch norm recalibrated; of a family those of networks for unseen tasks, and
        the means of all tasks.

        Args:
            networks: The row.
            states: N complete state dicts; none for a method without weights.
        """
        start = time.perf_counter()
        names: Sequence[str | None] = networks.tasks or [None] * len(networks)
        test = self._test(networks, states, names)
        row = self._each_on_its_own(networks, test) if self.task is None else self._all_on_one(states, test)
        self.seconds += time.perf_counter() - start
        return row

    def _test(self, networks: NetworkSet, states: Sequence[StateDict], names: Sequence[str | None]) -> Scores:
        if networks.scores is not None:
            return Scores(networks.scores)
        test = self.tasks.evaluate_each(states, names, self.split, device=self.device)
        if test.failed:
            first, reason = next(iter(test.failed.items()))
            row = "the held-out runs" if networks.role == "heldout" else networks.name
            row = "the zoo" if networks.role == "zoo" else row
            self.notes.append(
                f"{len(test.failed)} of {len(states)} networks of {row} could not be scored (network {first}: {reason})."
            )
        return test

    def _all_on_one(self, states: Sequence[StateDict], test: Scores) -> RowScores:
        assert self.task is not None
        train = self.task.evaluate(states, "train", self.most, self.device).value
        if not self._inputs:
            return RowScores(test, train)
        states = recalibrate(self.task.architecture.to(self.device), states, self._inputs)
        return RowScores(test, train, self.task.evaluate(states, self.split, device=self.device).value)

    def _each_on_its_own(self, networks: NetworkSet, test: Scores) -> RowScores:
        assert networks.tasks is not None
        by_task = defaultdict[str, list[float]](list)
        for task, value in zip(networks.tasks, test.value.tolist(), strict=True):
            by_task[task].append(value)
        unseen = {task: mean(by_task.pop(task)) for task in self.unseen}
        seen = {task: mean(values) for task, values in by_task.items()} or None
        counted = test.value[networks.counted(self.unseen)].double()
        return RowScores(Scores(counted), tasks=TaskScores(unseen, seen))

    def works_from(self, zoo: Zoo, first: RowScores) -> float | None:
        """The score from which networks work at all, between that of guessing and that of the first row; None for a family.

        Args:
            zoo: Says which tensors fresh networks have.
            first: Scores of the first row.
        """
        if self.task is None:
            return None
        untrained = self._untrained(zoo)
        return untrained + THRESHOLDS.works * (first.mean - untrained)

    def _untrained(self, zoo: Zoo) -> float:
        """The score of networks that learnt nothing: of guessing, or the mean test score of fresh ones."""
        assert self.task is not None
        chance = None if self.targets is None else self.task.chance(self.targets)
        if chance is not None:
            return chance
        fresh = fresh_networks(self.task, zoo, UNTRAINED, 0)
        states = [zoo.complete(zoo.spec.unflatten(row)) for row in fresh]
        return self.task.evaluate(states, self.split, device=self.device).value.nanmean().item()

    def _recalibration_inputs(self) -> list[Tensor]:
        """Batches of train items; none for a family, nor for networks without batch norm."""
        if self.task is None or self.train is None or not has_statistics(self.task.architecture):
            return []
        return calibration_inputs(self.train, self.device)
