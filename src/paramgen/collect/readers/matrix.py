"""Many networks as the rows of one matrix, with the places of their tensors in a row.

The matrix is ``.npy``, a tensor in ``.pt``, ``.pth`` or ``.safetensors``, or a dataset of an HDF5 file. The places are in a file in the
same folder: ``layout.csv`` (Small CNN Zoo: ``varname, start_idx, end_idx, shape``), ``weight_dimensions.pt`` (weights2weights) or
``layout.json``, ``{"name": [shape]}`` in the order of the row. Scores and conditions are the columns of ``metrics.csv`` or
``metrics.csv.gz``, one row per network.
"""

import ast
import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paramgen.collect.readers.found import Found, Layout, Reading, Value
from paramgen.collect.readers.tables import csv_rows
from paramgen.core.io import cannot_read, read_json, regular_file
from paramgen.core.pickles import read_pickle
from paramgen.core.stored import Numbers, StoredTensors
from paramgen.core.weight_files import SUFFIXES
from paramgen.errors import ParamgenError, one_line, shown

_LAYOUTS = ("layout.csv", "layout.json", "weight_dimensions.pt")
_METRICS = ("metrics.csv", "metrics.csv.gz")
_HDF5 = (".h5", ".hdf5")
_MATRICES = (".npy", *_HDF5, *SUFFIXES)
_KERNEL = re.compile(r"(.*)/(kernel|bias|gamma|beta|moving_mean|moving_variance)(:\d+)?")  # names of TensorFlow
_TENSORFLOW = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class InRow(NamedTuple):
    """Where a tensor is in a row."""

    name: str
    begin: int
    shape: tuple[int, ...]
    flip: bool  # TensorFlow's order of axes: (height, width, in, out)

    @property
    def end(self) -> int:
        """After its last number."""
        return self.begin + prod(self.shape)


class FlatMatrix(Layout):
    """Networks as rows of a matrix."""

    name = "matrix"
    what = f"a matrix of networks ({', '.join(_MATRICES)}) and {' or '.join(_LAYOUTS)} next to it"

    def __init__(self, source: Path, reading: Reading) -> None:
        super().__init__(source, reading)
        folder = source if source.is_dir() else source.parent
        self._layout = next(folder / name for name in _LAYOUTS if (folder / name).is_file())
        self._file = source if source.is_file() else _only_matrix(folder)
        self.pieces = read_layout(self._layout)
        if any(piece.flip for piece in self.pieces):
            self.notes.append("weights are in TensorFlow's order of axes, and are turned to (out, in, height, width)")
        self._rows = _open(self._file, reading.key)
        if len(self._rows.shape) != 2 or self._rows.shape[1] != self.pieces[-1].end:
            raise ParamgenError(
                f"{self._file} has shape {tuple(self._rows.shape)}, expected (networks, {self.pieces[-1].end}) as {self._layout} says"
            )

    @staticmethod
    def recognises(source: Path) -> bool:
        """Whether there is a file of places, and a matrix."""
        folder = source if source.is_dir() else source.parent
        return any((folder / name).is_file() for name in _LAYOUTS) and (
            source.suffix in _MATRICES if source.is_file() else bool(_matrices(folder))
        )

    def find(self) -> Iterator[Found]:
        """A network per row, with the columns of the metrics."""
        folder = self._layout.parent
        metrics = next((folder / name for name in _METRICS if (folder / name).is_file()), None)
        rows = iter(_metrics(metrics)) if metrics is not None else None
        for i in range(self._rows.shape[0]):
            found = Found(f"row {i}", self._file, row=i, run=str(i), step=0)
            if rows is not None:
                row = next(rows, None)
                if row is None:
                    raise ParamgenError(f"{metrics} has {i} rows, {self._file} has {self._rows.shape[0]}")
                found = _with_metrics(found, row)
                if i == 0 and any(column.startswith("test") for column in row):
                    self.notes.append("scores on test splits are dropped")
            yield found
        if rows is not None and next(rows, None) is not None:
            raise ParamgenError(f"{metrics} has more rows than {self._file}, which has {self._rows.shape[0]}")

    def read(self, found: Found) -> Mapping[str, Any]:
        """One row, cut into its tensors."""
        row = _native(self._rows[found.row], self._file)
        return {
            piece.name: _turned(row[piece.begin : piece.end].view(piece.shape), piece.flip) for piece in self.pieces
        }

    def wrapped(self, found: Found) -> bool:
        """The file of places has the names."""
        return False


def _native(row: Any, path: Path) -> Tensor:
    """A row as a tensor, in this machine's order of bytes."""
    if isinstance(row, Tensor):
        return row
    if row.dtype.kind != "f":
        raise ParamgenError(f"{path} holds numbers of type {row.dtype}, expected floating ones")
    return torch.from_numpy(np.array(row, dtype=row.dtype.newbyteorder("=")))


def read_layout(path: Path) -> list[InRow]:
    """The tensors of a row, in order.

    Raises:
        ParamgenError: The file is damaged, or the tensors leave gaps or overlap.
    """
    if path.suffix == ".csv":
        pieces = [_csv_piece(row, f"{path}, line {i}") for i, row in enumerate(csv_rows(path), 2)]
        pieces.sort(key=lambda piece: piece.begin)
    else:
        shapes = read_json(path) if path.suffix == ".json" else read_pickle(path)
        if not isinstance(shapes, dict):
            raise ParamgenError(f"{path} holds {shown(shapes)}, expected shapes by name")
        pieces = []
        for name, shape in shapes.items():
            pieces.append(InRow(str(name), pieces[-1].end if pieces else 0, _shape(shape, f"{path}: {name}"), False))
    ends = [0, *(piece.end for piece in pieces)]
    for piece, end in zip(pieces, ends, strict=False):
        if piece.begin != end:
            raise ParamgenError(f"{path}: {piece.name!r} begins at {piece.begin}, the tensor before it ends at {end}")
    if not pieces:
        raise ParamgenError(f"{path} lists no tensors")
    return pieces


def _csv_piece(row: Mapping[str, str], where: str) -> InRow:
    try:
        name, begin, shape = row["varname"], int(row["start_idx"]), ast.literal_eval(row["shape"])
    except (KeyError, ValueError, SyntaxError) as error:
        raise ParamgenError(f"{where}: expected varname, start_idx and shape ({one_line(error)})") from error
    if match := _KERNEL.fullmatch(name):
        name = f"{match[1].replace('/', '.')}.{_TENSORFLOW.get(match[2], match[2])}"
        return InRow(name, begin, _shape(shape, where), match[2] == "kernel")
    return InRow(name.replace("/", "."), begin, _shape(shape, where), False)


def _shape(value: Any, where: str) -> tuple[int, ...]:
    """A shape, given alone or, as weights2weights does, after the flat one."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, list | tuple) for part in value):
        value = value[1]
    shape = (value,) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
    if not all(isinstance(n, int) and 0 < n < 2**40 for n in shape) or (not shape and value not in ((), [])):
        raise ParamgenError(f"{where}: shape is {shown(value)}, expected whole numbers")
    return shape


def _turned(tensor: Tensor, flip: bool) -> Tensor:
    """(height, width, in, out) as (out, in, height, width), and (in, out) as (out, in)."""
    if not flip or tensor.dim() < 2:
        return tensor
    *space, inputs, outputs = range(tensor.dim())
    return tensor.permute(outputs, inputs, *space).contiguous()


def _matrices(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.suffix in _MATRICES and p.name not in _LAYOUTS and not p.name.startswith(".")
    )


def _only_matrix(folder: Path) -> Path:
    """The matrix of a folder, which may hold statistics next to it."""
    found = _matrices(folder)
    named = [path for path in found if "weights" in path.stem.lower()] or found
    if len(named) > 1:
        names = ", ".join(path.name for path in named)
        raise ParamgenError(f"{folder} holds several matrices: {names}; give one of them as --source")
    return named[0]


class _NpyRows:
    """Rows of a ``.npy`` file, each read when it is asked for. Mapped pages would count as memory of the process.

    Raises:
        ParamgenError: The file is damaged, in column order, or holds objects.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                self.shape, by_column, self._dtype = read(file)
                self._start = file.tell()
        except (OSError, ValueError) as error:
            raise cannot_read(path, error) from error
        if by_column or self._dtype.hasobject:
            raise ParamgenError(
                f"{path} is in column order or holds objects; save it with np.save(file, np.ascontiguousarray(array))"
            )
        if self._start + prod(self.shape) * self._dtype.itemsize > regular_file(path):
            raise ParamgenError(f"cannot read {path}: truncated; its header says {self.shape} of {self._dtype}")

    def __getitem__(self, row: int) -> Any:
        size = self.shape[1]
        return np.fromfile(self._path, self._dtype, size, offset=self._start + row * size * self._dtype.itemsize)


class _TensorRows:
    """Rows of a matrix in a safetensors file, each read when it is asked for."""

    def __init__(self, stored: StoredTensors, name: str, shape: tuple[int, ...]) -> None:
        self.stored, self.name, self.shape = stored, name, shape

    def __getitem__(self, row: int) -> Tensor:
        return self.stored.read([Numbers(self.name, row * self.shape[1], self.shape[1])])[0]


def _open(path: Path, key: str | None) -> Any:
    """A matrix whose rows are read when they are asked for."""
    regular_file(path)
    if path.suffix == ".npy":
        return _NpyRows(path)
    if path.suffix in _HDF5:
        return _hdf5(path, key)
    if path.suffix == ".safetensors":
        stored = StoredTensors(path)
        name = _chosen(path, list(stored), key)
        return _TensorRows(stored, name, tuple(stored.shape(name)))
    saved = read_pickle(path, mapped=True)
    if isinstance(saved, dict):
        saved = saved[_chosen(path, [name for name, value in saved.items() if isinstance(value, Tensor)], key)]
    if not isinstance(saved, Tensor):
        raise ParamgenError(f"{path} holds {shown(saved)}, expected a tensor (networks, numbers)")
    return saved.detach()


def _hdf5(path: Path, key: str | None) -> Any:
    try:
        import h5py  # an optional dependency
    except ImportError as error:
        raise ParamgenError("HDF5 files need h5py, which is not installed: pip install 'paramgen[import]'") from error
    names: list[str] = []
    try:
        file = h5py.File(path, "r")
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.ndim == 2 else None
        )
        return file[_chosen(path, names, key)]
    except OSError as error:
        raise cannot_read(path, error) from error


def _chosen(path: Path, names: list[str], key: str | None) -> str:
    if key is not None and key in names:
        return key
    if key is not None or len(names) != 1:
        some = ", ".join(names) or "nothing"
        raise ParamgenError(f"{path} holds {some}; choose the matrix with --key")
    return names[0]


def _metrics(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, which may be compressed."""
    if path.suffix != ".gz":
        yield from csv_rows(path)
        return
    try:
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield {str(key).strip(): str(value).strip() for key, value in row.items()}
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise cannot_read(path, error) from error


def _with_metrics(found: Found, row: Mapping[str, str]) -> Found:
    """A network with the columns of its row: scores by split, ``config.NAME`` as conditions, and the run and step."""
    scores: dict[str, dict[str, float]] = {}
    condition: dict[str, Value] = {}
    changes: dict[str, Any] = {}
    for column, text in row.items():
        split, _, name = column.partition("_")
        number = _number(text)
        if split in ("train", "val", "validation") and name and number is not None:
            scores.setdefault("train" if split == "train" else "val", {})[name] = number
        elif column.startswith("config.") and text:
            if column == "config.seed":
                changes["seed"] = int(number or 0)
            else:
                condition[column.removeprefix("config.")] = text if number is None else number
        elif column in ("modeldir", "run") and text:
            changes["run"] = text
        elif column == "step" and number is not None:
            changes["step"] = int(number)
    return found.with_(scores=scores, condition=condition, **changes)


def _number(text: str) -> float | None:
    try:
        return value if np.isfinite(value := float(text)) else None
    except ValueError:
        return None
