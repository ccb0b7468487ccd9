"""``paramgen collect``: train networks of one task and save them as a zoo."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from paramgen.collect.collector import Collector, Plan, Recording, Run, Training
from paramgen.collect.merging import merge
from paramgen.collect.train import OptimSettings, fresh_states
from paramgen.core.counting import counted
from paramgen.core.params import REAL, can_be_generated, state_tensors
from paramgen.core.seeds import mix
from paramgen.core.shards import MERGE, Shard, parse_shard
from paramgen.core.zoo import Split, Zoo
from paramgen.errors import ParamgenError, require_choice, require_non_negative, require_positive
from paramgen.tasks import Task

Mode = Literal["trajectory", "seeds"]


@dataclass(frozen=True)
class Recipe:
    """How the networks of a zoo are trained; see :func:`main` for each field."""

    mode: Mode
    runs: int
    checkpoints: int
    save_every: int
    epochs: int
    optim: OptimSettings
    finetune: OptimSettings
    parameters: list[str] = field(default_factory=lambda: ["all"])
    start: str | None = None
    heldout_runs: int = 0
    val_runs: int = 0
    seed: int = 0
    dtype: str | None = None
    score_images: int = 10_000

    def __post_init__(self) -> None:
        require_choice(Mode, mode=self.mode)
        require_positive(
            runs=self.runs, checkpoints=self.checkpoints, save_every=self.save_every, score_images=self.score_images
        )
        require_non_negative(epochs=self.epochs, seed=self.seed, heldout_runs=self.heldout_runs, val_runs=self.val_runs)
        if self.runs * self.checkpoints < 2:
            raise ParamgenError("runs x checkpoints is 1; a zoo needs at least 2 networks")
        if self.heldout_runs + self.val_runs >= self.runs and (self.heldout_runs or self.val_runs):
            given = f"heldout_runs {self.heldout_runs} and val_runs {self.val_runs}"
            raise ParamgenError(f"{given} leave no run to learn from, of {self.runs}")
        if self.dtype is not None and getattr(torch, self.dtype, None) not in REAL:
            raise ParamgenError(f"dtype is {self.dtype!r}, expected float32, float64, bfloat16 or float16")

    def split(self, run: int) -> Split:
        """Which split a run belongs to: held-out runs are the last, validation runs come before them."""
        if run >= self.runs - self.heldout_runs:
            return "heldout"
        return "val" if run >= self.runs - self.heldout_runs - self.val_runs else "train"

    def all_runs(self) -> list[Run]:
        """The runs, each with its seed and split."""
        return [Run(run, mix(self.seed, 2, run), self.split(run)) for run in range(self.runs)]


def main(
    task: Task,
    out: str,
    mode: Mode = "trajectory",
    runs: int = 1,
    checkpoints: int = 100,
    save_every: int = 1,
    epochs: int | None = None,
    optim: OptimSettings | None = None,
    finetune: OptimSettings | None = None,
    parameters: list[str] | None = None,
    start: str | None = None,
    heldout_runs: int = 0,
    val_runs: int = 0,
    seed: int = 0,
    dtype: str | None = None,
    score_images: int = 10_000,
    device: str = "cpu",
    shard: str | None = None,
) -> Zoo:
    """Train networks of one task and save them as a zoo. To resume an interrupted collection, rerun the same command.

    Args:
        task: Network, data and score.
        out: Folder of the zoo.
        mode: ``trajectory``: train (or load) one network, then fine-tune the selected parameters and save checkpoints along the way.
            ``seeds``: train independent runs from scratch, all at once, and save the last checkpoints of each.
        runs: Number of runs. In a trajectory, all runs start from the same network and differ in data order.
        checkpoints: Networks saved per run.
        save_every: Optimizer steps between checkpoints.
        epochs: Epochs of training all parameters before the first checkpoint. Default: 20; 0 with `start`.
        optim: Optimizer, learning rate and batch size of this training.
        finetune: Optimizer, learning rate and batch size of the fine-tuning.
        parameters: Parameters to generate: globs, ``re:`` patterns, or subsets such as all, last_two_norms, classifier. Default: all.
        start: Start a trajectory from ``pretrained`` weights or a weights file.
        heldout_runs: Number of runs held out for evaluation (the last ones).
        val_runs: Number of validation runs (the ones before the held-out runs).
        seed: Seed of initialisation, data order and augmentation.
        dtype: Data type of stored real weights: float32, float64, bfloat16 or float16. Default: unchanged.
        score_images: Maximum number of train images, and of val images, that each network is scored on.
        device: Device to train on, for example cuda.
        shard: Train only part i of N of the runs: ``i/N``, i from 1, for several processes or machines. Each writes a folder in `out` and
            resumes by itself. ``auto`` reads i and N from the variables of torchrun or SLURM; they are not read otherwise. ``merge``, or
            ``paramgen zoo merge``, merges the shards.

    Raises:
        ParamgenError: Inconsistent numbers, a pattern that matches nothing, a folder with a zoo of another recipe, a network that
            cannot be run on the task's data, weights that became NaN, a full disk.
    """
    optim, finetune = optim or OptimSettings(), finetune or OptimSettings(lr=4e-3)
    if start is not None and mode == "seeds":
        raise ParamgenError("start needs mode trajectory; mode seeds starts from scratch")
    recipe = Recipe(
        mode=mode,
        runs=runs,
        checkpoints=checkpoints,
        save_every=save_every,
        epochs=(20 if start is None else 0) if epochs is None else epochs,
        optim=optim,
        finetune=finetune,
        parameters=parameters or ["all"],
        start=start,
        heldout_runs=heldout_runs,
        val_runs=val_runs,
        seed=seed,
        dtype=dtype,
        score_images=score_images,
    )
    if shard == MERGE:
        return merge(out, trust=True)
    zoo = collect_runs(task, Path(out), recipe, device, parse_shard(shard))
    scores = zoo.recorded("val")
    mean = f"{task.score.name} {task.score.full(sum(scores) / len(scores))} on val" if scores else "none has a score"
    of = "" if len(scores) in (0, len(zoo)) else f" ({len(scores)} of them scored)"
    print(
        f"{counted(len(zoo), 'network')} of {counted(zoo.spec.numel, 'generated parameter')}, {mean}{of}, in {zoo.path}"
    )
    return zoo


def collect_runs(task: Task, out: Path, recipe: Recipe, device: str = "cpu", shard: Shard | None = None) -> Zoo:
    """The zoo of a recipe.

    Args:
        task: Network, data and score.
        out: Folder of the zoo.
        recipe: How its networks are trained.
        device: Device to train on.
        shard: Which of the runs; None for all.
    """
    if shard is not None:
        shard.require(recipe.runs, "runs")
    network = first_network(task, recipe.seed, recipe.start)
    recording = Recording(recipe.dtype, recipe.score_images)
    collector = Collector(task, out, asdict(recipe), network, recipe.parameters, device, recording, shard)
    if recipe.mode == "seeds" and len(collector.names) < len(_floating(network)):
        raise ParamgenError("mode seeds generates all parameters: independent runs share no other parameters")
    mode = trajectory if recipe.mode == "trajectory" else seeds
    return collector.collect(partial(mode, task, recipe), recipe.runs * recipe.checkpoints)


def first_network(task: Task, seed: int, start: str | None = None) -> nn.Module:
    """The network that a trajectory begins with, before any training.

    Args:
        task: Builds it.
        seed: Of the zoo.
        start: ``pretrained``, or a weights file. Default: random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 0))
        return task.build() if start is None else task.start(start)


def trajectory(task: Task, recipe: Recipe, collector: Collector) -> Plan:
    """One network is trained, or read; then all runs start from it and fine-tune the selected parameters."""
    network, start = collector.network, state_tensors(collector.network)
    if recipe.epochs:
        data, optim = collector.train_data(None), recipe.optim
        steps, seed = recipe.epochs * optim.epoch(len(data)), mix(recipe.seed, 1)
        start = collector.trained(
            Training("converge", network, [start], _floating(network), data, optim, [seed], steps)
        )
    kept = {k * recipe.save_every for k in range(1, recipe.checkpoints + 1)}
    runs = recipe.all_runs()
    return Plan("fine-tune", runs, lambda some: [start] * len(some), recipe.finetune, kept, max(kept), begun=start)


def seeds(task: Task, recipe: Recipe, collector: Collector) -> Plan:
    """Every run is trained from scratch; its last networks are kept."""
    steps = recipe.epochs * recipe.optim.epoch(len(collector.train_data(None)))
    kept = {steps - k * recipe.save_every for k in range(recipe.checkpoints)}
    if min(kept) < 1:
        raise ParamgenError(
            f"{recipe.checkpoints} checkpoints every {recipe.save_every} steps, of {steps} steps in total: too many"
        )
    runs = recipe.all_runs()
    return Plan("train", runs, lambda some: fresh_states(task.build, [r.seed for r in some]), recipe.optim, kept, steps)


def _floating(network: nn.Module) -> list[str]:
    """All tensors that can be generated."""
    return [name for name, tensor in state_tensors(network).items() if can_be_generated(tensor)]
