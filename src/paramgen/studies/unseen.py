"""``paramgen unseen``: score checkpoints on a family's unseen tasks, on val or test, without writing samples."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from paramgen.core.counting import counted
from paramgen.core.io import plain_values, write_json
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.zoo import Zoo
from paramgen.errors import require_positive
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.results import Results, Row
from paramgen.evaluation.unseen import tasks_to_draw, unseen_family
from paramgen.generators.loading import load_conditional


def main(
    zoo: str,
    ckpt_path: str | list[str] | None = None,
    per_task: int = 5,
    seen_tasks: int = 40,
    split: Literal["val", "test"] = "test",
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    out: str | None = None,
    trust: bool = False,
) -> str | None:
    """Score generators on unseen tasks and compare them with direct training and non-generative baselines.

    The full report comes from ``paramgen evaluate``. Use this command on ``val`` to choose hyperparameters.

    Args:
        zoo: Zoo of a family, from `paramgen collect_tasks`.
        ckpt_path: Checkpoint of a generator fitted on this zoo, or a list.
        per_task: Networks sampled per task.
        seen_tasks: Number of seen tasks to score on as well.
        split: Split to score on.
        scheduler: Solver. Default: the generator's own.
        num_inference_steps: Solver steps. Default: the generator's own.
        seed: Seed of the samples.
        out: JSON output file with the scores of every row on every task.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Returns:
        The checkpoint with the best mean score on the unseen tasks; None without checkpoints.

    Raises:
        ParamgenError: A zoo without tasks or without unseen ones, per_task below 1, a checkpoint of another zoo.
    """
    require_positive(per_task=per_task)
    opened = Zoo(zoo, trust)
    solver = {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
    drawn, paths = dict[str, Samples](), dict[str, str]()
    for path in [ckpt_path] if isinstance(ckpt_path, str) else ckpt_path or []:
        samples = _drawn(path, opened, per_task, seen_tasks, seed, **solver)
        name = f"{samples.name} ({path})" if samples.name in drawn else samples.name
        drawn[name], paths[name] = replace(samples, name=name), path
    results = evaluate(opened, unseen_family(opened), list(drawn.values()), split=split)
    Console().print(_table(results, split))
    if out:
        rows = [_plain(row) for row in results.rows]
        values = {"zoo": opened.name, "unseen": unseen_family(opened).unseen, "rows": rows}
        write_json(Path(out), plain_values(values))
    return _best(results, paths)


def _best(results: Results, paths: Mapping[str, str]) -> str | None:
    """Of checkpoints by the names of their rows, the one with the best mean score on the unseen tasks; one without a mean comes last."""
    score = results.score
    assert score is not None  # the tasks of a family are scored
    means = {paths[row.name]: row.value("mean") for row in results.rows if row.name in paths}
    return max(means, key=lambda path: score.sign * means[path] if isfinite(means[path]) else -inf, default=None)


def _drawn(path: str, zoo: Zoo, per_task: int, seen_tasks: int, seed: int, **solver: str | int | None) -> Samples:
    """A checkpoint's networks for the tasks of a zoo."""
    model = load_conditional(path, zoo)
    requested = tasks_to_draw(zoo, per_task, seen_tasks)
    draw = torch.Generator().manual_seed(seed)
    networks = model.sample(len(requested.names), requested.condition, generator=draw, **solver)
    weights = zoo.spec.flatten_many(networks)
    info = SampleInfo(uses_task_data=model.uses_task_data)
    return Samples(type(model).__name__, weights, info, total=len(weights), task=requested.names)


def _table(results: Results, split: str) -> Table:
    table = Table("", "unseen", "worst task", "seen", box=None, header_style="bold")
    score = results.score
    assert score is not None  # the tasks of a family are scored
    for row in results.rows:
        unseen, seen = _values(row)
        spread = torch.tensor(unseen, dtype=torch.float64).std(correction=0).item()
        mean, worst = (f"{score.shown(row.value(key)):.2f}" for key in ("mean", "worst_task"))
        over_seen = "" if seen is None else f"{score.shown(row.value('seen')):.2f}"
        table.add_row(row.name + "*" * row.uses_task_data, f"{mean} ± {score.shown(spread):.2f}", worst, over_seen)
    better = "" if score.higher_is_better else " (lower is better)"
    table.caption = f"{split} {score.label}{better}, {counted(len(unseen), 'unseen task')}; * used seen tasks' data"
    return table


def _plain(row: Row) -> dict[str, Any]:
    unseen, seen = _values(row)
    return {"name": row.name, "unseen": unseen, "seen": seen, "uses_task_data": row.uses_task_data}


def _values(row: Row) -> tuple[list[float], list[float] | None]:
    """Scores on unseen and on seen tasks."""
    assert row.tasks is not None
    return list(row.tasks.unseen.values()), None if row.tasks.seen is None else list(row.tasks.seen.values())
