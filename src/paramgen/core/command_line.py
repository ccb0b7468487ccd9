"""What every result records of how it was made: the command as it was typed, or the command line that repeats a call from Python."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

_typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


@contextmanager
def typed(line: Sequence[str]) -> Iterator[None]:
    """The words after ``paramgen`` that the user typed, while the command that they name runs."""
    token = _typed.set(tuple(line))
    try:
        yield
    finally:
        _typed.reset(token)


def command_line(prog: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """The command as the user typed it; of a call from Python ``prog --name value …`` without arguments at their defaults.

    Args:
        prog: ``paramgen`` and the command.
        function: What was called.
        arguments: Its arguments by name, for example its ``locals()`` before anything else is assigned.
    """
    line = _typed.get()
    if line and prog == f"paramgen {line[0]}":
        return shlex.join(["paramgen", *line])
    words = [prog]
    for name, parameter in signature(function).parameters.items():
        if arguments[name] != parameter.default:
            words += [f"--{name}", shlex.quote(_text(arguments[name]))]
    return " ".join(words)


def words(arguments: Mapping[str, Any]) -> list[str]:
    """``--name value`` for each argument, as a parser takes them."""
    return [word for name, value in arguments.items() for word in (f"--{name}", _text(value))]


def plain_value(value: Any, defaults: bool = False) -> Any:
    """An argument as a JSON value: tasks and families become the config that builds them.

    Args:
        value: The argument.
        defaults: Keep the fields of dataclasses that are at their defaults.
    """
    if is_dataclass(value) and not isinstance(value, type):
        blank = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(value)}
        listed = {name: getattr(value, name) for name in blank}
        return {name: plain_value(v, defaults) for name, v in listed.items() if defaults or v != blank[name]}
    if isinstance(value, Mapping):
        return {str(name): plain_value(v, defaults) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(v, defaults) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return plain_value(value.config(), defaults) if hasattr(value, "config") else str(value)


def _text(value: Any) -> str:
    """A value as text for the command line; JSON is valid YAML."""
    return value if isinstance(value, str) else json.dumps(plain_value(value))
