"""How every command reads its line: short config names, mistakes said in one line."""

from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser

from paramgen.errors import ParamgenError
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

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ParamgenError with what jsonargparse found."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, ParamgenError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        if not self.exit_on_error:  # jsonargparse itself tries one reading after another
            super().error(message, ex)
        raise ParamgenError(message) from ex
