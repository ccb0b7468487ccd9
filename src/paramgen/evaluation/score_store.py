"""Scores that the shards of an evaluation computed, found by what was scored.

A shard scores its part of every row's networks. To put shards together, the whole evaluation runs with these scores; those that no shard
computed are computed then, so that a shard on another processor costs time and never a wrong score. N: networks of a row. M: items.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core.io import write_tensors
from paramgen.core.params import StateDict, state_digest
from paramgen.core.shards import Shard, shards_in
from paramgen.core.stored import StoredTensors
from paramgen.evaluation.network_set import NetworkStates
from paramgen.tasks.score import Scores

DONE = "scores.json"  # written last by a shard
_KEY = 32  # bytes of a sha256

Measure = Callable[[Sequence[int]], Scores]
"""Scores of some of N networks, given by their places."""


class _File:
    """Scores as tensors by name; those in a file are read when the first of them is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.keys = [bytes(row).hex() for row in tensors["keys"].tolist()]
        self.failed: dict[str, str] = json.loads(bytes(tensors["failed"].tolist()))

    @cached_property
    def parts(self) -> list[Tensor | None]:
        """The tensors of :class:`One`."""
        return [self.tensors.get(name) for name in _TENSORS]

    def one(self, row: int) -> "One":
        """The scores of one network."""
        value, loss, items, predictions, renders = (None if part is None else part[row] for part in self.parts)
        assert value is not None
        return One(value, loss, items, predictions, renders, self.failed.get(str(row)))


class One(NamedTuple):
    """The scores of one network; the fields of :class:`paramgen.tasks.score.Scores`."""

    value: Tensor
    loss: Tensor | None
    items: Tensor | None
    predictions: Tensor | None
    renders: Tensor | None
    failed: str | None


_TENSORS = One._fields[:-1]


class ScoreStore:
    """Scores by network, split and task.

    Args:
        out: The folder that was given to all shards.
        shard: Computes its part of what is not known and writes it. None: takes what the shards wrote, and computes the rest.
    """

    def __init__(self, out: Path, shard: Shard | None = None) -> None:
        self.out, self.shard = out, shard
        self.computed = 0  # scores computed by this process
        self._known: dict[str, tuple[_File, int]] = {}
        self._read: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read what other shards have written in the meantime."""
        for shard in shards_in(self.out):
            for path in sorted(shard.folder(self.out).glob("*.safetensors")):
                if path not in self._read:
                    self._take(StoredTensors(path))
                    self._read.add(path)

    def scores(self, kind: str, states: Sequence[StateDict], names: Sequence[str | None], measure: Measure) -> Scores:
        """Scores of N networks.

        Args:
            kind: What is measured: the split, its number of items, and what was done to the networks before.
            states: N state dicts.
            names: N tasks.
            measure: Computes what is not known.
        """
        keys = _keys(kind, states, names)
        if missing := [i for i, key in enumerate(keys) if key not in self._known]:
            self._compute(keys, missing, measure)
        return _together([file.one(row) for file, row in map(self._known.__getitem__, keys)])

    def share(
        self,
        kind: str,
        states: Sequence[StateDict],
        names: Sequence[str | None],
        measure: Measure,
        places: Sequence[int] | None = None,
    ) -> None:
        """Compute and write the scores of some of N networks that nobody has computed yet.

        Args:
            kind: As of :meth:`scores`.
            states: N state dicts.
            names: N tasks.
            measure: Computes them.
            places: Of the networks. Default: every n-th one, this shard's part.
        """
        assert self.shard is not None
        keys = _keys(kind, states, names)
        places = self.shard.share(range(len(keys))) if places is None else places
        mine = [i for i in places if keys[i] not in self._known]
        if mine:
            scores = self._compute(keys, mine, measure)
            name = sha256("".join(keys[i] for i in mine).encode()).hexdigest()[:16]
            path = self.shard.folder(self.out) / f"{name}.safetensors"
            write_tensors(path, _plain([keys[i] for i in mine], scores))
            self._read.add(path)

    def knows(self, kind: str, states: Sequence[StateDict], names: Sequence[str | None]) -> bool:
        """Whether all of these scores have been computed."""
        return all(key in self._known for key in _keys(kind, states, names))

    def _compute(self, keys: Sequence[str], places: Sequence[int], measure: Measure) -> Scores:
        scores = measure(places)
        self.computed += len(places)
        self._take(_plain([keys[i] for i in places], scores))
        return scores

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        """Know what a file says."""
        file = _File(tensors)
        self._known.update({key: (file, row) for row, key in enumerate(file.keys)})


def _keys(kind: str, states: Sequence[StateDict], names: Sequence[str | None]) -> list[str]:
    digests = states.digests if isinstance(states, NetworkStates) else [state_digest(state) for state in states]
    return [sha256(f"{kind} {name} {digest}".encode()).hexdigest() for digest, name in zip(digests, names, strict=True)]


def _plain(keys: Sequence[str], scores: Scores) -> StateDict:
    """Scores as tensors by name, for a file."""
    tensors = {name: getattr(scores, name) for name in _TENSORS}
    failed = json.dumps({str(place): why for place, why in scores.failed.items()}).encode()
    return {
        "keys": torch.tensor([list(bytes.fromhex(key)) for key in keys], dtype=torch.uint8).view(len(keys), _KEY),
        "failed": torch.tensor(list(failed), dtype=torch.uint8),
        **{name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None},
    }


def _together(known: Sequence[One]) -> Scores:
    """Scores of N networks, of those of each."""
    value, loss, items, predictions, renders = (_stacked([getattr(one, name) for one in known]) for name in _TENSORS)
    failed = {place: one.failed for place, one in enumerate(known) if one.failed is not None}
    value = torch.empty(0, dtype=torch.float64) if value is None else value
    return Scores(value, loss, items, predictions, failed, renders)


def _stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    """One tensor of all networks; None where one is missing or they differ in their number of items."""
    tensors = [part for part in parts if part is not None]
    alike = len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1
    return torch.stack(tensors) if alike and len(tensors) == len(parts) else None
