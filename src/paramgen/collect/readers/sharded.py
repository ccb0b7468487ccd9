"""One network in several files, with an index of names (``*.safetensors.index.json``, ``*.bin.index.json``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from paramgen.collect.readers.found import below
from paramgen.core.io import read_json
from paramgen.core.stored import LazyTensors
from paramgen.core.weight_files import read_state_dict
from paramgen.errors import ParamgenError

INDEX_ENDS = (".safetensors.index.json", ".bin.index.json")


def read_index(path: Path) -> LazyTensors:
    """The state dict of an index; each tensor is read from its file when it is asked for, and one file is open at a time.

    Raises:
        ParamgenError: The index is damaged, or names a file that is missing or outside of its folder.
    """
    index = read_json(path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ParamgenError(f"{path}: expected a weight_map of names and files")
    for file in sorted({*places.values()}):
        if not below(path.parent, file).is_file():
            raise ParamgenError(f"{path} names {file!r}, which is missing")
    opened: dict[str, Mapping[str, Any]] = {}

    def tensor(name: str) -> Tensor:
        file = places[name]
        if file not in opened:
            opened.clear()
            opened[file] = read_state_dict(path.parent / file)
        if name not in opened[file]:
            raise ParamgenError(f"{path} says that {name!r} is in {file}, which lacks it")
        value: Tensor = opened[file][name]
        return value

    return LazyTensors(places, tensor)
