"""Checkpoints from elsewhere: which files of a folder they are, in which order, at which steps, and the state dicts in them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from paramgen.core.pickles import read_pickle
from paramgen.core.stored import StoredTensors
from paramgen.errors import ParamgenError

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_CONTAINERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "net")  # Lightning, timm and common habits
_MARKED = re.compile(r"(^|[._-])(last|latest|best|final)([._-]|$)", re.IGNORECASE)
_STEP = re.compile(r"(?<![a-z])(?:global[_-]?step|steps?|iter(?:ation)?s?)[=_-]?([0-9]+)", re.IGNORECASE)
_EPOCH = re.compile(r"(?<![a-z])(?:epochs?|ep)[=_-]?([0-9]+)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![0-9])(?<![0-9]\.)([0-9]+)(?![0-9])(?!\.[0-9])")  # not part of a decimal fraction


class Listing(NamedTuple):
    """Checkpoints of a folder in natural order, those marked as last or best after the others, and hidden files left out."""

    files: list[Path]
    hidden: list[Path]


def list_checkpoints(folder: str | Path) -> Listing:
    """The checkpoint files of a folder.

    Raises:
        ParamgenError: No such folder, or no checkpoint in it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ParamgenError(f"no folder {str(folder)!r}")
    paths = sorted((p for p in path.iterdir() if p.suffix in SUFFIXES), key=_natural)
    files = [p for p in paths if not p.name.startswith(".")]
    if not files:
        raise ParamgenError(f"no {', '.join(SUFFIXES)} file in {str(folder)!r}")
    return Listing(sorted(files, key=is_marked), [p for p in paths if p.name.startswith(".")])


def is_marked(path: Path) -> bool:
    """Whether a file's name says that it is the last or the best, which is often a copy of another."""
    return _MARKED.search(path.stem) is not None


def steps_from_names(files: Sequence[Path]) -> list[int]:
    """The training step of each checkpoint.

    The number after ``step`` or ``iter`` in its name, else the one after ``epoch``, else the last whole number. A rule holds where it gives
    every file a number of its own; where none does, steps are places in the order. Marked files without a number follow the others.
    """
    for rule in (_STEP, _EPOCH, _NUMBER):
        per_file = [[int(number) for number in rule.findall(path.stem)] for path in files]
        last = [numbers[-1] for numbers in per_file if numbers]
        complete = all(numbers or is_marked(path) for numbers, path in zip(per_file, files, strict=True))
        if last and complete and len(set(last)) == len(last):
            after = iter(range(max(last) + 1, max(last) + 1 + len(files)))
            return [numbers[-1] if numbers else next(after) for numbers in per_file]
    return [*range(len(files))]


def read_state_dict(path: str | Path) -> Mapping[str, Any]:
    """The state dict of a weights file: bare, or where Lightning, timm and others put it in a checkpoint.

    The tensors of a safetensors file are read when they are asked for.

    Raises:
        ParamgenError: The file is missing, damaged, or holds no state dict, or more than tensors and plain values.
    """
    if Path(path).suffix == ".safetensors":
        return StoredTensors(Path(path))
    saved = read_pickle(path)
    if not isinstance(saved, Mapping):
        raise ParamgenError(f"{path} holds a {type(saved).__name__}, expected a state dict")
    state = next((saved[key] for key in _CONTAINERS if isinstance(saved.get(key), Mapping)), saved)
    return {name: value for name, value in state.items() if isinstance(name, str)}


def _natural(path: Path) -> list[str | int]:
    """Numbers in names count as numbers: 8, 9, 10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
