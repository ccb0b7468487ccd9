"""The evaluation: references, generators and every baseline, all measured alike.

A single task is a family of one. Of one task the rows are compared with the zoo's own networks; of a family of tasks, every network is
scored on its own unseen task and compared with networks trained on that task.

Distances are plain L2 in raw weight space over the generated tensors alone, the same for every row. The test split is predicted here and
nowhere else; what is chosen (`selected`) and recalibrated (batch norm) sees train items only.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial

import torch

from paramgen.core.params import StateDict
from paramgen.core.samples import Samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_positive
from paramgen.evaluation.baselines import BASELINES, all_baselines, baseline_networks, check_baselines
from paramgen.evaluation.bench import Bench
from paramgen.evaluation.differences import with_differences
from paramgen.evaluation.fine_tuning import FineTuning
from paramgen.evaluation.judgement import flags_of
from paramgen.evaluation.network_set import NetworkSet, complete, generated
from paramgen.evaluation.notes import notes_of
from paramgen.evaluation.pool import NewTasks, Pool, conditions_of, seen_tasks
from paramgen.evaluation.references import references
from paramgen.evaluation.results import Results, Row
from paramgen.evaluation.rows import row_or_reason
from paramgen.evaluation.score_store import ScoreStore
from paramgen.evaluation.scoring import Scoring
from paramgen.evaluation.zoo_weights import ZooWeights, zoo_weights
from paramgen.tasks import TaskFamily

RENDERS = 8  # networks of each row that the page shows, where networks are data themselves


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
    store: ScoreStore | None = None,
    errors: list[str] | None = None,
) -> Results:
    """Measure everything: the references first, then the generators, and the baselines at the same N.

    Args:
        zoo: What the generators learnt from. Of a family it holds networks of the unseen tasks too, as held-out ones.
        tasks: What its networks do: a task or a family of tasks (:func:`paramgen.tasks.family_of`), which gives the data and the network.
            None for a zoo of weights alone: distances are measured, and no scores.
        samples: One set of networks a generator; of a family, each says what task each network is for.
        baselines: Names in :data:`paramgen.evaluation.baselines.BASELINES`. Default: all that the zoo can have.
        n: Networks of every row but the references; the smallest set of samples lowers it for all, because best and min depend on it. Of a
            family, baselines have one network per unseen task, and generators all of theirs.
        seed: Of the baselines.
        device: Where networks run.
        train_images: `selected` is chosen on this many train items, evenly spaced.
        aligned: Measure distances up to permutation and scale too: a permuted copy is a copy. About a second a row of 100 small networks.
        finetune: Train the first 16 networks of every row (for each task) on until they are as good as the first row's on val, and say how
            many steps it took (Wild-P-Diff's Fig. 3). Of a family, fresh weights and a noised copy of the nearest task's are rows then too.
        split: Items to score on; what is chosen must be chosen on ``val``.
        store: Scores that shards computed.
        errors: Receives a sentence for each row with networks that a scoring function raised an error on.

    Raises:
        ParamgenError: n below 1, an unknown baseline, a zoo with fewer than two training networks, a device that cannot be used, or
            finetune without a task that has data. Of a family: no unseen tasks, or none with networks; aligned; samples that name no tasks,
            none of an unseen one, or one that the family does not have.
    """
    require_positive(n=n, train_images=train_images)
    tasks = _one_or_many(zoo, tasks, aligned)
    names = all_baselines(tasks, finetune) if baselines is None else list(baselines)
    check_baselines(names, tasks)
    start = time.perf_counter()
    bench, compared_with = _bench(zoo, tasks, _device(device), split, train_images, store)
    if aligned:
        bench.align()
    if finetune:
        bench.count_steps()
    sizes = [] if tasks is not None and tasks.unseen else [len(s.weights) for s in samples]
    each = _networks_per_row(tasks, samples, n)
    rows = [bench.row(networks) for networks in compared_with]
    rows += [bench.row(generated(s, zoo, tasks, each)) for s in samples]
    rows += _baseline_rows(bench, tasks, names, each, seed)
    rows = _judged(rows, bench)
    novelty, weights, scoring = bench.distances.raw, bench.weights, bench.scoring
    subspace = None if bench.structure is None else bench.structure.reference
    notes = bench.notes if scoring is None else [*bench.notes, *scoring.notes]
    if errors is not None and scoring is not None:
        errors += scoring.errors
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
        n=max((row.n for row in rows if row.kind == "generator"), default=each),
        seed=seed,
        tau=novelty.tau,
        good_from=bench.good_from,
        seconds=time.perf_counter() - start,
        forward_seconds=0.0 if scoring is None else scoring.seconds,
        generators={s.name: asdict(s.info) for s in samples},
        trajectories={s.name: bench.paths(s.trajectory) for s in samples if s.trajectory is not None},
        notes=[*zoo.meta.get("warnings", []), *notes_of(weights.training, novelty, subspace, sizes, n), *notes],
        rows=rows,
        checkpoints=weights.checkpoints,
        unit=novelty.unit,
        run_scale=novelty.run_scale,
        subspace=subspace,
        renders={name: of[:RENDERS].double().round(decimals=2).tolist() for name, of in bench.renders.items()},
    )


def score_share(
    zoo: Zoo,
    tasks: TaskFamily | None,
    store: ScoreStore,
    samples: Sequence[Samples] = (),
    baselines: Sequence[str] | None = None,
    n: int = 100,
    seed: int = 0,
    device: str = "cpu",
    train_images: int = 10_000,
    finetune: bool = False,
    split: str = "test",
) -> None:
    """Compute and store a shard's part of the scores that :func:`evaluate` needs; arguments as there.

    Baselines that choose by the scores of the zoo's networks come last: they wait for all shards' scores of these, and where some are not
    there yet, the networks of these baselines are scored when the shards are put together.

    Raises:
        ParamgenError: As :func:`evaluate`; a zoo without a task, which has nothing to score.
    """
    require_positive(n=n, train_images=train_images)
    tasks = _one_or_many(zoo, tasks, aligned=False)
    if tasks is None:
        raise ParamgenError(
            f"zoo {zoo.name!r} has no task: without scores there is nothing to divide; leave --shard out"
        )
    names = all_baselines(tasks, finetune) if baselines is None else list(baselines)
    check_baselines(names, tasks)
    place, weights = _device(device), zoo_weights(zoo, _device(device))
    scoring = Scoring(tasks, place, split, train_images, store)
    base = {name: tensor.to(place) for name, tensor in zoo.base().items()}

    def states(networks: NetworkSet) -> list[StateDict]:
        return complete(None if networks.weights is None else networks.weights.to(place), zoo.spec, base)

    each, compared_with = _networks_per_row(tasks, samples, n), references(zoo, weights, tasks)
    first = compared_with[0]
    steps = FineTuning(tasks, zoo, first, states(first), place, store) if finetune else None

    def share(networks: NetworkSet) -> None:
        scoring.share(networks, states(networks))
        if steps is not None:
            steps.share(networks)

    for networks in [*compared_with, *(generated(s, zoo, tasks, each) for s in samples)]:
        share(networks)
    for name in sorted(names, key=lambda name: BASELINES[name].by_score):
        goodness = None
        if BASELINES[name].by_score and not scoring.unseen:
            train = scoring.stored_train_scores(states(first))
            if train is None:
                continue
            goodness = scoring.goodness(train)
        with suppress(Exception):  # its row says why when the shards are put together
            share(baseline_networks(name, _pool(zoo, weights, goodness, scoring, tasks), zoo, each, seed))


def _networks_per_row(tasks: TaskFamily | None, samples: Sequence[Samples], n: int) -> int:
    """Networks of every row but the references: one for each unseen task, or at most n and at most as many as all samples have."""
    if tasks is not None and tasks.unseen:
        return len(tasks.unseen)
    return min([n, *(len(s.weights) for s in samples)])


def _one_or_many(zoo: Zoo, tasks: TaskFamily | None, aligned: bool) -> TaskFamily | None:
    """A single task itself, a family of several if some of its tasks are unseen."""
    if tasks is None or len(tasks.names) == 1:
        return None if tasks is None else tasks.task()
    if not tasks.unseen:
        raise ParamgenError(f"zoo {zoo.name!r} has no unseen tasks")
    if aligned:
        raise ParamgenError(f"zoo {zoo.name!r} has many tasks; aligned needs a zoo of one task")
    return tasks


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ParamgenError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def _bench(
    zoo: Zoo,
    tasks: TaskFamily | None,
    device: torch.device,
    split: str,
    train_items: int,
    store: ScoreStore | None,
) -> tuple[Bench, list[NetworkSet]]:
    """Where rows are measured, and the references, the first of which it compares the others with."""
    weights = zoo_weights(zoo, device)
    scoring = None if tasks is None else Scoring(tasks, device, split, train_items, store)
    compared_with = references(zoo, weights, tasks)
    return Bench(zoo, weights, scoring, compared_with[0], device), compared_with


def _baseline_rows(bench: Bench, tasks: TaskFamily | None, names: Sequence[str], n: int, seed: int) -> list[Row]:
    """A row for each baseline, with the reason where it fails."""
    if not names:
        return []
    pool = _pool(zoo := bench.zoo, bench.weights, bench.goodness(), bench.scoring, tasks)

    def row(name: str) -> Row:
        return bench.row(baseline_networks(name, pool, zoo, n, seed))

    return [row_or_reason(name, partial(row, name)) for name in names]


def _pool(
    zoo: Zoo, networks: ZooWeights, goodness: torch.Tensor | None, scoring: Scoring | None, tasks: TaskFamily | None
) -> Pool:
    """What baselines may see."""
    weights, new = networks.training.cpu(), None
    if scoring is not None and scoring.unseen:
        unseen = scoring.unseen
        new = NewTasks(unseen, conditions_of(zoo, unseen), seen_tasks(zoo, weights), scoring.split)
    start = zoo.start()
    sizes = tuple(t.numel for t in zoo.spec.tensors)
    return Pool(weights, goodness, sizes, zoo, tasks, new, None if start is None else zoo.spec.flatten(start))


def _judged(rows: Sequence[Row], bench: Bench) -> list[Row]:
    """The rows with their differences from each other and their flags."""
    sign = 1 if bench.scoring is None else bench.scoring.spec.sign
    works_from, several = bench.works_from(), bench.weights.checkpoints > 1
    rows = with_differences(rows, bench.resampled, sign)

    def works(row: Row) -> bool:
        # a row without a mean, because some of its networks have no score, is not excused from the flags
        return works_from is None or not sign * row.value("mean") < sign * works_from

    return [replace(row, flags=[*row.flags, *flags_of(row, rows, several, works(row))]) for row in rows]
