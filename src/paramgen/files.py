"""Files that are whole or absent: atomic writes, checked reads."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from paramgen.errors import ParamgenError


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is at every moment the old file or the new one (temporary file, fsync, rename).

    Raises:
        ParamgenError: The disk is full or the folder cannot be written; what stood there before still stands.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # a temporary file is born 0600
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise ParamgenError(f"cannot write {path}: {what}; what was written before is whole") from error


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
