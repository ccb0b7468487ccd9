"""Files that are complete or absent: atomic writes, checked reads."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from math import isfinite, prod
from pathlib import Path, PurePath
from typing import IO, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from paramgen.core.locks import temporary_file, temporary_name
from paramgen.core.schema import check, parse_json
from paramgen.errors import ParamgenError, cannot_write


@contextmanager
def replacing(path: Path, sync: bool = True, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A file to write, which replaces `path` at the end of the block (temporary file, fsync, rename).

    If the process is killed, `path` is either the old file or the new one. An exception in the block leaves the old one.

    Args:
        path: The file to write; its folder is made if it does not exist.
        sync: Sync the folder too. Files that an index names can leave it to :func:`sync_folder` before the index is written.
        mode: Who may read and write the file, as ``chmod`` takes it.

    Raises:
        ParamgenError: The disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, mode)  # temporary files are created with mode 0600
            if os.name == "nt":
                file.close()  # Windows cannot rename an open file
            os.replace(file.name, path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_atomic(path: Path, data: bytes, sync: bool = True, mode: int = 0o644) -> None:
    """Write `data` atomically: `path` is always either the old file or the new one; see :func:`replacing`.

    Raises:
        ParamgenError: The disk is full or the folder cannot be written; the old file is kept.
    """
    with replacing(path, sync, mode) as file:
        file.write(data)


def link_or_copy(file: Path, target: Path) -> None:
    """Give a file a second name, replacing what is there; a copy where the file system has no links.

    Raises:
        ParamgenError: The disk is full or the folder cannot be written.
    """
    try:
        target.unlink(missing_ok=True)
        try:
            os.link(file, target)
        except OSError:
            with replacing(target, sync=False) as copy, file.open("rb") as source:
                shutil.copyfileobj(source, copy)
    except OSError as error:
        raise cannot_write(target, error) from error


def link(path: Path, target: Path) -> None:
    """Make `path` another name of a file next to it, atomically: if the process is killed, `path` is the old file or the new one.

    The file is not copied, and neither name needs the other. File systems without hard links get a symbolic one, and folders too.

    Raises:
        ParamgenError: The file system has no links, or the folder cannot be written.
    """
    temporary = temporary_name(path)
    try:
        try:
            os.link(target, temporary)
        except OSError:
            os.symlink(target.name, temporary, target.is_dir())
        if path.is_dir() and not path.is_symlink():
            replace_folder(temporary, path)
        else:
            os.replace(temporary, path)
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)  # POSIX keeps it where both names were the same file already


def replace_folder(new: Path, path: Path) -> None:
    """Rename `new` to `path` where one of them is a folder: systems cannot replace a folder in one step.

    If the process is killed in between, what was at `path` is next to it, under a name that ends with ``.old`` and the suffix.

    Raises:
        ParamgenError: The folder cannot be written.
    """
    old = path.with_name(f"{path.stem}.old{path.suffix}")
    try:
        remove(old)
        if os.path.lexists(path):
            os.replace(path, old)
        os.replace(new, path)
        remove(old)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """The sha256 of a file, or of the names and sha256 of the files in a folder."""
    if not path.is_dir():
        return sha256(path)
    files = sorted(file for file in path.iterdir() if file.is_file())
    return hashlib.sha256("".join(f"{file.name} {sha256(file)}\n" for file in files).encode()).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or deleted in a folder survive a loss of power, where the system can do so."""
    if os.name != "nt":  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems can sync files only
                raise
        finally:
            os.close(descriptor)


def plain_values(value: Any) -> Any:
    """Values for JSON: names for fields of dataclasses and named tuples, None for nan and inf, floats to 7 significant digits."""
    if is_dataclass(value):
        return {f.name: plain_values(getattr(value, f.name)) for f in fields(value)}
    if hasattr(value, "_asdict"):
        return plain_values(value._asdict())
    if isinstance(value, Mapping):
        return {str(k): plain_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if isfinite(value) else None
    return value


def write_json(path: Path, value: Any, mode: int = 0o644) -> str:
    """Write plain values as JSON, atomically; see :func:`replacing`. NaN and inf are refused: :func:`plain_values` replaces them.

    Returns:
        The file's sha256.
    """
    data = (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    write_atomic(path, data, mode=mode)
    return hashlib.sha256(data).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], sync: bool = True) -> str:
    """Write tensors as safetensors, atomically and one at a time; see :func:`replacing`. Tensors that share memory are each written out.

    Args:
        path: The file to write.
        tensors: Each is asked for twice, for the header and for its numbers.
        sync: As :func:`replacing` takes it.

    Returns:
        The file's sha256.
    """
    header, order = _header_of(tensors)
    digest = hashlib.sha256(header)
    with replacing(path, sync) as file:
        file.write(header)
        for name in order:
            numbers = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            file.write(numbers)
            digest.update(numbers)
    return digest.hexdigest()


def _header_of(tensors: Mapping[str, Tensor]) -> tuple[bytes, list[str]]:
    """The header that safetensors itself writes, and the tensors in its order: by dtype, then by name."""
    kinds = {name: (_NAMES[tensor.dtype], list(tensor.shape), tensor.nbytes) for name, tensor in tensors.items()}
    rank = list(_DTYPES)
    order = sorted(kinds, key=lambda name: (-rank.index(kinds[name][0]), name))
    entries, end = {}, 0
    for name in order:
        dtype, shape, size = kinds[name]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    return len(text).to_bytes(8, "little") + text, order


def regular_file(path: str | Path) -> int:
    """The size in bytes of a file that can be read without waiting: no directory, device, pipe or socket.

    Raises:
        ParamgenError: The file is missing or is not a regular file; it is named.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise cannot_read(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise ParamgenError(f"cannot read {path}: it is {kind}, expected a regular file")
    return status.st_size


def inside(folder: Path, name: str) -> Path:
    """The path of a file that is named in data: a relative path that does not leave its folder, with links resolved.

    Args:
        folder: Where the data are.
        name: As they name it.

    Raises:
        ParamgenError: It is absolute, goes up, or is or goes through a link to another place; both are named.
    """
    path, parts = folder / name, PurePath(name).parts
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise cannot_read(path, error) from error
    plain = parts and not PurePath(name).is_absolute() and ".." not in parts
    if not stays or not plain or any(len(part.encode()) > MAX_NAME for part in parts):
        raise ParamgenError(
            f"cannot read {name!r:.200}: expected a path inside of {folder}, without '..' and links that lead out of it"
        )
    return path


class Signed(NamedTuple):
    """What was read from a file."""

    value: Any
    sha256: str  # of the file


def read_json(path: Path, schema: str | None = None) -> Any:
    """Read JSON; arguments and errors as of :func:`read_signed`."""
    return read_signed(path, schema).value


def read_signed(path: Path, schema: str | None = None) -> Signed:
    """Read JSON, with the digest of the bytes that were read.

    Args:
        path: The file.
        schema: What it must fit, as :func:`paramgen.core.schema.check` takes it.

    Raises:
        ParamgenError: The file is missing, is not valid JSON, or does not fit; file and field are named.
    """
    regular_file(path)
    try:
        data = path.read_bytes()
        value = parse_json(data, str(path))
    except OSError as error:
        raise cannot_read(path, error) from error
    if schema is not None:
        check(value, schema, str(path))
    return Signed(value, hashlib.sha256(data).hexdigest())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ParamgenError: The file is missing, truncated or altered; it is named.
    """
    read_header(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ParamgenError(f"cannot read {path}: damaged or not safetensors ({error})") from error


class TensorPlace(NamedTuple):
    """Where a tensor of a safetensors file is, in bytes from the start of the file."""

    dtype: torch.dtype
    shape: list[int]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, TensorPlace]:
    """The places of the tensors of a safetensors file, checked against its size before memory is allocated for what it declares.

    The format is 8 bytes of header length, a JSON header of offsets, and the data without gaps (huggingface/safetensors).

    Raises:
        ParamgenError: The file is missing, truncated or altered; it is named.
    """
    size = regular_file(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise ParamgenError(
                    f"cannot read {path}: truncated or not safetensors (a header of {length:,} bytes in {size:,})"
                )
            header = parse_json(file.read(length), f"the header of {path}")
    except OSError as error:
        raise cannot_read(path, error) from error
    check(header, "safetensors", f"the header of {path}")
    header.pop("__metadata__", None)
    start, end, places = 8 + length, 8 + length, {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        place = TensorPlace(dtype, shape, *(start + offset for offset in entry["data_offsets"]))
        fits = place.end - place.begin == prod(shape) * dtype.itemsize and prod(filter(None, shape)) < 2**60
        if place.begin != end or not fits:
            raise ParamgenError(
                f"cannot read {path}: tensor {name!r:.200} of shape {shape} and dtype {entry['dtype']} does not fit its bytes "
                f"{entry['data_offsets']}; the file was modified or is damaged"
            )
        end, places[name] = place.end, place
    if end != size:
        raise ParamgenError(f"cannot read {path}: truncated or modified ({size:,} bytes, its header says {end:,})")
    return {name: places[name] for name in header}


def cannot_read(path: str | Path, error: Exception) -> ParamgenError:
    """The error to raise when a file cannot be read."""
    missing = isinstance(error, FileNotFoundError)
    why = "no such file" if missing else getattr(error, "strerror", None) or str(error)
    return ParamgenError(f"cannot read {path}: {why}")


def sha256(path: Path) -> str:
    """A file's sha256, read in pieces.

    Raises:
        ParamgenError: The file is missing or cannot be read; it is named.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error


MAX_NAME = 255  # bytes of a file name on all common file systems
MAX_HEADER = 100_000_000  # bytes; the format's own limit
_DTYPES = {  # in the order of the library's files, from back to front
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
