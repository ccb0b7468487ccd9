"""What to do after a command: one line, ``next: paramgen …``, on stderr, where it disturbs no output that another program reads."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import join, quote
from typing import Any

import yaml

from paramgen.cli.given import PLAN_OPTIONS, value_given, without_options
from paramgen.core.hub import SCHEME, is_hub
from paramgen.core.paths import ZOO_DIR, commands_for, find_zoo, list_configs
from paramgen.core.shards import MERGE
from paramgen.errors import ParamgenError

Arguments = Mapping[str, Any]
ANY_ZOO = "pdiff"  # a config that follows the zoo
PREFERRED = ("pdiff_", "rpg_", "wild_")  # of the configs for one zoo


def next_step(command: str, arguments: Arguments, result: Any) -> str | None:
    """The next command; None where there is none, or where the command has said it.

    Args:
        command: What was run: ``collect``, or ``zoo align``.
        arguments: Its arguments by name; of a command that parses its own, ``{"words": …}``.
        result: What it returned.
    """
    step = NEXT.get(command)
    if step is None or arguments.get("shard") not in (None, MERGE):
        return None
    return step(arguments, result)


def fit_of(zoo: str | Path) -> str:
    """A fit on a zoo: with the first shipped config for it, else with one that follows the zoo.

    Args:
        zoo: Folder or name.
    """
    folder = Path(zoo)
    names = re.compile(rf"^ +zoo: {re.escape(folder.name)}$", re.MULTILINE)
    shipped = [name for name, path in list_configs().items() if names.search(path.read_text(encoding="utf-8"))]
    if not shipped:
        return f"paramgen fit --config {ANY_ZOO} --data.zoo {quote(str(zoo))}"
    first = min(shipped, key=lambda name: [not name.startswith(start) for start in PREFERRED])
    try:
        found = find_zoo(folder.name).resolve() == find_zoo(folder).resolve()
    except ParamgenError:
        found = False
    return f"paramgen fit --config {first}{'' if found else f' --data.zoo {quote(str(zoo))}'}"


def _after_zoo(name: str) -> Callable[[Arguments, Any], str]:
    """The step after a command that an argument gives a zoo to, or a place for one."""
    return lambda arguments, _: fit_of(arguments[name])


def _after_import(arguments: Arguments, _: Any) -> str:
    return "the same command without --dry_run" if arguments["dry_run"] else fit_of(arguments["out"])


def _on_hub(repository: str) -> str:
    """A repository as commands take it in place of a file."""
    return repository if is_hub(repository) else f"{SCHEME}{repository}"


def _after_fit(_: Arguments, cli: Any) -> str | None:
    """The step after a fit, or after another verb of Lightning with a fit's checkpoint."""
    path = cli.saved or cli.config[cli.subcommand].get("ckpt_path")
    zoo, generator = cli.datamodule.zoo, cli.model
    unseen = generator.cond_dim > len(generator.prompts) and any(e.task and e.split == "heldout" for e in zoo.entries)
    tasks = f" --zoo {quote(str(zoo.path))}" if unseen else ""
    return _sample_of(path, f"{tasks}{' --trust true' if cli.foreign else ''}") if path else None


def _sample_of(checkpoint: str, options: str = "") -> str:
    """Samples of a checkpoint, in a folder that holds no samples yet."""
    names = ("samples", *(f"samples_{i}" for i in range(2, 100)))
    free = next((name for name in names if not Path(name, "samples.json").exists()), names[0])
    out = "" if free == names[0] else f" --out {free}"  # the first is the default
    return f"paramgen sample --ckpt_path {quote(checkpoint)}{options}{out}"


def _after_sample(arguments: Arguments, folder: Path) -> str:
    index: Any = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    settings: Any = yaml.safe_load(index.get("fit_config") or "") or {}
    zoo = arguments["zoo"] or settings.get("data", {}).get("zoo") or index.get("zoo")
    trust = " --trust true" if arguments["trust"] else ""
    for_tasks = any(network.get("task") for network in index["networks"])
    if not for_tasks and _has_tasks(str(zoo)):  # nothing to score them on
        return _sample_of(arguments["ckpt_path"], f" --zoo {quote(str(zoo))}{trust}")
    return f"paramgen evaluate --zoo {quote(str(zoo))} --samples {quote(str(folder))}{trust}"


def _has_tasks(zoo: str) -> bool:
    """Whether a zoo that can be found is of a family of tasks."""
    try:
        entries: Any = json.loads((find_zoo(zoo) / "zoo.json").read_text(encoding="utf-8"))["entries"]
    except (ParamgenError, OSError):
        return False
    return any(entry["task"] for entry in entries)


def _after_unseen(arguments: Arguments, best: str | None) -> str:
    """Samples of the best checkpoint for the tasks of the zoo; a fit where there was none."""
    zoo = arguments["zoo"]
    return fit_of(zoo) if best is None else _sample_of(best, f" --zoo {quote(zoo)}")


def _place_of(folder: str) -> str:
    """Where a zoo of a folder's name is found by its name."""
    return quote(str(ZOO_DIR / Path(folder).resolve().name))


def _after_evaluate(arguments: Arguments, _: Any) -> str:
    report = _open("report.html")(arguments, None)
    return report if arguments["samples"] else f"{report}, then {fit_of(arguments['zoo'])}"


def _open(file: str) -> Callable[[Arguments, Any], str]:
    """The step after a command whose result is looked at."""
    return lambda arguments, _: f"open {quote(str(Path(arguments['out']) / file))}"


def _after_plan(arguments: Arguments, plan: Any) -> str:
    """The fit that was planned, without the options of the plan, after its zoo is made."""
    if plan.misfit is not None:
        return "paramgen plan with the changes above, another --device, or more --devices"
    words: list[str] = arguments["words"]
    fit = join(["paramgen", "fit", *without_options(words, PLAN_OPTIONS, flags=("json",))])
    zoo = str(value_given(words, "data.zoo"))
    try:
        find_zoo(zoo)
    except ParamgenError:
        return f"{' && '.join(commands_for(zoo))} && {fit}"
    return fit


NEXT: Mapping[str, Callable[[Arguments, Any], str | None]] = {
    "collect": _after_zoo("out"),
    "collect_tasks": _after_zoo("out"),
    "zoo info": _after_zoo("zoo"),
    "zoo verify": _after_zoo("zoo"),
    "zoo import": _after_import,
    "zoo convert": lambda arguments, _: (
        f"paramgen zoo import --source {quote(arguments['out'])} --out {_place_of(arguments['out'])}"
    ),
    "zoo align": _after_zoo("out"),
    "zoo prune": _after_zoo("out"),
    "zoo quantise": _after_zoo("out"),
    "zoo merge": _after_zoo("zoo"),
    "zoo push": lambda arguments, _: (
        f"paramgen zoo pull --repo {quote(arguments['repo'])} --out {_place_of(arguments['zoo'])}, on another machine"
    ),
    "zoo pull": _after_zoo("out"),
    "generator push": lambda arguments, _: _sample_of(_on_hub(arguments["repo"])),
    "generator pull": lambda arguments, _: _sample_of(f"{arguments['out']}/generator.ckpt"),
    "export": lambda *_: "load one network with the lines above",
    "fit": _after_fit,
    "validate": _after_fit,
    "test": _after_fit,
    "predict": _after_fit,
    "sample": _after_sample,
    "merge": _after_sample,
    "consolidate": lambda _, path: _sample_of(str(path)),
    "adapters": lambda arguments, _: (
        f"PeftModel.from_pretrained(network, '{arguments['out']}/network_0000') loads the first one"
    ),
    "evaluate": _after_evaluate,
    "compare": _open("report.html"),
    "interpolate": _open("interpolation.png"),
    "flips": _open("flips.json"),
    "tickets": _open("tickets.json"),
    "unseen": _after_unseen,
    "plan": _after_plan,
    "doctor": lambda *_: "paramgen compare --config digits, a demo of two minutes",
}
"""What follows each command."""
