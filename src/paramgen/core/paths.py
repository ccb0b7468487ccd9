"""Find configs and zoos by short name."""

import os
from pathlib import Path

from paramgen.core.hub import is_hub
from paramgen.errors import ParamgenError, did_you_mean

CONFIG_KINDS = {"": "fit", "trainer": "fit", "zoo": "collect", "compare": "compare"}
"""The command that reads the configs of a folder under ``configs/``."""
DEVICE_CONFIGS = "trainer"
"""Folder of the configs that a config of a generator is combined with: ``paramgen fit --config rpg --config trainer/ddp``."""


def config_dirs() -> list[Path]:
    """Where configs are looked for: ``$PARAMGEN_CONFIG_PATH``, then the installed package, then the checkout."""
    named = [Path(p) for p in os.environ.get("PARAMGEN_CONFIG_PATH", "").split(os.pathsep) if p]
    return [*(d for d in named if d.is_dir()), *_shipped("configs")]


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
    return [*named, Path("checkpoints_zoo"), *_shipped("checkpoints_zoo")]


def find_zoo(name: str | Path) -> Path:
    """Folder of a zoo given as a path or by name.

    Raises:
        ParamgenError: No such zoo; the available ones are listed.
    """
    if (Path(name) / "zoo.json").is_file():
        return Path(name)
    if is_hub(name):
        raise ParamgenError(
            f"{name} is on the Hub: download it first, with paramgen zoo pull --repo {name} --out FOLDER"
        )
    zoos = {p.parent.name: p.parent for d in reversed(zoo_dirs()) for p in d.glob("*/zoo.json")}
    if str(name) in zoos:
        return zoos[str(name)]
    dirs = ", ".join(map(str, zoo_dirs()))
    raise ParamgenError(
        f"Unknown zoo {str(name)!r}: no zoo.json at this path or in {dirs}. {did_you_mean(str(name), zoos)}"
    )


def _shipped(folder: str) -> list[Path]:
    """A folder of the installed package, and of the checkout, where they exist."""
    module_path = Path(__file__).resolve()
    return [d for d in (module_path.parents[1] / folder, module_path.parents[3] / folder) if d.is_dir()]
