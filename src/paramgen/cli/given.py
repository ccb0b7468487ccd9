"""What a command line gives, read before anything heavy is imported: a mistake in a name is answered at once."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from paramgen.core.paths import find_config, find_zoo

EXPLAINING = ("-h", "--help", "--print_config")  # a command line that only explains itself needs no zoo
PLAN_OPTIONS = (
    "device",
    "devices",
    "ram",
    "efficiency",
    "advice",
    "json",
)  # of `paramgen plan`, in addition to those of a fit
NOTHING = ("", "null", "None")


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
    text = Path(found).read_text(errors="replace") if Path(found[:255]).is_file() else found
    try:
        config: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}


def zoo_given(words: list[str], key: str = "data.zoo", folder: str = "") -> str | None:
    """The zoo of a command line, of which the last word counts; None if it gives none, or in a form that only the parser reads.

    Args:
        words: The command line after the command.
        key: Dotted name of the option.
        folder: Of shipped configs whose names are accepted.

    Raises:
        ParamgenError: As :func:`read_config`.
    """
    zoo: Any = None
    for option in options(words):
        if option.name in ("-c", "--config"):
            value: Any = read_config(option.value, folder)
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            zoo = value or zoo
        elif option.name == f"--{key}":
            zoo = option.value
        elif f"--{key}".startswith(f"{option.name}."):
            return None
    return None if zoo is None or str(zoo) in NOTHING else str(zoo)


def require_zoo(words: list[str], key: str = "data.zoo", folder: str = "") -> None:
    """Refuse a command line whose zoo does not exist; arguments as of :func:`zoo_given`.

    Raises:
        ParamgenError: There is no such zoo; the command that makes it is named where there is one.
    """
    if any(name in EXPLAINING or name.endswith(".help") for name, _ in options(words)):
        return
    zoo = zoo_given(words, key, folder)
    if zoo is not None:
        find_zoo(zoo)


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
