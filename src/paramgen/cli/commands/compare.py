"""``paramgen compare``: several generators on one zoo or more, over seeds, in one report."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from paramgen.cli.commands.compare_steps import GeneratorSource, ZooSource, draw, make_zoo, measure
from paramgen.core.command_line import command_line
from paramgen.core.io import write_atomic, write_json
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, did_you_mean
from paramgen.evaluation.baselines import find_baseline
from paramgen.evaluation.compare import Report, differences, machine, summarise, summary_table
from paramgen.evaluation.unseen import many_tasks, tasks_of
from paramgen.report.page import comparison_page
from paramgen.report.verdicts import over_seeds


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
) -> dict[str, Any]:
    """Fit, sample and evaluate several generators on one zoo or more, over seeds, and write one page.

    What is already in `out` is used again where the same settings made it: a stopped comparison goes on with the same command. After a
    change, fits, samples and evaluations that it touches are made again; a zoo only with `redo`. Each zoo and seed has its own
    results.json and report.html in a folder below; the results.json beside comparison.json is the first one's.

    Args:
        zoos: By name.
        generators: By name; the baselines alone when left out.
        out: Folder for everything.
        title: Head of the page.
        about: What is compared, and on what smaller task where a paper's own cannot be run.
        n: Networks of each row.
        baselines: ``all``, ``none``, or names.
        seeds: Of zoo, fit (weights and order of the data), samples and baselines; one report each, and means with their spread over
            them. ``[0]`` when left out.
        aligned: Measure distances up to permutation and scale too.
        finetune: Count the steps of training from each row's networks until they are as good as the zoo on val.
        per_task: Of a zoo of many tasks: networks drawn for each unseen task.
        seen_tasks: And for each of the first so many seen ones.
        paper: A paper's accuracies, ``{row: {column: fraction}}``, shown beside ours; ``zoo/row`` for the row of one zoo alone.
        trust: Run the code of classes that these files name and that are not part of paramgen; only for files of people you trust.
        redo: Delete zoos that other settings made, and make them again.

    Raises:
        ParamgenError: A source with none or several origins, an unknown zoo, a zoo of other settings in `out`, and what the single
            commands raise.
    """
    command = command_line("paramgen compare", main, locals())
    generators, seeds = generators or {}, seeds or [0]
    _check(zoos, generators, seeds)
    folder, reports = Path(out), list[Report]()
    for seed in seeds:
        here = folder / f"seed{seed}" if len(seeds) > 1 else folder
        opened = dict[str, Zoo]()
        for name, source in zoos.items():
            place = here / name
            zoo = opened[name] = make_zoo(place, source, opened, seed, redo, trust)
            tasks_of(zoo)  # refused now, not after the fits
            wanted = [k for k, g in generators.items() if not g.zoos or name in g.zoos]
            tasks = {"zoo": str(zoo.path), "per_task": per_task, "seen_tasks": seen_tasks}
            asked = tasks if many_tasks(zoo) else {"n": n}
            drawn = [draw(place, zoo, k, generators, asked, seed) for k in wanted]
            measured = {"n": n, "baselines": baselines, "seed": seed, "aligned": aligned, "finetune": finetune}
            reports.append(Report(name, seed, measure(place, zoo, drawn, measured)))
    comparison = {
        "title": title or folder.name,
        "about": about,
        "seeds": seeds,
        "paper": paper or {},
        "reports": [{"zoo": r.zoo, "seed": r.seed, "file": str(r.path.relative_to(folder))} for r in reports],
        "summary": summarise(reports),
        "differences": differences(reports),
        "machine": machine(),
        "command": command,
    }
    write_json(folder / "comparison.json", comparison)
    write_json(folder / "results.json", reports[0].results)
    write_atomic(folder / "report.html", comparison_page(comparison, [r.results for r in reports]).encode())
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    for name in zoos:
        console.print(summary_table(name, comparison))
        for line in over_seeds(name, comparison):
            console.print(line, highlight=False)
    console.print(f"wrote {folder / 'comparison.json'}, {folder / 'report.html'}", style="dim", soft_wrap=True)
    return comparison


def _check(zoos: dict[str, ZooSource], generators: dict[str, GeneratorSource], seeds: list[int]) -> None:
    if not zoos or not seeds:
        raise ParamgenError("a comparison needs at least one zoo and one seed")
    for kind, sources, origins in (("zoo", zoos, _ZOO_ORIGINS), ("generator", generators, _GENERATOR_ORIGINS)):
        for name, source in sources.items():
            if sum(getattr(source, origin) is not None for origin in origins) != 1:
                raise ParamgenError(f"{kind} {name!r} needs exactly one of {', '.join(origins)}")
    asked = [z for g in generators.values() for z in g.zoos] + [z.align for z in zoos.values() if z.align]
    if unknown := [zoo for zoo in asked if zoo not in zoos]:
        raise ParamgenError(f"Unknown zoo {unknown[0]!r} in this comparison. {did_you_mean(unknown[0], zoos)}")
    for source in generators.values():
        if source.baseline:
            find_baseline(source.baseline)
    fitted = [name for name, source in generators.items() if source.fit]
    if unknown := [g.fit_of for g in generators.values() if g.fit_of and g.fit_of not in fitted]:
        raise ParamgenError(f"Unknown generator {unknown[0]!r} in this comparison. {did_you_mean(unknown[0], fitted)}")


LOG_WIDTH = 160  # of a table that goes to a file
_ZOO_ORIGINS = ("collect", "collect_tasks", "align", "path")
_GENERATOR_ORIGINS = ("fit", "fit_of", "ckpt_path", "samples", "baseline")
