"""Files that are whole or absent: atomic writes, checked reads."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from paramgen.errors import ParamgenError, cannot_write
from paramgen.locks import temporary_file


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` at the end of the block, and not before (temporary file, fsync, rename).

    Killed at any moment, `path` is the old file or the new one; an exception in the block leaves the old one.

    Args:
        path: The file to write; its folder is made if it does not exist.

    Raises:
        ParamgenError: The disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # a temporary file is born 0600
            if os.name == "nt":
                file.close()  # Windows renames no open file
            os.replace(file.name, path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is at every moment the old file or the new one.

    Raises:
        ParamgenError: The disk is full or the folder cannot be written; the old file is kept.
    """
    with replacing(path) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or deleted in a folder survive a loss of power, where the system can do so."""
    if os.name != "nt":  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync files alone
                raise
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, atomically.

    Returns:
        The file's sha256.
    """
    data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def regular_file(path: str | Path) -> int:
    """The size in bytes of a file that can be read without waiting: no directory, device, pipe or socket.

    Raises:
        ParamgenError: No such file, or it is none of that kind; it is named.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        why = getattr(error, "strerror", None) or str(error)
        raise ParamgenError(f"cannot read {path}: {why[:1].lower()}{why[1:]}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise ParamgenError(f"cannot read {path}: it is {kind}, expected a regular file")
    return status.st_size


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ParamgenError: The file is missing, truncated or altered; it is named.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        why = "no such file" if not Path(path).exists() else f"damaged or not safetensors ({error})"
        raise ParamgenError(f"cannot read {path}: {why}") from error


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ParamgenError: The file is missing or is no JSON; it is named.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ParamgenError(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ParamgenError(f"{path} is not valid JSON: {error}") from error


def sha256(path: Path) -> str:
    """A file's sha256, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def map_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file memory-mapped: its tensors are read only where they are touched; do not write to them.

    The format is 8 bytes of header length, a JSON header of offsets, and the data (huggingface/safetensors).

    Raises:
        ParamgenError: The file is missing or shorter than its header says; it is named.
    """
    try:
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_size))
        start, size = 8 + header_size, path.stat().st_size
        data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = (start + offset for offset in entry["data_offsets"])
                if end > size:
                    raise ParamgenError(f"cannot read {path}: truncated ({size} bytes of {end})")
                tensors[name] = data[begin:end].view(_DTYPES[entry["dtype"]]).view(entry["shape"])
    except (OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise ParamgenError(f"cannot read {path}: damaged or not safetensors ({error})") from error
    return tensors


_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
