"""``paramgen interpolate``: generate networks between the conditions of two tasks; compare them with averaged weights.

W: weights of the mixture, from the first task to the second. n: networks at each of them. S: zoos, one a seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from paramgen.core.command_line import command_line
from paramgen.core.counting import counted
from paramgen.core.hub import is_hub, local_checkpoint
from paramgen.core.io import inside, plain_values, read_json, write_json
from paramgen.core.params import StateDict
from paramgen.core.score import ScoreSpec
from paramgen.core.spacing import evenly_spaced
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_positive
from paramgen.evaluation.pool import conditions_of
from paramgen.evaluation.setup import check_names
from paramgen.generators.loading import load_conditional
from paramgen.report.mixtures import mixtures
from paramgen.report.png import save_picture
from paramgen.tasks import TaskFamily, family_of, score_family

if TYPE_CHECKING:  # it imports Lightning, which takes seconds
    from paramgen.generators.base import ParameterGenerator

AVERAGED, COMMON_START = "averaged weights", "start"  # rows


@dataclass(frozen=True)
class _Study:
    """What is the same for all zoos."""

    tasks: list[str]
    weights: Tensor  # (W,)
    per_point: int
    split: str
    seed: int
    solver: dict[str, str | int | None]
    trust: bool


@dataclass
class _Row:
    """One way to get networks: scores (2, W, n) on either task, a tensor a zoo."""

    kind: str
    role: str
    scores: list[Tensor] = field(default_factory=list)
    uses_task_data: bool = False


def main(
    tasks: list[str],
    zoo: str | None = None,
    ckpt_path: list[str] | None = None,
    comparison: str | None = None,
    points: int = 11,
    per_point: int = 10,
    split: Literal["val", "test"] = "test",
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    out: str = "runs/interpolate",
    trust: bool = False,
) -> None:
    """Generate networks at mixtures of two tasks' conditions and score them on both tasks (Wild-P-Diff's Fig. 2).

    Args:
        tasks: The two tasks.
        zoo: Zoo of a family, from `paramgen collect_tasks`.
        ckpt_path: Checkpoints of generators fitted on this zoo. Default: only averaged weights.
        comparison: Instead of `zoo` and `ckpt_path`: output folder of `paramgen compare`. Uses its zoos and generators, mean over seeds.
        points: Number of evenly spaced mixtures, odd, including both ends.
        per_point: Networks per mixture; for averaged weights, the number of pairs of trained networks.
        split: Split to score on.
        scheduler: Solver. Default: the generator's own.
        num_inference_steps: Solver steps. Default: the generator's own.
        seed: Seed of the samples.
        out: Output folder for interpolation.json and interpolation.png.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: An unknown task, not two different ones, an even number of points, a generator without conditions or of another
            zoo, both a zoo and a comparison or neither, a comparison without zoos of its own.
    """
    command = command_line("paramgen interpolate", main, locals())
    if len(tasks) != 2:
        raise ParamgenError(f"tasks: got {len(tasks)}, expected two: --tasks [A, B]")
    if tasks[0] == tasks[1]:
        raise ParamgenError(f"tasks are {tasks[0]!r} twice, expected two different tasks")
    if points < 3 or points % 2 == 0:
        raise ParamgenError(f"points is {points}, expected an odd number of 3 or more: the middle is one of them")
    require_positive(per_point=per_point)
    if (zoo is None) == (comparison is None) or (comparison and ckpt_path):
        raise ParamgenError("give a zoo with its ckpt_path, or a comparison instead of both")
    solver = {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
    study = _Study(tasks, torch.linspace(0, 1, points), per_point, split, seed, solver, trust)
    groups = _of_comparison(Path(comparison)) if comparison else {str(zoo): [_Place(Path(str(zoo)), _named(ckpt_path))]}
    values: dict[str, Any] = {
        "tasks": tasks,
        "split": split,
        "networks": per_point,
        "weights": study.weights.tolist(),
        "zoos": [_measured(name, places, study) for name, places in groups.items()],
        "command": command,
    }
    write_json(Path(out) / "interpolation.json", plain_values(values))
    picture = save_picture(mixtures(values), Path(out) / "interpolation.png")
    console = Console()
    for measured in values["zoos"]:
        console.print(_table(measured, values))
    console.print(f"wrote {Path(out) / 'interpolation.json'}, {picture}", style="dim", soft_wrap=True)


@dataclass(frozen=True)
class _Place:
    """A zoo, and checkpoints that were fitted on it by the names of their rows."""

    zoo: Path
    checkpoints: dict[str, Path]


def _named(paths: Sequence[str] | None) -> dict[str, Path]:
    """Checkpoints by their folders' names, or by their paths where these are alike."""
    folders = [path if is_hub(path) else Path(path).resolve().parent.name for path in paths or []]
    alike = len(set(folders)) < len(folders)
    names = [path if alike else folder for path, folder in zip(paths or [], folders, strict=True)]
    return {name: Path(local_checkpoint(path)) for name, path in zip(names, paths or [], strict=True)}


def _of_comparison(folder: Path) -> dict[str, list[_Place]]:
    """Zoos of a comparison by name, one a seed."""
    places: dict[str, list[_Place]] = {}
    for report in read_json(folder / "comparison.json", "comparison")["reports"]:
        parent = inside(folder, report["file"]).parent
        if not (parent / "zoo" / "zoo.json").exists():
            raise ParamgenError(f"{parent} holds no zoo of the comparison's own; give it as zoo, with ckpt_path")
        fits = {path.parent.name: path for path in sorted(parent.glob("fits/*/last.ckpt"))}
        places.setdefault(report["zoo"], []).append(_Place(parent / "zoo", fits))
    return places


def _measured(name: str, places: Sequence[_Place], study: _Study) -> dict[str, Any]:
    """Every row of one zoo, mean over its seeds; the spread is over seeds, of one seed over its networks."""
    rows: dict[str, _Row] = {}
    score = ScoreSpec()
    for place in places:
        zoo = Zoo(place.zoo, study.trust)
        family = family_of(zoo)
        family.check(study.tasks)
        score = family.score
        check_names([*place.checkpoints], [AVERAGED, COMMON_START])
        models = {name: load_conditional(path, zoo) for name, path in place.checkpoints.items()}
        for reference, scores in _references(zoo, family, study).items():
            kinds = ("baseline", "baseline") if reference == AVERAGED else ("reference", "start")
            rows.setdefault(reference, _Row(*kinds)).scores.append(scores)
        first, second = conditions_of(zoo, study.tasks)  # (C,) each
        conditions = torch.lerp(first, second, study.weights[:, None])  # (W, C)
        for generator, model in models.items():
            networks = _between(model, conditions, study)
            row = rows.setdefault(generator, _Row("generator", "generator", uses_task_data=model.uses_task_data))
            row.scores.append(_on_both(zoo, family, networks, study))
    return {
        "zoo": name,
        "score": score.to_dict(),
        "seeds": len(places),
        "rows": [_plain(name, row) for name, row in rows.items()],
    }


def _between(model: "ParameterGenerator", conditions: Tensor, study: _Study) -> list[StateDict]:
    """W * n networks; every mixture is drawn from the same noise, so that the condition alone makes the difference."""
    n = study.per_point
    return [
        network
        for condition in conditions
        for network in model.sample(
            n, condition.expand(n, -1), generator=torch.Generator().manual_seed(study.seed), **study.solver
        )
    ]


def _references(zoo: Zoo, family: TaskFamily, study: _Study) -> dict[str, Tensor]:
    """Averaged weights of pairs of the tasks' networks, and what the zoo's networks started from where that was trained."""
    kept = [[i for i, entry in enumerate(zoo.entries) if entry.task == task] for task in study.tasks]
    for task, indices in zip(study.tasks, kept, strict=True):
        if not indices:
            raise ParamgenError(f"zoo {zoo.name!r} holds no network of task {task!r}; collect it with heldout=true")
    n = min(study.per_point, *map(len, kept))
    first, second = (zoo.matrix([own[i] for i in evenly_spaced(len(own), n)]) for own in kept)  # (n, P)
    averages = [zoo.spec.unflatten(row) for w in study.weights for row in torch.lerp(first, second, w)]
    references = {AVERAGED: _on_both(zoo, family, averages, study)}
    if (start := zoo.start()) is not None:
        references[COMMON_START] = _on_both(zoo, family, [start] * len(study.weights), study)
    return references


def _on_both(zoo: Zoo, family: TaskFamily, networks: list[StateDict], study: _Study) -> Tensor:
    """Scores (2, W, n) of W * n networks on either task."""
    scores = [score_family(zoo, networks, [task] * len(networks), study.split, family) for task in study.tasks]
    return torch.stack(scores).view(2, len(study.weights), -1)


def _plain(name: str, row: _Row) -> dict[str, Any]:
    means = torch.stack([scores.mean(-1) for scores in row.scores])  # (S, 2, W)
    spread = means.std(0) if len(means) > 1 else row.scores[0].std(-1, correction=0)
    figures = {"mean": means.mean(0).tolist(), "std": spread.tolist()}
    return {"name": name, "kind": row.kind, "role": row.role, **figures, "uses_task_data": row.uses_task_data}


def _table(measured: dict[str, Any], values: dict[str, Any]) -> Table:
    first, second = values["tasks"]
    table = Table("", "0", "1", "both, ½", "worse, ½", "both, path", box=None, title_justify="left")
    seeds, score = measured["seeds"], ScoreSpec.from_dict(measured["score"])
    table.title = f"{measured['zoo']}, {counted(seeds, 'seed')}: {first} at 0, {second} at 1"
    better = "" if score.higher_is_better else " (lower is better)"
    table.caption = f"{values['split']} {score.label}{better}; * used seen tasks' data"
    for row in measured["rows"]:
        a, b = torch.tensor(row["mean"])
        middle = torch.stack([a, b])[:, len(a) // 2]
        worse = middle.min() if score.higher_is_better else middle.max()
        cells = (a[0], b[-1], middle.mean(), worse, (a + b).mean() / 2)
        table.add_row(row["name"] + "*" * row["uses_task_data"], *(score.text(float(cell)) for cell in cells))
    return table
