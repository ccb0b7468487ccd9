"""Rows of an honest report: the zoo, held-out runs, every baseline and the generators, all measured alike.

Distances are plain L2 in raw weight space over the generated tensors alone, the same for every row. The test split is predicted here and
nowhere else; what is chosen (`selected`) and recalibrated (batch norm) sees train images only. N: networks of a row, K: of the zoo's train
split, P: generated parameters, M: test images.
"""

import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from statistics import median
from typing import Any

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
from paramgen.evaluation.intervals import Bootstrap, Resampled, against
from paramgen.evaluation.judgement import flags_of
from paramgen.evaluation.metrics import AccuracySummary
from paramgen.evaluation.notes import notes_of
from paramgen.evaluation.novelty import Novelty, Ratios, RawBank
from paramgen.evaluation.results import Kind, Points, Results, Row, row_or_reason
from paramgen.evaluation.structure import Structure
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.symmetry import AlignedZoo, CannotAlign, PermutationSpec
from paramgen.tasks import SplitData, Task
from paramgen.tasks.base import FirstImages
from paramgen.tasks.batchnorm import BATCHES, has_statistics, recalibrate
from paramgen.tasks.score import Scores
from paramgen.tasks.scoring import score_networks

RECALIBRATION_BATCH = 128
STARTS = 16  # networks of a row that are trained on
ALL_BASELINES = (*BASELINES, *TASK_BASELINES)


def evaluate(
    zoo: Zoo,
    task: Task,
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
        task: Its task; gives the data and the network.
        samples: One set of networks a generator.
        baselines: Names of :data:`ALL_BASELINES`.
        n: Networks of every row but the references; the smallest set of samples lowers it for all, because best and min depend on it.
        seed: Of the baselines.
        device: Where networks run.
        train_images: `selected` chooses on the first so many train images.
        aligned: Measure distances up to permutation and scale too: a permuted copy is a copy. About a second a row of 100 small networks.
        finetune: Train the first 16 networks of every row on until they are as good as the zoo on val, and say how many steps it took.

    Raises:
        ParamgenError: n below 1, an unknown baseline, a zoo with fewer than two training networks, or a device that cannot be used.
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
    notes = [*zoo.meta.get("warnings", []), *bench.notes]
    notes += notes_of(bench.weights, bench.novelty, bench.structure.reference, [len(s.weights) for s in samples], n)
    n = min([n, *(len(s.weights) for s in samples)])
    rows = bench.references()
    rows += [bench.generator_row(s, n) for s in samples]
    rows += [row_or_reason(name, partial(bench.baseline_row, name, n, seed)) for name in baselines]
    rows = bench.judged(rows)
    return Results(
        zoo=zoo.name,
        task=zoo.task_config,
        networks=len(bench.weights),
        runs=len(bench.runs.unique()),
        heldout=len(bench.heldout_indices),
        params=zoo.spec.numel,
        test_images=len(bench.labels),
        train_images=len(bench.train),
        n=n,
        seed=seed,
        tau=bench.novelty.tau,
        good_from=bench.good_from,
        seconds=time.perf_counter() - start,
        forward_seconds=bench.forward_seconds,
        generators={s.name: asdict(s.info) for s in samples},
        trajectories={s.name: bench.paths(s.trajectory) for s in samples if s.trajectory is not None},
        notes=notes,
        rows=rows,
        checkpoints=bench.checkpoints,
        unit=bench.novelty.unit,
        run_scale=bench.novelty.run_scale,
        subspace=bench.structure.reference,
    )


@dataclass(frozen=True)
class _Scored:
    """Predictions of N networks: classes (N, M) int64 and accuracies (N,) on test, accuracies (N,) on train."""

    classes: Tensor
    accuracy: Tensor
    train: Tensor
    recalibrated: AccuracySummary | None


class _Bench:
    """What every row is measured against, computed once."""

    def __init__(self, zoo: Zoo, task: Task, device: torch.device, train_images: int) -> None:
        self.zoo, self.task, self.device = zoo, task, device
        self.indices, self.heldout_indices = zoo.indices("train"), zoo.indices("heldout")
        if len(self.indices) < 2:
            raise ParamgenError(
                f"zoo {zoo.name!r} has {len(self.indices)} training network, expected at least 2 to measure distances by"
            )
        self.forward_seconds, self.notes = 0.0, list[str]()
        self.aligned: Novelty | None = None
        self.aim_at: float | None = None
        self.model = task.build().to(device).eval()
        self.test, self.train = task.data("test"), FirstImages(task.data("train"), train_images)
        self.labels = self.test.targets  # (M,)
        self.base = {name: t.to(device) for name, t in zoo.base().items()}
        self.images = self._recalibration_images()
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
        self.bootstrap, self.resampled = Bootstrap(len(self.labels)), dict[str, Resampled]()
        self.scored = self.score(self.weights)
        self.wrong = self.scored.classes != self.labels  # (K, M)
        self.good_from = self.scored.accuracy.mean().item() - THRESHOLDS.point
        self.plane = principal_components(self.weights, 2)

    def align(self) -> None:
        """Make ready to measure up to permutation and scale, where the network's symmetries can be read."""
        try:
            images = next(iter(self.train.batches(2)))[0]
            spec = PermutationSpec.of(self.task.build().eval(), images, self.zoo.spec)
        except CannotAlign as error:
            self.notes.append(f"Distances are raw alone: this network cannot be aligned ({error}).")
        else:
            bank = AlignedZoo(self.weights.cpu(), spec)
            self.aligned = Novelty(bank, self.runs, self.heldout.cpu(), self.heldout_runs)

    def aim(self) -> None:
        """Make ready to count steps of fine-tuning: what is to be reached is the zoo's mean on val less one point."""
        states = [self._complete(row) for row in self.weights]
        self.aim_at = validation_scores(self.task, states, self.device).mean().item() - THRESHOLDS.point

    def references(self) -> list[Row]:
        """The zoo's own row, each network against the others, and the held-out runs' where there are any."""
        seconds, near, runs = self.zoo.meta.get("seconds"), self.novelty, self.novelty.training_runs
        zoo = self._row("zoo", "reference", self.weights, self.scored, SampleInfo(fit_seconds=seconds), own=True)
        zoo = replace(
            zoo, **self._ratios(near.own_ratios(), None if self.aligned is None else self.aligned.own_ratios())
        )
        zoo = replace(zoo, **self._zu(torch.empty(0) if runs is None else runs))
        if not self.heldout_indices:
            return [zoo]
        heldout = self._row("held-out runs", "reference", self.heldout, self.score(self.heldout), SampleInfo())
        aligned = None if self.aligned is None else self.aligned.heldout_ratios()
        ratios = self._ratios(near.heldout_ratios(), aligned)
        return [zoo, replace(heldout, **ratios, **self._zu(torch.empty(0)))]  # they are what zu compares with

    def judged(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with their differences from each other and their flags."""
        chance = self.task.chance(self.labels) or 0.0
        works_from = chance + THRESHOLDS.works * (self.scored.accuracy.mean().item() - chance)
        beside = [row.name for row in rows if row.kind != "reference" and row.n]

        def compared(row: Row) -> Row:
            mine = self.resampled.get(row.name)
            if row.kind != "generator" or mine is None:
                return row
            pairs = [against(name, mine, self.resampled[name]) for name in beside if name != row.name]
            return replace(row, against=pairs)

        rows = [compared(row) for row in rows]
        several = self.checkpoints > 1
        return [replace(row, flags=[*row.flags, *flags_of(row, rows, several, works_from)]) for row in rows]

    def generator_row(self, samples: Samples, n: int) -> Row:
        """What a generator drew."""
        weights = samples.weights[:n].to(self.device)
        info = samples.info
        if info.sample_seconds is not None and samples.total:
            info = replace(info, sample_seconds=info.sample_seconds * n / samples.total)
        return self._row(samples.name, "generator", weights, self.score(weights), info, samples)

    def baseline_row(self, name: str, n: int, seed: int) -> Row:
        """What a baseline drew from the train split."""
        seed = (seed + zlib.crc32(name.encode())) % 2**31
        start = time.perf_counter()
        if name in BASELINES:
            pool = Pool(
                self.weights.cpu(),
                self.task.score.sign * self.scored.train.cpu(),
                tuple(t.numel for t in self.zoo.spec.tensors),
            )
            weights = generate(name, pool, self.zoo.spec, n, seed)
        else:
            weights = TASK_BASELINES[name].draw(self.task, self.zoo, n, seed)
        info = SampleInfo(
            sample_seconds=time.perf_counter() - start,
            uses_task_data=name in TASK_BASELINES and TASK_BASELINES[name].uses_task_data,
        )
        weights = weights.to(self.device)
        return self._row(name, "baseline", weights, self.score(weights), info)

    def score(self, weights: Tensor) -> _Scored:
        """Predictions of (N, P), on test and on train, and on test with batch norm recalibrated."""
        start = time.perf_counter()
        states = [self._complete(row) for row in weights]
        test, train = (self._scores(states, data) for data in (self.test, self.train))
        assert test.predictions is not None  # classifiers have them
        recalibrated = None
        if self.images:
            states = recalibrate(self.model, states, self.images)
            recalibrated = metrics.accuracy_summary(self._scores(states, self.test).value)
        self.forward_seconds += time.perf_counter() - start
        return _Scored(test.predictions, test.value, train.value, recalibrated)

    def _scores(self, states: list[StateDict], data: SplitData) -> Scores:
        return score_networks(self.task, self.model, states, data, device=self.device)

    def _row(
        self,
        name: str,
        kind: Kind,
        weights: Tensor,
        scored: _Scored,
        info: SampleInfo,
        samples: Samples | None = None,
        own: bool = False,
    ) -> Row:
        finite = weights.isfinite().all(1).cpu()  # (N,)
        whole = weights[finite.to(self.device)]
        near = self.novelty.near if own else distances.nearest(whole, self.weights)
        wrong = metrics.wrong_iou_averages(scored.classes != self.labels, None if own else self.wrong)
        distance = torch.full((len(weights),), float("nan"), dtype=torch.float64)
        distance[finite] = self.novelty.own if own else near.distance.cpu()
        if kind != "reference":
            self.resampled[name] = self.bootstrap.resample(
                scored.classes == self.labels, distance / self.novelty.length
            )
        scale, structure = self.novelty.run_scale, self.structure.of(whole)
        aligned = (
            None
            if self.aligned is None or own
            else self.aligned.ratios(self.aligned.bank.nearest(whole.cpu()).distance)
        )
        identity, run = self._conditioned_on(samples, finite)
        n = len(weights)
        return Row(
            name=name,
            kind=kind,
            n=n,
            nonfinite=n - len(whole),
            accuracy=metrics.accuracy_summary(scored.accuracy, scored.train),
            accuracy_recalibrated=scored.recalibrated,
            ensemble_16=metrics.majority_accuracy(scored.classes[:16], self.labels),
            **self._ratios(self.novelty.ratios(near.distance), aligned),
            **self._zu(near.distance),
            id_match=None if identity is None else metrics.id_match(near.index, identity),
            run_match=None if run is None else metrics.id_match(self.runs[near.index.cpu()], run),
            iou_wrong_max=wrong.nearest,
            iou_wrong=wrong,
            disagreement_nearest=metrics.disagreement(scored.classes[finite], self.scored.classes[near.index.cpu()]),
            same_predictions=metrics.same_predictions(scored.classes, None if own else self.scored.classes),
            disagreement_samples=metrics.disagreement_among(scored.classes),
            cosine_zoo=metrics.cosine_max(whole, None if own else self.weights),
            cosine_samples=metrics.cosine_max(whole),
            dispersion=metrics.dispersion(whole, self.weights),
            structure=structure.structure,
            variance_inside=structure.inside,
            novel_and_good={}
            if scale is None
            else metrics.novel_and_good(scored.accuracy, distance, self.good_from, scale.value),
            fit_seconds=info.fit_seconds,
            sample_seconds_per_network=None if info.sample_seconds is None else info.sample_seconds / n,
            num_inference_steps=info.num_inference_steps,
            generator_params=info.generator_params,
            uses_task_data=info.uses_task_data,
            finetune_steps=self._finetune_steps(weights),
            flags=[],
            points=self._points(scored.accuracy, distance, weights),
        )

    def _conditioned_on(self, samples: Samples | None, finite: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Networks and runs that conditioned the samples without NaN (n,); no runs where the zoo has one alone."""
        if samples is None:
            return None, None
        run = self.runs[samples.identity] if samples.run is None and samples.identity is not None else samples.run
        known = (samples.identity, run if bool(self.runs.any()) else None)
        identity, run = (None if of is None else of[: len(finite)][finite] for of in known)
        return identity, run

    def _ratios(self, raw: Ratios, aligned: Ratios | None) -> dict[str, Any]:
        """Fields of a row."""
        found = {"run_ratio": raw.run, "nn_ratio": raw.step, "near_share": raw.near}
        run, step, near = (None, None, None) if aligned is None else aligned
        return found | {"run_ratio_aligned": run, "nn_ratio_aligned": step, "near_share_aligned": near}

    def _zu(self, distance: Tensor) -> dict[str, Any]:
        """Fields of a row from distances (n,)."""
        heldout = self.novelty.heldout_runs
        return {"zu": metrics.zu(distance, heldout), "zu_limit": metrics.zu_limit(len(distance), len(heldout))}

    def _finetune_steps(self, weights: Tensor) -> float | None:
        if self.aim_at is None:
            return None
        steps = steps_to_reach(self.task, self.zoo, weights[:STARTS], self.aim_at, device=self.device)
        middle: float = median(steps.tolist())
        return middle

    def _points(self, accuracy: Tensor, distance: Tensor, weights: Tensor) -> Points:
        """What the pictures need."""
        xy = self.plane.place(weights) / self.novelty.length  # (N, 2)
        return Points(accuracy.tolist(), (distance / self.novelty.length).tolist(), xy.tolist())

    def paths(self, trajectory: Tensor) -> list[list[list[float]]]:
        """Where networks (S, m, P) pass through the zoo's plane from noise to sample: m lines of S places."""
        lines = trajectory.to(self.device).transpose(0, 1)  # (m, S, P)
        return [(self.plane.place(line) / self.novelty.length).tolist() for line in lines]

    def _complete(self, vector: Tensor) -> StateDict:
        return {**self.base, **self.zoo.spec.unflatten(vector)}

    def _recalibration_images(self) -> list[Tensor]:
        if not has_statistics(self.model):
            return []
        return [x.to(self.device) for x, _ in islice(self.train.batches(RECALIBRATION_BATCH), BATCHES)]
