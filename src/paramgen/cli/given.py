"""What a command line gives, read before anything heavy is imported: a mistake in a name is answered at once."""

import ast
from collections.abc import Collection, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from paramgen.core.hub import is_hub, local_checkpoint
from paramgen.core.paths import find_config, find_zoo, find_zoo_or_recipe
from paramgen.errors import ParamgenError, did_you_mean, one_line, shown
from paramgen.generators.recipe import needs_recipe

EXPLAINING = ("-h", "--help", "--print_config")  # a command line that only explains itself needs no zoo
PLAN_OPTIONS = ("device", "devices", "ram", "efficiency", "advice", "json")  # of `paramgen plan`, beyond those of a fit
NOTHING = ("", "null", "None")
NEWEST = "last"  # as a checkpoint: the newest one of the fits in the folder of runs
SECTIONS = {
    "trainer": "lightning.pytorch.trainer.trainer.Trainer",
    "data": "paramgen.generators.data.ParameterDataModule",
    "checkpoint": "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "lr_monitor": "lightning.pytorch.callbacks.lr_monitor.LearningRateMonitor",
    "quality": "paramgen.generators.callbacks.SampleQuality",
    "divergence": "paramgen.generators.divergence.Divergence",
    "model": None,  # of any package
    "stop_requests": None,  # it has no settings
}
"""Sections of a fit's config, and the class whose arguments each sets. All of them import Lightning, which takes seconds."""


class Option(NamedTuple):
    """An option of a command line."""

    name: str
    value: str


def options(words: list[str]) -> Iterator[Option]:
    """The options of a command line, from ``--name value`` and ``--name=value``."""
    for word, after in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            yield Option(name, value if equals else after)


def read_config(name: str, folder: str = "") -> dict[str, Any]:
    """A config.

    Args:
        name: A path, a shipped name, or YAML text.
        folder: Of shipped configs, as of :func:`find_config`.

    Raises:
        ParamgenError: No such file and no such name, or it is not YAML with names and values.
    """
    found = find_config(name, folder)
    try:
        config: Any = yaml.safe_load(Path(found).read_bytes() if Path(found[:255]).is_file() else found)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamgenError(f"config {name!r} is not valid YAML: {one_line(error)}") from error
    if config is not None and not isinstance(config, dict):
        raise ParamgenError(f"config {name!r} is {shown(config)}, expected settings: NAME: VALUE")
    return config or {}


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


@cache
def arguments_in_source(path: str, method: str = "__init__") -> list[str]:
    """Names of the arguments of a method, read from its source without importing it; none if they are not all there.

    Args:
        path: Its class, ``package.module.Class``.
        method: Its name.
    """
    (package, *modules), name = (parts := path.split("."))[:-1], parts[-1]
    found = find_spec(package)
    for folder in (found and found.submodule_search_locations) or ():
        if (file := Path(folder, *modules).with_suffix(".py")).is_file():
            classes = [node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.ClassDef)]
            made = [node for cls in classes if cls.name == name for node in cls.body]
            takes = [node.args for node in made if isinstance(node, ast.FunctionDef) and node.name == method]
            return [arg.arg for args in takes if args.kwarg is None for arg in [*args.args[1:], *args.kwonlyargs]]
    return []


def require_known_names(command: str, words: list[str]) -> None:
    """Refuse options that a fit does not have, and settings that the class of a section does not have, also in configs.

    Args:
        command: One of Lightning's verbs, or ``plan``.
        words: The command line after it.

    Raises:
        ParamgenError: Similar names are listed.
    """
    for option in options(words):
        if option.name in ("-c", "--config"):
            for section, part in read_config(option.value).items():
                for setting in part if isinstance(part, dict) else ():
                    _require_setting(section, setting)
        elif option.name.startswith("--"):
            section, dot, rest = option.name.removeprefix("--").partition(".")
            if dot:
                _require_setting(section, rest.partition(".")[0].removesuffix("+"))  # --trainer.callbacks+=NAME appends
            else:
                _require_option(command, section)


def _require_setting(section: str, setting: str) -> None:
    if section not in SECTIONS:
        raise ParamgenError(f"a fit has no section {section!r}. {did_you_mean(section, SECTIONS)}")
    known = _settings(section)
    if known and setting not in known:
        raise ParamgenError(f"{section} has no setting {setting!r}. {did_you_mean(setting, known)}")


def _require_option(command: str, name: str) -> None:
    """Refuse an option that is neither one of the command nor a whole section; settings of sections are suggested too."""
    own = PLAN_OPTIONS if command == "plan" else arguments_in_source(str(SECTIONS["trainer"]), command)
    known = [*own, *SECTIONS, "config", "seed_everything"]
    if own and name not in known:
        settings = [f"{section}.{setting}" for section in SECTIONS for setting in _settings(section)]
        listed = [f"--{other}" for other in (*known, *settings)]
        raise ParamgenError(f"unknown option --{name}. {did_you_mean(f'--{name}', listed)}")


def _settings(section: str) -> list[str]:
    return [] if (path := SECTIONS[section]) is None else arguments_in_source(path)


def require_zoo(words: list[str], key: str = "zoo") -> None:
    """Refuse a command line whose zoo does not exist; arguments as of :func:`value_given`.

    Raises:
        ParamgenError: There is no such zoo; the command that makes it is named where there is one.
    """
    if not _explains(words) and (zoo := value_given(words, key)) is not None:
        find_zoo(zoo)


def require_recipe(command: str, words: list[str]) -> None:
    """Refuse a config that cannot be read, or a recipe of a zoo that is for the other command.

    Args:
        command: ``collect``, for zoos of one task, or ``collect_tasks``.
        words: The command line after it.

    Raises:
        ParamgenError: The command of the recipe is named.
    """
    other, key = ("collect_tasks", "family") if command == "collect" else ("collect", "task")
    for option in options(words):
        if option.name in ("-c", "--config") and key in read_config(option.value, "zoo"):
            raise ParamgenError(f"config {option.value!r} is for `paramgen {other}`")


def require_fit(verb: str, words: list[str]) -> None:
    """Refuse a fit, or another verb of Lightning, whose zoo or checkpoint does not exist.

    Args:
        verb: One of Lightning's.
        words: The command line after it.

    Raises:
        ParamgenError: As :func:`require_zoo`; an unknown setting; no such checkpoint, or none for a verb that needs one.
    """
    if _explains(words):
        return
    require_known_names(verb, words)
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
    configs = {value: read_config(value) for name, value in options(words) if name in ("-c", "--config")}
    follows = next((name for name, config in configs.items() if config.get("model") and needs_recipe(config)), None)
    if follows is not None and value_given(words, "data.zoo") is None:
        raise ParamgenError(f"config {follows!r} follows the zoo: pass one as --data.zoo")


def require_plan(words: list[str]) -> None:
    """Refuse a plan for a zoo that neither exists nor has a recipe, for an unknown device, or with an unknown setting.

    Raises:
        ParamgenError: Similar names are listed.
    """
    if _explains(words):
        return
    require_known_names("plan", words)
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
