"""``paramgen evaluate``: compare generated networks with the zoo, held-out runs and baselines."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from paramgen.core.command_line import command_line
from paramgen.core.counting import counted
from paramgen.core.intake import Architecture
from paramgen.core.io import write_json
from paramgen.core.paths import distinct_names
from paramgen.core.samples import Samples, read_samples
from paramgen.core.shards import MERGE, Shard, complete_merge, complete_shards, delete_shards, finished, parse_shard
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, UnscoredError, require_positive
from paramgen.evaluation.evaluate import results_of
from paramgen.evaluation.score_store import DONE, ScoreStore
from paramgen.evaluation.setup import Setup
from paramgen.evaluation.share import Share
from paramgen.evaluation.unseen import many_tasks
from paramgen.report.evaluation_report import EvaluationReport
from paramgen.tasks import Task, TaskFamily, family_of


def main(
    zoo: str,
    samples: str | list[str] | None = None,
    out: str = "runs/evaluate",
    n: int = 100,
    baselines: str | list[str] = "all",
    seed: int = 0,
    device: str = "cpu",
    train_images: int = 10_000,
    aligned: bool = False,
    finetune: bool = False,
    partial: bool = False,
    trust: bool = False,
    task: Task | None = None,
    shard: str | None = None,
) -> EvaluationReport | None:
    """Compare generated networks with the zoo, held-out runs and baselines.

    For the zoo of a family of tasks (``paramgen collect_tasks``), each network is scored on its own unseen task and compared with
    networks trained on that task and with non-generative baselines. Sample for such a zoo with ``paramgen sample --zoo``.

    Args:
        zoo: Folder or name of the zoo that the generators were fitted on.
        samples: One folder of networks or several: ``[runs/a/samples, runs/b/samples]``. They come from ``paramgen sample`` or from any
            program that writes safetensors of the zoo's architecture. Default: evaluate only the zoo and the baselines.
        out: Output folder for results.json, report.html and the plots.
        n: Number of networks per row. Ignored for families of tasks, which use all samples.
        baselines: ``all``, ``none``, or a list of names.
        seed: Seed of the baselines.
        device: Device to run the networks on, for example cuda.
        train_images: Number of train images used to choose the ``selected`` network.
        aligned: Also measure distances after alignment. This detects permuted copies.
        finetune: Also count the fine-tuning steps that each row's networks need to match the zoo on val, or direct training for families of
            tasks. Slow.
        partial: Accept the incomplete output of an interrupted ``paramgen sample``.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.
        task: Score networks by this task instead of the zoo's own, for example ScorerTask. The zoo's networks must fit it.
        shard: Score and measure only part i of N: ``i/N``, i from 1, for several processes or machines. Each writes a folder in
            `out` and resumes by itself. ``auto`` reads i and N from the variables of torchrun or SLURM; they are not read otherwise.
            ``merge`` merges the shards: the report of one process.

    Returns:
        The report; None for a shard.

    Raises:
        ParamgenError: n below 1, no such zoo or folder, an unknown baseline, a damaged file, networks of another architecture.
        UnscoredError: After the report is written: a scoring function raised an error on some networks.
    """
    command = command_line("paramgen evaluate", main, locals())
    require_positive(n=n, train_images=train_images)
    opened = Zoo(zoo, trust)
    tasks = tasks_to_score(opened, task)
    folders = [samples] if isinstance(samples, str) else samples or []
    read = _read(folders, opened, None if tasks is not None and tasks.unseen else n, partial)
    setup = Setup.of(opened, tasks, read, baseline_names(baselines), n, seed, device, train_images, aligned, finetune)
    if (part := parse_shard(shard)) is not None:
        _share(part, Path(out), setup)
        return None
    store = _scores_of_shards(Path(out)) if shard == MERGE else None
    errors: list[str] = []
    results = results_of(setup, store, errors)
    if task is not None:
        results = replace(results, task=task.config())
    report = EvaluationReport(results, opened, read, command)
    _print(report, report.save(out))
    if store is not None:
        _end_merge(store, out)
    if errors:
        raise UnscoredError(f"{' '.join(errors)} The report in {out} is complete")
    return report


def _read(folders: list[str], zoo: Zoo, limit: int | None, partial: bool) -> list[Samples]:
    """The generators' networks, under the names of their rows."""
    names = distinct_names(folders)
    return [read_samples(folder, zoo, limit, partial, name) for folder, name in zip(folders, names, strict=True)]


def _print(report: EvaluationReport, files: list[Path]) -> None:
    """The report on the terminal, and where its files are."""
    console = Console()
    console.print(report, highlight=False)
    console.print(Text("wrote " + ", ".join(map(str, files)), style="dim"), soft_wrap=True)


def _share(part: Shard, out: Path, setup: Setup) -> None:
    """One shard."""
    store = ScoreStore(out, part)
    Share(setup, store).run()
    write_json(part.folder(out) / DONE, {"computed": store.computed})
    print(f"{counted(store.computed, 'score')} computed. {finished(out, part, DONE).capitalize()}")


def _scores_of_shards(out: Path) -> ScoreStore:
    """What the shards computed; all of them must be complete."""
    if not complete_merge(out, "results.json"):
        complete_shards(out, DONE)
    return ScoreStore(out)


def _end_merge(store: ScoreStore, out: str) -> None:
    """Delete the shards, whose scores are in the report."""
    if store.computed:
        print(f"Computed here, as in no shard: {counted(store.computed, 'score')}")
    delete_shards(out)


def tasks_to_score(zoo: Zoo, given: Task | None) -> TaskFamily | None:
    """The task that scores a zoo's networks: the given one, else the zoo's own; None for a zoo without a task."""
    if given is None:
        return None if zoo.task_config is None else family_of(zoo)
    if many_tasks(zoo):
        raise ParamgenError(f"zoo {zoo.name!r} is of many tasks, which score their own networks; remove --task")
    Architecture(given.build()).fit(zoo.full(0), f"zoo {zoo.name!r}")
    return given


def baseline_names(requested: str | list[str]) -> list[str] | None:
    """Names of baselines; None for all that the zoo can have."""
    if requested in ("all", "none"):
        return None if requested == "all" else []
    return [requested] if isinstance(requested, str) else requested
