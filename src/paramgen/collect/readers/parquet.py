"""LoRA-WiSE: parquet files with a network per row, and a column of nested lists per tensor.

``label`` is the number of images that an adapter was trained on, and becomes its condition; ``name`` is its name.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paramgen.collect.readers.found import Found, Layout, Reading, Value
from paramgen.collect.readers.pattern import SPLIT_WORDS
from paramgen.core.io import cannot_read, regular_file
from paramgen.core.weight_files import natural_order
from paramgen.errors import ParamgenError, one_line

_LABEL, _NAME = "label", "name"


class LoraWise(Layout):
    """Rows of parquet files, one network each."""

    name = "parquet"
    what = "a .parquet file, or a folder of them, with a network per row and a column per tensor"

    def __init__(self, source: Path, reading: Reading) -> None:
        super().__init__(source, reading)
        self._at: tuple[Path, int] | None = None  # the next row
        self._rows: Iterator[Mapping[str, Any]] = iter(())

    @staticmethod
    def recognises(source: Path) -> bool:
        """Whether it is, or holds, a parquet file."""
        return bool(_files(source))

    def find(self) -> Iterator[Found]:
        """Each row of each file."""
        for path in _files(self.source):
            name = path.relative_to(self.source).as_posix() if path != self.source else path.name
            file = _opened(path)
            known = [column for column in (_NAME, _LABEL) if column in file.schema_arrow.names]
            facts = file.read(columns=known).to_pylist() if known else [{}] * file.metadata.num_rows
            split = next((word for word in SPLIT_WORDS if path.stem.startswith(word)), None)
            for i, fact in enumerate(facts):
                yield Found(
                    f"{name} row {i}",
                    path,
                    row=i,
                    run=str(fact.get(_NAME) or f"{name} row {i}"),
                    step=0,
                    split=None if split is None else SPLIT_WORDS[split],
                    condition=_condition(fact),
                )

    def read(self, found: Found) -> Mapping[str, Any]:
        """The tensors of one row. Rows that are read in order are read once."""
        assert found.row is not None
        if self._at != (found.path, found.row):
            self._rows, row = _rows(found.path), -1
            while row < found.row - 1:
                next(self._rows)
                row += 1
        row_values = next(self._rows)
        self._at = (found.path, found.row + 1)
        return {name: _tensor(value, f"{found.path}, row {found.row}: {name!r}") for name, value in row_values.items()}

    def wrapped(self, found: Found) -> bool:
        """The columns have the names."""
        return False


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(source.glob("*.parquet"), key=lambda path: natural_order(path.name))
    return [source] if source.suffix == ".parquet" else []


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet  # an optional dependency
    except ImportError as error:
        raise ParamgenError(
            "parquet files need pyarrow, which is not installed: pip install 'paramgen[import]'"
        ) from error
    regular_file(path)
    try:
        return parquet.ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise cannot_read(path, error) from error


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The tensors of each row as nested lists; one row at a time is decoded."""
    file = _opened(path)
    columns = [name for name in file.schema_arrow.names if name not in (_LABEL, _NAME)]
    for batch in file.iter_batches(batch_size=1, columns=columns):
        yield from batch.to_pylist()


def _condition(fact: Mapping[str, Any]) -> dict[str, Value]:
    label = fact.get(_LABEL)
    if label is None:
        return {}
    return {_LABEL: float(label) if isinstance(label, int | float) else str(label)}


def _tensor(value: Any, where: str) -> Tensor:
    """Numbers as float32 where that loses no digit: the columns are float64, the adapters were not."""
    try:
        numbers = torch.from_numpy(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError) as error:
        raise ParamgenError(f"{where} is not an array of numbers: {one_line(error)}") from error
    short = numbers.float()
    return short if torch.equal(short.double(), numbers) or not torch.isfinite(numbers).all() else numbers
