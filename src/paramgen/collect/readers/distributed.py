"""Folders of torch.distributed.checkpoint: ``.metadata`` and ``*.distcp`` files.

``.metadata`` is a pickle. It is read with a table of the few names that torch writes there; nothing is imported for it.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from paramgen.collect.readers.found import below
from paramgen.core.io import regular_file
from paramgen.core.pickles import tensor_of_bytes
from paramgen.core.stored import LazyTensors
from paramgen.core.weight_files import find_state_dict
from paramgen.errors import ParamgenError, one_line

METADATA = ".metadata"


def is_distributed(folder: Path) -> bool:
    """Whether a folder is such a checkpoint."""
    return (folder / METADATA).is_file()


def read_distributed(folder: Path, key: str | None = None) -> Mapping[str, Any]:
    """The state dict in such a checkpoint; each tensor is put together when it is asked for.

    Args:
        folder: The checkpoint.
        key: Which of several state dicts.

    Raises:
        ParamgenError: A damaged or missing file, other objects in ``.metadata``, or several state dicts and no `key`.
    """
    path = folder / METADATA
    regular_file(path)
    try:
        metadata = _Unpickler(io.BytesIO(path.read_bytes())).load()
        tensors = {name: of for name, of in metadata.state_dict_metadata.items() if hasattr(of, "chunks")}
        paths = getattr(metadata, "planner_data", None) or {}
        pieces = _pieces(metadata.storage_data)
        placeholders = {
            n: torch.empty(tuple(of.size), dtype=of.properties.dtype, device="meta") for n, of in tensors.items()
        }
    except ParamgenError as error:
        raise ParamgenError(f"cannot read {path}: {error}") from error
    except Exception as error:  # damaged bytes can reach each error of pickle
        raise ParamgenError(f"cannot read {path}: damaged ({one_line(error)})") from error
    nested: dict[str, Any] = {}
    for name, placeholder in placeholders.items():
        *outer, last = [str(part) for part in paths.get(name, (name,))]
        place = nested
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = placeholder
    places = {id(placeholder): name for name, placeholder in placeholders.items()}
    chosen = {
        name: places[id(value)]
        for name, value in find_state_dict(nested, str(folder), key).items()
        if id(value) in places
    }
    return LazyTensors(chosen, lambda name: _assembled(folder, chosen[name], placeholders[chosen[name]], pieces))


def _pieces(storage: Mapping[Any, Any]) -> dict[str, list[tuple[tuple[int, ...], Any]]]:
    """Where the parts of each tensor are: the offset of a part, and its place in a file."""
    found: dict[str, list[tuple[tuple[int, ...], Any]]] = {}
    for index, place in storage.items():
        found.setdefault(index.fqn, []).append((tuple(getattr(index, "offset", None) or ()), place))
    return found


def _assembled(
    folder: Path, name: str, like: Tensor, pieces: Mapping[str, list[tuple[tuple[int, ...], Any]]]
) -> Tensor:
    parts, filled = pieces.get(name, []), 0
    stored = sum(min(place.length, regular_file(below(folder, str(place.relative_path)))) for _, place in parts)
    if like.nbytes > stored:
        raise ParamgenError(
            f"cannot read {folder}: {name!r} has {like.nbytes:,} bytes, its files hold {stored:,}: truncated"
        )
    whole = torch.empty(like.shape, dtype=like.dtype)
    for offset, place in parts:
        part = _part(folder, name, place)
        begins = offset or (0,) * whole.dim()
        fits = part.dim() == whole.dim() and all(
            b + n <= size for b, n, size in zip(begins, part.shape, whole.shape, strict=True)
        )
        if not fits:
            raise ParamgenError(
                f"cannot read {folder}: a part of {name!r} has shape {tuple(part.shape)} at {begins}, of {tuple(whole.shape)}"
            )
        whole[tuple(slice(b, b + n) for b, n in zip(begins, part.shape, strict=True))] = part
        filled += part.numel()
    if filled != whole.numel():
        raise ParamgenError(f"cannot read {folder}: the files hold {filled} of {whole.numel()} numbers of {name!r}")
    return whole


def _part(folder: Path, name: str, place: Any) -> Tensor:
    file = below(folder, str(place.relative_path))
    size = regular_file(file)
    if getattr(place, "transform_descriptors", None):
        raise ParamgenError(f"cannot read {file}: it is compressed; save it without transforms")
    if not (place.offset >= 0 and 0 < place.length <= size - place.offset):
        raise ParamgenError(f"cannot read {file}: truncated; {name!r} is at byte {place.offset} of {size}")
    with file.open("rb") as opened:
        opened.seek(place.offset)
        return tensor_of_bytes(opened.read(place.length), f"{file}, {name!r}")


class _Record:
    """An object of torch.distributed.checkpoint as its plain attributes."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update(part)
            elif part is not None:  # TensorProperties: dtype, layout, …
                self.dtype = next((p for p in parts if isinstance(p, torch.dtype)), None)


class _Unpickler(pickle.Unpickler):
    """Builds plain records, sizes and dtypes; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The inert class or function for a name in the file."""
        if module.startswith("torch.distributed.checkpoint.") or (module, name) == (
            "torch.serialization",
            "_get_layout",
        ):
            return _Record
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        known = {
            ("torch", "Size"): tuple,
            ("collections", "OrderedDict"): OrderedDict,
            ("pathlib", "PosixPath"): PurePosixPath,
            ("builtins", "set"): set,
        }
        if (module, name) not in known:
            raise ParamgenError(f"it holds an object of {module}.{name}, and loading it would run its code")
        return known[module, name]
