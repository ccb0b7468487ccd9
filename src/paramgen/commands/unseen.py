"""``paramgen unseen``: networks generated for tasks that no generator has seen, beside what needs no generator."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from paramgen.errors import ParamgenError
from paramgen.files import read_tensors, write_json
from paramgen.generator import ParameterGenerator, load_generator
from paramgen.tasks import TaskFamily, load_family, score_family
from paramgen.unseen import START, baseline_rows, conditions_of
from paramgen.zoo import Zoo


class TaskRow(NamedTuple):
    """Accuracies of one way to get a task's weights.

    Args:
        unseen: (n,) on each unseen task, the mean over its networks.
        seen: (T,) on seen tasks; None where it is not measured.
        uses_task_data: Whether networks were run on train images of seen tasks to make it.
    """

    unseen: Tensor
    seen: Tensor | None = None
    uses_task_data: bool = False


def main(
    zoo: str,
    ckpt_path: list[str] | None = None,
    per_task: int = 5,
    seen_tasks: int = 40,
    split: Literal["val", "test"] = "test",
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Score generators on unseen tasks, each network on its own task, beside direct training and every simple way.

    Args:
        zoo: A family's zoo, from `paramgen collect_tasks`.
        ckpt_path: Checkpoints of generators that were fitted on it.
        per_task: Networks drawn for each task.
        seen_tasks: Score on the first so many seen tasks too.
        split: Images to score on.
        scheduler: Solver; the backend's own when left out.
        num_inference_steps: Its steps; the backend's own when left out.
        seed: Of the draws.
        out: JSON file for the accuracies of every row on every task.

    Raises:
        ParamgenError: A zoo without tasks or without unseen ones, per_task below 1, a checkpoint of another zoo.
    """
    if per_task < 1:
        raise ParamgenError(f"per_task is {per_task}, expected 1 or more")
    found = Zoo(zoo)
    family = load_family(found.task_config)
    if not family.unseen:
        raise ParamgenError(f"zoo {found.name!r} has no unseen tasks")
    rows = references(found, family, split)
    solver = {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
    for path in ckpt_path or []:
        model = load_generator(path)
        if model.codec is None or model.codec.spec != found.spec:
            raise ParamgenError(f"checkpoint {path!r} generates other tensors than zoo {found.name!r} holds")
        draw = torch.Generator().manual_seed(seed)
        unseen, known = (
            sampled(model, found, family, names, per_task, split, generator=draw, **solver)
            for names in (family.unseen, family.seen[:seen_tasks])
        )
        name = type(model).__name__
        rows[f"{name} ({path})" if name in rows else name] = TaskRow(unseen, known, model.uses_task_data)
    Console().print(_table(rows, family))
    if out:
        write_json(Path(out), _plain(found, family, rows))


def references(zoo: Zoo, family: TaskFamily, split: str) -> dict[str, TaskRow]:
    """Direct training, the shared start where it was trained, and every simple way."""
    rows = {name: TaskRow(accuracy) for name, accuracy in baseline_rows(zoo, family, split).items()}
    if (zoo.path / START).exists():
        start = read_tensors(zoo.path / START)
        accuracy = score_family(zoo, [start] * len(family.unseen), family.unseen, split, family)
        rows["start"] = TaskRow(accuracy)
    return rows


def sampled(
    model: ParameterGenerator,
    zoo: Zoo,
    family: TaskFamily,
    names: list[str],
    per_task: int,
    split: str = "test",
    **options: object,
) -> Tensor:
    """Accuracy (n,) on each task, the mean over so many generated networks."""
    repeated = [name for name in names for _ in range(per_task)]
    networks = model.sample(len(repeated), conditions_of(zoo, repeated), **options)
    return score_family(zoo, networks, repeated, split, family).view(-1, per_task).mean(1)


def _table(rows: dict[str, TaskRow], family: TaskFamily) -> Table:
    table = Table("", "unseen", "worst task", "seen", box=None, header_style="bold")
    table.caption = f"accuracy %, {len(family.unseen)} unseen tasks; * used seen tasks' images"
    for name, row in rows.items():
        spread = f"{100 * row.unseen.mean():.2f} ± {100 * row.unseen.std(correction=0):.2f}"
        seen = "" if row.seen is None else f"{100 * row.seen.mean():.2f}"
        table.add_row(name + "*" * row.uses_task_data, spread, f"{100 * row.unseen.min():.2f}", seen)
    return table


def _plain(zoo: Zoo, family: TaskFamily, rows: dict[str, TaskRow]) -> dict[str, object]:
    return {
        "zoo": zoo.name,
        "unseen": family.unseen,
        "rows": [
            {
                "name": name,
                "unseen": row.unseen.tolist(),
                "seen": None if row.seen is None else row.seen.tolist(),
                "uses_task_data": row.uses_task_data,
            }
            for name, row in rows.items()
        ],
    }
