"""``paramgen merge``: merge networks of a zoo into one, without training."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from paramgen.collect.symmetries import symmetries_of
from paramgen.core.command_line import command_line
from paramgen.core.devices import usable_device
from paramgen.core.io import read_tensors
from paramgen.core.params import StateDict
from paramgen.core.sample_writer import PerNetwork, refuse_samples, write_samples
from paramgen.core.samples import SampleInfo
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_positive
from paramgen.evaluation.baseline import draw_from
from paramgen.evaluation.merging import merging
from paramgen.evaluation.pool import NewTasks, Pool, conditions_of, seen_tasks
from paramgen.evaluation.recalibration import recalibrated
from paramgen.evaluation.unseen import many_tasks, unseen_family
from paramgen.symmetry import align_matrix, balance_matrix
from paramgen.tasks import task_of

SCALES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)


def main(
    zoo: str,
    method: str,
    out: str = "merged",
    networks: int | list[int] | None = None,
    n: int = 1,
    start: str | None = None,
    scale: float | Literal["val"] | None = None,
    density: float | None = None,
    align: bool = False,
    recalibrate: bool = False,
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
    trust: bool = False,
) -> Path:
    """Merge networks of a zoo into one, without training. ``evaluate`` reads the result like any samples.

    Args:
        zoo: Folder or name of a zoo.
        method: task-arithmetic, ties, dare, dare-ties, model-stock, karcher, or soup (the mean).
        out: Output folder: samples.json and one complete safetensors file per merged network.
        networks: Networks to merge: their indices in the zoo, ``[0, 3, 7]``, or a number of random train networks. Default: all train
            networks. Of a family of tasks: the mean network of each seen task.
        n: Number of merged networks, each from its own random train networks. Of a family of tasks: one per unseen task.
        start: Network that training started from: a safetensors file, or the index of a network in the zoo. Default: what the zoo records
            as its start, otherwise the mean of its train networks.
        scale: Factor on the task vectors. Default: 0.4 for task-arithmetic and dare, 1 for ties and dare-ties. ``val``: the factor with the
            best mean score on the val items of the zoo's task, as the papers choose it; the networks are marked as having used data.
        density: Share of each task vector to keep. Default: 0.2 for ties, 0.1 for dare and dare-ties.
        align: Bring hidden units to a common order and scale first, that of the start if one is given.
        recalibrate: Measure the batch-norm statistics of the merged networks again, on train items of the zoo's task. The networks are
            marked as having used the task's data.
        seed: Seed of what is random: the choice of networks, and what dare drops.
        device: Device for ``recalibrate``, for example cuda.
        overwrite: Replace existing samples in `out`.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: No such zoo or network, an option that the method does not take, networks that cannot be aligned, no batch norm to
            recalibrate, or existing samples.
    """
    command = command_line("paramgen merge", main, locals())
    require_positive(n=n)
    usable_device(device)
    refuse_samples(out, overwrite)
    opened = Zoo(zoo, trust)
    begun = time.perf_counter()
    rows, m = _chosen(opened, networks)
    pool = _pool(opened, rows, _start(opened, start), align)
    names = None if pool.new is None else list(pool.new.names)
    count = len(names or range(n))

    def merged(factor: float | None) -> list[StateDict]:
        noise = torch.Generator().manual_seed(seed)
        drawn = draw_from(merging(method, m, scale=factor, density=density), pool, opened.spec, count, noise)
        return [opened.complete(opened.spec.unflatten(row)) for row in drawn]

    states = _best(opened, merged, m) if scale == "val" else merged(scale)
    if recalibrate:
        states = recalibrated(opened, states, device)
    seconds = time.perf_counter() - begun
    info = SampleInfo(
        generator=method,
        zoo=opened.name,
        zoo_sha256=opened.sha256,
        seed=seed,
        start=start,
        sample_seconds=seconds,
        uses_task_data=recalibrate or scale == "val",
        command=command,
    )
    folder = write_samples(out, states, info, PerNetwork(task=names), overwrite)
    available = len(pool.weights) if pool.new is None else len(pool.new.seen.names)
    made = "1 merged network" if len(states) == 1 else f"{len(states)} merged networks, each"
    print(f"{made} of {min(m, available)}, in {folder}")
    return folder


def _best(zoo: Zoo, merged: Callable[[float], list[StateDict]], m: int) -> list[StateDict]:
    """The merged networks of the factor with the best mean score on val; 1/m, the mean, is among the factors."""
    task = task_of(zoo)
    if not task.has_data:
        raise ParamgenError(f"scale val needs a task with data, and zoo {zoo.name!r} has none; give a number")
    found = {factor: merged(factor) for factor in sorted({1 / m, *SCALES})}
    scores = {
        f: task.score.sign * task.evaluate(states, "val").value.double().mean().item() for f, states in found.items()
    }
    best = max(scores, key=lambda factor: -math.inf if math.isnan(scores[factor]) else scores[factor])
    print(f"scale {best:.4g}: best on val of {', '.join(f'{factor:.4g}' for factor in scores)}")
    return found[best]


def _chosen(zoo: Zoo, networks: int | list[int] | None) -> tuple[list[int] | None, int]:
    """Rows of the listed networks among the train networks, None for all, and how many to merge at a time."""
    train = zoo.indices("train")
    if not isinstance(networks, list):
        require_positive(networks=networks)
        return None, len(train) if networks is None else networks
    if many_tasks(zoo):
        raise ParamgenError(
            f"zoo {zoo.name!r} has many tasks: networks is a number of seen tasks, not a list of indices"
        )
    if unknown := [index for index in networks if index not in train]:
        raise ParamgenError(f"network {unknown[0]} is not one of the {len(train)} train networks of zoo {zoo.name!r}")
    if not networks:
        raise ParamgenError("networks is an empty list; expected at least one index")
    return [train.index(index) for index in networks], len(networks)


def _start(zoo: Zoo, start: str | None) -> Tensor | None:
    """The start (P,) that the user gave, else the one that the zoo records; None for the mean."""
    if start is None:
        state = zoo.start()
    elif start.isdecimal():
        if int(start) >= len(zoo):
            raise ParamgenError(f"start {start}: zoo {zoo.name!r} has networks 0 to {len(zoo) - 1}")
        state = zoo[int(start)]
    else:
        state = read_tensors(Path(start))
        zoo.spec.check(state, where=start)
    return None if state is None else zoo.spec.flatten(state)


def _pool(zoo: Zoo, rows: list[int] | None, start: Tensor | None, align: bool) -> Pool:
    """What is merged. Listed networks alone are held in memory, unless all must be aligned."""
    train, sizes = zoo.indices("train"), tuple(t.numel for t in zoo.spec.tensors)
    if rows is not None and not align:
        start = _mean(zoo, train) if start is None else start
        return Pool(zoo.matrix([train[row] for row in rows]), None, sizes, zoo, start=start)
    weights = zoo.matrix(train)  # (K, P)
    if align:
        weights, start = _aligned(zoo, weights, start)
    new = None
    if many_tasks(zoo):
        unseen = unseen_family(zoo).unseen
        new = NewTasks(unseen, conditions_of(zoo, unseen), seen_tasks(zoo, weights))
    if rows is not None:
        start, weights = weights.mean(0) if start is None else start, weights[rows]
    return Pool(weights, None, sizes, zoo, new=new, start=start)


def _mean(zoo: Zoo, indices: list[int]) -> Tensor:
    """The mean (P,) of some networks, one in memory at a time."""
    total = torch.zeros(zoo.spec.numel, dtype=torch.float64)
    for index in indices:
        total += zoo.spec.flatten(zoo[index])
    return (total / len(indices)).float()


def _aligned(zoo: Zoo, weights: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The networks (K, P) in the order and scale of the start; in a common one if there is no start."""
    spec = symmetries_of(zoo)
    if start is None:
        return align_matrix(balance_matrix(weights, spec), spec, balance_matrix(weights[:1], spec)[0]).weights, None
    balanced = balance_matrix(torch.cat([start[None], weights]), spec)
    return align_matrix(balanced[1:], spec, balanced[0], rounds=0).weights, balanced[0]
