"""Files that ``torch.save`` wrote: read without running anything that they name, and within the memory that their size promises."""

import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paramgen.core.io import cannot_read, regular_file
from paramgen.core.stored import LazyTensors
from paramgen.errors import ParamgenError, first_line

_MAPPED = 16_000_000  # bytes


def read_pickle(path: str | Path, mapped: bool = False) -> Any:
    """What a file of ``torch.save`` holds: tensors, plain values, and inert objects that savers put next to weights.

    Args:
        path: A ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` file.
        mapped: Leave the numbers in the file until they are used, where its format permits that (torch 1.6 and later).

    Raises:
        ParamgenError: The file is missing, not a regular file, empty, damaged, compressed or a TorchScript archive, or it holds
            objects of other classes, or tensors without values or larger than the file.
    """
    size = regular_file(path)
    if size == 0:
        raise ParamgenError(f"cannot read {path}: the file is empty")
    archive = is_archive(path)
    if archive:
        _check_archive(Path(path), size)
    return _load(str(path), str(path), size, mmap=mapped and archive)


def is_archive(path: str | Path) -> bool:
    """Whether a file has the format of torch 1.6 and later, which can be mapped.

    Raises:
        ParamgenError: The file is missing, not a regular file, or cannot be read.
    """
    regular_file(path)
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise cannot_read(path, error) from error


def mapped_tensors(load: Callable[[], Mapping[str, Any]]) -> LazyTensors:
    """A state dict in a file that :func:`read_pickle` maps; each tensor is copied when it is asked for.

    Args:
        load: Maps the file and finds the state dict in it.
    """
    file = _MappedFile(load)
    return LazyTensors(file.state, file.copy, lambda name: file.state[name])


class _MappedFile:
    """Pages that were read count as memory of the process while they are mapped, so the file is mapped again after 16 MB or 1/16 of it."""

    def __init__(self, load: Callable[[], Mapping[str, Any]]) -> None:
        self.load, self.state, self.read = load, load(), 0
        size = sum(value.nbytes for value in self.state.values() if isinstance(value, Tensor))
        self.most = max(_MAPPED, size // 16)

    def copy(self, name: str) -> Any:
        """A value of the state dict; of a tensor, a copy in memory."""
        value = self.state[name]
        if not isinstance(value, Tensor):
            return value
        if self.read and self.read + value.nbytes > self.most:
            self.state, self.read = self.load(), 0
            value = self.state[name]
        self.read += value.nbytes
        return value.detach().clone()


def tensor_of_bytes(data: bytes, where: str) -> Tensor:
    """The tensor that ``torch.save`` wrote to these bytes.

    Args:
        data: The bytes.
        where: Names them in messages.

    Raises:
        ParamgenError: They are damaged, or hold something else.
    """
    saved = _load(BytesIO(data), where, len(data))
    if not isinstance(saved, Tensor):
        raise ParamgenError(f"cannot read {where}: it is a {type(saved).__name__}, expected a tensor")
    return saved


def _load(file: str | BytesIO, where: str, size: int, **options: Any) -> Any:
    try:
        with torch.serialization.safe_globals(_INERT):
            saved = torch.load(file, map_location="cpu", weights_only=True, **options)
    except Exception as error:  # pickle, zip and torch raise different errors, and damaged bytes can reach each of them
        raise ParamgenError(f"cannot read {where}: {_reason(error)}") from error
    for name, tensor in _tensors(saved):
        if problem := _problem(tensor, size):
            raise ParamgenError(f"cannot read {where}: tensor {name!r} {problem}")
    return saved


def _check_archive(path: Path, size: int) -> None:
    """Refuse TorchScript, and archives that would take more memory than the file has bytes: torch.save never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile lets errors of struct and codecs through
        raise ParamgenError(f"cannot read {path}: damaged or truncated archive ({error})") from error
    if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
        raise ParamgenError(
            f"cannot read {path}: it is a TorchScript archive; save the network's state_dict() with torch.save instead"
        )
    claimed = sum(entry.file_size for entry in entries)
    if claimed > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ParamgenError(
            f"cannot read {path}: its entries are compressed or damaged (they declare {claimed:,} bytes, the file has {size:,}); "
            "torch.save writes uncompressed files"
        )


def _reason(error: Exception) -> str:
    text = str(error)
    if match := re.search(r"GLOBAL ([\w.<>]+) was not an allowed|unsupported GLOBAL ([\w.<>]+)", text):
        return (
            f"it holds an object of {match[1] or match[2]}, and loading it would run its code; "
            "save the state_dict by itself, or as safetensors"
        )
    return f"damaged, or not written by torch.save ({first_line(error)[:200]})"


def _tensors(saved: Any) -> list[tuple[str, Tensor]]:
    """All tensors in nested containers, with the keys that lead to them; a container that occurs twice is visited once."""
    tensors, visited = [], set[int]()
    waiting = [("", saved)]
    while waiting:  # no recursion: a file may nest containers to any depth
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            tensors.append((name, value))
        elif isinstance(value, dict | list | tuple) and id(value) not in visited:
            visited.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{name}.{key!s:.80}" if name else f"{key!s:.80}", item) for key, item in items]
    return tensors


def _problem(tensor: Tensor, size: int) -> str | None:
    """Why a tensor of a file of `size` bytes is refused; None if it is accepted."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return "is sparse or nested, expected a dense one; save it after to_dense()"
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"is a {type(tensor).__name__}, expected a plain tensor"
    if tensor.device.type != "cpu" or tensor.is_quantized:
        return f"is {'quantized' if tensor.is_quantized else 'without values'}, expected plain numbers"
    if tensor.nbytes > size:
        return f"claims {tensor.nbytes:,} bytes, the file has {size:,}"
    return None


class _NumpyType:
    """Replaces ``numpy.dtype`` of a file: plain numbers only, without numpy's own unpickling."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[fiub][1248]", code):
            raise ValueError(f"numpy type {code!r:.20}, expected a plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


def _numpy_scalar(kind: _NumpyType, data: bytes | str) -> float:
    """The value of a numpy scalar as a Python number."""
    raw = data.encode("latin1") if isinstance(data, str) else data
    value: float = np.frombuffer(raw, dtype=kind.dtype, count=1)[0].item()
    return value


_INERT: list[Any] = [  # by their names in files; none of them accesses the disk or the network
    (Namespace, "argparse.Namespace"),
    *(
        (PurePosixPath, f"{module}.{kind}")
        for module in ("pathlib", "pathlib._local")
        for kind in ("PosixPath", "PurePosixPath")
    ),
    *(
        (PureWindowsPath, f"{module}.{kind}")
        for module in ("pathlib", "pathlib._local")
        for kind in ("WindowsPath", "PureWindowsPath")
    ),
    (_NumpyType, "numpy.dtype"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),  # before numpy 2
]
