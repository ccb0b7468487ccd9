"""A journal: a header and one record a line as JSON, appended one by one; a damaged line does not affect the others."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from paramgen.core.io import cannot_read, regular_file, write_atomic
from paramgen.core.schema import parse_json
from paramgen.errors import ParamgenError, cannot_write

Record = TypeVar("Record")


class Contents(NamedTuple, Generic[Record]):
    """What a journal holds.

    Args:
        header: Its first line.
        records: The others, in order; those that cannot be read are left out.
        damaged: Numbers of the lines that cannot be read, from 1.
    """

    header: dict[str, Any]
    records: list[Record]
    damaged: list[int]


class Journal:
    """A file of JSON lines that is written by one process.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, value: dict[str, Any]) -> None:
        """Add a line. It outlives the process; :meth:`sync` makes it outlive a loss of power.

        Raises:
            ParamgenError: The disk is full or the file cannot be written; what was there before is kept.
        """
        try:
            with self.path.open("ab", buffering=0) as file:
                before, line = file.tell(), json.dumps(value, allow_nan=False).encode() + b"\n"
                if file.write(line) < len(line):
                    file.truncate(before)  # remove a partial line
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def sync(self) -> None:
        """Write what was appended to the disk.

        Raises:
            ParamgenError: The write failed.
        """
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def read(self, parse: Callable[[dict[str, Any]], Record]) -> Contents[Record] | None:
        """Its records, or None if there is no file or its first line is incomplete.

        Args:
            parse: Makes a record of a line after the header; raises ParamgenError, KeyError, TypeError or ValueError if it is invalid.

        Raises:
            ParamgenError: The file cannot be read, or its header cannot and records follow.
        """
        if not self.path.exists():
            return None
        regular_file(self.path)
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise cannot_read(self.path, error) from error
        complete, cut = lines[:-1], lines[-1]
        values = [_value(line) for line in complete]
        records = [None if value is None else _record(value, parse) for value in values[1:]]
        damaged = [number for number, record in enumerate(records, start=2) if record is None]
        if not values or values[0] is None:
            if any(record is not None for record in records):
                raise ParamgenError(f"{self.path}, line 1: damaged; delete the folder and run the command again")
            return None
        if cut:
            damaged.append(len(lines))
        return Contents(values[0], [record for record in records if record is not None], damaged)

    def rewrite(self, values: list[dict[str, Any]]) -> None:
        """Replace all of it, atomically."""
        write_atomic(self.path, "".join(json.dumps(value, allow_nan=False) + "\n" for value in values).encode())


def _value(line: bytes) -> dict[str, Any] | None:
    """A line's JSON object; None if the line does not hold one."""
    try:
        value = parse_json(line, "line")
    except ParamgenError:
        return None
    return value if isinstance(value, dict) else None


def _record(value: dict[str, Any], parse: Callable[[dict[str, Any]], Record]) -> Record | None:
    try:
        return parse(value)
    except (ParamgenError, KeyError, TypeError, ValueError):
        return None
