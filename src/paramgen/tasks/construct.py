"""An object from its recorded configuration."""

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from paramgen.errors import ParamgenError, near

T = TypeVar("T")


def construct(config: Mapping[str, Any], base: type[T], what: str) -> T:
    """An instance of a subclass of `base`.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``; the class may be given by its name alone where ``paramgen.tasks`` has it.
        base: What it must be a subclass of.
        what: What to call it in messages.

    Raises:
        ParamgenError: No such class, or arguments that it does not take.
    """
    path, arguments = str(config.get("class_path", "")), dict(config.get("init_args") or {})
    module, _, name = path.rpartition(".")
    known = {cls.__name__ for cls in base.__subclasses__()}
    try:
        cls = getattr(importlib.import_module(module or "paramgen.tasks"), name)
    except (ImportError, AttributeError) as error:
        raise ParamgenError(f"no {what} {path!r}; {near(name, known)}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        wanted = f"paramgen.tasks.{base.__name__}"
        raise ParamgenError(f"no {what} {path!r}: it is not a subclass of {wanted}; {near(name, known)}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ParamgenError(f"{what} {path!r} does not take these arguments: {error}") from error
