"""Provenance of a result, in a ``made.json`` next to it: a result of different settings is never reused.

The settings hold everything that determines the result: configuration, arguments, seed, and the checksums of its input files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from paramgen.core.io import fingerprint, read_json, write_json

RECORD = "made.json"


class ResultStatus(NamedTuple):
    """What exists at the path.

    Args:
        state: Nothing, the result of the same settings, or another one.
        reason: Why it is another one.
        recorded: Whether its checksum is recorded; false if the command stopped before that.
    """

    state: Literal["nothing", "same", "other"]
    reason: str = ""
    recorded: bool = True


@dataclass(frozen=True)
class RecordedResult:
    """A result and the settings that determine it.

    Args:
        path: The file of the result; of several files, the one that is written last. A checkpoint may be a folder.
        settings: Everything that determines it, as plain values; may be nested.
        whole: The file is complete whenever it is there. A checkpoint is there before its fit ends.
        record: File of this record. Default: ``made.json`` next to the result.
    """

    path: Path
    settings: Mapping[str, Any]
    whole: bool = True
    record: Path | None = None

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The settings by dotted name, as JSON gives them back."""
        settings: dict[str, Any] = json.loads(json.dumps(dict(sorted(_flat(self.settings).items()))))
        return settings

    @property
    def fingerprint(self) -> str:
        """sha256 of the settings."""
        return hashlib.sha256(json.dumps(self.flat).encode()).hexdigest()

    def status(self) -> ResultStatus:
        """Look up the existing result.

        Raises:
            ParamgenError: The record is damaged.
        """
        exists = self.path.exists()
        if not self._record.exists():
            return (
                ResultStatus("other", f"has no {self._record.name} with its settings")
                if exists
                else ResultStatus("nothing")
            )
        record = read_json(self._record, "made")
        if record["fingerprint"] != self.fingerprint:
            return ResultStatus("other", difference(record["settings"], self.flat))
        if not exists:
            return ResultStatus("nothing")
        if record["sha256"] is None:
            return ResultStatus("same", recorded=False) if self.whole else ResultStatus("nothing")
        if record["sha256"] != fingerprint(self.path):
            return ResultStatus("other", f"was modified: the checksum of {self.path.name} differs")
        return ResultStatus("same")

    def begin(self) -> None:
        """Record what is about to be made."""
        self._write(None)

    def finish(self) -> None:
        """Record what was made."""
        self._write(fingerprint(self.path))

    def forget(self) -> None:
        """Delete the record, so that the result is made again the next time."""
        self._record.unlink()

    @property
    def _record(self) -> Path:
        return self.record or self.path.parent / RECORD

    def _write(self, digest: str | None) -> None:
        record = {"settings": self.flat, "fingerprint": self.fingerprint, "file": self.path.name, "sha256": digest}
        write_json(self._record, record)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first setting that differs, in words: ``was made with optim.lr=0.001, now 0.01``."""
    key = min(name for name in {*old, *new} if _shown(old, name) != _shown(new, name))
    return f"was made with {key}={_shown(old, key)}, now {_shown(new, key)}"


def _shown(settings: Mapping[str, Any], key: str) -> str:
    """A setting as JSON, which tells 1, 1.0 and true apart, as the fingerprint does."""
    return json.dumps(settings[key]) if key in settings else "none given"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat
