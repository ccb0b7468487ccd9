"""Checkpoint files from elsewhere: the state dict in them, their steps, and which files of a folder hold no network."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from paramgen.core.pickles import is_archive, mapped_tensors, read_pickle
from paramgen.core.stored import LazyTensors, StoredTensors, outline_of
from paramgen.errors import ParamgenError, did_you_mean

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_ENDS = (*SUFFIXES, ".pth.tar", ".pt.tar")  # timm's and older programs' checkpoints are no archives of tar
CONTAINERS = (  # keys under which training programs save a network's state dict
    "state_dict",
    "model",
    "model_state_dict",
    "module",
    "net",
    "ema",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
)
# of DistributedDataParallel, torch.compile, Lightning modules
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.")
_MARKED = re.compile(r"(^|[._-])(last|latest|best|final)([._-]|$)", re.IGNORECASE)
_STEP = re.compile(r"(?<![a-z])(?:global[_-]?step|steps?|iter(?:ation)?s?)[=_-]?([0-9]+)", re.IGNORECASE)
_EPOCH = re.compile(r"(?<![a-z])(?:epochs?|ep)[=_-]?([0-9]+)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![0-9])(?<![0-9]\.)([0-9]+)(?![0-9])(?!\.[0-9])")  # not part of a decimal fraction
_EMA = re.compile(r"(^|[._-])ema([._-]|$)", re.IGNORECASE)
_ASIDE = re.compile(
    r"(optim(izer)?s?|(lr[._-]?)?schedulers?|scaler|rng[._-]?states?|random[._-]?states?|training[._-]?args|dataloader)([._-].*)?"
    r"|.*[._-](optim(izer)?|optim_states|scheduler)",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)


def has_weight_suffix(path: Path) -> bool:
    """Whether a file's name ends as those of checkpoints do."""
    return path.name.endswith(_ENDS)


def is_aside(path: Path) -> bool:
    """Whether a file's name says that it holds the state of an optimizer, a scheduler or a training program, and no network."""
    return _ASIDE.fullmatch(path.stem) is not None


def is_marked(path: Path) -> bool:
    """Whether a file's name says that it is the last or the best, which is often a copy of another."""
    return _MARKED.search(path.stem) is not None


def steps_from_names(files: Sequence[Path], marked: Collection[Path] = ()) -> list[int]:
    """The training step of each checkpoint.

    The number after ``step`` or ``iter`` in its name, else the one after ``epoch``, else the last whole number. A rule holds where it gives
    every file a number of its own; where none does, steps are places in the order. Marked files without a number follow the others.

    Args:
        files: In order.
        marked: Files that are the last or the best of their run, in addition to those whose names say so.
    """
    for rule in (_STEP, _EPOCH, _NUMBER):
        per_file = [[int(number) for number in rule.findall(path.stem)] for path in files]
        last = [numbers[-1] for numbers in per_file if numbers]
        complete = all(
            numbers or is_marked(path) or path in marked for numbers, path in zip(per_file, files, strict=True)
        )
        if last and complete and len(set(last)) == len(last):
            after = iter(range(max(last) + 1, max(last) + 1 + len(files)))
            return [numbers[-1] if numbers else next(after) for numbers in per_file]
    return [*range(len(files))]


def read_state_dict(path: str | Path, key: str | None = None, first: bool = False) -> Mapping[str, Any]:
    """The state dict of a weights file: bare, or where a training program put it in a checkpoint.

    Tensors are read when they are asked for; of a pickle in the format before torch 1.6 all are in memory.

    Args:
        path: The file.
        key: Where in the checkpoint the state dict is: a key, or keys joined by dots. Default: the only place that holds one.
        first: Of several places, take the first in the order of :data:`CONTAINERS`, and log which.

    Raises:
        ParamgenError: The file is missing, damaged, or holds no state dict, several and no `key`, or more than tensors and plain values.
    """
    if Path(path).suffix == ".safetensors":
        return StoredTensors(Path(path))
    if key is None and first and len(found := _candidates(_checkpoint(path))) > 1:
        key = found[0]
        _log.info("%s holds several state dicts (%s): %s is used", path, ", ".join(found), key)

    def load() -> Mapping[str, Any]:
        return find_state_dict(_checkpoint(path), str(path), key)

    return mapped_tensors(load) if is_archive(path) else load()


def _checkpoint(path: str | Path) -> Mapping[Any, Any]:
    saved = read_pickle(path, mapped=True)
    if not isinstance(saved, Mapping):
        raise ParamgenError(f"{path} holds a {type(saved).__name__}, expected a state dict")
    return saved


def find_state_dict(saved: Mapping[Any, Any], where: str, key: str | None = None) -> Mapping[str, Any]:
    """The state dict in what a checkpoint holds.

    Args:
        saved: The content of a checkpoint, or a state dict.
        where: Names it in messages.
        key: As :func:`read_state_dict` takes it.

    Raises:
        ParamgenError: There is none, none at `key`, or several and no `key`; all are named.
    """
    places = containers(saved)
    if key is None:
        found = _candidates(saved)
        if len(found) > 1:
            raise ParamgenError(
                f"{where} holds several state dicts: {', '.join(found)}; choose one with --key, for example --key {found[0]}"
            )
        key = found[0]
    elif key not in places:
        available = did_you_mean(key, places) if places else "It holds a bare state dict; leave --key out."
        raise ParamgenError(f"{where} holds no state dict under {key!r}. {available}")
    return {name: value for name, value in (places[key] if key else saved).items() if isinstance(name, str)}


def _candidates(saved: Mapping[Any, Any]) -> list[str]:
    """Where a network's state dict may be in a checkpoint; the empty key is the checkpoint itself."""
    places = containers(saved)
    known = [place for place in places if _EMA.search(place) or {*place.split(".")} & {*CONTAINERS}]
    if known:
        order = [*CONTAINERS, *known]
        return sorted(known, key=lambda place: (order.index(place), place))
    bare = any(isinstance(value, Tensor) for value in saved.values())
    return [""] if bare or not places else list(places)


def containers(saved: Mapping[Any, Any], most: int = 2) -> dict[str, Mapping[Any, Any]]:
    """The state dicts in a checkpoint, by the keys that lead to them, joined by dots. Those of optimizers are left out.

    Args:
        saved: The content of a checkpoint.
        most: How deep they are nested at most.
    """
    found: dict[str, Mapping[Any, Any]] = {}
    for key, value in saved.items():
        if isinstance(key, str) and isinstance(value, Mapping) and not _ASIDE.fullmatch(key):
            if any(isinstance(item, Tensor) and isinstance(name, str) for name, item in value.items()):
                found[key] = value
            elif most > 1:
                found |= {f"{key}.{inner}": of for inner, of in containers(value, most - 1).items()}
    return found


def wrapper_prefix(names: Iterable[str], own: Collection[str] | None = None) -> str:
    """What wrappers of a network put before all names of its state dict: ``module.``, ``_orig_mod.``, ``model.`` or several of them.

    Args:
        names: Names of tensors in a file.
        own: Names in the network itself, where it is known: nothing is removed from names that it has.
    """
    names, prefix = list(names), ""
    while names:
        rest = [name.removeprefix(prefix) for name in names]
        if own is not None and any(name in own for name in rest):
            return prefix
        wrapper = next((w for w in WRAPPERS if all(name.startswith(w) and name != w for name in rest)), None)
        if wrapper is None:
            return prefix if own is None else ""
        prefix += wrapper
    return ""


def without_prefix(state: Mapping[str, Any], prefix: str) -> LazyTensors:
    """A state dict whose names begin after a prefix; names without it are left out."""
    names = {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}
    return LazyTensors(names, lambda name: state[names[name]], lambda name: outline_of(state, names[name]))


def natural_order(name: str) -> list[str | int]:
    """A sort key by which numbers in names count as numbers: 8, 9, 10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
