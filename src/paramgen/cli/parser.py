"""Parsing of every command line: short config names, one-line errors."""

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]  # its __all__ is made as it runs

from paramgen.cli.given import options, read_config
from paramgen.cli.messages import in_one_line
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
        raise ParamgenError(in_one_line(message, self.bases)) from ex
