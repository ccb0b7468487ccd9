"""``--table``: what is known about each network.

A CSV file has a row per network: its ``path`` relative to the source, and the fields of a pattern as further columns. A safetensors file
has a vector per network under its path, for example an embedding of the text that describes its task: its condition.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from paramgen.collect.readers.pattern import FIELDS, check_field
from paramgen.core.io import cannot_read, read_tensors, regular_file
from paramgen.errors import ParamgenError, did_you_mean


def read_table(path: str) -> dict[str, dict[str, str]]:
    """The rows of a table, by the path of the network.

    Raises:
        ParamgenError: No such file, no row, no column ``path``, an unknown column, or a path that is missing or occurs twice.
    """
    rows: dict[str, dict[str, str]] = {}
    for line, row in enumerate(csv_rows(Path(path)), 2):
        if line == 2:
            if "path" not in row:
                raise ParamgenError(f"{path} has no column 'path'. {did_you_mean('path', row)}")
            for column in row.keys() - {"path"}:
                if column not in FIELDS:
                    check_field(column, path)
        name = row.pop("path")
        if not name or name in rows:
            raise ParamgenError(f"{path}, line {line}: {'no path' if not name else f'{name!r} is there twice'}")
        rows[name] = row
    if not rows:
        raise ParamgenError(f"{path} lists no network: expected a header with the column 'path', and a row per network")
    return rows


def read_vectors(path: str) -> dict[str, tuple[float, ...]]:
    """The vectors of a safetensors file, by the path of the network.

    Raises:
        ParamgenError: No such file, a damaged one, or tensors that are no vectors.
    """
    vectors = read_tensors(Path(path))
    for name, vector in vectors.items():
        if vector.dim() != 1 or not vector.is_floating_point():
            raise ParamgenError(
                f"{path}: {name!r} has shape {tuple(vector.shape)}, expected a vector of floating numbers"
            )
    return {name: tuple(vector.double().tolist()) for name, vector in vectors.items()}


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Each row of a CSV file with a header, as texts by column.

    Raises:
        ParamgenError: The file is missing, is not UTF-8, or a row has more or fewer cells than the header.
    """
    regular_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row in reader:
                if None in row or None in row.values():
                    raise ParamgenError(
                        f"{path}, line {reader.line_num}: expected {len(reader.fieldnames or [])} cells"
                    )
                yield {key.strip(): value.strip() for key, value in row.items()}
    except (OSError, ValueError, csv.Error) as error:
        raise cannot_read(path, error) from error
