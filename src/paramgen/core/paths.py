"""Find configs and zoos by short name; names of folders."""

import os
from collections import Counter
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import NamedTuple

from paramgen.core.hub import is_hub, parse_hub
from paramgen.core.plugins import plugin_configs
from paramgen.errors import ParamgenError, did_you_mean

CONFIG_KINDS = {"": "fit", "trainer": "fit", "zoo": "collect", "compare": "compare"}
"""The command that reads the configs of a folder under ``configs/``."""
ZOO_DIR = Path("checkpoints_zoo")
"""Where zoos are made and looked for, in the working folder."""
ALIGNED = "_aligned"
"""The end of the name of a zoo that `paramgen zoo align` makes from another."""
DEVICE_CONFIGS = "trainer"
"""Folder of the configs that a config of a generator is combined with: ``paramgen fit --config rpg --config trainer/ddp``."""


def config_dirs() -> list[Path]:
    """Where configs are looked for: ``$PARAMGEN_CONFIG_PATH``, the installed package, the checkout, and packages that register configs."""
    named = [Path(p) for p in os.environ.get("PARAMGEN_CONFIG_PATH", "").split(os.pathsep) if p]
    return [*(d for d in named if d.is_dir()), *_shipped("configs"), *plugin_configs()]


def list_configs(folder: str = "") -> dict[str, Path]:
    """Shipped configs by name relative to ``configs/<folder>``, without ``.yaml``.

    Args:
        folder: One of :data:`CONFIG_KINDS`.
    """
    configs: dict[str, Path] = {}
    for directory in config_dirs():
        for path in sorted((directory / folder).glob("*.yaml")):
            configs.setdefault(path.stem, path)
    return configs


def find_config(name: str, folder: str = "") -> str:
    """Path of a config given as a path or by the name of a shipped one.

    Args:
        name: A path, or a shipped name with or without ``.yaml``. YAML text is returned unchanged.
        folder: As in :func:`list_configs`.

    Raises:
        ParamgenError: No such file and no such name; similar names are listed.
    """
    if "\n" in name or name.lstrip().startswith("{") or Path(name).is_file():
        return name
    parts = {} if folder else list_configs(DEVICE_CONFIGS)
    available = list_configs(folder) | {f"{DEVICE_CONFIGS}/{part}": path for part, path in parts.items()}
    short = name.removesuffix(".yaml").removeprefix("configs/").removeprefix(f"{folder}/")
    for known in (available, parts):
        if short in known:
            return str(known[short])
    for kind, command in CONFIG_KINDS.items():
        if short in list_configs(kind):
            raise ParamgenError(f"Config {name!r} is for `paramgen {command}`. {did_you_mean(short, available)}")
    raise ParamgenError(f"Unknown config {name!r}: neither a file nor a shipped name. {did_you_mean(short, available)}")


def zoo_dirs() -> list[Path]:
    """Where zoos are looked for: ``$PARAMGEN_ZOO``, ``./checkpoints_zoo``, then the zoo that is shipped with paramgen."""
    named = [Path(p) for p in os.environ.get("PARAMGEN_ZOO", "").split(os.pathsep) if p]
    return [*named, ZOO_DIR, *_shipped(ZOO_DIR.name)]


def find_zoo(name: str | Path) -> Path:
    """Folder of a zoo given as a path or by name.

    Raises:
        ParamgenError: No such zoo; the command that makes it is named, or the available ones are listed.
    """
    if (Path(name) / "zoo.json").is_file():
        return Path(name)
    if is_hub(name):
        out = ZOO_DIR / parse_hub(str(name)).repo.rpartition("/")[2]
        raise ParamgenError(
            f"{name} is on the Hub: download it first, with paramgen zoo pull --repo {name} --out {out}"
        )
    zoos = {p.parent.name: p.parent for d in reversed(zoo_dirs()) for p in d.glob("*/zoo.json")}
    if str(name) in zoos:
        return zoos[str(name)]
    dirs = ", ".join(map(str, zoo_dirs()))
    known = how_to_make(name) or did_you_mean(str(name), zoos)
    raise ParamgenError(f"Unknown zoo {str(name)!r}: no zoo.json at this path or in {dirs}. {known}")


class ZooRecipe(NamedTuple):
    """A shipped recipe of a zoo.

    Args:
        name: Of the config, and of the zoo that it makes.
        path: The config.
        of_tasks: Whether its zoo has one network per task of a family.
    """

    name: str
    path: Path
    of_tasks: bool

    @property
    def command(self) -> str:
        """The command that makes the zoo."""
        return f"paramgen {'collect_tasks' if self.of_tasks else 'collect'} --config {self.name}"


def zoo_recipes() -> dict[str, ZooRecipe]:
    """The shipped recipes of zoos by name."""
    found = list_configs("zoo")
    texts = {name: path.read_text(encoding="utf-8") for name, path in found.items()}
    return {name: ZooRecipe(name, found[name], "\nfamily:" in f"\n{text}") for name, text in texts.items()}


def recipe_of(zoo: str | Path) -> ZooRecipe | None:
    """The shipped recipe that makes a zoo, or the zoo that is aligned to it; None if there is none.

    Args:
        zoo: Its name or folder.
    """
    return zoo_recipes().get(Path(zoo).name.removesuffix(ALIGNED))


def find_zoo_or_recipe(zoo: str | Path) -> Path | ZooRecipe:
    """The folder of a zoo, or the recipe that will make it.

    Raises:
        ParamgenError: There is neither; similar names are listed.
    """
    try:
        return find_zoo(zoo)
    except ParamgenError as error:
        if (recipe := recipe_of(zoo)) is None:
            name = Path(zoo).name.removesuffix(ALIGNED)
            raise ParamgenError(
                f"Unknown zoo {str(zoo)!r}: neither a zoo nor a recipe for `paramgen collect`. {did_you_mean(name, zoo_recipes())}"
            ) from error
        return recipe


def commands_for(zoo: str | Path) -> list[str]:
    """The commands that make a zoo, in order; none if no shipped recipe does.

    Args:
        zoo: Its name or folder. A folder of another place is the recipe's ``--out``.
    """
    recipe, folder = recipe_of(zoo), Path(zoo)
    if recipe is None:
        return []
    short, usual = recipe.name, folder in (Path(folder.name), ZOO_DIR / folder.name)
    if short == folder.name:
        return [f"{recipe.command}{'' if usual else f' --out {folder}'}"]
    align = f"paramgen zoo align --zoo {short} --out {ZOO_DIR / folder.name if usual else folder}"
    made = any((d / short / "zoo.json").is_file() for d in zoo_dirs())
    return [align] if made else [recipe.command, align]


def how_to_make(zoo: str | Path) -> str:
    """The commands that make a zoo, as a sentence; empty if no shipped recipe does."""
    commands = commands_for(zoo)
    return f"{' && '.join(commands)} makes it." if commands else ""


def distinct_names(folders: Iterable[str | Path]) -> list[str]:
    """Names of folders; those of the same name have the names of their parents too, as many as tell them apart.

    Raises:
        ParamgenError: A folder is given twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if twice := next((path for path, n in Counter(paths).items() if n > 1), None):
        raise ParamgenError(f"samples folder {str(twice)!r} is given twice")

    def distinct(path: Path) -> str:
        alike = [other for other in paths if other.name == path.name]
        depth = next(n for n in count(1) if len({other.parts[-n:] for other in alike}) == len(alike))
        return "/".join(path.parts[-depth:])

    return [distinct(path) for path in paths]


def _shipped(folder: str) -> list[Path]:
    """A folder of the installed package, and of the checkout, where they exist."""
    module_path = Path(__file__).resolve()
    return [d for d in (module_path.parents[1] / folder, module_path.parents[3] / folder) if d.is_dir()]
