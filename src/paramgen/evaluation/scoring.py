"""How the networks of a row are scored: by the zoo's task, on the splits that only the evaluation sees. N: networks."""

import time
from itertools import islice

import torch
from torch import Tensor

from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.evaluation.baselines import random_init
from paramgen.evaluation.context import Scored
from paramgen.tasks import Task
from paramgen.tasks.base import FirstImages
from paramgen.tasks.batchnorm import BATCHES, has_statistics, recalibrate

RECALIBRATION_BATCH = 128
UNTRAINED = 8  # networks that show what no training reaches, where the task does not say


class Scoring:
    """Scores rows, and remembers what could not be scored.

    Args:
        task: The zoo's task.
        device: Where networks run.
        train_items: Train items that `selected` is chosen on, at most.
    """

    def __init__(self, task: Task, device: torch.device, train_items: int) -> None:
        self.task, self.device, self.most = task, device, train_items
        self.spec = task.score
        self.seconds, self.notes = 0.0, list[str]()
        self.model = task.build().to(device).eval()
        test = task.data("test") if task.has_data else None
        self.targets = None if test is None else test.targets
        self.train = FirstImages(task.data("train"), train_items) if task.has_data else None
        self.test_items = 0 if test is None else len(test)
        self.train_items = 0 if self.train is None else len(self.train)
        self.inputs = self._recalibration_inputs()

    def score(self, name: str, states: list[StateDict]) -> Scored:
        """Scores of a row's networks on test and on train, and on test with batch norm recalibrated.

        Args:
            name: Of the row.
            states: N complete state dicts.
        """
        start = time.perf_counter()
        test = self.task.evaluate(states, "test", device=self.device)
        train = self.task.evaluate(states, "train", self.most, self.device)
        if test.failed:
            first, reason = next(iter(test.failed.items()))
            self.notes.append(
                f"{len(test.failed)} of {len(states)} networks of {name} could not be scored (network {first}: {reason})."
            )
        recalibrated = None
        if self.inputs:
            states = recalibrate(self.model, states, self.inputs)
            recalibrated = self.task.evaluate(states, "test", device=self.device).value
        self.seconds += time.perf_counter() - start
        return Scored(test, train.value, recalibrated)

    def untrained(self, zoo: Zoo) -> float:
        """The score of networks that learnt nothing: of guessing, or the mean test score of fresh ones."""
        chance = None if self.targets is None else self.task.chance(self.targets)
        if chance is not None:
            return chance
        fresh = random_init(self.task, zoo, UNTRAINED, 0)
        states = [zoo.complete(zoo.spec.unflatten(row)) for row in fresh]
        return self.task.evaluate(states, "test", device=self.device).value.nanmean().item()

    def _recalibration_inputs(self) -> list[Tensor]:
        if self.train is None or not has_statistics(self.model):
            return []
        return [x.to(self.device) for x, _ in islice(self.train.batches(RECALIBRATION_BATCH), BATCHES)]
