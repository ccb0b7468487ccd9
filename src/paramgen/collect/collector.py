"""One collector for every zoo: train runs side by side, score their networks, write them.

A zoo is made of runs, and each run belongs to a task of a family; a single task is a family of one. The modes differ in where
runs start, how long they are trained, and which steps are kept: a :class:`Plan`.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from paramgen.collect.announce import announce
from paramgen.collect.doubts import zoo_doubts
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.devices import usable_device
from paramgen.core.intake import Architecture, check_network
from paramgen.core.io import read_tensors, write_tensors
from paramgen.core.locks import locked
from paramgen.core.params import ParamSpec, StateDict, state_tensors
from paramgen.core.progress import ProgressDisplay
from paramgen.core.shard_progress import ShardProgress
from paramgen.core.shards import SHARED, Shard, finished
from paramgen.core.subsets import select_tensors
from paramgen.core.zoo import PARTS, START, Split, Zoo
from paramgen.core.zoo_writer import REST_FILE, ZooWriter, check_resumable, finished_zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import SplitData, TaskFamily
from paramgen.tasks.items import TrainingData, side_by_side
from paramgen.tasks.score import plain_scores

_log = logging.getLogger(__name__)
REST = 20.0  # seconds between two stores of a training's complete state
NUMBERS_AT_ONCE = 1 << 19  # numbers in the networks trained at once: fewer increase overhead, more exceed the caches
PENDING = 1 << 22  # numbers in the networks that wait to be scored together
WAIT = 5.0  # seconds that they wait at most


class Run(NamedTuple):
    """One run of a zoo.

    Args:
        number: Its place in the zoo.
        seed: Seed of its data order, augmentation and dropout.
        split: Which split its networks belong to.
        task: Its task; None for a single task.
        condition: What describes its task, if anything.
    """

    number: int
    seed: int
    split: Split = "train"
    task: str | None = None
    condition: list[float] | None = None


class Plan(NamedTuple):
    """How the runs of a zoo are trained.

    Args:
        label: Its name on the progress bar.
        runs: The runs.
        starts: Complete state dicts that some of the runs start from.
        optim: Optimizer, learning rate and batch size.
        kept: Optimizer steps after which networks are saved; the last one ends the run.
        steps: Steps that the learning rate's schedule spans.
        finish: Applied to every network before it is saved.
        begun: The trained network that all runs start from, if any; the runs should not be worse.
        shared: Tensors that all runs start from, stored with the zoo; None for none.
    """

    label: str
    runs: Sequence[Run]
    starts: Callable[[Sequence[Run]], list[StateDict]]
    optim: OptimSettings
    kept: set[int]
    steps: int
    finish: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    begun: StateDict | None = None
    shared: StateDict | None = None


class Training(NamedTuple):
    """Networks of one architecture that are trained side by side.

    Args:
        label: Its name on the progress bar and in the file of its state.
        network: The architecture.
        starts: R complete state dicts.
        names: Tensors that change.
        data: What they are trained on.
        optim: Optimizer, learning rate and batch size.
        seeds: R seeds.
        steps: Optimizer steps in all.
        among: Networks that they would be trained with if all were trained here; at least R.
    """

    label: str
    network: nn.Module
    starts: Sequence[StateDict]
    names: Sequence[str]
    data: TrainingData
    optim: OptimSettings
    seeds: Sequence[int]
    steps: int
    among: int = 1


@dataclass(frozen=True)
class Recording:
    """What a zoo records of every network.

    Args:
        dtype: Data type of stored real weights. None: unchanged.
        most: Maximum number of items of each split that a network is scored on. None: all.
        parts: Splits that networks are scored on.
    """

    dtype: str | None = None
    most: int | None = None
    parts: Sequence[str] = PARTS


class Collector:
    """Trains, scores and writes. A training's state is stored between epochs, so that an interrupted collection repeats little.

    Args:
        family: What is trained for; a single task is a family of one.
        out: Folder of the zoo.
        recipe: Everything that makes the networks, plain values.
        network: The architecture.
        parameters: Names, globs, ``re:`` patterns or subsets of the tensors that are trained and saved.
        device: Device to train on.
        recording: What is recorded of every network.
        shard: Which of the runs are trained here, into a folder of `out`. None: all, into `out` itself.

    Raises:
        ParamgenError: A device that cannot be used, a network that no zoo can hold, a pattern that matches nothing, a folder with a zoo.
    """

    def __init__(
        self,
        family: TaskFamily,
        out: Path,
        recipe: dict[str, Any],
        network: nn.Module,
        parameters: Sequence[str],
        device: str = "cpu",
        recording: Recording | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.family, self.recipe, self.device, self.shard = family, recipe, device, shard
        self.population = family.population()
        self.of_zoo = self.population or family  # what the zoo says that its networks do
        self.out, self.shared = (out, out) if shard is None else (shard.folder(out), out / SHARED)
        self.recording = recording or Recording()
        usable_device(device)
        self.network = network
        Architecture(network)  # refuses networks that a zoo cannot hold, before training
        self.names = select_tensors(network, parameters)
        self.spec = ParamSpec.of(network, self.names)
        places, config = dict.fromkeys((out, self.out)), self.of_zoo.config()  # a merged zoo, or a shard's
        self.finished = next((zoo for place in places if (zoo := finished_zoo(place, config, recipe))), None)
        if self.finished is None:
            for place in places:
                check_resumable(place, config, recipe)
        made_by = json.dumps([self.of_zoo.config(), recipe], sort_keys=True)
        self.digest = sha256(made_by.encode()).hexdigest()[:12]  # the state of another recipe's training is never used
        self.writer: ZooWriter | None = None
        self.resumed = False
        self.done: set[tuple[int, int]] = set()  # (run, step) of the networks that an earlier command wrote
        self.pending: list[tuple[Mapping[str, Tensor], Run, int]] = []  # networks, their runs and steps
        self.flushed = time.perf_counter()
        self._data: dict[str | None, SplitData] = {}

    def collect(self, plan: Callable[["Collector"], Plan], networks: int, **meta: Any) -> Zoo:
        """The finished zoo; nothing is trained if the folder holds it already.

        Args:
            plan: Makes the plan, and trains what the runs start from.
            networks: Number of networks of the zoo.
            **meta: More plain values for ``zoo.json``.

        Raises:
            ParamgenError: The folder holds a zoo of this recipe with other networks, conditions or scores, or another process writes to it.
        """
        if self.finished is not None:
            return self._again(self.finished, networks, meta.get("condition"))
        torch.set_flush_denormal(True)  # converged networks have many denormal numbers, which are slow
        begun = time.perf_counter()
        if self.recording.parts:
            first = self.family.task(self.family.names[0])
            announce(first, state_tensors(self.network), networks, self.recording.most, self.device)
        display = ProgressDisplay() if self.shard is None else ShardProgress(self.shard, self.out.parent)
        with locked(self.out), display as self.progress:
            run_plan = plan(self)
            writer = self._run(run_plan)
            self._flush()
        if not self.resumed:  # of all runs together, or not recorded
            meta["seconds"] = time.perf_counter() - begun
        start = self._start_score(run_plan.begun)
        if self.shard is not None:
            meta |= {"shard": str(self.shard)} | ({} if start is None else {"start_score": start})
        elif warnings := self._warnings(writer, start):
            meta["warnings"] = warnings
        zoo = writer.close(score=self.family.score.to_dict(), **meta)
        if self.shard is not None:
            print(finished(self.out.parent, self.shard, "zoo.json"))
        return zoo

    def _again(self, zoo: Zoo, networks: int, condition: object) -> Zoo:
        """A zoo that an earlier command finished, if it is what this command would make."""
        count = len(zoo) if zoo.path == self.out and self.shard is not None else networks
        parts = {part for entry in zoo.entries for part in entry.scores}
        expected = (count, json.loads(json.dumps(condition)), {*self.recording.parts})
        if (len(zoo), zoo.meta.get("condition"), parts) != expected:
            raise ParamgenError(
                f"{zoo.path} already holds a zoo of this recipe with other networks, conditions or scores; "
                "choose another folder or delete it"
            )
        _log.info("%s already holds the zoo of this recipe: nothing to train", zoo.path)
        return zoo

    def trained(self, training: Training) -> StateDict:
        """One network after its training, which runs start from."""
        with nullcontext() if self.shard is None else locked(self.shared, wait=True):  # one shard trains, others read
            ((_, (state,)),) = self._train(training, {training.steps})
        return state

    def train_data(self, task: str | None) -> SplitData:
        """The train split of a task."""
        if task not in self._data:
            self._data[task] = self.family.task(task).items("train")
        return self._data[task]

    def rest(self, state: StateDict) -> StateDict:
        """The tensors of a complete state dict that are not generated."""
        generated = {*self.spec.names, *self.spec.aliases}
        return {name: tensor for name, tensor in state.items() if name not in generated}

    def _run(self, plan: Plan) -> ZooWriter:
        """Train all runs, as many side by side as is fast."""
        together = {run.number: len(group) for group in self._groups(plan.runs) for run in group}
        groups = self._groups(plan.runs if self.shard is None else self.shard.share(plan.runs))
        self.progress.expect(plan.label, len(groups) * plan.steps)
        writer: ZooWriter | None = None
        base: StateDict = {}
        for i, runs in enumerate(groups):
            starts = plan.starts(runs)
            base = base or self.rest(starts[0])
            for run, state in zip(runs, starts, strict=True):  # before training, so that a refusal costs nothing
                if state is not starts[0]:
                    check_network(state, self.spec, base, where=f"run {run.number} before training")
            writer = self.writer = writer or self._open(base, plan)
            label = plan.label if len(groups) == 1 else f"{plan.label} {i + 1} of {len(groups)}"
            if {(run.number, step) for run in runs for step in plan.kept} <= self.done:
                self.progress.begin(label, plan.steps, plan.steps)
                continue
            data = side_by_side([self.train_data(run.task) for run in runs])
            seeds = [run.seed for run in runs]
            among = max(together[run.number] for run in runs)
            training = Training(label, self.network, starts, self.names, data, plan.optim, seeds, plan.steps, among)
            for step, states in self._train(training, plan.kept, runs):
                self._add(writer, plan, states, runs, step)
        assert writer is not None  # a zoo has a run
        return writer

    def _groups(self, runs: Sequence[Run]) -> list[list[Run]]:
        """Runs that are trained side by side: as many train items each, and a limited total of numbers."""
        alike: dict[int, list[Run]] = defaultdict(list)
        for run in runs:
            alike[len(self.train_data(run.task))].append(run)
        most = max(1, NUMBERS_AT_ONCE // sum(t.numel() for t in state_tensors(self.network).values()))
        groups = []
        for same in alike.values():
            size = ceil(len(same) / ceil(len(same) / most))  # of equal sizes: a small last group takes as many steps
            groups += [same[i : i + size] for i in range(0, len(same), size)]
        return groups

    def _train(
        self, training: Training, kept: set[int], runs: Sequence[Run] = ()
    ) -> Iterator[tuple[int, list[StateDict]]]:
        """Train, and hand out the complete state dicts at the steps that are kept; of these runs where they are the zoo's."""
        _, network, starts, names, data, optim, seeds, steps, among = training
        group = NetworkGroup(
            network,
            starts,
            names,
            self.device,
            loss=self.family.loss,
            with_targets=self.family.takes_targets,
            among=among,
        )
        trainer = GroupTrainer(group, data, optim, seeds, steps)
        folder = self.out if runs else self.shared
        path = folder / f"{REST_FILE}{self.digest}-{training.label.replace(' ', '-')}.safetensors"
        stored = time.perf_counter()
        missing = min((step for step in kept for run in runs if (run.number, step) not in self.done), default=steps)
        if (state := _stored(path)) is not None:
            self.resumed = True
            if int(state["step"]) <= missing:  # a network that was lost is trained again
                trainer.load(state)
        if trainer.step in kept:  # interrupted after its last step, before its networks were written
            yield trainer.step, group.states()
        self.progress.begin(training.label, steps, trainer.step)
        for step in trainer.run():
            self.progress.update(step)
            if step in kept:
                yield step, group.states()
            due = not runs and step == steps  # the network that runs start from is trained once
            if due or (trainer.between_epochs and time.perf_counter() - stored > REST):
                self._flush()  # training resumes after what is stored, so its networks must be written first
                write_tensors(path, trainer.state())
                stored = time.perf_counter()

    def _open(self, base: StateDict, plan: Plan) -> ZooWriter:
        dtype = self.recording.dtype
        stored = [
            replace(t, dtype=dtype) if dtype is not None and t.torch_dtype.is_floating_point else t
            for t in self.spec.tensors
        ]
        spec = replace(self.spec, tensors=tuple(stored))
        writer = ZooWriter(self.out, spec, base, self.of_zoo.config(), self.recipe)
        if plan.shared is not None:
            write_tensors(self.out / START, plan.shared)
        self.done = writer.done
        self.resumed = self.resumed or bool(self.done)
        return writer

    def _add(self, writer: ZooWriter, plan: Plan, states: list[StateDict], runs: Sequence[Run], step: int) -> None:
        """Queue the networks that are not written yet; they are scored and written in batches."""
        for state, run in zip(states, runs, strict=True):
            if (run.number, step) not in self.done:
                finished = self._cast(plan.finish(state))
                writer.check(finished, run.number, step)
                self.pending.append((finished, run, step))
        numel = writer.spec.numel * len(self.pending)
        if numel > PENDING or time.perf_counter() - self.flushed > WAIT:
            self._flush()

    def _flush(self) -> None:
        """Score the waiting networks and write them."""
        if self.pending and self.writer is not None:
            states, names = [state for state, *_ in self.pending], [run.task for _, run, _ in self.pending]
            how, family = self.recording, self.family
            scores = {s: family.evaluate_each(states, names, s, how.most, self.device) for s in how.parts}
            for k, (state, run, step) in enumerate(self.pending):
                own = {part: plain_scores(values, k) for part, values in scores.items()}
                number, seed, split, task, condition = run
                task = task if self.population is None else None
                described = {"split": split, "task": task, "condition": condition}
                self.writer.add(state, run=number, step=step, seed=seed, scores=own, **described)
            self.writer.sync()
            self.progress.written += len(self.pending)
            self.pending = []
        self.flushed = time.perf_counter()

    def _start_score(self, begun: StateDict | None) -> float | None:
        """Val score of the network that all runs start from; None where there is none, or nothing is scored."""
        if begun is None or not self.recording.parts:
            return None
        first = self.family.task(self.family.names[0])
        return first.evaluate([begun], "val", self.recording.most, self.device).value.item()

    def _warnings(self, writer: ZooWriter, start: float | None) -> list[str]:
        """Warnings about a zoo that is unsuitable for learning."""
        return zoo_doubts(writer.entries, self.of_zoo, self.recording.most, start) if self.recording.parts else []

    def _cast(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.recording.dtype is None:
            return state
        dtype, fixed = getattr(torch, self.recording.dtype), self.rest(dict(state))
        return {name: t.to(dtype) if name not in fixed and t.is_floating_point() else t for name, t in state.items()}


def _stored(path: Path) -> StateDict | None:
    """The state of a training that was interrupted, if there is one that can be read."""
    try:
        return read_tensors(path) if path.exists() else None
    except ParamgenError as error:
        _log.warning("%s; that training restarts", error)
        return None
