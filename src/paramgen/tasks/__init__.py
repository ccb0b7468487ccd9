"""Tasks: which network is trained, on what, and how it is scored."""

import importlib
from collections.abc import Mapping
from typing import Any

from paramgen.errors import ParamgenError, near
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask", "SplitData", "Task", "load_task"]


def load_task(config: Mapping[str, Any]) -> Task:
    """The task of a recorded configuration.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``; the class may be given by its name alone where paramgen has it.

    Raises:
        ParamgenError: No such class, or arguments that it does not take.
    """
    path, arguments = str(config.get("class_path", "")), dict(config.get("init_args") or {})
    module, _, name = path.rpartition(".")
    known = {cls.__name__ for cls in Task.__subclasses__()}
    try:
        cls = getattr(importlib.import_module(module or __name__), name)
    except (ImportError, AttributeError) as error:
        raise ParamgenError(f"no task {path!r}; {near(name, known)}") from error
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise ParamgenError(f"no task {path!r}: it is not a subclass of paramgen.tasks.Task; {near(name, known)}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ParamgenError(f"task {path!r} does not take these arguments: {error}") from error
