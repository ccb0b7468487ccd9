"""``paramgen tickets``: are generated masks lottery tickets (Frankle and Carbin 2019, arXiv:1803.03635)?

A mask is a ticket if the network that it leaves, trained from the weights that the masked networks once started from, is better than one
of a random mask of the same sparsity. n: masks of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from paramgen.collect.compressing import ORIGIN
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.command_line import command_line
from paramgen.core.discrete import ones_at_largest
from paramgen.core.io import plain_values, read_tensors, write_json
from paramgen.core.params import StateDict, can_be_generated
from paramgen.core.paths import distinct_names
from paramgen.core.samples import read_samples
from paramgen.core.score import ScoreSpec
from paramgen.core.seeds import generator, mix
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_positive
from paramgen.evaluation.setup import check_names
from paramgen.tasks import PrunedTask, task_of
from paramgen.tasks.pruned import PRUNING_MASK, pruned_state

MASK_ROWS = ("zoo", "random", "zoo, other start", "no mask")
"""Names of the rows besides those of generators."""


def main(
    zoo: str,
    samples: str | list[str] | None = None,
    n: int = 10,
    steps: int = 200,
    optim: OptimSettings | None = None,
    split: Literal["val", "test"] = "test",
    seed: int = 0,
    out: str = "runs/tickets",
    device: str = "cpu",
    trust: bool = False,
) -> dict[str, Any]:
    """Train networks under generated masks from the zoo's own start, and compare them with random masks of the same sparsity.

    Rows: the zoo's masks (``zoo``); each folder of generated networks; ``random``: as many ones in each layer, at random places;
    ``zoo, other start``: the zoo's masks on other initial weights; ``no mask``: the plain network.

    Args:
        zoo: A zoo of pruned networks with masks of their own, from networks that started from the same untrained one
            (``paramgen collect --mode trajectory --epochs 0``, then ``paramgen zoo prune``).
        samples: One folder of generated networks or several.
        n: Number of masks of each row.
        steps: Optimizer steps of each network.
        optim: Optimizer, learning rate and batch size. Default: Adam, 3e-3.
        split: Split to score on.
        seed: Seed of the random masks, the other start and the order of the data.
        out: Output folder for tickets.json.
        device: Device to train on, for example cuda.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: Numbers below 1, a zoo without masks of its own or without a common start, or samples with the name of another row.
    """
    command = command_line("paramgen tickets", main, locals())
    require_positive(n=n, steps=steps)
    folders = [samples] if isinstance(samples, str) else samples or []
    names = distinct_names(folders)
    check_names(names, MASK_ROWS)
    opened, optim = Zoo(zoo, trust), optim or OptimSettings(lr=3e-3)
    task = _pruned_task(opened)
    drawn = {name: _drawn_masks(folder, opened, n) for folder, name in zip(folders, names, strict=True)}
    starts = _starts(opened, task, drawn, n, seed)
    scores = {name: _after_training(task, states, steps, optim, split, seed, device) for name, states in starts.items()}
    rows = {name: row.tolist() for name, row in scores.items()}
    values: dict[str, Any] = {
        "zoo": opened.name,
        "score": task.score.to_dict(),
        "sparsity": task.sparsity,
        "steps": steps,
        "optim": asdict(optim),
        "split": split,
        "rows": rows,
        "command": command,
    }
    values = plain_values(values)
    write_json(Path(out) / "tickets.json", values)
    Console().print(_table(rows, task.score))
    return values


def _pruned_task(zoo: Zoo) -> PrunedTask:
    """The task of a zoo of pruned networks that started from the same untrained one."""
    task = task_of(zoo)
    if not isinstance(task, PrunedTask) or not (zoo.path / ORIGIN).exists():
        raise ParamgenError(
            f"zoo {zoo.name!r} has no pruned networks with a common untrained start; make one with paramgen collect --mode "
            "trajectory --epochs 0, then paramgen zoo prune"
        )
    return task


def _starts(
    zoo: Zoo, task: PrunedTask, drawn: Mapping[str, list[StateDict]], n: int, seed: int
) -> dict[str, list[StateDict]]:
    """The networks of each row before training.

    Args:
        zoo: Gives the common start, and its own masks.
        task: Builds the other start.
        drawn: Masks of generated networks, by row.
        n: Number of masks of each row.
        seed: Of the random masks and the other start.
    """
    own = [masks_of(zoo[i]) for i in zoo.indices("train")[:n]]
    if not own[0]:
        raise ParamgenError(f"the masks of zoo {zoo.name!r} are not generated; prune with --masks own")
    origin = read_tensors(zoo.path / ORIGIN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 1))
        other = dict(task.of.build().state_dict())
    random = [random_masks(own[0], mix(seed, 2, i)) for i in range(n)]
    whole = {name: torch.ones_like(mask) for name, mask in own[0].items()}
    under = {"zoo": own, **drawn, "random": random}
    return {
        **{name: [pruned_state(origin, masks) for masks in row] for name, row in under.items()},
        "zoo, other start": [pruned_state(other, masks) for masks in own],
        "no mask": [pruned_state(origin, whole)] * n,
    }


def _drawn_masks(folder: str, zoo: Zoo, n: int) -> list[StateDict]:
    """The masks of generated networks."""
    return [masks_of(zoo.spec.unflatten(row)) for row in read_samples(folder, zoo, limit=n).weights]


def masks_of(state: Mapping[str, Tensor]) -> StateDict:
    """The masks among a network's generated tensors."""
    return {name: tensor for name, tensor in state.items() if name.endswith(PRUNING_MASK)}


def random_masks(masks: Mapping[str, Tensor], seed: int) -> StateDict:
    """Masks with as many ones in each layer, at random places."""
    draw = generator(seed, 0)
    return {
        name: ones_at_largest(torch.rand(mask.numel(), generator=draw), int(mask.sum())).view_as(mask)
        for name, mask in masks.items()
    }


def _after_training(
    task: PrunedTask,
    states: Sequence[StateDict],
    steps: int,
    optim: OptimSettings,
    split: str,
    seed: int,
    device: str,
) -> Tensor:
    """Scores (n,) of networks after training under their masks; every row sees the data in the same orders."""
    trained = [n for n, t in states[0].items() if can_be_generated(t) and not n.endswith(PRUNING_MASK)]
    group = NetworkGroup(task.build(), states, trained, device, loss=task.loss)
    seeds = [mix(seed, 3, i) for i in range(len(states))]
    for _ in GroupTrainer(group, task.items("train"), optim, seeds, steps).run():
        pass
    return task.evaluate(group.states(), split, device=device).value


def _table(rows: Mapping[str, Sequence[float]], score: ScoreSpec) -> Table:
    table = Table("mask", f"{score.label}, mean", "std", "lowest", "highest", box=None, header_style="bold")
    for name, values in rows.items():
        of = torch.tensor(values, dtype=torch.float64)
        numbers = (of.mean(), of.std(correction=0), of.min(), of.max())
        table.add_row(name, *(score.text(number.item()) for number in numbers))
    return table
