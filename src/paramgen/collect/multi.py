"""``paramgen collect_tasks``: train one network or adapter per task of a family; save them as a zoo with conditions."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from paramgen.collect.doubts import doubts, guessing
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings, fresh_states
from paramgen.core.intake import Architecture
from paramgen.core.io import write_tensors
from paramgen.core.params import ParamSpec, StateDict, can_be_generated, state_tensors
from paramgen.core.progress import ProgressDisplay, announce_scoring
from paramgen.core.seeds import mix
from paramgen.core.subsets import select_tensors
from paramgen.core.zoo import START, Zoo, ZooEntry
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError, did_you_mean, require_positive
from paramgen.tasks import SplitData, TaskFamily
from paramgen.tasks.conditions import ConditionEncoder
from paramgen.tasks.items import SideBySide
from paramgen.tasks.lora import adapter_names, align_gauge, fix_gauge, into_adapted

POOLED = "pooled"  # start_task of adapters whose start was trained on all seen tasks
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretraining:
    """How the network shared by all tasks is pretrained.

    Args:
        steps: Optimizer steps. 0: no pretraining.
        optim: Optimizer, learning rate and batch size.
        reweight: Sample all classes equally often.
    """

    steps: int = 500
    optim: OptimSettings = field(default_factory=OptimSettings)
    reweight: bool = True


def main(
    family: TaskFamily,
    out: str,
    condition: ConditionEncoder | None = None,
    steps: int = 500,
    networks: int = 1,
    save_every: int = 1,
    start: Literal["random", "same", "converged"] = "same",
    start_task: str | None = None,
    start_steps: int | None = None,
    shared_order: bool = True,
    optim: OptimSettings | None = None,
    pretraining: Pretraining | None = None,
    parameters: list[str] | None = None,
    gauge: Literal["none", "svd", "reference"] = "none",
    heldout: bool = True,
    score: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> Zoo:
    """Train one network or adapter per task of a family and save them as a zoo with conditions.

    Args:
        family: The family of tasks.
        out: Folder of the zoo. An interrupted collection resumes.
        condition: Encoder of the tasks' conditions; each task is encoded once. None: no conditions.
        steps: Optimizer steps before the first network of a task is saved.
        networks: Number of networks saved per task.
        save_every: Optimizer steps between these networks.
        start: Initial values of the trained tensors: random (per task), same (for all tasks), or
            converged (same, after training on `start_task`).
        start_task: Task for a converged start, or "pooled" for all seen tasks. Default: the first seen task.
        start_steps: Optimizer steps of the converged start. Default: `steps`.
        shared_order: Show all tasks their images in the same order, so that networks differ only by task.
        optim: Optimizer, learning rate and batch size for every task.
        pretraining: Pretraining of the network that adapters are added to, for families that pretrain.
        parameters: Names, globs, re: patterns or subsets to train and save. Default: the adapters if there are any, else all.
        gauge: Canonical form of adapters: none (as trained), svd (unique), reference (rotated towards the start).
        heldout: Train networks for the unseen tasks too, for evaluation only.
        score: Record scores on train and val images.
        seed: Seed of initial values and data order.
        device: Device to train on, for example cuda.

    Raises:
        ParamgenError: Numbers below 1, an unknown task to start from, a family that cannot be read.
    """
    require_positive(steps=steps, networks=networks, save_every=save_every)
    recipe = {
        "start": start,
        "start_task": start_task,
        "start_steps": start_steps,
        "steps": steps,
        "networks": networks,
        "save_every": save_every,
        "shared_order": shared_order,
        "optim": asdict(optim or OptimSettings()),
        "pretraining": asdict(pretraining or Pretraining()),
        "parameters": parameters,
        "gauge": gauge,
        "seed": seed,
    }
    begun = time.perf_counter()
    with ProgressDisplay() as progress:
        collector = _FamilyCollector(
            family, optim or OptimSettings(), pretraining or Pretraining(), parameters, seed, device, progress
        )
        starts = collector.starts(start, start_task, steps if start_steps is None else start_steps)
        turn = _gauge(gauge, starts[0], parameters)
        writer = ZooWriter(out, collector.spec, collector.base, family.config(), recipe)
        if start == "converged":
            write_tensors(writer.path / START, {name: starts[0][name] for name in collector.spec.names})
        tasks = range(len(family.names) if heldout else len(family.seen))  # seen ones are first
        encode = (
            (lambda _: None) if condition is None else lambda name: condition.encode(family.describe(name)).tolist()
        )
        conditions = {i: encode(family.names[i]) for i in tasks}
        done = writer.done
        count = len(tasks) * networks - len(done)
        if score and count > 0:
            announce_scoring(lambda: _scores(collector, starts[:1], family.names[:1]), count, count)
        for step, states in collector.train(tasks, starts, steps, networks, save_every, shared_order):
            left = {i: turn(state) for i, state in states.items() if (i, step) not in done}
            names = [family.names[i] for i in left]
            scores = _scores(collector, [*left.values()], names) if score else [{} for _ in left]
            for (i, state), name, found in zip(left.items(), names, scores, strict=True):
                described = {"task": name, "condition": conditions[i]}
                split = "train" if i < len(family.seen) else "heldout"
                writer.add(state, run=i, step=step, seed=seed, split=split, scores=found, sync=False, **described)
            writer.sync()
            progress.written += len(left)
    made_by = {} if condition is None else {"condition": condition.config()}
    warnings = _doubts(writer.entries, family) if score else []
    for warning in warnings:
        _log.warning("warning: %s", warning)
    noted = {"warnings": warnings} if warnings else {}
    zoo = writer.close(score=family.score.to_dict(), seconds=time.perf_counter() - begun, **made_by, **noted)
    print(_summary(zoo))
    return zoo


class Reweighted(SplitData):
    """A split whose training batches contain all classes equally often.

    Args:
        data: The split.
    """

    def __init__(self, data: SplitData) -> None:
        super().__init__(data.targets)
        self.data = data
        self.weights = 1 / torch.bincount(data.targets)[data.targets].double()  # (M,)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As the split's own."""
        return self.data.batches(batch_size)

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images sampled by inverse class frequency, as many as the order requests."""
        steps, _, size = order.shape
        drawn = [torch.multinomial(self.weights, steps * size, True, generator=g) for g in generators]
        return self.data.training_batches(torch.stack(drawn).view(-1, steps, size).transpose(0, 1), generators)


class _FamilyCollector:
    """What all tasks share: the network, its pretrained weights, which tensors are trained."""

    def __init__(
        self,
        family: TaskFamily,
        optim: OptimSettings,
        pretraining: Pretraining,
        parameters: list[str] | None,
        seed: int,
        device: str,
        progress: ProgressDisplay,
    ) -> None:
        self.family, self.optim, self.seed, self.device = family, optim, seed, device
        self.progress = progress
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, 0))
            plain = family.plain()
        weights = self._pretrain(plain, pretraining)
        self.network = family.build()
        adapted = into_adapted(weights, self.network)
        self.network.load_state_dict(adapted)
        Architecture(self.network)  # refuses what a zoo cannot hold, before anything is trained
        names = adapter_names(adapted)
        self.chosen = (
            select_tensors(self.network, parameters) if parameters else names or list(state_tensors(self.network))
        )
        self.spec = ParamSpec.of(self.network, [n for n in self.chosen if can_be_generated(adapted[n])])
        generated = {*self.spec.names, *self.spec.aliases}
        self.base = {n: t.clone() for n, t in state_tensors(self.network).items() if n not in generated}

    def starts(self, start: str, task: str | None, steps: int) -> list[StateDict]:
        """One complete state dict a task to start from."""
        count = len(self.family.names)
        seeds = [mix(self.seed, 1, i if start == "random" else 0) for i in range(count)]
        first = [self._with_base(state) for state in fresh_states(self.family.build, [*dict.fromkeys(seeds)])]
        if start == "random":
            return first
        if start == "converged":
            source = task or self.family.seen[0]
            if source not in (POOLED, *self.family.seen):
                raise ParamgenError(
                    f"start_task: unknown seen task {source!r}. {did_you_mean(source, [POOLED, *self.family.seen])}"
                )
            names = self.family.seen if source == POOLED else [source]
            data = self.family.pooled(names, "train")
            (first,) = [states for _, states in self._run("start", data, first, steps, [mix(self.seed, 2)], {steps})]
        return first * count

    def train(
        self, tasks: Sequence[int], starts: Sequence[StateDict], steps: int, networks: int, every: int, shared: bool
    ) -> Iterator[tuple[int, dict[int, StateDict]]]:
        """Steps at which networks are kept, with the complete state dicts by task; tasks of one size are trained at once."""
        splits = {i: self.family.task(self.family.names[i]).data("train") for i in tasks}
        sizes: dict[int, list[int]] = defaultdict(list)
        for i, split in splits.items():
            sizes[len(split)].append(i)
        kept = {steps + k * every for k in range(networks)}
        for group in sizes.values():
            seeds = [mix(self.seed, 3, 0 if shared else i) for i in group]
            label = f"{len(group)} of {len(splits)} tasks"
            data = SideBySide([splits[i] for i in group]) if len(group) > 1 else splits[group[0]]
            for step, states in self._run(label, data, [starts[i] for i in group], max(kept), seeds, kept):
                yield step, dict(zip(group, states, strict=True))

    def _run(
        self, label: str, data: SplitData, starts: Sequence[StateDict], steps: int, seeds: Sequence[int], kept: set[int]
    ) -> Iterator[tuple[int, list[StateDict]]]:
        group = NetworkGroup(self.network, starts, self.chosen, self.device, loss=self.family.loss)
        self.progress.begin(label, steps)
        for step in GroupTrainer(group, data, self.optim, seeds, steps).run():
            self.progress.update(step)
            if step in kept:
                yield step, group.states()

    def _pretrain(self, plain: nn.Module, how: Pretraining) -> StateDict:
        state = {name: tensor.clone() for name, tensor in state_tensors(plain).items()}
        data = self.family.pretraining("train")
        if data is None or how.steps == 0:
            return state
        group = NetworkGroup(plain, [state], list(state), self.device, loss=self.family.loss)
        split = Reweighted(data) if how.reweight else data
        self.progress.begin("pretraining", how.steps)
        for step in GroupTrainer(group, split, how.optim, [mix(self.seed, 4)], how.steps).run():
            self.progress.update(step)
        return group.states()[0]

    def _with_base(self, fresh: Mapping[str, Tensor]) -> StateDict:
        return {**fresh, **self.base}


def _scores(
    collector: _FamilyCollector, states: Sequence[Mapping[str, Tensor]], names: Sequence[str | None]
) -> list[dict[str, dict[str, float]]]:
    """Scores on train and val images of each network's own task."""
    evaluate = collector.family.evaluate_each
    parts = {s: evaluate(states, names, s, device=collector.device).value for s in ("train", "val")}
    return [{s: {"score": float(value[i])} for s, value in parts.items()} for i in range(len(states))]


def _doubts(entries: Sequence[ZooEntry], family: TaskFamily) -> list[str]:
    """What makes a zoo of tasks useless to learn from."""
    targets = {entry.task: family.task(entry.task).data("val").targets for entry in entries}
    guess: dict[str | None, float | None] = {task: guessing(family, of) for task, of in targets.items()}
    return doubts(entries, family.score, guess, min(len(of) for of in targets.values()))


def _gauge(
    gauge: str, start: Mapping[str, Tensor], parameters: list[str] | None
) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """What fixes the gauge of a state dict."""
    if gauge == "none":
        return lambda state: state
    if not adapter_names(start) or parameters:
        raise ParamgenError(f"gauge {gauge!r} is of adapters, and the family has none, or parameters chooses others")
    if gauge == "svd":
        return fix_gauge
    return lambda state: align_gauge(state, start)


def _summary(zoo: Zoo) -> str:
    tasks = {split: {e.task for e in zoo.entries if e.split == split} for split in ("train", "heldout")}
    found = f"{len(zoo)} networks of {zoo.spec.numel:,} parameters for {len(tasks['train'])} seen"
    return f"{found} and {len(tasks['heldout'])} unseen tasks in {zoo.path}"
