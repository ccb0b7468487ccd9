"""The files in which the shards of an evaluation keep the rows that they measured."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from paramgen.core.io import read_tensors, write_tensors
from paramgen.core.locks import locked
from paramgen.core.params import StateDict
from paramgen.core.shards import SHARED, Shard, shards_in
from paramgen.errors import ParamgenError
from paramgen.evaluation.context import Failures
from paramgen.evaluation.flags import Flag
from paramgen.evaluation.intervals import Resampled
from paramgen.evaluation.results import Points, Row, TaskScores
from paramgen.evaluation.rows import MeasuredRow

ROWS = "rows"  # folder of a shard


class RowStore:
    """Rows that shards measured, found by their place in the evaluation.

    Args:
        out: The folder that was given to all shards.
        key: What is evaluated and how. Rows of another key are not found.
        shard: Writes rows. None: reads them alone.
    """

    def __init__(self, out: Path, key: str, shard: Shard | None = None) -> None:
        self.out, self.key, self.shard = out, key, shard

    def get(self, number: int) -> MeasuredRow | None:
        """A row; None if no shard has measured it."""
        for shard in shards_in(self.out):
            path = shard.folder(self.out) / ROWS / f"{self._name(number)}.safetensors"
            if path.exists():
                return _measured(read_tensors(path))
        return None

    def put(self, number: int, measured: MeasuredRow) -> None:
        """Write a row."""
        assert self.shard is not None
        write_tensors(self.shard.folder(self.out) / ROWS / f"{self._name(number)}.safetensors", _tensors(measured))

    @contextmanager
    def claimed(self, number: int) -> Iterator[bool]:
        """Claim a row for this process; False if another shard has measured it or is measuring it."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.out / SHARED / self._name(number)))
            except ParamgenError:  # another shard holds it
                yield False
                return
            yield self.get(number) is None

    def _name(self, number: int) -> str:
        return f"row-{number}-{self.key[:16]}"


def _tensors(measured: MeasuredRow) -> StateDict:
    """A row as tensors by name, for a file."""
    row, resampled, renders, failures = measured
    text = json.dumps({"row": asdict(row), "failures": failures}).encode()
    tensors = {"json": torch.tensor(list(text), dtype=torch.uint8)}
    if resampled is not None:
        tensors |= {"score": resampled.score, "distance": resampled.distance}
    return tensors if renders is None else tensors | {"renders": renders}


def _measured(tensors: StateDict) -> MeasuredRow:
    """The inverse of :func:`_tensors`."""
    plain = json.loads(tensors["json"].numpy().tobytes())
    row, failures = plain["row"], plain["failures"]
    row["flags"], row["points"] = [Flag(*flag) for flag in row["flags"]], Points(**row["points"])
    row["against"] = ()  # found when all rows are there
    row["tasks"] = None if row["tasks"] is None else TaskScores(**row["tasks"])
    resampled = Resampled(tensors["score"], tensors["distance"]) if "score" in tensors else None
    return MeasuredRow(Row(**row), resampled, tensors.get("renders"), None if failures is None else Failures(*failures))
