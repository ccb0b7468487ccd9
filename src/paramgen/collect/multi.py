"""``paramgen collect_tasks``: train one network or adapter per task of a family; save them as a zoo with conditions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from paramgen.collect.collector import Collector, Plan, Recording, Run, Training
from paramgen.collect.merging import merge
from paramgen.collect.train import OptimSettings, fresh_states
from paramgen.core.counting import counted
from paramgen.core.params import StateDict, state_tensors, with_versions
from paramgen.core.seeds import mix
from paramgen.core.shards import MERGE, Shard, parse_shard
from paramgen.core.zoo import PARTS, Zoo
from paramgen.errors import ParamgenError, did_you_mean, require_choice, require_non_negative, require_positive
from paramgen.tasks import SplitData, TaskFamily
from paramgen.tasks.conditions import ConditionEncoder
from paramgen.tasks.lora import adapter_names, align_gauge, fix_gauge, into_adapted

Start = Literal["random", "same", "converged"]
Gauge = Literal["none", "svd", "reference"]
POOLED = "pooled"  # start_task of adapters whose start was trained on all seen tasks


@dataclass(frozen=True)
class Pretraining:
    """How the network shared by all tasks is pretrained.

    Args:
        steps: Optimizer steps. 0: no pretraining.
        optim: Optimizer, learning rate and batch size.
        reweight: Sample all classes equally often, where the targets are classes.
    """

    steps: int = 500
    optim: OptimSettings = field(default_factory=OptimSettings)
    reweight: bool = True


@dataclass(frozen=True)
class FamilyRecipe:
    """How the networks of a family are trained; see :func:`main` for each field."""

    steps: int
    networks: int
    save_every: int
    start: Start
    start_task: str | None
    start_steps: int | None
    shared_order: bool
    optim: OptimSettings
    pretraining: Pretraining
    parameters: list[str] | None
    gauge: Gauge
    seed: int

    def __post_init__(self) -> None:
        require_choice(Start, start=self.start)
        require_choice(Gauge, gauge=self.gauge)
        require_non_negative(seed=self.seed, start_steps=self.start_steps)
        require_positive(steps=self.steps, networks=self.networks, save_every=self.save_every)


def main(
    family: TaskFamily,
    out: str,
    condition: ConditionEncoder | None = None,
    steps: int = 500,
    networks: int = 1,
    save_every: int = 1,
    start: Start = "same",
    start_task: str | None = None,
    start_steps: int | None = None,
    shared_order: bool = True,
    optim: OptimSettings | None = None,
    pretraining: Pretraining | None = None,
    parameters: list[str] | None = None,
    gauge: Gauge = "none",
    heldout: bool = True,
    score: bool = True,
    seed: int = 0,
    device: str = "cpu",
    shard: str | None = None,
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
        shard: Train only part i of N of the runs: ``i/N``, i from 1, for several processes or machines. Each writes a folder in `out` and
            resumes by itself. ``auto`` reads i and N from the variables of torchrun or SLURM; they are not read otherwise. ``merge``, or
            ``paramgen zoo merge``, merges the shards.

    Raises:
        ParamgenError: Numbers below 1, an unknown task to start from, a family that cannot be read.
    """
    recipe = FamilyRecipe(
        steps=steps,
        networks=networks,
        save_every=save_every,
        start=start,
        start_task=start_task,
        start_steps=start_steps,
        shared_order=shared_order,
        optim=optim or OptimSettings(),
        pretraining=pretraining or Pretraining(),
        parameters=parameters,
        gauge=gauge,
        seed=seed,
    )
    if shard == MERGE:
        return merge(out, trust=True)
    zoo = _collect(family, Path(out), recipe, condition, heldout, score, device, parse_shard(shard))
    print(_summary(zoo))
    return zoo


def _collect(
    family: TaskFamily,
    out: Path,
    recipe: FamilyRecipe,
    condition: ConditionEncoder | None,
    heldout: bool,
    score: bool,
    device: str,
    shard: Shard | None,
) -> Zoo:
    with torch.random.fork_rng(devices=[]):
        network = family.build()
    runs = _runs(family, recipe, condition, heldout)
    if shard is not None:
        shard.require(len(runs), "tasks")
    adapters = adapter_names(state_tensors(network))
    if recipe.gauge != "none" and (not adapters or recipe.parameters):
        raise ParamgenError(
            f"gauge {recipe.gauge!r} is for adapters, but the family has none, or parameters selects other tensors"
        )
    parameters = recipe.parameters or adapters or ["all"]
    recording = Recording(parts=PARTS if score else ())
    collector = Collector(family, out, asdict(recipe), network, parameters, device, recording, shard)
    meta = {} if condition is None else {"condition": condition.config()}
    return collector.collect(partial(_plan, family, recipe, runs), len(runs) * recipe.networks, **meta)


def _runs(family: TaskFamily, recipe: FamilyRecipe, condition: ConditionEncoder | None, heldout: bool) -> list[Run]:
    """One run for each task, seen ones first; those of unseen tasks are held out."""
    unseen, runs = set(family.unseen), []
    for i, name in enumerate(family.names):
        if name not in unseen or heldout:
            vector = None if condition is None else condition.encode(family.describe(str(name))).tolist()
            seed = mix(recipe.seed, 3, 0 if recipe.shared_order else i)
            runs.append(Run(i, seed, "heldout" if name in unseen else "train", name, vector))
    return runs


def _plan(family: TaskFamily, recipe: FamilyRecipe, runs: Sequence[Run], collector: Collector) -> Plan:
    """All runs are trained in the same manner, from an own start, a common start, or a trained start."""
    network, optim, seed = collector.network, recipe.optim, recipe.seed
    data = _start_data(family, recipe.start_task) if recipe.start == "converged" else None
    plain = _pretrained(family, recipe, collector)
    network.load_state_dict(with_versions(into_adapted(plain, network), network))
    base = collector.rest(state_tensors(network))

    def fresh(numbers: Sequence[int]) -> list[StateDict]:
        build = family.build if family.lora is None else partial(family.adapted, plain)  # DoRA starts from its weights
        return [{**state, **base} for state in fresh_states(build, [mix(seed, 1, n) for n in numbers])]

    (first,) = fresh([0])
    if data is not None:
        steps = recipe.steps if recipe.start_steps is None else recipe.start_steps
        seeds = [mix(seed, 2)]
        first = collector.trained(Training("start", network, [first], collector.names, data, optim, seeds, steps))

    def starts(some: Sequence[Run]) -> list[StateDict]:
        return fresh([run.number for run in some]) if recipe.start == "random" else [first] * len(some)

    kept = {recipe.steps + k * recipe.save_every for k in range(recipe.networks)}
    shared = None if data is None else {name: first[name] for name in collector.spec.names}
    return Plan("tasks", runs, starts, optim, kept, max(kept), _finish(recipe.gauge, first), shared=shared)


def _start_data(family: TaskFamily, task: str | None) -> SplitData:
    """The data that a converged start is trained on."""
    if task == POOLED:
        return family.pooled(family.seen, "train")
    if task is not None and task not in family.seen:
        raise ParamgenError(f"start_task: unknown seen task {task!r}. {did_you_mean(task, [POOLED, *family.seen])}")
    return family.task(task or family.names[0]).items("train")


def _pretrained(family: TaskFamily, recipe: FamilyRecipe, collector: Collector) -> StateDict:
    """Weights of the network without adapters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(recipe.seed, 0))
        plain = family.plain()
    state = {name: tensor.clone() for name, tensor in state_tensors(plain).items()}
    how, data = recipe.pretraining, family.pretraining("train")
    if data is None or how.steps == 0:
        return state
    classes = data.targets.dim() == 1 and not data.targets.is_floating_point()
    split = Reweighted(data) if how.reweight and classes else data
    seeds = [mix(recipe.seed, 4)]
    return collector.trained(Training("pretraining", plain, [state], list(state), split, how.optim, seeds, how.steps))


def _finish(gauge: Gauge, start: StateDict) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """The function that fixes the gauge of a network."""
    if gauge == "reference":
        return lambda state: align_gauge(state, start)
    return fix_gauge if gauge == "svd" else dict


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


def _summary(zoo: Zoo) -> str:
    tasks = {split: {e.run for e in zoo.entries if e.split == split} for split in ("train", "heldout")}
    seen = f"{counted(len(zoo), 'network')} of {counted(zoo.spec.numel, 'parameter')} for {len(tasks['train'])} seen"
    return f"{seen} and {counted(len(tasks['heldout']), 'unseen task')} in {zoo.path}"
