"""How the networks of a row are scored, each on its own task, on the splits that only the evaluation sees. N: networks. M: test items."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import torch
from torch import Tensor

from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.evaluation.context import Failures, RowScores
from paramgen.evaluation.metrics import finite_mean
from paramgen.evaluation.network_set import NetworkSet
from paramgen.evaluation.results import TaskScores
from paramgen.evaluation.score_store import Measure, ScoreStore
from paramgen.evaluation.task_baselines import fresh_networks
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.tasks import TaskFamily
from paramgen.tasks.base import FirstImages, SplitData
from paramgen.tasks.batchnorm import calibration_inputs, has_statistics, recalibrate
from paramgen.tasks.score import Scores, without_score

UNTRAINED = 8  # networks that show what no training reaches, where the task does not say


class Scoring:
    """Scores rows, and remembers what could not be scored.

    Args:
        tasks: What the networks do.
        device: Where networks run.
        split: Items that networks are scored on; what is chosen must be chosen on ``val``.
        train_items: `selected` is chosen on at most this many train items; for a family nothing is chosen.
        store: Scores that shards computed; None: all are computed here.
    """

    def __init__(
        self, tasks: TaskFamily, device: torch.device, split: str, train_items: int, store: ScoreStore | None = None
    ) -> None:
        self.tasks, self.device, self.split, self.most, self.store = tasks, device, split, train_items, store
        self.spec, self.unseen = tasks.score, tasks.unseen
        self.task = None if tasks.unseen else tasks.task()  # the only one
        self.seconds = 0.0
        self.test_items = self.train_items = 0
        self.train: SplitData | None = None
        self.targets: Tensor | None = None  # (M, ...) of the only task
        if tasks.has_data:
            self.train = FirstImages(tasks.task(tasks.names[0]).items("train"), train_items)
            self.train_items = len(self.train)
            splits = [tasks.task(name).items(split) for name in tasks.unseen or tasks.names]
            self.test_items = min(len(data) for data in splits)
            self.targets = None if self.task is None else splits[0].targets
        self._inputs = self._recalibration_inputs()

    def score(self, networks: NetworkSet, states: Sequence[StateDict]) -> RowScores:
        """Scores of a row's networks on their own tasks.

        For one task also those on train, and on test with batch norm recalibrated; for a family those of networks for unseen tasks, and
        the means of all tasks.

        Args:
            networks: The row.
            states: N complete state dicts; none for a method without weights.
        """
        start = time.perf_counter()
        names, failures = _names(networks), None
        if networks.scores is not None:
            test, others = Scores(networks.scores), []
        else:
            test, *others = (self._scores(kind, states, names, measure) for kind, measure in self._kinds(states, names))
            failures = _failures(networks, test)
        if self.task is None:
            row = replace(self._each_on_its_own(networks, test), failures=failures)
        else:
            train, recalibrated, *_ = [*(scores.value for scores in others), None, None]
            row = RowScores(test, train, recalibrated, failures=failures)
        self.seconds += time.perf_counter() - start
        return row

    def share(self, networks: NetworkSet, states: Sequence[StateDict], places: Sequence[int]) -> None:
        """Compute and store some of what :meth:`score` needs.

        Args:
            networks: The row.
            states: As of :meth:`score`.
            places: Of the networks that are scored here.
        """
        assert self.store is not None
        names = _names(networks)
        for kind, measure in self._kinds(states, names) if networks.scores is None else ():
            self.store.share(kind, states, names, measure, places)

    def knows(self, networks: NetworkSet, states: Sequence[StateDict]) -> bool:
        """Whether the store holds all that :meth:`score` needs; same arguments."""
        assert self.store is not None
        names = _names(networks)
        kinds = self._kinds(states, names) if networks.scores is None else []
        return all(self.store.knows(kind, states, names) for kind, _ in kinds)

    def _scores(self, kind: str, states: Sequence[StateDict], names: Sequence[str | None], measure: Measure) -> Scores:
        if self.store is None or not states:
            return measure(range(len(states)))
        return self.store.scores(kind, states, names, measure)

    def _kinds(self, states: Sequence[StateDict], names: Sequence[str | None]) -> list[tuple[str, Measure]]:
        """What a row's networks are scored on: their own task; for one task also train items, and with batch norm recalibrated."""

        def on(split: str, most: int | None = None, prepared: bool = False) -> tuple[str, Measure]:
            def measure(places: Sequence[int]) -> Scores:
                some = [states[i] for i in places]
                if prepared:
                    assert self.task is not None
                    some = recalibrate(self.task.architecture.to(self.device), some, self._inputs)
                return self.tasks.evaluate_each(some, [names[i] for i in places], split, most, self.device)

            return f"{split} {most} {self.most if prepared else ''}", measure

        kinds = [on(self.split)]
        if self.task is not None:
            kinds.append(on("train", self.most))
        if self._inputs:
            kinds.append(on(self.split, prepared=True))
        return kinds

    def _each_on_its_own(self, networks: NetworkSet, test: Scores) -> RowScores:
        assert networks.tasks is not None
        by_task = defaultdict[str, list[float]](list)
        for task, value in zip(networks.tasks, test.value.tolist(), strict=True):
            by_task[task].append(value)
        unseen = {task: mean(by_task.pop(task)) for task in self.unseen}
        seen = {task: mean(values) for task, values in by_task.items()} or None
        counted = test.value[networks.counted(self.unseen)].double()
        return RowScores(Scores(counted), tasks=TaskScores(unseen, seen))

    def goodness(self, train: Tensor) -> Tensor:
        """Train scores (K,), larger is better, -inf where there is none."""
        signed = self.spec.sign * train.cpu()
        return signed.where(signed.isfinite(), -torch.inf)

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
        return finite_mean(self.task.evaluate(states, self.split, device=self.device).value)

    def _recalibration_inputs(self) -> list[Tensor]:
        """Batches of train items; none for a family, nor for networks without batch norm."""
        if self.task is None or self.train is None or not has_statistics(self.task.architecture):
            return []
        return calibration_inputs(self.train, self.device)


def _failures(networks: NetworkSet, test: Scores) -> Failures | None:
    """How many networks have no score, and why the first of them has none."""
    if not (reasons := without_score(test)):
        return None
    first, reason = next(iter((dict(test.failed) or reasons).items()))
    row = "the held-out runs" if networks.role == "heldout" else networks.name
    row = "the zoo" if networks.role == "zoo" else row
    note = f"{len(reasons)} of {len(networks)} networks of {row} have no score (network {first}: {reason})."
    return Failures(note, bool(test.failed))


def _names(networks: NetworkSet) -> Sequence[str | None]:
    """The task of each network; None of a single task."""
    return networks.tasks or [None] * len(networks)
