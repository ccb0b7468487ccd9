"""The evaluation: references, generators and every baseline, all measured alike.

A single task is a family of one. For one task the rows are compared with the zoo's own networks; for a family of tasks, every network is
scored on its own unseen task and compared with networks trained on that task.

Distances are plain L2 in raw weight space over the generated tensors alone, the same for every row. The test split is predicted here and
nowhere else; what is chosen (`selected`) and recalibrated (batch norm) sees train items only.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace

from paramgen.core.progress import ProgressDisplay
from paramgen.core.samples import Samples
from paramgen.core.zoo import Zoo
from paramgen.evaluation.bench import Bench
from paramgen.evaluation.context import Failures
from paramgen.evaluation.differences import with_differences
from paramgen.evaluation.judgement import flags_of
from paramgen.evaluation.notes import notes_of, of_other_zoos
from paramgen.evaluation.numbered_rows import NumberedRows
from paramgen.evaluation.results import Results, Row
from paramgen.evaluation.row_store import RowStore
from paramgen.evaluation.rows import MeasuredRow
from paramgen.evaluation.score_store import ScoreStore
from paramgen.evaluation.setup import Setup
from paramgen.tasks import TaskFamily

RENDERS = 8  # networks of each row that the page shows, where networks are themselves data


def evaluate(
    zoo: Zoo,
    tasks: TaskFamily | None,
    samples: Sequence[Samples] = (),
    baselines: Sequence[str] | None = None,
    n: int = 100,
    seed: int = 0,
    device: str = "cpu",
    train_images: int = 10_000,
    aligned: bool = False,
    finetune: bool = False,
    split: str = "test",
    errors: list[str] | None = None,
) -> Results:
    """Measure everything: the references first, then the generators, and the baselines at the same N.

    Args:
        zoo: What the generators learnt from. For a family it holds networks of the unseen tasks too, as held-out ones.
        tasks: What its networks do: a task or a family of tasks (:func:`paramgen.tasks.family_of`), which gives the data and the network.
            None for a zoo of weights alone: distances are measured, and no scores.
        samples: One set of networks for each generator; for a family, each names the task of each network.
        baselines: Names in :data:`paramgen.evaluation.baselines.BASELINES`. Default: all that the zoo can have.
        n: Networks of every row except the references, at most as many as the smallest set of samples has: best and worst depend on it.
            For a family, baselines have one network per unseen task, and generators all of theirs.
        seed: Of the baselines.
        device: Where networks run.
        train_images: `selected` is chosen on this many train items, evenly spaced.
        aligned: Also measure distances after alignment: a permuted copy is a copy. Takes about a second per row of 100 small networks.
        finetune: Also count the training steps after which the first 16 networks of every row (for each task) are as good on val as the
            first row's (Wild-P-Diff's Fig. 3). For a family this adds two rows: fresh weights, and a noised copy of the nearest task's.
        split: Items to score on. Choose hyperparameters on ``val``.
        errors: Receives a sentence for each row that has networks on which a scoring function raised an error.

    Raises:
        ParamgenError: n below 1, an unknown baseline, a zoo with fewer than two training networks, a device that cannot be used, or
            finetune without a task that has data. For a family: no unseen tasks, or none with networks; aligned; samples that name no
            tasks, no unseen task, or a task that the family does not have.
    """
    setup = Setup.of(zoo, tasks, samples, baselines, n, seed, device, train_images, aligned, finetune, split)
    return results_of(setup, errors=errors)


def results_of(setup: Setup, store: ScoreStore | None = None, errors: list[str] | None = None) -> Results:
    """Measure everything; the rest as of :func:`evaluate`.

    Args:
        setup: What to measure.
        store: Scores that shards computed, in the folder that has the rows that they measured.
        errors: Receives a sentence for each row with networks that a scoring function raised an error on.
    """
    start = time.perf_counter()
    rows = NumberedRows(setup, store)
    measured = _measured(rows, None if store is None else RowStore(store.out, setup.key))
    failures = [m.failures for m in measured if m.failures is not None]
    if errors is not None:
        errors += [failure.note for failure in failures if failure.error]
    bench = rows.bench
    novelty, weights, scoring = bench.distances.raw, bench.weights, bench.scoring
    zoo, judged = setup.zoo, _judged(measured, bench)
    return Results(
        zoo=zoo.name,
        task=zoo.task_config,
        score=None if scoring is None else scoring.spec,
        networks=len(weights.training),
        runs=len(weights.runs.unique()),
        heldout=len(weights.heldout),
        params=zoo.spec.numel,
        test_items=0 if scoring is None else scoring.test_items,
        train_items=0 if scoring is None else scoring.train_items,
        n=max((row.n for row in judged if row.kind == "generator"), default=setup.each),
        seed=setup.seed,
        tau=novelty.tau,
        good_from=bench.good_from,
        seconds=time.perf_counter() - start,
        forward_seconds=0.0 if scoring is None else scoring.seconds,
        generators={s.name: asdict(s.info) for s in setup.samples},
        trajectories={s.name: bench.paths(s.trajectory) for s in setup.samples if s.trajectory is not None},
        notes=_notes(setup, bench, failures),
        rows=judged,
        checkpoints=weights.checkpoints,
        unit=novelty.unit,
        run_scale=novelty.run_scale,
        subspace=None if bench.structure is None else bench.structure.reference,
        renders={
            m.row.name: m.renders[:RENDERS].double().round(decimals=2).tolist()
            for m in measured
            if m.renders is not None
        },
    )


def _measured(rows: NumberedRows, store: RowStore | None) -> list[MeasuredRow]:
    """Every row: as a shard measured it, or measured here."""
    stored = [None if store is None else store.get(number) for number in range(len(rows))]
    measured = []
    with ProgressDisplay() as progress:
        progress.begin("rows", len(stored))
        for number, row in enumerate(stored):
            measured.append(rows.row_or_reason(number) if row is None else row)
            progress.update(number + 1)
    return measured


def _notes(setup: Setup, bench: Bench, failures: Sequence[Failures]) -> list[str]:
    """What the zoo, the samples and the measurement warn of."""
    family = setup.tasks is not None and bool(setup.tasks.unseen)
    sizes = [] if family else [len(s.weights) for s in setup.samples]
    reference = None if bench.structure is None else bench.structure.reference
    return [
        *setup.zoo.meta.get("warnings", []),
        *of_other_zoos(setup.samples, setup.zoo),
        *notes_of(bench.weights.training, bench.distances.raw, reference, sizes, setup.n),
        *bench.notes,
        *(f"{failure.note} They count as the worst, and the row has no mean." for failure in failures),
    ]


def _judged(measured: Sequence[MeasuredRow], bench: Bench) -> list[Row]:
    """The rows with their differences from each other and their flags."""
    sign = 1 if bench.scoring is None else bench.scoring.spec.sign
    works_from, several = bench.works_from(), bench.weights.checkpoints > 1
    resampled = {m.row.name: m.resampled for m in measured if m.resampled is not None}
    rows = with_differences([m.row for m in measured], resampled, sign)

    def works(row: Row) -> bool:
        # a row without a mean, because some of its networks have no score, is not excused from the flags
        return works_from is None or not sign * row.value("mean") < sign * works_from

    return [replace(row, flags=[*row.flags, *flags_of(row, rows, several, works(row))]) for row in rows]
