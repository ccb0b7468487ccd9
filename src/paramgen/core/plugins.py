"""What other installed packages add: backends, tasks, codecs and configs, found by their entry points.

A package registers a class by an entry point in one of the groups below. The user has installed the package, so it is trusted as paramgen
itself is: its registered modules are imported, and a zoo or checkpoint that names one of its classes needs no ``--trust true``.
"""

import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from paramgen.errors import one_line

GROUPS = {"backend": "paramgen.backends", "task": "paramgen.tasks", "codec": "paramgen.codecs"}
CONFIGS = "paramgen.configs"
_log = logging.getLogger(__name__)


class Plugin(NamedTuple):
    """A registered class or module.

    Args:
        kind: ``backend``, ``task`` or ``codec``.
        name: Of the entry point.
        value: ``package.module:Class``, or ``package.module``.
        package: The installed package, with its version.
        problem: Why it could not be imported; empty if it was.
    """

    kind: str
    name: str
    value: str
    package: str
    problem: str


@cache
def load_plugins() -> tuple[Plugin, ...]:
    """Import what installed packages register, once. A package that cannot be imported is reported and left out."""
    return tuple(_load(kind, entry) for kind, group in GROUPS.items() for entry in entry_points(group=group))


def is_installed(cls: type) -> bool:
    """Whether a class is paramgen's or of a package that registers classes: files that name it need no trust."""
    packages = {plugin.value.partition(":")[0].partition(".")[0] for plugin in load_plugins() if not plugin.problem}
    return cls.__module__.partition(".")[0] in {"paramgen", *packages}


@cache
def plugin_configs() -> tuple[Path, ...]:
    """Folders of configs of installed packages; the packages are not imported."""
    folders = [_folder(entry.value) for entry in entry_points(group=CONFIGS)]
    return tuple(folder for folder in folders if folder is not None and folder.is_dir())


def _load(kind: str, entry: EntryPoint) -> Plugin:
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    problem = _problem(entry.load)
    if problem:
        _log.warning("the %s %r of %s cannot be used: %s", kind, entry.name, package, problem)
    return Plugin(kind, entry.name, entry.value, package, problem)


def _problem(load: Callable[[], object]) -> str:
    try:
        load()
    except Exception as error:  # another package's import may raise anything, and no other command may suffer from it
        return f"{type(error).__name__}: {one_line(error)}"
    return ""


def _folder(value: str) -> Path | None:
    """The folder of a dotted path such as ``package.configs``, found without importing the package."""
    top, *rest = value.split(".")
    spec = find_spec(top)
    places = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(place, *rest) for place in places), None)
