"""``paramgen interpolate``: networks generated between the conditions of two tasks, beside the two tasks' averaged weights.

W: weights of the mixture, from the first task to the second. n: networks at each of them.
"""

import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from paramgen.errors import ParamgenError
from paramgen.files import read_tensors, write_json
from paramgen.generator import ParameterGenerator, load_conditional
from paramgen.plots import save_mixtures
from paramgen.spec import StateDict
from paramgen.tasks import TaskFamily, load_family, score_family
from paramgen.unseen import START, conditions_of
from paramgen.zoo import Zoo


def main(
    zoo: str,
    tasks: list[str],
    ckpt_path: list[str] | None = None,
    points: int = 11,
    per_point: int = 10,
    split: Literal["val", "test"] = "test",
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    out: str = "runs/interpolate",
) -> None:
    """Generate networks at mixtures of two tasks' conditions and score them on both tasks (Wild-P-Diff's Fig. 2).

    Args:
        zoo: A family's zoo, from `paramgen collect_tasks`.
        tasks: Two tasks of it.
        ckpt_path: Checkpoints of generators that were fitted on it; the averaged weights alone without any.
        points: Mixtures, evenly spaced, both ends among them.
        per_point: Networks at each; of the averages, so many pairs of trained networks.
        split: Images to score on.
        scheduler: Solver; the backend's own when left out.
        num_inference_steps: Its steps; the backend's own when left out.
        seed: Of the draws.
        out: Folder for interpolation.json and interpolation.png.

    Raises:
        ParamgenError: An unknown task, not two different ones, an even number of points, a generator without conditions or of another zoo.
    """
    found = Zoo(zoo)
    family = load_family(found.task_config)
    first, second = _two(family, tasks)
    if points < 3 or points % 2 == 0:
        raise ParamgenError(f"points is {points}, expected an odd number of 3 or more: the middle is one of them")
    if per_point < 1:
        raise ParamgenError(f"per_point is {per_point}, expected 1 or more")
    models = {path: load_conditional(path, found) for path in ckpt_path or []}
    solver = {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
    weights = torch.linspace(0, 1, points)
    pair = conditions_of(found, [first, second])
    conditions = torch.lerp(pair[0], pair[1], weights[:, None])  # (W, C)
    rows = _references(found, family, (first, second), weights, per_point, split)
    for path, model in models.items():
        networks = _between(model, conditions, per_point, seed, **solver)
        name = type(model).__name__
        name = f"{name} ({path})" if any(row["name"] == name for row in rows) else name
        accuracy = _on_both(found, family, (first, second), networks, points, split)
        rows.append(_row(name, "generator", accuracy, model.uses_task_data))
    values = {
        "zoo": found.name,
        "tasks": [first, second],
        "split": split,
        "networks": per_point,
        "weights": weights.tolist(),
        "rows": rows,
        "command": shlex.join(["paramgen", *sys.argv[1:]]),
    }
    write_json(Path(out) / "interpolation.json", values)
    picture = save_mixtures(values, Path(out) / "interpolation.png")
    console = Console()
    console.print(_table(values))
    console.print(f"wrote {Path(out) / 'interpolation.json'}, {picture}", style="dim", soft_wrap=True)


def _two(family: TaskFamily, tasks: list[str]) -> tuple[str, str]:
    if len(tasks) != 2:
        raise ParamgenError(f"tasks are {len(tasks)}, expected two to go between: --tasks [A, B]")
    family.check(tasks)
    if tasks[0] == tasks[1]:
        raise ParamgenError(f"tasks are {tasks[0]!r} twice, expected two different ones")
    return tasks[0], tasks[1]


def _between(
    model: ParameterGenerator, conditions: Tensor, n: int, seed: int, **solver: str | int | None
) -> list[StateDict]:
    """W * n networks; every mixture is drawn from the same noise, so that the condition alone makes the difference."""
    return [
        network
        for condition in conditions
        for network in model.sample(n, condition.expand(n, -1), generator=torch.Generator().manual_seed(seed), **solver)
    ]


def _references(
    zoo: Zoo, family: TaskFamily, tasks: tuple[str, str], weights: Tensor, n: int, split: str
) -> list[dict[str, Any]]:
    """Averaged weights of pairs of the tasks' networks, and what the zoo's networks started from where that was trained."""
    trained = [zoo.matrix([i for i, e in enumerate(zoo.entries) if e.task == name]) for name in tasks]  # (k, P) each
    if not all(map(len, trained)):
        raise ParamgenError(
            f"zoo {zoo.name!r} holds no network of one of {', '.join(tasks)}; collect it with heldout=true"
        )
    pairs = [
        matrix[torch.linspace(0, len(matrix) - 1, min(n, *map(len, trained))).round().long()] for matrix in trained
    ]
    networks = [zoo.spec.unflatten(row) for w in weights for row in torch.lerp(pairs[0], pairs[1], w)]
    rows = [_row("averaged weights", "baseline", _on_both(zoo, family, tasks, networks, len(weights), split))]
    if (zoo.path / START).exists():
        accuracy = _on_both(zoo, family, tasks, [read_tensors(zoo.path / START)], 1, split)
        rows.append(_row("start", "reference", accuracy.expand(-1, len(weights), -1)))
    return rows


def _on_both(
    zoo: Zoo, family: TaskFamily, tasks: tuple[str, str], networks: list[StateDict], points: int, split: str
) -> Tensor:
    """Accuracy (2, W, n) of W * n networks on either task."""
    scores = [score_family(zoo, networks, [name] * len(networks), split, family) for name in tasks]
    return torch.stack(scores).view(2, points, -1)


def _row(name: str, kind: str, accuracy: Tensor, uses_task_data: bool = False) -> dict[str, Any]:
    mean, std = accuracy.mean(-1), accuracy.std(-1, correction=0)
    return {"name": name, "kind": kind, "mean": mean.tolist(), "std": std.tolist(), "uses_task_data": uses_task_data}


def _table(values: dict[str, Any]) -> Table:
    first, second = values["tasks"]
    table = Table("", f"{first}, 0", f"{second}, 1", "both, ½", "worse, ½", "both, path", box=None)
    table.caption = (
        f"{values['split']} accuracy %, weight of the second task behind the comma; * used seen tasks' images"
    )
    for row in values["rows"]:
        a, b = torch.tensor(row["mean"])
        middle = torch.stack([a, b])[:, len(a) // 2]
        cells = (a[0], b[-1], middle.mean(), middle.min(), (a + b).mean() / 2)
        table.add_row(row["name"] + "*" * row["uses_task_data"], *(f"{100 * cell:.1f}" for cell in cells))
    return table
