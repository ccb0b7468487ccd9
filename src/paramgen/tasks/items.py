"""Items of a split: images and labels, sequences and what follows, points and values."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from paramgen.core.spacing import evenly_spaced

TaskSplit = Literal["train", "val", "test"]


class TrainingData(Protocol):
    """Items that networks are trained on."""

    def __len__(self) -> int:
        """Items of an epoch."""

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches for R networks, each in its own order.

        Args:
            order: (steps, R, B) indices of items.
            generators: One a network; what one network sees never depends on the others.

        Yields:
            Inputs (R, B, ...) and targets (R, B, ...).
        """


class SplitData(ABC):
    """Items of one split and their targets: images and labels, sequences and what follows, points and values.

    M: items in the split. R: networks trained at once. B: batch.

    Args:
        targets: (M, ...); labels are (M,) int64.
    """

    def __init__(self, targets: Tensor) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def input_source(self) -> object:
        """What its inputs are read from: splits with the same object have the same inputs, and may differ in their targets."""
        return self

    @abstractmethod
    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every item once, in order, never augmented: inputs (B, ...) and targets (B, ...)."""

    @abstractmethod
    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As of :meth:`TrainingData.training_batches`."""

    def relabelled(self, targets: Tensor) -> Self:
        """The same inputs, in the same memory, under other targets (M, ...)."""
        other = copy.copy(self)
        other.targets = targets
        return other


Keys = list[list[tuple[int, int]]]  # for each batch, an item and the seed of its augmentation, item by item


def keys_in_order(count: int, batch_size: int) -> Keys:
    """The items of a split in order, without seeds."""
    starts = range(0, count, batch_size)
    return [[(item, 0) for item in range(start, min(start + batch_size, count))] for start in starts]


def seeded_keys(order: Tensor, generators: Sequence[torch.Generator]) -> Keys:
    """Items in the order (steps, R, B) of :meth:`SplitData.training_batches`, the seeds of network r drawn from generator r."""
    steps, _, size = order.shape
    seeds = torch.stack([torch.randint(2**62, (steps, size), generator=g) for g in generators], 1)  # (steps, R, B)
    return [
        list(zip(items.flatten().tolist(), own.flatten().tolist(), strict=True))
        for items, own in zip(order, seeds, strict=True)
    ]


class FirstImages(SplitData):
    """The first images of a split.

    Args:
        data: The split.
        most: Maximum number of its images.
    """

    def __init__(self, data: SplitData, most: int) -> None:
        super().__init__(data.targets[:most])
        self.data = data

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As the split's own."""
        return self.data.training_batches(order, generators)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The split's batches until the first images are through."""
        remaining = len(self)
        for x, y in self.data.batches(batch_size):
            yield x[:remaining], y[:remaining]
            remaining -= len(y)
            if remaining <= 0:
                return


class SideBySide(TrainingData):
    """Training data of R networks, each its own task's: network r draws from split r. An epoch has the items of one split.

    Args:
        splits: R splits of one length.

    Raises:
        ValueError: They differ in length, so that one epoch is not one epoch for all.
    """

    def __init__(self, splits: Sequence[SplitData]) -> None:
        if len({len(split) for split in splits}) != 1:
            raise ValueError("expected splits of one length")
        self.splits = splits
        same = len({id(split.input_source) for split in splits}) == 1
        self._targets = torch.stack([split.targets for split in splits]) if same else None  # (R, M, ...)

    def __len__(self) -> int:
        return len(self.splits[0])

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class, row r of the order from split r."""
        if self._targets is not None:  # the same inputs for all: read once
            rows = torch.arange(len(self.splits))[:, None]
            inputs = self.splits[0].training_batches(order, generators)
            for (x, _), index in zip(inputs, order, strict=True):
                yield x, self._targets[rows, index]
            return
        columns = [
            split.training_batches(order[:, r : r + 1], generators[r : r + 1]) for r, split in enumerate(self.splits)
        ]
        for batches in zip(*columns, strict=True):
            yield torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def side_by_side(splits: Sequence[SplitData]) -> TrainingData:
    """Training data of R networks, one split for each; one split alone where all are the same."""
    return splits[0] if all(split is splits[0] for split in splits) else SideBySide(splits)


@runtime_checkable
class Takes(Protocol):
    """A split of which any items make a smaller split."""

    def take(self, index: Tensor) -> SplitData:
        """Some of its items, by their places (m,)."""


def spread(data: SplitData, most: int | None) -> SplitData:
    """A limited number of a split's items, evenly spaced, so that a dataset sorted by class keeps its class shares; all for None."""
    if most is None or len(data) <= most or not isinstance(data, Takes):
        return data
    return data.take(evenly_spaced(len(data), most))
