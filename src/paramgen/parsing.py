"""How every command reads its line: short config names, mistakes said in one line."""

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser

from paramgen.errors import ParamgenError, near
from paramgen.paths import find_config


class ConfigFile(ActionConfigFile):
    """``--config``: a path, or the name of a shipped config of one folder under ``configs/``."""

    def __init__(self, folder: str = "", **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(**kwargs)

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Find the file, then read it."""
        super().__call__(parser, cfg, find_config(values, self.folder), option_string)


class OneLineErrors(ArgumentParser):
    """A parser that raises ParamgenError where others print their usage and exit."""

    bases: Mapping[str, type] = MappingProxyType({})  # of arguments that take an instance of a subclass

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ParamgenError with what jsonargparse found."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, ParamgenError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        if not self.exit_on_error:  # jsonargparse itself tries one reading after another
            super().error(message, ex)
        raise ParamgenError(_tidy(message, self.bases)) from ex


def _tidy(message: str, bases: Mapping[str, type]) -> str:
    """What matters of a message of jsonargparse, which tells every reading it tried."""
    flat = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split()))
    key = re.match(r'Parser key "([^"]+)"', flat)
    unknown = re.search(r"(?:dot import path string: |Import path |given class_path ')([\w.]+)", flat)
    base = re.search(r"Subtypes: \[<class '([\w.]+)'>|subclass of <class '([\w.]+)'>|subclass of ([\w.]+)", message)
    if key and unknown and (base or key[1] in bases) and "is not accepted" not in flat:
        module, _, name = next(filter(None, base.groups())).rpartition(".") if base else ("", "", "")
        cls = bases.get(key[1]) or (getattr(import_module(module), name) if module else None)
        kinds = _concrete(cls) if cls else []
        if unknown[1].rpartition(".")[2] not in kinds:
            return f"{key[1]}: no {cls.__name__ if cls else name} {unknown[1]!r}; {near(unknown[1], kinds)}"
    tries = re.search(r"Errors: - (.*?)(?: - Expected a NoneType.*| Given value type: .*)$", flat)
    return re.sub(r'Parser key "([^"]+)":', r"\1:", f"{key[1]}: {tries[1]}" if key and tries else flat)


def _concrete(base: type) -> list[str]:
    """Names of the imported subclasses that can be used."""
    children: list[type] = type.__subclasses__(base)
    found = [name for child in children for name in _concrete(child)]
    return found if inspect.isabstract(base) else [base.__name__, *found]
