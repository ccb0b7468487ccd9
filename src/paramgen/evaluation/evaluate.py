"""Rows of an honest report: the zoo, held-out runs, every baseline and the generators, all measured alike.

Distances are plain L2 in raw weight space over the generated tensors alone, the same for every row. The test split is predicted here and
nowhere else; what is chosen (`selected`) and recalibrated (batch norm) sees train items only. N: networks of a row, K: of the zoo's train
split, P: generated parameters, M: test items.
"""

import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from paramgen.collect.finetune import steps_to_reach, validation_scores
from paramgen.core import distances
from paramgen.core.components import principal_components
from paramgen.core.params import StateDict
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, did_you_mean, require_positive
from paramgen.evaluation import metrics
from paramgen.evaluation.baselines import BASELINES, TASK_BASELINES, Pool, generate
from paramgen.evaluation.context import Context, Distances, Scored
from paramgen.evaluation.intervals import Bootstrap, Resampled, against
from paramgen.evaluation.judgement import flags_of
from paramgen.evaluation.notes import notes_of
from paramgen.evaluation.novelty import Novelty, RawBank
from paramgen.evaluation.results import Kind, Points, Results, Role, Row
from paramgen.evaluation.rows import make_row, row_or_reason
from paramgen.evaluation.scoring import Scoring
from paramgen.evaluation.structure import Structure
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.symmetry import AlignedZoo, CannotAlign, PermutationSpec
from paramgen.tasks import Task

STARTS = 16  # networks of a row that are trained on
ALL_BASELINES = (*BASELINES, *TASK_BASELINES)


def baselines_of(task: Task | None) -> list[str]:
    """The baselines that a zoo with this task can have: some need a network to build, or data to train on."""
    built = (
        [] if task is None else [name for name, of in TASK_BASELINES.items() if task.has_data or not of.uses_task_data]
    )
    return [*BASELINES, *built]


def evaluate(
    zoo: Zoo,
    task: Task | None,
    samples: Sequence[Samples] = (),
    baselines: Sequence[str] = ALL_BASELINES,
    n: int = 100,
    seed: int = 0,
    device: str = "cpu",
    train_images: int = 10_000,
    aligned: bool = False,
    finetune: bool = False,
) -> Results:
    """Measure everything: the zoo's row first, then held-out runs, the generators, and the baselines at the same N.

    Args:
        zoo: What the generators learnt from.
        task: Its task; gives the data and the network. None for a zoo of weights alone: distances are measured, and no scores.
        samples: One set of networks a generator.
        baselines: Names of :data:`ALL_BASELINES`.
        n: Networks of every row but the references; the smallest set of samples lowers it for all, because best and min depend on it.
        seed: Of the baselines.
        device: Where networks run.
        train_images: `selected` is chosen on this many train items, evenly spaced.
        aligned: Measure distances up to permutation and scale too: a permuted copy is a copy. About a second a row of 100 small networks.
        finetune: Train the first 16 networks of every row on until they are as good as the zoo on val, and say how many steps it took.

    Raises:
        ParamgenError: n below 1, an unknown baseline, a zoo with fewer than two training networks, a device that cannot be used, or
            finetune without a task that has data.
    """
    require_positive(n=n, train_images=train_images)
    if unknown := [name for name in baselines if name not in ALL_BASELINES]:
        raise ParamgenError(f"Unknown baseline {unknown[0]!r}. {did_you_mean(unknown[0], ALL_BASELINES)}")
    start = time.perf_counter()
    try:
        where = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ParamgenError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    bench = _Bench(zoo, task, where, train_images)
    if aligned:
        bench.align()
    if finetune:
        bench.aim()
    notes = [*zoo.meta.get("warnings", [])]
    notes += notes_of(bench.weights, bench.novelty, bench.structure.reference, [len(s.weights) for s in samples], n)
    n = min([n, *(len(s.weights) for s in samples)])
    rows = bench.references()
    rows += [bench.generator_row(s, n) for s in samples]
    rows += [row_or_reason(name, partial(bench.baseline_row, name, n, seed)) for name in baselines]
    rows, scoring = bench.judged(rows), bench.scoring
    notes += bench.notes if scoring is None else [*bench.notes, *scoring.notes]
    return Results(
        zoo=zoo.name,
        task=zoo.task_config,
        score=None if task is None else task.score,
        networks=len(bench.weights),
        runs=len(bench.runs.unique()),
        heldout=len(bench.heldout_indices),
        params=zoo.spec.numel,
        test_items=0 if scoring is None else scoring.test_items,
        train_items=0 if scoring is None else scoring.train_items,
        n=n,
        seed=seed,
        tau=bench.novelty.tau,
        good_from=bench.good_from,
        seconds=time.perf_counter() - start,
        forward_seconds=0.0 if scoring is None else scoring.seconds,
        generators={s.name: asdict(s.info) for s in samples},
        trajectories={s.name: bench.paths(s.trajectory) for s in samples if s.trajectory is not None},
        notes=notes,
        rows=rows,
        checkpoints=bench.checkpoints,
        unit=bench.novelty.unit,
        run_scale=bench.novelty.run_scale,
        subspace=bench.structure.reference,
    )


class _Bench:
    """What every row is measured against, computed once."""

    def __init__(self, zoo: Zoo, task: Task | None, device: torch.device, train_items: int) -> None:
        self.zoo, self.task, self.device = zoo, task, device
        self.scoring = None if task is None else Scoring(task, device, train_items)
        self.indices, self.heldout_indices = zoo.indices("train"), zoo.indices("heldout")
        if len(self.indices) < 2:
            raise ParamgenError(
                f"zoo {zoo.name!r} has {len(self.indices)} training network, expected at least 2 to measure distances by"
            )
        self.notes = list[str]()
        self.aligned: Novelty | None = None
        self.aim_at: float | None = None
        self.base = {name: t.to(device) for name, t in zoo.base().items()}
        self.runs, self.heldout_runs = (
            torch.tensor([zoo.entries[i].run for i in split], dtype=torch.int64)
            for split in (self.indices, self.heldout_indices)
        )
        self.runs = torch.unique(self.runs, return_inverse=True)[1]  # (K,) which of the R runs
        self.checkpoints = int(self.runs.bincount().max())
        self.weights = zoo.matrix(self.indices).to(device)  # (K, P)
        self.heldout = zoo.matrix(self.heldout_indices).to(device)  # (m, P), m may be 0
        self.novelty = Novelty(RawBank(self.weights), self.runs, self.heldout, self.heldout_runs)
        self.structure = Structure(self.weights, self.runs, self.heldout)
        self.scored = self.score("the zoo", self.weights)
        items = None if self.scored is None else self.scored.test.items
        self.bootstrap = Bootstrap(0) if task is None or items is None else Bootstrap(items.shape[1], task.value)
        self.resampled = dict[str, Resampled]()
        self.mean = None if self.scored is None else self.scored.test.value.nanmean().item()
        self.good_from = None if task is None or self.mean is None else task.score.floor(self.mean)
        self.plane = principal_components(self.weights, 2)

    def align(self) -> None:
        """Make ready to measure up to permutation and scale, where the network's symmetries can be read."""
        if self.scoring is None or self.scoring.train is None:
            self.notes.append("Distances are raw alone: to align networks takes a task with data.")
            return
        try:
            inputs = next(iter(self.scoring.train.batches(2)))[0]
            spec = PermutationSpec.of(self.scoring.task.build().eval(), inputs, self.zoo.spec)
        except CannotAlign as error:
            self.notes.append(f"Distances are raw alone: this network cannot be aligned ({error}).")
        else:
            if spec.stopped:
                fixed = len({place.tensor for place in spec.unplaced})
                self.notes.append(f"{fixed} tensors are compared without alignment ({'; '.join(spec.stopped)}).")
            bank = AlignedZoo(self.weights.cpu(), spec)
            self.aligned = Novelty(bank, self.runs, self.heldout.cpu(), self.heldout_runs)

    def aim(self) -> None:
        """Make ready to count steps of fine-tuning: to be reached is the zoo's mean on val, less the score's margin."""
        if self.task is None or not self.task.has_data:
            raise ParamgenError(f"finetune needs a task with data, and zoo {self.zoo.name!r} has none; leave it out")
        states = [self._complete(row) for row in self.weights]
        self.aim_at = self.task.score.floor(validation_scores(self.task, states, self.device).mean().item())

    def references(self) -> list[Row]:
        """The zoo's own row, each network against the others, and the held-out runs' where there are any."""
        novelty, aligned, info = self.novelty, self.aligned, SampleInfo(fit_seconds=self.zoo.meta.get("seconds"))
        runs = torch.empty(0) if novelty.training_runs is None else novelty.training_runs
        own = Distances(
            novelty.near, novelty.own, novelty.own_ratios(), None if aligned is None else aligned.own_ratios(), runs
        )
        rows = [self._row("zoo", "reference", "zoo", self.weights, self.scored, info, own)]
        if self.heldout_indices:
            near = distances.nearest(self.heldout, self.weights)
            ratios = None if aligned is None else aligned.heldout_ratios()
            of = Distances(
                near, near.distance, novelty.heldout_ratios(), ratios, torch.empty(0)
            )  # zu compares with them
            scored = self.score("the held-out runs", self.heldout)
            rows.append(self._row("held-out runs", "reference", "heldout", self.heldout, scored, SampleInfo(), of))
        return rows

    def judged(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with their differences from each other and their flags."""
        sign = 1 if self.scoring is None else self.scoring.spec.sign
        works_from = self._works_from()
        beside = [row.name for row in rows if row.kind != "reference" and row.n]

        def compared(row: Row) -> Row:
            mine = self.resampled.get(row.name)
            if row.kind != "generator" or mine is None:
                return row
            pairs = [against(name, mine, self.resampled[name], sign) for name in beside if name != row.name]
            return replace(row, against=pairs)

        rows = [compared(row) for row in rows]
        several = self.checkpoints > 1

        def works(row: Row) -> bool:
            return works_from is None or sign * row.value("mean") >= sign * works_from

        return [replace(row, flags=[*row.flags, *flags_of(row, rows, several, works(row))]) for row in rows]

    def generator_row(self, samples: Samples, n: int) -> Row:
        """What a generator drew."""
        weights = samples.weights[:n].to(self.device)
        info = samples.info
        if info.sample_seconds is not None and samples.total:
            info = replace(info, sample_seconds=info.sample_seconds * n / samples.total)
        return self._row(
            samples.name, "generator", "generator", weights, self.score(samples.name, weights), info, samples=samples
        )

    def baseline_row(self, name: str, n: int, seed: int) -> Row:
        """What a baseline drew from the train split."""
        seed = (seed + zlib.crc32(name.encode())) % 2**31
        start = time.perf_counter()
        if name in BASELINES:
            pool = Pool(self.weights.cpu(), self._goodness(), tuple(t.numel for t in self.zoo.spec.tensors))
            weights = generate(name, pool, self.zoo.spec, n, seed)
        elif self.task is None:
            raise ParamgenError(f"{name} needs a task, and zoo {self.zoo.name!r} has none")
        else:
            weights = TASK_BASELINES[name].draw(self.task, self.zoo, n, seed)
        info = SampleInfo(
            sample_seconds=time.perf_counter() - start,
            uses_task_data=name in TASK_BASELINES and TASK_BASELINES[name].uses_task_data,
        )
        weights = weights.to(self.device)
        role: Role = "untrained" if name in TASK_BASELINES and TASK_BASELINES[name].untrained else "baseline"
        row = self._row(name, "baseline", role, weights, self.score(name, weights), info)
        return replace(row, noise=BASELINES[name].noise if name in BASELINES else None)

    def score(self, name: str, weights: Tensor) -> Scored | None:
        """Scores of a row's networks (N, P); None without a task."""
        return None if self.scoring is None else self.scoring.score(name, [self._complete(row) for row in weights])

    def _works_from(self) -> float | None:
        """The score from which networks work at all; None without scores."""
        if self.scoring is None or self.mean is None:
            return None
        untrained = self.scoring.untrained(self.zoo)
        return untrained + THRESHOLDS.works * (self.mean - untrained)

    def _goodness(self) -> Tensor | None:
        """Train scores (K,), larger is better, -inf where there is none; None without a task."""
        if self.scoring is None or self.scored is None or self.scored.train is None:
            return None
        signed = self.scoring.spec.sign * self.scored.train.cpu()
        return signed.where(~signed.isnan(), -torch.inf)

    def _row(
        self,
        name: str,
        kind: Kind,
        role: Role,
        weights: Tensor,
        scored: Scored | None,
        info: SampleInfo,
        of: Distances | None = None,
        samples: Samples | None = None,
    ) -> Row:
        finite, n = weights.isfinite().all(1).cpu(), len(weights)  # (N,)
        kept = weights[finite.to(self.device)]
        of = of or self._distances(kept)
        distance = torch.full((n,), float("nan"), dtype=torch.float64)
        distance[finite] = of.distance.cpu()
        scores, scale = torch.empty(0) if scored is None else scored.test.value, self.novelty.run_scale
        if kind != "reference" and scored is not None:
            self.resampled[name] = self.bootstrap.resample(scores, scored.test.items, distance / self.novelty.length)
        spec = None if self.task is None else self.task.score
        good = None if spec is None or self.good_from is None else spec.good(scores, self.good_from)
        identity, run = self._conditioned_on(samples, finite)
        context = Context(
            n=n,
            weights=kept,
            finite=finite,
            zoo=self.weights,
            own=role == "zoo",
            near=of.near,
            raw=of.raw,
            spec=spec,
            aligned=of.aligned,
            zu_of=of.zu,
            heldout_runs=self.novelty.heldout_runs,
            scored=scored,
            zoo_scored=self.scored,
            targets=None if self.scoring is None else self.scoring.targets,
            reference=None if role == "zoo" else self.mean,
            structured=self.structure.of(kept),
            novel_and_good=None
            if scale is None or good is None
            else metrics.novel_and_good(good, distance, scale.value),
            id_match=None if identity is None else metrics.id_match(of.near.index, identity),
            run_match=None if run is None else metrics.id_match(self.runs[of.near.index.cpu()], run),
            info=info,
            sample_seconds=None if info.sample_seconds is None else info.sample_seconds / n,
            finetune_steps=self._finetune_steps(weights),
        )
        places = self.plane.place(weights) / self.novelty.length  # (N, 2)
        points = Points(scores.tolist(), (distance / self.novelty.length).tolist(), places.tolist())
        return make_row(name, kind, role, context, points)

    def _distances(self, weights: Tensor) -> Distances:
        """Of networks (n, P) that are no reference."""
        near = distances.nearest(weights, self.weights)
        aligned = None
        if self.aligned is not None:
            aligned = self.aligned.ratios(self.aligned.bank.nearest(weights.cpu()).distance)
        return Distances(near, near.distance, self.novelty.ratios(near.distance), aligned, near.distance)

    def _conditioned_on(self, samples: Samples | None, finite: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Networks and runs that conditioned the samples without NaN (n,); no runs where the zoo has one alone."""
        if samples is None:
            return None, None
        run = self.runs[samples.identity] if samples.run is None and samples.identity is not None else samples.run
        known = (samples.identity, run if bool(self.runs.any()) else None)
        identity, run = (None if of is None else of[: len(finite)][finite] for of in known)
        return identity, run

    def _finetune_steps(self, weights: Tensor) -> float | None:
        if self.aim_at is None or self.task is None:
            return None
        steps = steps_to_reach(self.task, self.zoo, weights[:STARTS], self.aim_at, device=self.device)
        middle: float = median(steps.tolist())
        return middle

    def paths(self, trajectory: Tensor) -> list[list[list[float]]]:
        """Where networks (S, m, P) pass through the zoo's plane from noise to sample: m lines of S places."""
        lines = trajectory.to(self.device).transpose(0, 1)  # (m, S, P)
        return [(self.plane.place(line) / self.novelty.length).tolist() for line in lines]

    def _complete(self, vector: Tensor) -> StateDict:
        return {**self.base, **self.zoo.spec.unflatten(vector)}
