"""Progress of all shards of a command in one bar."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from rich.console import Console

from paramgen.core.counting import counted
from paramgen.core.io import read_json, write_json
from paramgen.core.progress import ProgressDisplay
from paramgen.core.shards import Shard
from paramgen.errors import ParamgenError

FILE = "progress.json"
SECONDS_BETWEEN_FILES = 2.0
SILENT = 60.0  # seconds without a new file after which a shard counts as stopped


class Count(NamedTuple):
    """How far a shard is.

    Args:
        done: Steps.
        total: Steps of all its work.
        written: Networks.
        running: Whether it was running a moment ago.
    """

    done: int
    total: int
    written: int
    running: bool


class ShardProgress(ProgressDisplay):
    """The sum of all shards whose folders are here. The first shard that is running shows it, the others show nothing.

    Every shard writes its own count to a small file. A shard that has not begun counts as large as this one.

    Args:
        shard: This one.
        out: Holds the folders of all.
        console: Where the bar goes; a line goes to stdout.
        clock: Seconds.
    """

    def __init__(
        self, shard: Shard, out: Path, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, clock)
        self._everyone = [Shard(number, shard.count).folder(out) / FILE for number in range(1, shard.count + 1)]
        self._file = self._everyone[shard.number - 1]
        self._own = Count(0, 0, 0, True)
        self._before = self._part = 0  # steps of parts that are done; steps of the current part
        self._saved = float("-inf")

    def __enter__(self) -> Self:
        """Announce this shard; its bar appears with the first count."""
        self._save(running=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar to the next shard."""
        super().__exit__()
        self._save(running=False)

    def expect(self, label: str, total: int) -> None:
        """The parts that follow are one count over all shards."""
        self._own = Count(0, total, self.written, True)
        super().begin(f"{label}, {counted(len(self._everyone), 'shard')}", total * len(self._everyone))

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Count a part: of the expected work, or of work before it, which is shown by itself."""
        if not self._own.total:
            self._show()
            super().begin(label, total, done)
            return
        self._before, self._part = self._before + self._part, total
        self.update(done)

    def update(self, done: int) -> None:
        """Show the sum of all shards, if this one is to show it and enough time has passed."""
        if not self._own.total:
            super().update(done)
            return
        self._own = Count(self._before + done, self._own.total, self.written, True)
        now = self._clock()
        if now - self._saved < SECONDS_BETWEEN_FILES and self._own.done < self._own.total:
            return
        self._saved = now
        self._save(running=True)
        if self._show():
            counts = [self._own if file == self._file else self._read(file) for file in self._everyone]
            self._total, own = sum(count.total for count in counts), self.written
            self.written = sum(count.written for count in counts)
            super().update(sum(count.done for count in counts))
            self.written = own

    def _show(self) -> bool:
        """Whether this shard shows the sum: none before it is running. Its bar appears or disappears."""
        shows = not any(self._read(file).running for file in self._everyone[: self._everyone.index(self._file)])
        if self._bar is not None and shows:
            self._bar.start()
        elif self._bar is not None:
            self._bar.stop()
        return shows

    def _read(self, file: Path) -> Count:
        """The count of another shard; nothing done where it has not begun."""
        with suppress(ParamgenError, OSError, KeyError, TypeError):
            saved = read_json(file)
            fresh = time.time() - file.stat().st_mtime < SILENT
            return Count(saved["done"], saved["total"] or self._own.total, saved["written"], saved["running"] and fresh)
        return Count(0, self._own.total, 0, False)

    def _save(self, running: bool) -> None:
        write_json(self._file, self._own._replace(running=running)._asdict())
