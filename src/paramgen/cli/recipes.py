"""``auto`` in the config of a fit: replaced by the values of the backend's recipe before the command line is parsed."""

import logging
from collections.abc import Callable
from typing import Any

import yaml

from paramgen.cli.given import options, read_config, require_zoo_to_follow, value_given
from paramgen.core.trust import find_class
from paramgen.core.zoo import Zoo
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.recipe import Facts, needs_recipe, resolve

_log = logging.getLogger(__name__)


def facts_of(zoo: str) -> Facts:
    """What a recipe depends on, of a zoo by its name or folder."""
    return Facts.of(Zoo(zoo))


def with_recipes(words: list[str], facts: Callable[[str], Facts] = facts_of) -> list[str]:
    """A command line whose configs have numbers in place of ``auto``; as it was where no config has any.

    Args:
        words: The command line after ``paramgen``. The zoo is the last one that an option or a config names.
        facts: The facts of a zoo by its name or folder.

    Raises:
        ParamgenError: A config with ``auto`` and no zoo, or a zoo or backend that does not exist.
    """
    require_zoo_to_follow(words)
    zoo, out = value_given(words, "data.zoo"), list(words)
    for name, value in options(words):
        if name in ("-c", "--config") and (text := _resolved(read_config(value), zoo, facts)) is not None:
            out = [text if word == value else f"{name}={text}" if word == f"{name}={value}" else word for word in out]
    return out


def _resolved(config: dict[str, Any], zoo: str | None, facts: Callable[[str], Facts]) -> str | None:
    """A config of a generator as YAML text without ``auto``; None if it needs no recipe."""
    model = config.get("model")
    if not model or not needs_recipe(config):
        return None
    assert zoo is not None  # required above
    path = model if isinstance(model, str) else model.get("class_path", "")
    backend = find_class(path, ParameterGenerator, "backend", trust=True)  # type: ignore[type-abstract]  # the user's own config
    known = facts(zoo)
    settled = resolve(config, backend.recipe(known))
    if not settled.chosen:
        return None
    listed = ", ".join(f"{key} {value}" for key, value in settled.chosen.items())
    _log.info("recipe of %s for %s: %s", backend.__name__, known, listed)
    return yaml.safe_dump(settled.config, sort_keys=False)
