"""Progress of a long command: a bar on a terminal, otherwise one line per minute."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paramgen.core.counting import counted

SECONDS_BETWEEN_LINES = 60.0
WORTH_SAYING = 5.0  # minimum duration of scoring, in seconds, to announce it


class ProgressDisplay:
    """Progress of several counts of steps, one after another.

    Args:
        console: Where the bar goes; a line goes to stdout.
        clock: Seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        console, self._clock = console or Console(), clock
        columns = (TextColumn("{task.description:22s}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console) if console.is_terminal else None
        self._said = clock()
        self.written = 0  # networks

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def expect(self, label: str, total: int) -> None:
        """Announce that the counts that follow add up to a total. Says nothing here: each has its own bar."""

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Count from `done` to `total`."""
        self._label, self._total, self._first, self._begun = label, total, done, self._clock()
        if self._bar is not None:
            self._task = self._bar.add_task(label, total=total, completed=done)

    def update(self, done: int) -> None:
        """Show the count, if enough time has passed."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self._total)
            return
        now = self._clock()
        if now - self._said >= SECONDS_BETWEEN_LINES and done > self._first:
            self._said = now
            remaining = (self._total - done) * (now - self._begun) / (done - self._first)
            written = f", {counted(self.written, 'network')} written" if self.written else ""
            print(f"{self._label}: {done:,} of {self._total:,}{written}, about {duration(remaining)} left", flush=True)


def duration(seconds: float) -> str:
    """Seconds as text in a suitable unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def announce_scoring(
    score: Callable[[], object], times: float, networks: int, clock: Callable[[], float] = time.monotonic
) -> None:
    """Announce how long scoring all networks will take, unless it is short.

    Args:
        score: Does a small part of it.
        times: How many such parts there are.
        networks: How many networks there are.
        clock: Seconds.
    """
    score()  # the first one takes longer
    start = clock()
    score()
    seconds = times * (clock() - start)
    if seconds >= WORTH_SAYING:
        print(f"scoring {counted(networks, 'network')} will take about {duration(seconds)}", flush=True)
