"""What a command line gives, read before anything heavy is imported: a mistake in a name is answered at once."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from paramgen.core.hub import is_hub, local_checkpoint
from paramgen.core.paths import find_config, find_zoo, find_zoo_or_recipe
from paramgen.errors import ParamgenError

EXPLAINING = ("-h", "--help", "--print_config")  # a command line that only explains itself needs no zoo
PLAN_OPTIONS = ("device", "devices", "ram", "efficiency", "advice", "json")  # of `paramgen plan`, beyond those of a fit
NOTHING = ("", "null", "None")
NEWEST = "last"  # as a checkpoint: the newest one of the fits in the folder of runs


class Option(NamedTuple):
    """An option of a command line."""

    name: str
    value: str


def options(words: list[str]) -> Iterator[Option]:
    """The options of a command line, from ``--name value`` and ``--name=value``."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            yield Option(name, value if equals else after)


def read_config(name: str, folder: str = "") -> dict[str, Any]:
    """A config; empty if it cannot be read here: the parser says what is wrong.

    Args:
        name: A path, a shipped name, or YAML text.
        folder: Of shipped configs, as of :func:`find_config`.

    Raises:
        ParamgenError: No such file and no such name.
    """
    found = find_config(name, folder)
    text = Path(found).read_text(encoding="utf-8", errors="replace") if Path(found[:255]).is_file() else found
    try:
        config: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}


def value_given(words: list[str], key: str, folder: str = "") -> str | None:
    """The value of an option, of which the last counts; None if there is none, or in a form that only the parser reads.

    Args:
        words: The command line after the command.
        key: Dotted name of the option.
        folder: Of shipped configs whose names are accepted.

    Raises:
        ParamgenError: As :func:`read_config`.
    """
    given: Any = None
    for option in options(words):
        if option.name in ("-c", "--config"):
            value: Any = read_config(option.value, folder)
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            given = value or given
        elif option.name == f"--{key}":
            given = option.value
        elif f"--{key}".startswith(f"{option.name}."):
            return None
    return None if given is None or str(given) in NOTHING else str(given)


def require_zoo(words: list[str], key: str = "zoo") -> None:
    """Refuse a command line whose zoo does not exist; arguments as of :func:`value_given`.

    Raises:
        ParamgenError: There is no such zoo; the command that makes it is named where there is one.
    """
    if not _explains(words) and (zoo := value_given(words, key)) is not None:
        find_zoo(zoo)


def require_fit(verb: str, words: list[str]) -> None:
    """Refuse a fit, or another verb of Lightning, whose zoo or checkpoint does not exist.

    Args:
        verb: One of Lightning's.
        words: The command line after it.

    Raises:
        ParamgenError: As :func:`require_zoo`; no such checkpoint, or none for a verb that needs one.
    """
    if _explains(words):
        return
    require_zoo(words, "data.zoo")
    require_zoo_to_follow(words)
    path = value_given(words, "ckpt_path")
    if path is None and verb != "fit":
        raise ParamgenError(f"{verb} needs a fitted generator: --ckpt_path")
    if path not in (None, NEWEST) and not is_hub(path):
        local_checkpoint(path)


def require_zoo_to_follow(words: list[str]) -> None:
    """Refuse a command line without a zoo whose config has settings that follow one.

    Raises:
        ParamgenError: The config is named.
    """
    from paramgen.generators.recipe import needs_recipe  # it imports torch

    configs = {value: read_config(value) for name, value in options(words) if name in ("-c", "--config")}
    follows = next((name for name, config in configs.items() if config.get("model") and needs_recipe(config)), None)
    if follows is not None and value_given(words, "data.zoo") is None:
        raise ParamgenError(f"config {follows!r} follows the zoo: pass one as --data.zoo")


def require_plan(words: list[str]) -> None:
    """Refuse a plan for a zoo that neither exists nor has a recipe, or for an unknown device.

    Raises:
        ParamgenError: Similar names are listed.
    """
    if _explains(words):
        return
    if (zoo := value_given(words, "data.zoo")) is not None:
        find_zoo_or_recipe(zoo)
    require_zoo_to_follow(words)
    if (device := value_given(words, "device")) is not None:
        from paramgen.planning.devices import find_device  # it imports torch

        find_device(device)


def _explains(words: list[str]) -> bool:
    """Whether a command line only explains itself."""
    return any(name in EXPLAINING or name.endswith(".help") for name, _ in options(words))


def without_options(words: list[str], names: Collection[str], flags: Collection[str] = ()) -> list[str]:
    """A command line without some options and their values.

    Args:
        words: The command line.
        names: Of the options, without their dashes.
        flags: Those of them that take no value.
    """
    kept, value = [], False
    for word in words:
        dashes, name, equals = word[:2], *word[2:].partition("=")[:2]
        if value:
            value = False
        elif dashes == "--" and name in names:
            value = not equals and name not in flags
        else:
            kept.append(word)
    return kept
