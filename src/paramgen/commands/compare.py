"""``paramgen compare``: several generators on one zoo or more, over seeds, in one report."""

import json
import sys
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from paramgen import tasks
from paramgen.command_line import command_line
from paramgen.comparison import Report, differences, machine, summarise, summary_table
from paramgen.dispatch import run
from paramgen.errors import DivergedError, ParamgenError, near
from paramgen.files import write_atomic, write_json
from paramgen.paths import find_config
from paramgen.report import comparison_page
from paramgen.samples import INDEX
from paramgen.unseen import many_tasks, tasks_of
from paramgen.verdicts import over_seeds
from paramgen.zoo import Zoo


@dataclass(frozen=True)
class ZooSource:
    """Where a zoo comes from; exactly one of `collect`, `collect_tasks`, `align` and `path`.

    Args:
        collect: Config of ``paramgen collect``; with several seeds each has a zoo of its own.
        collect_tasks: Config of ``paramgen collect_tasks``; the seed is the family's too where it takes one.
        align: Name of another zoo of this comparison, to be aligned.
        path: A zoo that is there already.
        arguments: Further arguments of ``collect`` or ``collect_tasks``, for example ``{runs: 20}``.
    """

    collect: str | None = None
    collect_tasks: str | None = None
    align: str | None = None
    path: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GeneratorSource:
    """Where a generator's networks come from; exactly one of `fit`, `fit_of`, `ckpt_path` and `samples`.

    Args:
        fit: Config of ``paramgen fit``.
        fit_of: Another generator of this comparison, whose fit is sampled in another way.
        ckpt_path: A checkpoint.
        samples: A folder of networks, made by anyone.
        arguments: Further arguments of ``fit``, for example ``{model.lr: 0.001}``.
        sample: Further arguments of ``sample``, for example ``{num_inference_steps: 20}``.
        zoos: Only on these zoos; on all when empty.
    """

    fit: str | None = None
    fit_of: str | None = None
    ckpt_path: str | None = None
    samples: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    sample: dict[str, Any] = field(default_factory=dict)
    zoos: list[str] = field(default_factory=list)


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
) -> None:
    """Fit, sample and evaluate several generators on one zoo or more, over seeds, and write one page.

    What is already in `out` is used again: a stopped comparison goes on with the same command. Each zoo and seed has its own
    results.json and report.html in a folder below; the results.json beside comparison.json is the first one's.

    Args:
        zoos: By name.
        generators: By name; the baselines alone when left out.
        out: Folder for everything.
        title: Head of the page.
        about: What is compared, and on what smaller task where a paper's own cannot be run.
        n: Networks of each row.
        baselines: ``all``, ``none``, or names.
        seeds: Of zoo, fit, samples and baselines; one report each, and means with their spread over them. ``[0]`` when left out.
        aligned: Measure distances up to permutation and scale too.
        finetune: Count the steps of training from each row's networks until they are as good as the zoo on val.
        per_task: Of a zoo of many tasks: networks drawn for each unseen task.
        seen_tasks: And for each of the first so many seen ones.
        paper: A paper's accuracies, ``{row: {column: fraction}}``, shown beside ours; ``zoo/row`` for the row of one zoo alone.
        trust: Run the code of classes that these files name and that are not part of paramgen; only for files of people you trust.

    Raises:
        ParamgenError: A source with none or several origins, an unknown zoo, and whatever the single commands raise.
    """
    command = command_line("paramgen compare", main, locals())
    generators, seeds = generators or {}, seeds or [0]
    _check(zoos, generators, seeds)
    folder, reports = Path(out), list[Report]()
    vouched = {"trust": True} if trust else {}
    for seed in seeds:
        here = folder / f"seed{seed}" if len(seeds) > 1 else folder
        for name, source in zoos.items():
            _make_zoo(here, name, source, seed, vouched)
            zoo = _zoo_path(here, name, source)
            opened = Zoo(zoo, trust)
            tasks_of(opened)  # refused now, not after the fits
            wanted = {k: g for k, g in generators.items() if not g.zoos or name in g.zoos}
            asked = {"zoo": zoo, "per_task": per_task, "seen_tasks": seen_tasks} if many_tasks(opened) else {"n": n}
            drawn = [str(_draw(here / name, zoo, k, g, asked | vouched, seed)) for k, g in wanted.items()]
            given = {"zoo": zoo, "samples": drawn, "out": here / name, "n": n, "baselines": baselines, "seed": seed}
            run(["evaluate", *_options({**given, "aligned": aligned, "finetune": finetune, **vouched})])
            reports.append(Report(name, seed, here / name / "results.json"))
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


def _check(zoos: dict[str, ZooSource], generators: dict[str, GeneratorSource], seeds: list[int]) -> None:
    if not zoos or not seeds:
        raise ParamgenError("a comparison needs at least one zoo and one seed")
    for kind, sources, origins in (("zoo", zoos, _ZOO_ORIGINS), ("generator", generators, _GENERATOR_ORIGINS)):
        for name, source in sources.items():
            if sum(getattr(source, origin) is not None for origin in origins) != 1:
                raise ParamgenError(f"{kind} {name!r} needs exactly one of {', '.join(origins)}")
    asked = [z for g in generators.values() for z in g.zoos] + [z.align for z in zoos.values() if z.align]
    if unknown := [zoo for zoo in asked if zoo not in zoos]:
        raise ParamgenError(f"no zoo {unknown[0]!r} in this comparison; {near(unknown[0], zoos)}")
    fitted = [name for name, source in generators.items() if source.fit]
    if unknown := [g.fit_of for g in generators.values() if g.fit_of and g.fit_of not in fitted]:
        raise ParamgenError(f"no generator {unknown[0]!r} is fitted in this comparison; {near(unknown[0], fitted)}")


def _make_zoo(here: Path, name: str, source: ZooSource, seed: int, vouched: dict[str, bool]) -> None:
    """The zoo's folder under `here`, made unless it is there."""
    target = _zoo_path(here, name, source)
    if (target / "zoo.json").exists() or source.path:
        return
    if source.collect or source.collect_tasks:
        command, config = ("collect", source.collect) if source.collect else ("collect_tasks", source.collect_tasks)
        seeded = {"seed": seed} if source.collect else _seeds(str(config), seed)
        run([command, "--config", str(config), *_options({**seeded, **source.arguments}), "--out", str(target)])
    else:
        run(["zoo", "align", *_options({"zoo": here / str(source.align) / "zoo", "out": target, **vouched})])


def _seeds(config: str, seed: int) -> dict[str, int]:
    """The seed of a zoo of many tasks, and of its family where that draws its tasks by one."""
    asked = (yaml.safe_load(Path(find_config(config, "zoo")).read_text()) or {}).get("family") or {}
    family = getattr(tasks, str(asked.get("class_path")).rpartition(".")[2], None)
    seeded = family is not None and "seed" in signature(family).parameters
    return {"seed": seed, **({"family.init_args.seed": seed} if seeded else {})}


def _zoo_path(here: Path, name: str, source: ZooSource) -> Path:
    return Path(source.path) if source.path else here / name / "zoo"


def _draw(here: Path, zoo: Path, name: str, source: GeneratorSource, wanted: dict[str, Any], seed: int) -> Path:
    """The folder of a generator's networks, fitted and drawn unless they are there."""
    if source.samples:
        return Path(source.samples)
    checkpoint, target = here / "fits" / (source.fit_of or name) / "last.ckpt", here / "samples" / name
    if source.fit and not (target / INDEX).exists():
        where = {"data.zoo": zoo, "checkpoint.dirpath": checkpoint.parent, "seed_everything": seed}
        where |= {"data.trust": True} if wanted.get("trust") else {}
        try:
            run(["fit", "--config", source.fit, *_options({**_QUIET, **source.arguments, **where})])
        except DivergedError as error:
            raise DivergedError(f"generator {name!r}: {error}") from error
    if not (target / INDEX).exists():
        where = {"ckpt_path": source.ckpt_path or checkpoint, "out": target, "seed": seed, **wanted}
        run(["sample", *_options({**source.sample, **where})])
    return target


def _options(arguments: dict[str, Any]) -> list[str]:
    """``--name value`` for each argument, values as YAML has them."""
    return [
        word
        for name, value in arguments.items()
        for word in (f"--{name}", value if isinstance(value, str) else json.dumps(value, default=str).strip('"'))
    ]


LOG_WIDTH = 160  # of a table that goes to a file
_QUIET = {"trainer.enable_model_summary": False}  # one of many fits
_ZOO_ORIGINS = ("collect", "collect_tasks", "align", "path")
_GENERATOR_ORIGINS = ("fit", "fit_of", "ckpt_path", "samples")
