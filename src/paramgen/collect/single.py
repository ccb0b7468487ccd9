"""``paramgen collect``: train networks of one task and save them as a zoo."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, Literal

import torch

from paramgen.collect.announce import PARTS, announce
from paramgen.collect.doubts import doubts, guessing
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings, fresh_states
from paramgen.core.intake import Architecture, check_network
from paramgen.core.io import read_tensors, write_tensors
from paramgen.core.params import REAL, ParamSpec, StateDict, can_be_generated, state_tensors
from paramgen.core.progress import ProgressDisplay
from paramgen.core.seeds import mix
from paramgen.core.subsets import select_tensors
from paramgen.core.zoo import Split, Zoo
from paramgen.core.zoo_writer import REST_FILE, ZooWriter, check_resumable
from paramgen.errors import ParamgenError, require_positive
from paramgen.tasks import Task
from paramgen.tasks.items import spread
from paramgen.tasks.score import Scores, plain_scores

_log = logging.getLogger(__name__)
Mode = Literal["trajectory", "seeds"]
REST = 20.0  # seconds between two stores of a training's whole state
NUMBERS_AT_ONCE = 1 << 19  # numbers in the networks trained at once: fewer cost overhead, more fall out of the caches
PENDING = 1 << 22  # numbers in the networks that wait to be scored together
WAIT = 5.0  # seconds that they wait at most


@dataclass(frozen=True)
class Recipe:
    """How the networks of a zoo come to be; see :func:`main` for each field."""

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
        require_positive(
            runs=self.runs, checkpoints=self.checkpoints, save_every=self.save_every, score_images=self.score_images
        )
        for name in ("epochs", "seed", "heldout_runs", "val_runs"):
            if getattr(self, name) < 0:
                raise ParamgenError(f"{name} is {getattr(self, name)}, expected 0 or more")
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

    Raises:
        ParamgenError: Inconsistent numbers, a pattern that matches nothing, a folder with a zoo of another recipe, weights that
            became NaN, a full disk.
    """
    torch.set_flush_denormal(True)  # networks that have converged are full of them, and they are slow
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
    zoo = _TaskCollector(task, Path(out), recipe, device).collect()
    score = [e.scores["val"]["score"] for e in zoo.entries]
    mean = f"{task.score.name} {task.score.text(sum(score) / len(score))}{task.score.symbol}"
    print(f"{len(zoo)} networks of {zoo.spec.numel:,} generated parameters, {mean} on val, in {zoo.path}")
    return zoo


class _TaskCollector:
    """Trains, scores and writes. A training's state is stored between epochs, so that going on repeats little."""

    def __init__(self, task: Task, out: Path, recipe: Recipe, device: str) -> None:
        self.task, self.out, self.recipe, self.device = task, out, recipe, device
        try:
            torch.empty(0, device=device)
        except RuntimeError as error:
            raise ParamgenError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(recipe.seed, 0))
            self.network = task.build() if recipe.start is None else task.start(recipe.start)
        Architecture(self.network)  # refuses what a zoo cannot hold, before anything is trained
        self.names = select_tensors(self.network, recipe.parameters)
        self.spec = ParamSpec.of(self.network, self.names)
        floating = [name for name, t in state_tensors(self.network).items() if can_be_generated(t)]
        if recipe.mode == "seeds" and len(self.names) < len(floating):
            raise ParamgenError("mode seeds generates all parameters: independent runs have nothing else in common")
        check_resumable(out, task.config(), asdict(recipe))
        made_by = json.dumps([task.config(), asdict(recipe)], sort_keys=True)
        self.digest = sha256(made_by.encode()).hexdigest()[:12]  # another recipe's rest is never gone on from
        self.train, self.val = task.data("train"), task.data("val")
        self.writer: ZooWriter | None = None
        self.resumed = False
        self.start: float | None = None  # val accuracy of the network that a trajectory begins with
        self.done: set[tuple[int, int]] = set()  # (run, step) of the networks that an earlier command wrote
        self.pending: list[tuple[StateDict, dict[str, Any]]] = []  # with their place in the zoo
        self.flushed = time.perf_counter()

    def collect(self) -> Zoo:
        """The finished zoo."""
        begun = time.perf_counter()
        self._announce()
        with ProgressDisplay() as self.progress:
            writer = self._trajectory() if self.recipe.mode == "trajectory" else self._seeds()
            self._flush()
        seconds = {} if self.resumed else {"seconds": time.perf_counter() - begun}  # of the whole, or not at all
        targets, score = spread(self.val, self.recipe.score_images).targets, self.task.score
        warnings = doubts(writer.entries, score, {None: guessing(self.task, targets)}, len(targets), self.start)
        for warning in warnings:
            _log.warning("warning: %s", warning)
        return writer.close(score=score.to_dict(), **seconds, **({"warnings": warnings} if warnings else {}))

    def _announce(self) -> None:
        """Say how long scoring will take: a few images of one network are measured."""
        networks = self.recipe.runs * self.recipe.checkpoints
        announce(self.task, state_tensors(self.network), networks, self.recipe.score_images, self.device)

    def _trajectory(self) -> ZooWriter:
        recipe, seed = self.recipe, self.recipe.seed
        start = state_tensors(self.network)
        if recipe.epochs:
            steps = recipe.epochs * self._epoch(recipe.optim)
            everything = [name for name, t in start.items() if can_be_generated(t)]
            ((_, (start,)),) = self._run("converge", [start], everything, recipe.optim, [mix(seed, 1)], steps, {steps})
        writer = self.writer = self._writer(start)
        self.start = self._scores([start], "val").value.item()
        kept = {k * recipe.save_every for k in range(1, recipe.checkpoints + 1)}
        runs = [*range(recipe.runs)]
        seeds = [mix(seed, 2, run) for run in runs]
        branches = self._run(
            "fine-tune", [start] * len(runs), self.names, recipe.finetune, seeds, max(kept), kept, runs
        )
        for step, states in branches:
            self._add(writer, states, runs, step, seeds)
        return writer

    def _seeds(self) -> ZooWriter:
        recipe = self.recipe
        steps = recipe.epochs * self._epoch(recipe.optim)
        kept = {steps - k * recipe.save_every for k in range(recipe.checkpoints)}
        if min(kept) < 1:
            raise ParamgenError(
                f"{recipe.checkpoints} checkpoints every {recipe.save_every} steps, of {steps} steps in all: too many"
            )
        seeds = [mix(recipe.seed, 2, run) for run in range(recipe.runs)]
        writer: ZooWriter | None = None
        base: StateDict = {}
        most = max(1, NUMBERS_AT_ONCE // sum(t.numel() for t in state_tensors(self.network).values()))
        size = ceil(recipe.runs / ceil(recipe.runs / most))  # groups of one size: a small last one costs as many steps
        for first in range(0, recipe.runs, size):
            runs = [*range(first, min(first + size, recipe.runs))]
            mine = [seeds[run] for run in runs]
            starts = fresh_states(self.task.build, mine)
            base = base or self._rest(starts[0])
            for run, state in zip(runs, starts, strict=True):  # before they are trained in vain
                check_network(state, self.spec, base, where=f"run {run} before training")
            writer = self.writer = writer or self._writer(starts[0])
            if {(run, step) for run in runs for step in kept} <= writer.done:
                continue
            label = f"runs {runs[0]} to {runs[-1]}"
            for step, states in self._run(label, starts, self.names, recipe.optim, mine, steps, kept, runs):
                self._add(writer, states, runs, step, mine)
        assert writer is not None  # runs is 1 or more
        return writer

    def _run(
        self,
        label: str,
        starts: Sequence[StateDict],
        names: Sequence[str],
        settings: OptimSettings,
        seeds: Sequence[int],
        steps: int,
        kept: set[int],
        runs: Sequence[int] = (),
    ) -> Iterator[tuple[int, list[StateDict]]]:
        """Train, and hand out the complete state dicts at the steps that are kept; of these runs where they are the zoo's."""
        group = NetworkGroup(self.network, starts, names, self.device, loss=self.task.loss)
        trainer = GroupTrainer(group, self.train, settings, seeds, steps)
        rest, stored = self.out / f"{REST_FILE}{self.digest}-{label.replace(' ', '-')}.safetensors", time.perf_counter()
        missing = min((step for step in kept for run in runs if (run, step) not in self.done), default=steps)
        if (state := _stored(rest)) is not None:
            self.resumed = True
            if int(state["step"]) <= missing:  # a network that was lost is trained again
                trainer.load(state)
        if trainer.step in kept:  # stored at its last step, before its networks were written
            yield trainer.step, group.states()
        self.progress.begin(label, steps, trainer.step)
        for step in trainer.run():
            self.progress.update(step)
            if step in kept:
                yield step, group.states()
            late = time.perf_counter() - stored > REST or (self.writer is None and step == steps)
            if trainer.between_epochs and late:
                self._flush()  # what is stored is gone on from, so its networks must be there
                write_tensors(rest, trainer.state())
                stored = time.perf_counter()

    def _writer(self, first: StateDict) -> ZooWriter:
        dtype = self.recipe.dtype
        stored = [
            t if dtype is None or t.torch_dtype.is_complex else replace(t, dtype=dtype) for t in self.spec.tensors
        ]
        spec = replace(self.spec, tensors=tuple(stored))
        writer = ZooWriter(self.out, spec, self._rest(first), self.task.config(), asdict(self.recipe))
        self.done = writer.done
        self.resumed = self.resumed or bool(self.done)
        return writer

    def _add(self, writer: ZooWriter, states: list[StateDict], runs: list[int], step: int, seeds: list[int]) -> None:
        """Take the networks that are not there yet; they are scored and written some at a time."""
        for state, run, seed in zip(states, runs, seeds, strict=True):
            if (run, step) not in self.done:
                kept = self._cast(state)
                writer.check(kept, run, step)
                self.pending.append((kept, {"run": run, "step": step, "seed": seed, "split": self.recipe.split(run)}))
        numel = writer.spec.numel * len(self.pending)
        if numel > PENDING or time.perf_counter() - self.flushed > WAIT:
            self._flush()

    def _flush(self) -> None:
        """Score the waiting networks and write them."""
        if self.pending and self.writer is not None:
            scores = {part: self._scores([state for state, _ in self.pending], part) for part in PARTS}
            for k, (state, place) in enumerate(self.pending):
                mine = {part: plain_scores(found, k) for part, found in scores.items()}
                self.writer.add(state, scores=mine, sync=False, **place)
            self.writer.sync()
            self.progress.written += len(self.pending)
            self.pending = []
        self.flushed = time.perf_counter()

    def _scores(self, states: list[StateDict], split: str) -> Scores:
        return self.task.evaluate(states, split, self.recipe.score_images, self.device)

    def _rest(self, state: StateDict) -> StateDict:
        """What is not generated."""
        generated = {*self.spec.names, *self.spec.aliases}
        return {name: tensor for name, tensor in state.items() if name not in generated}

    def _cast(self, state: StateDict) -> StateDict:
        if self.recipe.dtype is None:
            return state
        dtype, rest = getattr(torch, self.recipe.dtype), self._rest(state)
        return {name: t if name in rest or t.is_complex() else t.to(dtype) for name, t in state.items()}

    def _epoch(self, settings: OptimSettings) -> int:
        return max(1, len(self.train) // min(settings.batch_size, len(self.train)))


def _stored(rest: Path) -> StateDict | None:
    """The state of a training that was interrupted, if there is one that can be read."""
    try:
        return read_tensors(rest) if rest.exists() else None
    except ParamgenError as error:
        _log.warning("%s; that training restarts", error)
        return None
