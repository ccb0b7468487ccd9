"""Shards: the work of one command, divided among processes or machines. Each writes a folder of its own and resumes by itself.

Shard i of N, counted from 1, writes ``OUT/shard-i-of-N``. The division depends on i and N alone, so shards need not run at the same time or
see each other's files. Files that all of them use are in ``OUT/shared``.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from paramgen.errors import ParamgenError

MERGE = "merge"  # --shard merge: put the shards together
BLOCK = 8  # most rows that a CPU computes together: float32 in 256 bits
SHARED = "shared"  # folder of files that all shards use
LAUNCHERS = (  # rank from 0, number of processes
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_NTASKS"),
    ("a SLURM array from 0", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
)
_NAME = re.compile(r"shard-(\d+)-of-(\d+)")

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of a command's work.

    Args:
        number: Which, from 1.
        count: How many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        """As typed: i/N."""
        return f"{self.number}/{self.count}"

    def share(self, items: Sequence[T]) -> list[T]:
        """Its items: every N-th one. Neighbouring items often cost the same, so that the shares do too."""
        return list(items[self.number - 1 :: self.count])

    def rows(self, n: int) -> list[int]:
        """Its rows of n that are computed together, in rising order.

        Rows are assigned in whole blocks if every shard gets one, and an incomplete last block stays last. A CPU computes the rows that do
        not fill a vector in another way: with any other division, they would equal those of a single process only up to rounding.
        """
        size = BLOCK if n > BLOCK * (self.count - 1) else 1
        return [row for first in self.share(range(0, n, size)) for row in range(first, min(first + size, n))]

    def folder(self, out: str | Path) -> Path:
        """Where it writes."""
        return Path(out) / f"shard-{self.number}-of-{self.count}"

    def require(self, units: int, what: str) -> None:
        """Refuse a shard without work.

        Args:
            units: What there is to divide.
            what: Its plural, for the message.

        Raises:
            ParamgenError: More shards than units.
        """
        if self.count > units:
            raise ParamgenError(f"--shard {self}: there are {units} {what} to divide; use at most {units} shards")


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The shard that ``--shard`` names; None without one, and for ``merge``.

    Args:
        text: ``i/N``; or ``auto``, to read the variables of torchrun or SLURM.
        environment: Those variables.

    Raises:
        ParamgenError: Anything else; ``auto`` where no launcher has set its variables.
    """
    if text is None or text == MERGE:
        return None
    if text == "auto":
        return _launched(environment)
    numbers = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = Shard(int(numbers[1]), int(numbers[2])) if numbers else None
    if shard is None or not 1 <= shard.number <= shard.count:
        raise ParamgenError(f"--shard is {text!r}, expected i/N with i from 1 to N (for example 1/4), auto or merge")
    return shard


def _launched(environment: Mapping[str, str]) -> Shard:
    """The shard of a process that a launcher started; a launcher of several processes comes before one of a single process."""
    found = [
        Shard(int(environment[rank]) + 1, int(environment[size]))
        for _, rank, size in LAUNCHERS
        if environment.get(rank, "").isdecimal() and environment.get(size, "").isdecimal()
    ]
    if not found:
        known = "; ".join(f"{rank} and {size} ({name})" for name, rank, size in LAUNCHERS)
        raise ParamgenError(f"--shard auto: no launcher has set its variables: {known}. Use --shard i/N")
    shard = max(found, key=lambda s: s.count > 1)
    if shard.number > shard.count:
        raise ParamgenError(f"--shard auto: process {shard.number - 1} of {shard.count}; number processes from 0")
    return shard


def shards_in(out: str | Path) -> list[Shard]:
    """The shards whose folders are in a folder, in order."""
    names = (_NAME.fullmatch(path.name) for path in Path(out).glob("shard-*-of-*") if path.is_dir())
    return sorted((Shard(int(n[1]), int(n[2])) for n in names if n), key=lambda s: (s.count, s.number))


def complete_shards(out: str | Path, last: str) -> list[Path]:
    """The folders of all shards of a folder, in order.

    Args:
        out: The folder that was given to each of them.
        last: The file that a shard writes last.

    Raises:
        ParamgenError: No shards, shards of several divisions, or a shard that is missing or incomplete; it is named.
    """
    found = shards_in(out)
    if not found:
        raise ParamgenError(f"{out} holds no shards: run the command with --shard i/N for each i from 1 to N first")
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        listed = " and ".join(map(str, counts))
        raise ParamgenError(f"{out} holds shards of {listed}: delete the folders of all but one division")
    everyone = [Shard(number, counts[0]) for number in range(1, counts[0] + 1)]
    missing = [str(s) for s in everyone if s not in found]
    if missing:
        raise ParamgenError(f"{out}: missing shard {', '.join(missing)}; run the command with --shard {missing[0]}")
    undone = [str(s) for s in everyone if not (s.folder(out) / last).exists()]
    if undone:
        raise ParamgenError(
            f"{out}: incomplete shard {', '.join(undone)}; resume it with --shard {undone[0]} (no {last} in its folder)"
        )
    return [shard.folder(out) for shard in everyone]


def finished(out: str | Path, shard: Shard, last: str) -> str:
    """A line for the user: how many shards are complete.

    Args:
        out: Of all shards.
        shard: One of them.
        last: The file that a shard writes last.
    """
    done = sum((Shard(number, shard.count).folder(out) / last).exists() for number in range(1, shard.count + 1))
    following = "put them together with the same command and --shard merge" if done == shard.count else "more to run"
    return f"shard {shard} is complete, {done} of {shard.count} are: {following}"


def delete_shards(out: str | Path) -> None:
    """Delete the shards of a folder, once what they hold is in the folder itself.

    They are first moved to ``OUT/shared``, which takes no time: a killed deletion leaves no part of a shard that would be resumed.
    """
    shared = Path(out) / SHARED
    shared.mkdir(exist_ok=True)
    for shard in shards_in(out):
        with suppress(OSError):  # a mounted folder stays where it is
            shard.folder(out).rename(shard.folder(shared))
    for folder in [*(shard.folder(out) for shard in shards_in(out)), shared]:
        shutil.rmtree(folder, ignore_errors=True)


def complete_merge(out: str | Path, last: str) -> bool:
    """Complete a merge that was interrupted while it deleted the shards.

    Args:
        out: The folder that was given to each of them.
        last: The file that a merge writes last.

    Returns:
        Whether there was one.
    """
    if shards_in(out) or not shards_in(Path(out) / SHARED) or not (Path(out) / last).exists():
        return False
    delete_shards(out)
    print(f"an earlier command merged the shards, in {out}")
    return True
