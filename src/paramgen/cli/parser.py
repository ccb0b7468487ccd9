"""Parsing of every command line: short config names, one-line errors."""

import inspect
import re
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn, get_args, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]  # its __all__ is made as it runs

from paramgen.cli.given import options, read_config
from paramgen.core.paths import find_config
from paramgen.core.plugins import load_plugins
from paramgen.core.trust import search_working_folder
from paramgen.errors import ParamgenError, did_you_mean, find_mistake


class ConfigFile(ActionConfigFile):
    """``--config``: a path, or the name of a shipped config of one folder under ``configs/``."""

    def __init__(self, folder: str = "", **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]  # jsonargparse's has no types

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Find the file and check it, then read it."""
        read_config(values, self.folder)
        super().__call__(parser, cfg, find_config(values, self.folder), option_string)  # type: ignore[no-untyped-call]


class OneLineErrors(ArgumentParser):
    """A parser that raises ParamgenError where others print their usage and exit."""

    bases: Mapping[str, type] = MappingProxyType({})  # of arguments that take an instance of a subclass
    names: Collection[str] = ()  # of the options, to suggest one for an unknown one

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; classes of installed packages are known, and others are also searched for in the working folder."""
        load_plugins()
        try:
            return super().parse_args(args, *rest, **kwargs)
        except ParamgenError as error:
            named = re.findall(r"'([A-Za-z_][\w.]*\.\w+)'", str(error))
            explained = [value for name, value in options(args or []) if name.endswith(".help")]
            if not any(map(search_working_folder, [*named, *explained])):
                raise
        return super().parse_args(args, *rest, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ParamgenError with what jsonargparse found."""
        mistake = find_mistake(ex) if ex else None
        if mistake:
            raise mistake
        if not self.exit_on_error:  # jsonargparse itself tries one type after another
            super().error(message, ex)
        unknown = re.match(r"unrecognized arguments: (--[\w.]+)", message)
        if unknown and self.names:
            raise ParamgenError(f"unknown option {unknown[1]}. {did_you_mean(unknown[1], self.names)}") from ex
        raise ParamgenError(_tidy(message, self.bases)) from ex


def _tidy(message: str, bases: Mapping[str, type]) -> str:
    """The relevant part of a jsonargparse message, which lists every type it tried."""
    flat = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split()))
    key = re.match(r'Parser key "([^"]+)"', flat) or re.match(r"--([\w.]+)\.help:", flat)
    unknown = re.search(r"(?:dot import path string: ?|Import path |given class_path ')([\w.]*)", flat)
    base = re.search(r"Subtypes: \[<class '([\w.]+)'>|subclass of <class '([\w.]+)'>|subclass of ([\w.]+)", message)
    if key and unknown and (base or key[1] in bases) and "is not accepted" not in flat:
        module, _, name = next(filter(None, base.groups())).rpartition(".") if base else ("", "", "")
        cls = bases.get(key[1]) or (getattr(import_module(module), name) if module else None)
        kinds = _concrete(cls) if cls else []
        if kinds and unknown[1].rpartition(".")[2] not in kinds:
            return (
                f"{key[1]}: unknown {cls.__name__ if cls else name} {unknown[1]!r}. {did_you_mean(unknown[1], kinds)}"
            )
    if key and (refused := _refused_argument(flat)):
        return f"{key[1]}: {refused}"
    flat = re.sub(r'Parser key "([^"]+)":', r"\1:", flat)
    flat = re.sub(r"Expected a (?:typing\.)?Literal\[(.*?)\]", r"Expected one of \1", flat)
    flat = re.sub(r"Expected a int\b", "Expected an int", flat)
    tries = re.search(r"Errors: - (.*?) Given value type: .*?Given value: ?(.*)$", flat)
    if not key or not tries:
        return flat
    expected = [t for t in tries[1].split(" - ") if t != "Expected a NoneType"]
    value = (
        "" if any("Got value" in t or "class_path" in t for t in expected) else f". Got value: {tries[2] or repr('')}"
    )
    return f"{key[1]}: {' - '.join(expected)}{value}"


def _refused_argument(message: str) -> str | None:
    """What to say of an argument that a class, or the settings among its arguments, does not have; None for other messages."""
    found = re.search(r"given class_path '([\w.]+)\.(\w+)': (.*)$", message)
    forms = (
        r"Option '([\w.]+)' is not accepted",
        r"unrecognized arguments: --([\w.]+)",
        r"Group '([\w.]+)' does not accept option '(\w+)'",
    )
    refused = next(filter(None, (re.match(form, found[3]) for form in forms)), None) if found else None
    if found is None or refused is None:
        return None
    settings: Any = getattr(import_module(found[1]), found[2])
    for name in ".".join(refused.groups()).split("."):
        kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        takes = [n for n, p in inspect.signature(settings).parameters.items() if p.kind not in kinds]
        if name not in takes:
            return f"{settings.__name__} has no argument {name!r}. {did_you_mean(name, takes)}"
        hint = get_type_hints(settings.__init__).get(name)
        settings = next(filter(is_dataclass, (hint, *get_args(hint))), None)
        if settings is None:
            break
    return None


def _concrete(base: type) -> list[str]:
    """Names of the imported concrete subclasses."""
    children: list[type] = type.__subclasses__(base)
    names = [name for child in children for name in _concrete(child)]
    return names if inspect.isabstract(base) else [base.__name__, *names]
