"""What every reader of networks from elsewhere returns, and the options that it takes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, ClassVar

from paramgen.core.zoo import Split
from paramgen.errors import ParamgenError

Value = float | str | tuple[float, ...] | frozenset[str]
"""One part of a condition: a number, a choice among words, a vector, or a set of words."""


@dataclass(frozen=True)
class Found:
    """One network, before it is read.

    Args:
        name: Names it in messages: its path relative to the source, without which no other has it.
        path: The file or folder with its weights.
        row: Its place in a file of many networks.
        run: The training run that it comes from. Default: decided by the importer.
        step: Its training step. Default: read from its name.
        seed: Seed of its run.
        split: The split that the layout records. Default: decided by the importer.
        parent: The network that it was fine-tuned from.
        condition: What describes its task or its training, by name.
        scores: By split of the data, then by name: ``{"val": {"accuracy": 0.91}}``.
        final: It is the last or the best of its run, often a copy of another.
    """

    name: str
    path: Path
    row: int | None = None
    run: str | None = None
    step: int | None = None
    seed: int = 0
    split: Split | None = None
    parent: str | None = None
    condition: Mapping[str, Value] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    final: bool = False

    def with_(self, **changes: Any) -> "Found":
        """The same network with other fields."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Reading:
    """How to read a source.

    Args:
        pattern: Of the paths to take, with fields in braces; see :mod:`paramgen.collect.readers.pattern`.
        table: CSV file of what is known about each network; see :mod:`paramgen.collect.readers.tables`.
        key: Which of several state dicts of a checkpoint, or which part of a pipeline, to read.
    """

    pattern: str | None = None
    table: str | None = None
    key: str | None = None


def below(folder: Path, name: str) -> Path:
    """The path of a file that is named in data. Links are followed: the Hub's cache is made of them.

    Args:
        folder: Where the data are.
        name: As they name it.

    Raises:
        ParamgenError: It is absolute or goes up.
    """
    pure = PurePath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in name:
        raise ParamgenError(f"cannot read {name!r:.200}: expected a path inside of {folder}, without '..'")
    return folder / pure


class Layout(ABC):
    """Networks as somebody else stored them.

    Args:
        source: The folder or file.
        reading: How to read it.
    """

    name: ClassVar[str]
    """For ``--layout`` and messages."""
    what: ClassVar[str]
    """One line: which files make this layout."""

    def __init__(self, source: Path, reading: Reading) -> None:
        self.source, self.reading = source, reading
        self.origin: dict[str, Any] = {}  # for the recipe: where a download came from
        self.notes: list[str] = []  # sentences about what was left aside
        self.chosen = reading.pattern is not None or reading.table is not None  # by the user: all conditions are kept

    @staticmethod
    @abstractmethod
    def recognises(source: Path) -> bool:
        """Whether a path is of this layout; reads no weights."""

    @abstractmethod
    def find(self) -> Iterator[Found]:
        """The networks, in order, without reading their weights.

        Raises:
            ParamgenError: A file that lists them is damaged, or it lists no network.
        """

    @abstractmethod
    def read(self, found: Found) -> Mapping[str, Any]:
        """The state dict of one network.

        Raises:
            ParamgenError: It cannot be read.
        """

    def wrapped(self, found: Found) -> bool:
        """Whether wrappers may have put a prefix before its names. Libraries' own folders have none."""
        return True

    def recipe(self) -> dict[str, Any]:
        """What a zoo records about the source in addition to its path, plain values."""
        return {}
