"""``auto`` in the config of a fit: replaced by the values of the backend's recipe before the command line is parsed."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from paramgen.core.paths import find_config
from paramgen.core.trust import find_class
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.recipe import Facts, needs_recipe, resolve

_log = logging.getLogger(__name__)


def with_recipes(words: list[str]) -> list[str]:
    """A command line whose configs have numbers in place of ``auto``; as it was where no config has any.

    Args:
        words: The command line after ``paramgen``. The zoo is the last ``--data.zoo``, else the config's own.

    Raises:
        ParamgenError: A config with ``auto`` and no zoo, or a zoo or backend that does not exist.
    """
    pairs = [*_options(words)]
    zoo = next((value for name, value in reversed(pairs) if name == "--data.zoo"), None)
    out = list(words)
    for name, value in pairs:
        if name in ("-c", "--config") and (text := _resolved(value, zoo)) is not None:
            out = [text if word == value else f"{name}={text}" if word == f"{name}={value}" else word for word in out]
    return out


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Names and values of options, from ``--name value`` and ``--name=value``."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            yield name, value if equals else after


def _resolved(name: str, zoo: str | None) -> str | None:
    """A config as YAML text without ``auto``; None if it has none, or is no config that can be read here."""
    found = find_config(name)
    text = Path(found).read_text(errors="replace") if Path(found[:255]).is_file() else found
    if "auto" not in text:
        return None
    try:
        config: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # the parser says what is wrong
    if not isinstance(config, dict) or not needs_recipe(config):
        return None
    zoo = zoo or (config.get("data") or {}).get("zoo")
    if not zoo:
        raise ParamgenError(f"config {name!r} follows the zoo: pass one as --data.zoo")
    model = config.get("model", {})
    path = model if isinstance(model, str) else model.get("class_path", "")
    backend = find_class(path, ParameterGenerator, "backend", trust=True)  # type: ignore[type-abstract]  # the user's own config
    facts = Facts.of(Zoo(zoo))
    settled = resolve(config, backend.recipe(facts))
    if not settled.chosen:
        return None
    listed = ", ".join(f"{key} {value}" for key, value in settled.chosen.items())
    _log.info("recipe of %s for %s: %s", backend.__name__, facts, listed)
    return yaml.safe_dump(settled.config, sort_keys=False)
