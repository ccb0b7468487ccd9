"""Arguments that come from files, checked against the signature of what takes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from inspect import Parameter, isclass, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from paramgen.errors import ParamgenError, did_you_mean, shown

# Values of a YAML that stay as they are written. jsonargparse replaces a class_path within `list[Any]` with an instance of the class.
Plain = bool | int | float | list | dict | str | None  # type: ignore[type-arg]


def check_arguments(make: Callable[..., Any], arguments: Mapping[str, Any], what: str) -> None:
    """Refuse arguments that a class or function does not take.

    Args:
        make: The class or function.
        arguments: By name; plain values, as JSON and checkpoints hold them.
        what: What to call it in messages.

    Raises:
        ParamgenError: An unknown name, a missing argument, or a value of another type; it is named.
    """
    takes = {n: p for n, p in signature(make).parameters.items() if p.kind is not Parameter.VAR_KEYWORD}
    if unknown := [name for name in arguments if name not in takes]:
        raise ParamgenError(f"{what} has no argument {unknown[0]!r}. {did_you_mean(str(unknown[0]), takes)}")
    if lacking := [name for name, p in takes.items() if p.default is p.empty and name not in arguments]:
        raise ParamgenError(f"{what} needs {lacking[0]!r}")
    try:
        hints = get_type_hints(make.__init__ if isclass(make) else make)
    except NameError:  # the user's class has annotations that only a type checker can import
        hints = {}
    for name, value in arguments.items():
        if not fits(value, hints.get(name, Any)):
            expected = str(hints[name].__name__ if isclass(hints[name]) else hints[name]).replace("typing.", "")
            raise ParamgenError(f"{what}: {name} is {shown(value)}, expected {expected}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has a type; types that no plain value can have are accepted.

    Args:
        value: As JSON and checkpoints hold it.
        hint: An annotation. A dataclass may be given as a mapping.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if isclass(origin) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(fits(v, inner[0]) for v in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if isclass(hint) and is_dataclass(hint) and isinstance(value, Mapping):
        return value.keys() <= signature(hint).parameters.keys()
    return isinstance(value, NoneType if hint is None else hint) if isclass(hint) or hint is None else True
