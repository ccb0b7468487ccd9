"""Tasks and families from their recorded configurations."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from paramgen.core.arguments import check_arguments
from paramgen.core.trust import HOW, SOMEWHERE, UntrustedError, find_class, refusal
from paramgen.errors import ParamgenError, arguments_for
from paramgen.tasks.base import Task, TaskFamily
from paramgen.tasks.vision.networks import check_named_network

FETCHING = ("download", "pretrained")  # a zoo holds its weights; what the user did not request is not fetched


class Recorded(NamedTuple):
    """The content of a configuration."""

    class_path: str
    init_args: dict[str, Any]


def load_family(config: Mapping[str, Any], trust: bool = False, where: str = SOMEWHERE) -> TaskFamily:
    """The tasks of a recorded configuration: a family of many, or a single task, which is a family of one.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``; the name alone is enough for a class of paramgen.
        trust: Import classes that are not part of paramgen.
        where: The file that contains it, for messages.

    Raises:
        UntrustedError: `trust` is false, and the configuration names such a class, or a file to read or fetch.
        ParamgenError: No such class, or arguments that it does not take.
    """
    return _construct(config, "task family", trust, where)


def load_task(config: Mapping[str, Any], trust: bool = False, where: str = SOMEWHERE) -> Task:
    """The task of a recorded configuration; of a family of one task, that task.

    Args:
        config: As of :func:`load_family`.
        trust: Import classes that are not part of paramgen.
        where: The file that contains it, for messages.

    Raises:
        UntrustedError: As :func:`load_family`.
        ParamgenError: As :func:`load_family`, or a family of several tasks.
    """
    return _construct(config, "task", trust, where).task()


def _construct(config: Mapping[str, Any], what: str, trust: bool, where: str) -> TaskFamily:
    """The tasks of a configuration in a file, which messages call `what`.

    Unless the file is trusted, the class must be imported already, its network must be one of paramgen's, timm's or torchvision's, and
    nothing is downloaded.
    """
    path, arguments = _recorded(config, what, where)
    cls = find_class(path, TaskFamily, what, trust, where)  # type: ignore[type-abstract]
    if cls.within is not None and isinstance(arguments.get(cls.within), Mapping):
        arguments[cls.within] = load_family(arguments[cls.within], trust, where)
    if not trust:
        check_arguments(cls, arguments, f"{what} {path!r}")
        if "network" in arguments or "network_args" in arguments:
            check_named_network(str(arguments.get("network", "")), arguments.get("network_args") or {}, where)
        if "scorer" in arguments:
            raise refusal(str(arguments["scorer"]), where, "function")
        for name in cls.reads:
            _check_reading(name, arguments.get(name), where)
        arguments |= {name: False for name in FETCHING if name in arguments}
    with arguments_for(f"{what} {path!r}"):
        return cls(**cls.upgraded(arguments))


def _check_reading(name: str, value: Any, where: str) -> None:
    """Refuse an argument of a file that names something to read; a configuration of a model may hold no such name either."""
    if isinstance(value, str):
        raise UntrustedError(f"{where} gives {name}={value!r}, which would be read or fetched: that needs {HOW}")
    if isinstance(value, Mapping):
        check_named_network(str(value.get("model_type", "")), value, where)


def _recorded(config: Any, what: str, where: str) -> Recorded:
    """The class and the arguments of a configuration from a file."""
    arguments = (config.get("init_args") or {}) if isinstance(config, Mapping) else None
    if not isinstance(arguments, Mapping) or not isinstance(config.get("class_path", ""), str):
        raise ParamgenError(f"{where} describes no {what}: expected {{class_path: NAME, init_args: {{…}}}}")
    return Recorded(config.get("class_path", ""), dict(arguments))
