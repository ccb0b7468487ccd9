"""A zoo: trained networks of one architecture on disk, to learn from.

``zoo.json`` says what they are; each network is one safetensors file with its generated tensors alone; ``base.safetensors``
holds once what is not generated. :mod:`paramgen.core.zoo_writer` writes it.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from paramgen.core.counting import counted
from paramgen.core.io import inside, read_signed, read_tensors, regular_file, sha256
from paramgen.core.params import ParamSpec, StateDict
from paramgen.core.paths import find_zoo
from paramgen.core.remembered import is_remembered
from paramgen.core.score import ScoreSpec
from paramgen.core.stored import StoredTensors
from paramgen.errors import ParamgenError

ZOO_FORMAT = 2
BASE = "base.safetensors"
START = "start.safetensors"  # in a zoo of tasks: the trained weights that its networks started from
Split = Literal["train", "val", "heldout"]
ScoredSplit = Literal["train", "val"]
PARTS: tuple[ScoredSplit, ...] = ("train", "val")  # splits of a task's data that a zoo records scores on
SplitScores = Mapping[str, Mapping[str, Any]]  # by split: a score and a loss, each of which may be None


@dataclass(frozen=True)
class ZooEntry:
    """One network of a zoo.

    Args:
        file: Its safetensors file, relative to the zoo.
        run: Which training run it comes from. Splits are by run.
        step: Optimizer step within the run.
        seed: The run's seed.
        split: ``train`` is for generators, ``val`` for their choices, ``heldout`` for the evaluator alone.
        scores: ``{"train": {"score": …, "loss": …}, "val": …}``, as the task computes them; None where they are not finite. The test
            split is the evaluator's: its scores are never recorded.
        parent: The network it was fine-tuned from, if any.
        task: Name of its task where the tasks of a zoo differ.
        condition: What describes its task, if anything.
        sha256: Of the file.
    """

    file: str
    run: int
    step: int
    seed: int
    split: Split = "train"
    scores: SplitScores = field(default_factory=dict)
    parent: str | None = None
    task: str | None = None
    condition: list[float] | None = None
    sha256: str = ""


class Zoo(Sequence[StateDict]):
    """Trained networks on disk; opening one reads ``zoo.json`` alone.

    Args:
        path: Its folder, or its name under ``$PARAMGEN_ZOO`` or ``./checkpoints_zoo``.
        trust: Let :func:`paramgen.tasks.task_of` and :func:`~paramgen.tasks.family_of` run the code of classes that it names and that
            are not part of paramgen.

    Raises:
        ParamgenError: No such zoo, a half-written one, or a zoo.json that does not fit ``zoo.schema.json``; the field is named.
    """

    def __init__(self, path: str | Path, trust: bool = False) -> None:
        self.path, self.trust = find_zoo(path), trust
        self.meta: dict[str, Any]
        self.meta, self._digest = read_signed(self.path / "zoo.json", "zoo")
        self.name: str = self.path.resolve().name
        self.spec = ParamSpec.from_dict(self.meta["spec"], where=f"{self.path}/zoo.json")
        self.task_config: Any = self.meta["task"]  # a dict, or None where the weights alone are known
        self.entries = [ZooEntry(**e) for e in self.meta["entries"]]
        self._check_entries()
        self._read: set[int] = set()  # networks whose file has been verified

    def __repr__(self) -> str:
        return f"<zoo {self.name!r}: networks of {self.spec.numel:,} parameters, {self.splits_in_words()}>"

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> StateDict: ...

    @overload
    def __getitem__(self, index: slice) -> list[StateDict]: ...

    def __getitem__(self, index: int | slice) -> StateDict | list[StateDict]:
        """Generated tensors of one network, or of each of several; tied names not included.

        Raises:
            ParamgenError: A file is missing, damaged, or does not fit the spec; it is named.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        state = read_tensors(self.file(index))
        self._check(index, state)
        return state

    def stored(self, index: int) -> StoredTensors:
        """Generated tensors of one network, each read from its file when it is asked for; checked like those of ``zoo[index]``.

        Raises:
            ParamgenError: As ``zoo[index]``.
        """
        state = StoredTensors(self.file(index))
        if index not in self._read:
            self._check(index, state)
        return state

    def __iter__(self) -> Iterator[StateDict]:
        return (self[i] for i in range(len(self)))

    def file(self, index: int) -> Path:
        """The safetensors file of one network.

        Raises:
            ParamgenError: It is or goes through a link that leaves the zoo's folder.
        """
        return inside(self.path, self.entries[index].file)

    @property
    def trusted(self) -> bool:
        """Whether the classes that it names may run: `trust` says so, or the user made it here with classes that the user typed.

        The latter vouches for this zoo alone; `trust` also for files that are used with it.
        """
        return self.trust or is_remembered(self.path, self._digest)

    @property
    def sha256(self) -> str:
        """Checksum of the weights of its networks, in order: a copy in another folder has the same."""
        return hashlib.sha256("".join(entry.sha256 for entry in self.entries).encode()).hexdigest()

    @property
    def score(self) -> ScoreSpec:
        """What its networks are scored by."""
        return ScoreSpec.from_dict(self.meta.get("score"))

    def indices(self, split: Split) -> list[int]:
        """Which networks belong to a split, in order."""
        return [i for i, entry in enumerate(self.entries) if entry.split == split]

    def matrix(self, indices: Sequence[int] | None = None) -> Tensor:
        """Raw weights of some networks (default: all), one row each: (n, P) float32."""
        selected = range(len(self)) if indices is None else indices
        out = torch.empty(len(selected), self.spec.numel)
        for row, i in zip(out, selected, strict=True):
            row.copy_(self.spec.flatten(self[i]))
        return out  # (n, P)

    def recorded(self, part: ScoredSplit) -> list[float]:
        """Recorded scores of its networks on a split of their data, of those that have one."""
        scores = (entry.scores.get(part, {}).get("score") for entry in self.entries)
        return [score for score in scores if score is not None]

    def scores_in_words(self, part: ScoredSplit) -> str | None:
        """Mean and range of the recorded scores: ``mean 96.2 %, from 93.0 to 97.1``; None if no network has one."""
        if not (values := self.recorded(part)):
            return None
        mean, low, high = (self.score.text(value) for value in (sum(values) / len(values), min(values), max(values)))
        return f"mean {mean}{self.score.symbol}, from {low} to {high}"

    def splits_in_words(self) -> str:
        """Networks and runs of each split: ``40 train (4 runs), 20 heldout (2 runs)``."""
        splits = Counter(entry.split for entry in self.entries)
        runs = {split: len({entry.run for entry in self.entries if entry.split == split}) for split in splits}
        return ", ".join(f"{n} {split} ({counted(runs[split], 'run')})" for split, n in splits.items())

    def goodness(self, indices: Sequence[int], split: ScoredSplit) -> Tensor | None:
        """Recorded scores (n,) of some networks on a split of their data, larger is better; None unless all have one."""
        scores = [self.entries[i].scores.get(split, {}).get("score") for i in indices]
        return None if None in scores else self.score.sign * torch.tensor(scores)

    def base(self) -> StateDict:
        """The tensors that are not generated, stored once; may be empty."""
        path = inside(self.path, BASE)
        return read_tensors(path) if path.exists() else {}

    def start(self) -> StateDict | None:
        """The trained weights that all its networks started from; None where that was not recorded, or was not trained."""
        path = inside(self.path, START)
        return read_tensors(path) if path.exists() else None

    def complete(self, generated: Mapping[str, Tensor]) -> StateDict:
        """Generated tensors with the rest: a state dict that loads with ``strict=True`` into the plain network."""
        tied = {name: generated[canonical] for name, canonical in self.spec.aliases.items()}
        return {**self.base(), **generated, **tied}

    def full(self, index: int) -> StateDict:
        """One network's complete state dict."""
        return self.complete(self[index])

    def verify(self) -> list[str]:
        """What is wrong with its files, one line each; empty if all files match their checksums and all values are finite."""
        problems = []
        reads: list[Callable[[], object]] = [self.base, *(partial(self._verify, index) for index in range(len(self)))]
        for read in reads:
            try:
                read()
            except ParamgenError as error:
                problems.append(str(error))
        return problems

    def _verify(self, index: int) -> None:
        path = self.file(index)
        regular_file(path)
        _check_digest(path, self.entries[index])
        self.spec.check(StoredTensors(path), where=str(path))

    def _check(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Refuse what does not fit the spec, and on the first reading a file that does not match its checksum."""
        path = self.file(index)
        self.spec.check(state, where=str(path))
        if index not in self._read:
            _check_digest(path, self.entries[index])
            self._read.add(index)

    def _check_entries(self) -> None:
        """What a schema cannot express: conditions have equal lengths, and parameters do not exceed the bytes of a network's file."""
        where = f"{self.path}/zoo.json"
        described = [(i, len(entry.condition)) for i, entry in enumerate(self.entries) if entry.condition is not None]
        for i, length in described:
            if length != described[0][1]:
                raise ParamgenError(
                    f"{where}: entries[{i}].condition has {length} numbers, entries[{described[0][0]}] has {described[0][1]}"
                )
        paths = (self.file(index) for index in range(len(self)))
        first = next((path for path in paths if path.exists()), None)
        if first is None:
            raise ParamgenError(
                f"{where}: none of the files of its {len(self)} networks exists, for example {self.entries[0].file}"
            )
        if self.spec.numel > regular_file(first):
            raise ParamgenError(
                f"{where}: spec has {self.spec.numel:,} parameters, more than {first} has bytes; one of them was modified"
            )


def _check_digest(path: Path, entry: ZooEntry) -> None:
    if entry.sha256 and sha256(path) != entry.sha256:
        raise ParamgenError(f"{path}: checksum mismatch: the file was modified or truncated")
