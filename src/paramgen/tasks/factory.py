"""An object from its recorded configuration."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from paramgen.core.arguments import check_arguments
from paramgen.core.trust import SOMEWHERE, find_class, refusal
from paramgen.errors import ParamgenError
from paramgen.tasks.base import Task
from paramgen.tasks.vision.networks import check_named_network

T = TypeVar("T")

FETCHING = ("download", "pretrained")  # a zoo holds its weights; what the user has not asked for is not fetched


class Recorded(NamedTuple):
    """What a configuration says."""

    class_path: str
    init_args: dict[str, Any]


def recorded(config: Any, what: str, where: str = SOMEWHERE) -> Recorded:
    """The class and the arguments of a configuration from a file.

    Raises:
        ParamgenError: It is no configuration.
    """
    arguments = (config.get("init_args") or {}) if isinstance(config, Mapping) else None
    if not isinstance(arguments, Mapping) or not isinstance(config.get("class_path", ""), str):
        raise ParamgenError(f"{where} describes no {what}: expected {{class_path: NAME, init_args: {{…}}}}")
    return Recorded(config.get("class_path", ""), dict(arguments))


def construct(config: Mapping[str, Any], base: type[T], what: str, trust: bool = False, where: str = SOMEWHERE) -> T:
    """An instance of a subclass of `base`, from a configuration in a file.

    Unless the file is trusted, the class must be there already, its network must be one of paramgen's, timm's or torchvision's, and
    nothing is fetched.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``; the class may be given by its name alone where paramgen has it.
        base: What it must be a subclass of.
        what: What to call it in messages.
        trust: Import classes that are not part of paramgen, and do not check the arguments.
        where: The file, for messages.

    Raises:
        UntrustedError: `trust` is false, and a class would have to be imported or a file read or fetched.
        ParamgenError: No such class, or arguments that it does not take.
    """
    path, arguments = recorded(config, what, where)
    cls = find_class(path, base, what, trust, where)
    if not trust:
        check_arguments(cls, arguments, f"{what} {path!r}")
        if "network" in arguments or "network_args" in arguments:
            check_named_network(str(arguments.get("network", "")), arguments.get("network_args") or {}, where)
        if "scorer" in arguments:
            raise refusal(str(arguments["scorer"]), where, "function")
        arguments |= {name: False for name in FETCHING if name in arguments}
    if issubclass(cls, Task):
        arguments = cls.upgraded(arguments)
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ParamgenError(f"{what} {path!r} does not take these arguments: {error}") from error
