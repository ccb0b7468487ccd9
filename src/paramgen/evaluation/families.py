"""Rows of the report of a family of tasks: networks for unseen tasks, each scored on its own task.

Direct training on the unseen tasks comes first, then what all adapters started from, the generators, and every way that needs none.
Distances are to the networks of seen tasks. N: networks of a row for unseen tasks, K: networks of seen tasks, P: generated parameters.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import mean, median

import torch
from torch import Tensor

from paramgen.collect.finetune import steps_on_tasks, validation_scores
from paramgen.collect.multi import POOLED
from paramgen.core import distances
from paramgen.core.components import principal_components
from paramgen.core.io import read_tensors
from paramgen.core.params import state_tensors
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.zoo import START, Zoo
from paramgen.errors import ParamgenError, did_you_mean
from paramgen.evaluation.context import Context, Scored
from paramgen.evaluation.intervals import Against, paired_interval
from paramgen.evaluation.judgement import family_flags_of
from paramgen.evaluation.novelty import Novelty, RawBank
from paramgen.evaluation.results import Kind, Points, Results, Role, Row, TaskScores
from paramgen.evaluation.rows import make_row, row_or_reason
from paramgen.evaluation.unseen import (
    FAMILY_BASELINES,
    VOTE,
    VOTERS,
    WEIGHTS,
    conditions_of,
    nearest,
    scores_of,
    seen_tasks,
    unseen_family,
    vote,
)
from paramgen.tasks.score import Scores

NAN = float("nan")
NOISE = 0.5  # of the zoo's spread, on a noised copy


def evaluate_family(
    zoo: Zoo,
    samples: Sequence[Samples] = (),
    baselines: Sequence[str] = FAMILY_BASELINES,
    split: str = "test",
    device: str = "cpu",
    finetune: bool = False,
) -> Results:
    """Measure generators on the unseen tasks of a family and compare them with direct training and with methods that need no generator.

    Args:
        zoo: What the generators learnt from; holds networks of the unseen tasks too, as held-out ones.
        samples: One set of networks a generator, which says what task each is for.
        baselines: Names of :data:`paramgen.evaluation.unseen.FAMILY_BASELINES`.
        split: Items to score on; what is chosen must be chosen on ``val``.
        device: Where networks run.
        finetune: Train every row's networks for unseen tasks on until they are as good on val as direct training, and say how many steps
            it took (Wild-P-Diff's Fig. 3); fresh weights and a noised copy of the nearest task's are rows then too.

    Raises:
        ParamgenError: An unknown baseline, a zoo without unseen tasks or without their networks, samples that name no tasks, none of an
            unseen one, or none that the family has.
    """
    if unknown := [name for name in baselines if name not in FAMILY_BASELINES]:
        raise ParamgenError(
            f"Unknown baseline {unknown[0]!r} for a family of tasks. {did_you_mean(unknown[0], FAMILY_BASELINES)}"
        )
    start = time.perf_counter()
    bench = _Bench(zoo, split, device)
    if finetune:
        bench.aim()
    rows = bench.references()
    rows += [bench.generator_row(s) for s in samples]
    rows += [row_or_reason(name, partial(bench.baseline_row, name)) for name in baselines]
    rows += bench.starts() if finetune else []
    rows = [replace(row, against=_against(row, rows, bench.family.score.sign)) for row in rows]
    several = bench.checkpoints > 1
    rows = [replace(row, flags=[*row.flags, *family_flags_of(row, rows, several)]) for row in rows]
    family = bench.family
    return Results(
        zoo=zoo.name,
        task=zoo.task_config,
        score=family.score,
        networks=len(bench.weights),
        runs=len(bench.seen.names),
        heldout=len(zoo.indices("heldout")),
        params=zoo.spec.numel,
        test_items=min(len(family.task(name).data(split)) for name in family.unseen),
        train_items=len(family.task(family.seen[0]).data("train")),
        n=max((row.n for row in rows if row.kind == "generator"), default=len(family.unseen)),
        seed=0,
        tau=bench.novelty.tau,
        good_from=family.score.floor(rows[0].value("mean")),
        seconds=time.perf_counter() - start,
        forward_seconds=bench.forward_seconds,
        generators={s.name: asdict(s.info) for s in samples},
        trajectories={},
        notes=list(zoo.meta.get("warnings", [])),
        rows=rows,
        checkpoints=bench.checkpoints,
        unit=bench.novelty.unit,
        run_scale=bench.novelty.run_scale,
        subspace=None,
    )


class _Bench:
    """What every row is measured against, computed once."""

    def __init__(self, zoo: Zoo, split: str, device: str) -> None:
        self.zoo, self.split, self.device = zoo, split, device
        self.family, self.seen = unseen_family(zoo), seen_tasks(zoo)
        self.condition = conditions_of(zoo, self.family.unseen)  # (T, C)
        self.indices = zoo.indices("train")
        self.weights = zoo.matrix(self.indices)  # (K, P)
        runs, heldout_runs = (
            torch.tensor([zoo.entries[i].run for i in zoo.indices(split)], dtype=torch.int64)
            for split in ("train", "heldout")
        )
        self.checkpoints = int(runs.unique(return_counts=True)[1].max())
        self.novelty = Novelty(RawBank(self.weights), runs, zoo.matrix(zoo.indices("heldout")), heldout_runs)
        self.plane = principal_components(self.weights, 2)
        self.forward_seconds = 0.0
        self.aims: dict[str, float] | None = None
        self.reference: float | None = None  # mean score of direct training

    def aim(self) -> None:
        """Make ready to count steps of fine-tuning: to be reached is the mean on val of networks trained on the task, less the margin."""
        self.aims = {}
        for name in self.family.unseen:
            trained = [self.zoo.full(i) for i, entry in enumerate(self.zoo.entries) if entry.task == name]
            found = validation_scores(self.family.task(name), trained, self.device)
            self.aims[name] = self.family.score.floor(found.mean().item())

    def starts(self) -> list[Row]:
        """What else one could fine-tune from: fresh weights, and the nearest task's with noise."""
        tasks = self.family.unseen
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = self.zoo.spec.flatten_many([state_tensors(self.family.build()) for _ in tasks])
            near = nearest(self.seen, self.condition)
            noised = near + NOISE * self.weights.std(0) * torch.randn_like(near)
        return [
            self._row("random-init", "baseline", "untrained", fresh, tasks),
            self._row("nearest-noised", "baseline", "baseline", noised, tasks),
        ]

    def references(self) -> list[Row]:
        """Networks trained on the tasks themselves; the start of all where it was trained; adapters that do nothing."""
        trained = [i for i, entry in enumerate(self.zoo.entries) if entry.task in set(self.family.unseen)]
        chosen = trained + self.indices
        tasks = [str(self.zoo.entries[i].task) for i in chosen]
        info = SampleInfo(fit_seconds=self.zoo.meta.get("seconds"))
        rows = [self._row("direct", "reference", "direct", self.zoo.matrix(chosen), tasks, info)]
        self.reference = rows[0].value("mean")
        if (self.zoo.path / START).exists():
            pooled = self.zoo.meta["recipe"].get("start_task") == POOLED
            weights = self.zoo.spec.flatten(read_tensors(self.zoo.path / START))
            rows.append(self._everywhere(POOLED if pooled else "start", "start", weights))
        if self.family.lora is not None:
            rows.append(self._everywhere("no adapter", "no_adapter", torch.zeros(self.zoo.spec.numel)))
        return rows

    def generator_row(self, samples: Samples) -> Row:
        """What a generator drew for unseen and for seen tasks."""
        if samples.task is None:
            raise ParamgenError(
                f"samples {samples.name!r} do not say what task each network is for; draw them with paramgen sample --zoo "
                f"{self.zoo.name}, or give each network of samples.json its 'task'"
            )
        self.family.check(samples.task)
        if missing := sorted(set(self.family.unseen) - set(samples.task)):
            raise ParamgenError(f"samples {samples.name!r} hold no network for the unseen task {missing[0]!r}")
        each = None if samples.info.sample_seconds is None else samples.info.sample_seconds / samples.total
        return self._row(samples.name, "generator", "generator", samples.weights, samples.task, samples.info, each)

    def baseline_row(self, name: str) -> Row:
        """What needs no generator, one network for each unseen task; a vote has no weights."""
        tasks = self.family.unseen
        if name != VOTE:
            return self._row(name, "baseline", "baseline", WEIGHTS[name](self.seen, self.condition), tasks)
        none = torch.full((len(tasks), self.zoo.spec.numel), NAN)
        scores = vote(self.zoo, self.family, self.seen, tasks, VOTERS, self.split)
        return replace(self._of(name, "baseline", "baseline", none, tasks, scores, SampleInfo()), nonfinite=0)

    def _everywhere(self, name: str, role: Role, vector: Tensor) -> Row:
        """One network on every task."""
        tasks = [*self.family.unseen, *self.family.seen]
        return self._row(name, "reference", role, vector.expand(len(tasks), -1), tasks)

    def _row(
        self,
        name: str,
        kind: Kind,
        role: Role,
        weights: Tensor,
        tasks: Sequence[str],
        info: SampleInfo | None = None,
        sample_seconds: float | None = None,
    ) -> Row:
        start = time.perf_counter()
        scores = scores_of(self.zoo, self.family, weights, tasks, self.split, self.device)
        self.forward_seconds += time.perf_counter() - start
        return self._of(name, kind, role, weights, tasks, scores, info or SampleInfo(), sample_seconds)

    def _of(
        self,
        name: str,
        kind: Kind,
        role: Role,
        weights: Tensor,
        tasks: Sequence[str],
        scores: Tensor,
        info: SampleInfo,
        sample_seconds: float | None = None,
    ) -> Row:
        """A row from the score of every network; values other than `seen` are of networks for unseen tasks."""
        by_task = defaultdict[str, list[float]](list)
        for task, value in zip(tasks, scores.tolist(), strict=True):
            by_task[task].append(value)
        unseen = {task: mean(by_task.pop(task)) for task in self.family.unseen}
        seen = {task: mean(values) for task, values in by_task.items()} or None
        chosen = torch.tensor([task in unseen for task in tasks])
        weights, scores = weights[chosen], scores[chosen].double()  # (N, P), (N,)
        finite = weights.isfinite().all(1)
        kept = weights[finite]
        near = distances.nearest(kept, self.weights)
        distance = torch.full((len(weights),), NAN, dtype=torch.float64)
        distance[finite] = near.distance
        context = Context(
            n=len(weights),
            weights=kept,
            finite=finite,
            zoo=self.weights,
            own=False,
            near=near,
            raw=self.novelty.ratios(near.distance),
            spec=self.family.score,
            scored=Scored(Scores(scores)),
            reference=self.reference,
            info=info,
            sample_seconds=sample_seconds,
            finetune_steps=self._steps(weights, [task for task in tasks if task in unseen]),
            tasks=TaskScores(unseen, seen),
        )
        places = self.plane.place(weights) / self.novelty.length  # (N, 2)
        points = Points(scores.tolist(), (distance / self.novelty.length).tolist(), places.tolist())
        return make_row(name, kind, role, context, points)

    def _steps(self, weights: Tensor, tasks: Sequence[str]) -> float | None:
        """Median steps until the networks are as good as direct training; inf where half do not get there, None where none is counted."""
        if self.aims is None or not weights.isfinite().all():
            return None
        steps = steps_on_tasks(self.family, self.zoo, weights, tasks, self.aims, device=self.device)
        middle: float = median(steps.tolist())
        return middle


def _against(row: Row, rows: Sequence[Row], sign: int) -> list[Against]:
    """How far a generator lies from every other row in score, paired over the unseen tasks: each task is one observation."""
    if row.kind != "generator" or row.tasks is None:
        return []
    pairs = []
    for other in rows:
        if other.tasks is not None and other.name != row.name:
            unseen = other.tasks.unseen
            interval = paired_interval([score - unseen[task] for task, score in row.tasks.unseen.items()])
            pairs.append(Against(other.name, interval.verdict(sign), interval))
    return pairs
