"""Messages of jsonargparse in one line: it lists every type that it tried, and the error of each."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any, get_args, get_type_hints

from paramgen.errors import did_you_mean

_KEY = re.compile(r'Parser key "([^"]+)"|--([\w.]+)\.help:')
_CLASS_GIVEN = re.compile(r"(?:dot import path string: ?|Import path |given class_path ')([\w.]*)")
_CLASS_EXPECTED = re.compile(r"Subtypes: \[<class '([\w.]+)'>|subclass of <class '([\w.]+)'>|subclass of ([\w.]+)")
_EVERY_TRY = re.compile(r"Errors: - (?P<tries>.*?) Given value type: .*?Given value: ?(?P<value>.*)$")
_ARGUMENTS_GIVEN = re.compile(r"given class_path '(?P<module>[\w.]+)\.(?P<name>\w+)': (?P<error>.*)$")
_ARGUMENT_REFUSED = (
    re.compile(r"Option '([\w.]+)' is not accepted"),
    re.compile(r"unrecognized arguments: --([\w.]+)"),
    re.compile(r"Group '([\w.]+)' does not accept option '(\w+)'"),
)


def in_one_line(message: str, bases: Mapping[str, type]) -> str:
    """The relevant part of a message.

    Args:
        message: Of jsonargparse.
        bases: The arguments that take an instance of a subclass, by name.
    """
    flat = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split()))
    key = _KEY.match(flat)
    if key is None:
        return _plain(flat)
    name = key[1] or key[2]
    found = _unknown_class(message, flat, bases.get(name)) or _refused_argument(flat) or _wrong_value(_plain(flat))
    return f"{name}: {found}" if found else _plain(flat)


def _plain(message: str) -> str:
    """Jsonargparse's words as a sentence."""
    message = re.sub(r'Parser key "([^"]+)":', r"\1:", message)
    message = re.sub(r"Expected a (?:typing\.)?Literal\[(.*?)\]", r"Expected one of \1", message)
    return re.sub(r"Expected a int\b", "Expected an int", message)


def _class(message: str, known: type | None) -> type | None:
    """The class of which a subclass was expected: the known one, else that which the message names."""
    expected = _CLASS_EXPECTED.search(message)
    if known is not None or expected is None:
        return known
    module, _, name = next(filter(None, expected.groups())).rpartition(".")
    found: type | None = getattr(import_module(module), name) if module else None
    return found


def _unknown_class(message: str, flat: str, known: type | None) -> str | None:
    """What to say of a class that is not among the subclasses of the expected one; None for other messages."""
    given = _CLASS_GIVEN.search(flat)
    if given is None or "is not accepted" in flat or (expected := _class(message, known)) is None:
        return None
    kinds = _concrete(expected)
    if not kinds or given[1].rpartition(".")[2] in kinds:
        return None
    return f"unknown {expected.__name__} {given[1]!r}. {did_you_mean(given[1], kinds)}"


def _wrong_value(message: str) -> str | None:
    """What to say of a value that fits none of the types that were tried; None for other messages."""
    found = _EVERY_TRY.search(message)
    if found is None:
        return None
    tries = [error for error in found["tries"].split(" - ") if error != "Expected a NoneType"]
    named = any("Got value" in error or "class_path" in error for error in tries)
    return " - ".join(tries) + ("" if named else f". Got value: {found['value'] or repr('')}")


def _refused_argument(message: str) -> str | None:
    """What to say of an argument that a class, or the settings among its arguments, does not have; None for other messages."""
    found = _ARGUMENTS_GIVEN.search(message)
    refused = next(filter(None, (form.match(found["error"]) for form in _ARGUMENT_REFUSED)), None) if found else None
    if found is None or refused is None:
        return None
    settings: Any = getattr(import_module(found["module"]), found["name"])
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
