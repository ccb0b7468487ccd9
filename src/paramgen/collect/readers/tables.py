"""``--table``: a CSV file with a row per network: its ``path`` relative to the source, and the fields of a pattern as further columns."""

import csv
from collections.abc import Iterator
from pathlib import Path

from paramgen.collect.readers.pattern import FIELDS, check_field
from paramgen.core.io import cannot_read, regular_file
from paramgen.errors import ParamgenError, did_you_mean


def read_table(path: str) -> dict[str, dict[str, str]]:
    """The rows of a table, by the path of the network.

    Raises:
        ParamgenError: No such file, no column ``path``, an unknown column, or a path that is missing or occurs twice.
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
    return rows


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
