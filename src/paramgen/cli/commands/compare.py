"""``paramgen compare``: compare generators on one or more zoos, over seeds, in one report."""

import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from paramgen.cli.commands.compare_steps import CHANGES, GeneratorSource, ZooSource, draw, make_zoo, measure
from paramgen.cli.commands.evaluate import baseline_names
from paramgen.core.command_line import command_line
from paramgen.core.hub import local_checkpoint
from paramgen.core.io import write_atomic, write_json
from paramgen.core.paths import find_config, find_zoo
from paramgen.core.samples import samples_folder
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, UnscoredError, did_you_mean, require_non_negative, require_positive
from paramgen.evaluation.baselines import shown_in
from paramgen.evaluation.compare import Report, differences, machine, summarise, summary_table
from paramgen.evaluation.references import OF_RUNS
from paramgen.evaluation.setup import check_names
from paramgen.evaluation.unseen import has_conditions, many_tasks
from paramgen.evaluation.weight_baselines import find_baseline
from paramgen.report.page import comparison_page
from paramgen.report.verdicts import over_seeds
from paramgen.studies.prompts import PromptedScores, prompted_scores, write_prompts
from paramgen.tasks import family_of

LOG_WIDTH = 160  # width of a table that is written to a file
_ZOO_ORIGINS = ("collect", "collect_tasks", *CHANGES, "path")
_GENERATOR_ORIGINS = ("fit", "fit_of", "ckpt_path", "samples", "baseline", "merge")
_FILE_NAME = re.compile(r"[^<>:\"/\\|?*\x00-\x1f]*[^<>:\"/\\|?*\x00-\x1f. ]")  # on Windows too


def main(
    zoos: dict[str, ZooSource],
    generators: dict[str, GeneratorSource] | None = None,
    out: str = "runs/compare",
    title: str = "",
    about: str = "",
    n: int = 100,
    baselines: str | list[str] = "all",
    seeds: list[int] | None = None,
    aligned: bool = False,
    finetune: bool = False,
    per_task: int = 5,
    seen_tasks: int = 40,
    paper: dict[str, dict[str, float]] | None = None,
    trust: bool = False,
    redo: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Fit, sample and evaluate generators on one or more zoos, over seeds, and write one report.

    Results in `out` that the same settings made are reused, so rerunning the command resumes an interrupted comparison. After a change,
    the affected fits, samples and evaluations are repeated; a zoo only with `redo`. Each zoo and seed has its own results.json and
    report.html in a subfolder; the results.json next to comparison.json is a copy of the first one.

    Args:
        zoos: Zoos by name.
        generators: Generators by name. Default: only baselines.
        out: Output folder.
        title: Title of the report.
        about: Description for the report: what is compared, and how the task differs from a paper's.
        n: Number of networks per row.
        baselines: ``all``, ``none``, or a list of names.
        seeds: Seeds of the whole pipeline: zoo, fit, samples and baselines. The report shows means and standard deviations over them.
            Default: ``[0]``.
        aligned: Also measure distances after alignment.
        finetune: Also count the fine-tuning steps that each row's networks need to match the zoo on val.
        per_task: For a family of tasks: networks per unseen task.
        seen_tasks: For a family of tasks: number of seen tasks to sample as well.
        paper: A paper's accuracies to show next to ours, ``{row: {column: fraction}}``. Use ``zoo/row`` for the row of one zoo.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.
        redo: Delete zoos that were made with other settings and collect them again.
        device: Device to collect, sample and evaluate on, for example cuda. Fits choose by ``trainer.accelerator``. Default: what each
            recipe says, otherwise cpu.

    Raises:
        ParamgenError: A source with no origin or several, an unknown zoo, a zoo of other settings in `out`, or an error of one of the
            commands.
        UnscoredError: After the comparison is written: a scoring function raised an error on some networks.
    """
    command = command_line("paramgen compare", main, locals())
    generators, seeds = generators or {}, [0] if seeds is None else seeds
    require_positive(n=n, per_task=per_task)
    require_non_negative(seen_tasks=seen_tasks)
    on_device = {} if device is None else {"device": device}
    zoos = {name: source.given(on_device) for name, source in zoos.items()}
    _check(zoos, generators, seeds)
    shown = baseline_names(baselines)
    check_names([*generators], [*OF_RUNS, *(shown_in("one_task") if shown is None else shown)])
    _find_files(zoos, generators)
    folder, reports, prompted, unscored = Path(out), list[Report](), list[PromptedScores](), list[str]()
    for seed in seeds:
        target = folder / f"seed{seed}" if len(seeds) > 1 else folder
        opened = dict[str, Zoo]()
        for name, source in zoos.items():
            place = target / name
            zoo = opened[name] = make_zoo(place, source, opened, seed, redo, trust)
            if zoo.task_config is not None:
                family_of(zoo)  # refused before the fits
            selected = [k for k, g in generators.items() if not g.zoos or name in g.zoos]
            requested = _requested(zoo, n, per_task, seen_tasks) | on_device
            samples = [draw(place, zoo, k, generators, requested, seed) for k in selected]
            options = {"n": n, "baselines": baselines, "seed": seed, "aligned": aligned, "finetune": finetune}
            try:
                measure(place, zoo, samples, options, device or "cpu")
            except UnscoredError:  # its report is written
                unscored.append(str(place))
            reports.append(Report(name, seed, place / "results.json"))
            prompted += [] if many_tasks(zoo) else prompted_scores(name, seed, zoo, samples)
    comparison = {
        "title": title or folder.name,
        "about": about,
        "seeds": seeds,
        "paper": paper or {},
        "reports": [{"zoo": r.zoo, "seed": r.seed, "file": str(r.path.relative_to(folder))} for r in reports],
        "scores": {report.zoo: report.results["score"] for report in reports},
        "summary": summarise(reports),
        "differences": differences(reports),
        "machine": machine(),
        "command": command,
    }
    write_json(folder / "comparison.json", comparison)
    write_json(folder / "results.json", reports[0].results)
    write_atomic(folder / "report.html", comparison_page(comparison, [r.results for r in reports]).encode())
    files = [folder / "comparison.json", folder / "report.html", *write_prompts(folder, prompted, title or folder.name)]
    _print(comparison, [*zoos], files)
    if unscored:
        raise UnscoredError(
            f"a scoring function raised an error on networks that the notes of these reports name: {', '.join(unscored)}. "
            f"The comparison in {folder} is complete"
        )
    return comparison


def _requested(zoo: Zoo, n: int, per_task: int, seen_tasks: int) -> dict[str, Any]:
    """Arguments of ``sample`` that say how many networks are drawn, or for which tasks or conditions of the zoo."""
    if many_tasks(zoo):
        return {"zoo": str(zoo.path), "per_task": per_task, "seen_tasks": seen_tasks}
    return {"n": n, "zoo": str(zoo.path)} if has_conditions(zoo) else {"n": n}


def _print(comparison: dict[str, Any], zoos: list[str], files: list[Path]) -> None:
    """The table and the verdicts of each zoo, and which files were written."""
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    for name in zoos:
        console.print(summary_table(name, comparison))
        for line in over_seeds(name, comparison):
            console.print(line, highlight=False)
    console.print(f"wrote {', '.join(map(str, files))}", style="dim", soft_wrap=True)


def _check(zoos: dict[str, ZooSource], generators: dict[str, GeneratorSource], seeds: list[int]) -> None:
    if not zoos or not seeds:
        raise ParamgenError("a comparison needs at least one zoo and one seed")
    if len(set(seeds)) < len(seeds):
        raise ParamgenError(f"seeds is {seeds}, expected each seed once: a repetition is no further evidence")
    for kind, sources, origins in (("zoo", zoos, _ZOO_ORIGINS), ("generator", generators, _GENERATOR_ORIGINS)):
        for name, source in sources.items():
            if not _FILE_NAME.fullmatch(name):
                raise ParamgenError(f"{kind} {name!r} cannot be the name of a folder; rename it in this comparison")
            if sum(getattr(source, origin) is not None for origin in origins) != 1:
                raise ParamgenError(f"{kind} {name!r} needs exactly one of {', '.join(origins)}")
    for source in generators.values():
        if source.baseline:
            find_baseline(source.baseline)
    requested = [z for g in generators.values() for z in g.zoos] + [z.changed[1] for z in zoos.values() if z.changed]
    if unknown := [zoo for zoo in requested if zoo not in zoos]:
        raise ParamgenError(f"Unknown zoo {unknown[0]!r} in this comparison. {did_you_mean(unknown[0], zoos)}")
    fitted = [name for name, source in generators.items() if source.fit]
    if unknown := [g.fit_of for g in generators.values() if g.fit_of and g.fit_of not in fitted]:
        raise ParamgenError(f"Unknown generator {unknown[0]!r} in this comparison. {did_you_mean(unknown[0], fitted)}")


def _find_files(zoos: dict[str, ZooSource], generators: dict[str, GeneratorSource]) -> None:
    """Refuse what does not exist before the first zoo is made."""
    for zoo in zoos.values():
        if zoo.path:
            find_zoo(zoo.path)
        if recipe := zoo.collect or zoo.collect_tasks:
            find_config(recipe, "zoo")
    for source in generators.values():
        if source.fit:
            find_config(source.fit)
        if source.ckpt_path:
            local_checkpoint(source.ckpt_path)
        if source.samples:
            samples_folder(source.samples)
