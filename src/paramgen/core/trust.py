"""Class names in files: they are looked up, and imported only if the user vouches for the file.

A zoo or a checkpoint says by name which class makes its task or its generator. Files may come from others, and importing a module
runs it. So a name from a file is compared with the classes that are imported already: those of paramgen, and those that installed packages
register by entry points (:mod:`paramgen.core.plugins`). Anything else needs ``trust``, except in zoos that the user made here
(:mod:`paramgen.core.remembered`). What the user types (options, the config of a command) is imported; the working folder is searched last.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.util import find_spec
from inspect import isabstract
from pathlib import Path
from typing import Any, TypeVar

from paramgen.core.plugins import load_plugins
from paramgen.errors import ParamgenError, did_you_mean, shown

T = TypeVar("T")

HOW = "--trust true (paramgen fit: --data.trust true; Python: trust=True)"
SOMEWHERE = "this configuration"
NAMING = ("class_path", "network", "scorer")  # keys of a configuration that may name code


class UntrustedError(ParamgenError):
    """A file names code, or a file or address to read, and is not trusted."""


def find_class(path: str, base: type[T], what: str, trust: bool = False, where: str = SOMEWHERE) -> type[T]:
    """The class that a file names.

    Args:
        path: ``package.module.Class``; the bare name is enough for classes of paramgen.
        base: What it must be a subclass of.
        what: What to call it in messages.
        trust: Import what is not there yet; the working folder is searched last.
        where: The file, for messages.

    Raises:
        UntrustedError: It would have to be imported, and `trust` is false.
        ParamgenError: No such class, or not a subclass of `base`.
    """
    classes = _known(base)
    if path not in classes:
        load_plugins()
        classes = _known(base)
    if path in classes:
        return classes[path]
    top, dot, name = path.partition(".")[0], *path.rpartition(".")[1:]
    if not dot or top == "paramgen":
        raise ParamgenError(
            f"Unknown {what} {path!r}. {did_you_mean(name, {cls.__name__ for cls in classes.values()})}"
        )
    if not trust:
        raise refusal(path, where)
    return import_class(path, base, what)


def refusal(path: str, where: str, kind: str = "class") -> UntrustedError:
    """The error for a class or function that would have to be imported."""
    return UntrustedError(
        f"{where} names the {kind} {path}, which is not part of paramgen: running its code needs {HOW}"
    )


def foreign_classes(config: Any) -> set[str]:
    """The classes and functions that a recorded configuration names and that are not part of paramgen, also in those within it.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``, where a ``network`` may be a class too, and a ``scorer`` is a function.
    """
    if isinstance(config, list | tuple):
        return set().union(*map(foreign_classes, config))
    if not isinstance(config, Mapping):
        return set()
    named = {config[key] for key in NAMING if isinstance(config.get(key), str)}
    return {name for name in named if _is_foreign(name)}.union(*map(foreign_classes, config.values()))


def _is_foreign(path: str) -> bool:
    top, *rest = path.split(".")
    return bool(rest) and top != "paramgen" and all(part.isidentifier() for part in (top, *rest))


def module_file(path: str) -> str | None:
    """The file, or of a package without one the folder, that the first module of a dotted path is or would be imported from.

    Nothing is imported to find out. As in :func:`import_class`, the working folder comes last.

    Args:
        path: ``package`` or ``package.module.Class``.
    """
    top = path.partition(".")[0]
    try:
        spec = find_spec(top) or PathFinder.find_spec(top, [os.path.abspath("")])
    except ValueError:  # a script's own __main__, which is another module in each process
        return None
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return next((os.path.realpath(place) for place in places if place), None)


def import_class(path: str, base: type[T], what: str) -> type[T]:
    """The class of a dotted path that the user typed or trusts, from installed packages or else from the working folder.

    Args:
        path: ``package.module.Class``.
        base: What it must be a subclass of.
        what: What to call it in messages.

    Raises:
        ParamgenError: It cannot be imported, or is not a subclass of `base`.
    """
    imported = _imported(path, what, "package.module.Class")
    if not (isinstance(imported, type) and issubclass(imported, base)):
        raise ParamgenError(f"{what} {path!r} is {imported!r}, expected a subclass of {base.__name__}")
    return imported


def import_function(path: str, what: str) -> Callable[..., Any]:
    """The function of a dotted path that the user typed or trusts; found as :func:`import_class` finds a class.

    Args:
        path: ``package.module.function``.
        what: What to call it in messages.

    Raises:
        ParamgenError: It cannot be imported, or cannot be called.
    """
    imported = _imported(path, what, "package.module.function")
    if not callable(imported):
        raise ParamgenError(f"{what} {path!r} is {shown(imported)}, expected a function")
    return imported


def _imported(path: str, what: str, form: str) -> object:
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        raise ParamgenError(f"cannot import {what} {path!r}: expected {form}")
    search_working_folder(path)
    try:
        value: object = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ParamgenError(f"cannot import {what} {path!r}: {error}") from error
    return value


def search_working_folder(path: str) -> bool:
    """Let Python import a module of the working folder, where no other place has one of that name.

    The folder comes last in ``sys.path``, and only when a module in it was asked for: it hides nothing, and an optional package that is
    not installed is not taken from a folder that somebody was in by chance.

    Args:
        path: Dotted path that the user typed or trusts.

    Returns:
        Whether the module can be imported now and could not be before.
    """
    top = path.partition(".")[0]
    if not top.isidentifier() or top in sys.modules or find_spec(top) is not None:
        return False
    folder = Path(os.path.abspath(""))
    if not ((folder / f"{top}.py").is_file() or (folder / top).is_dir()):
        return False
    sys.path.append(str(folder))
    invalidate_caches()
    return True


def _known(base: type[T]) -> dict[str, type[T]]:
    """The imported classes by what they may be called."""
    return {name: cls for cls in _subclasses(base) for name in _names(cls)}


def _subclasses(base: type[T]) -> Iterator[type[T]]:
    """Every imported subclass that can be used."""
    for cls in type.__subclasses__(base):
        if not isabstract(cls):
            yield cls
        yield from _subclasses(cls)


def _names(cls: type) -> list[str]:
    """What a class may be called: its full path; of paramgen's own also its bare name and the path through a package that exports it."""
    full = f"{cls.__module__}.{cls.__qualname__}"
    packages = cls.__module__.split(".")
    if packages[0] != "paramgen":
        return [full]
    return [full, cls.__name__, *(".".join([*packages[:i], cls.__name__]) for i in range(1, len(packages)))]
