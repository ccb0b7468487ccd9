"""Items of a split: images and labels, sequences and what follows, points and values."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


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

    @abstractmethod
    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every item once, in order, never augmented: inputs (B, ...) and targets (B, ...)."""

    @abstractmethod
    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches for R networks, each in its own order.

        Args:
            order: (steps, R, B) indices into the split.
            generators: One a network; what one network sees never depends on the others.

        Yields:
            Inputs (R, B, ...) and targets (R, B, ...).
        """


class FirstImages(SplitData):
    """The first images of a split.

    Args:
        data: The split.
        most: How many of its images at most.
    """

    def __init__(self, data: SplitData, most: int) -> None:
        super().__init__(data.targets[:most])
        self.data = data

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As the split's own."""
        return self.data.training_batches(order, generators)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The split's batches until the first images are through."""
        left = len(self)
        for x, y in self.data.batches(batch_size):
            yield x[:left], y[:left]
            left -= len(y)
            if left <= 0:
                return


@runtime_checkable
class Takes(Protocol):
    """A split of which any items make a smaller split."""

    def take(self, index: Tensor) -> SplitData:
        """Some of its items, by their places (m,)."""


def spread(data: SplitData, most: int | None) -> SplitData:
    """A limited number of a split's items, evenly spaced, so that a dataset sorted by class keeps its class shares; all for None."""
    if most is None or len(data) <= most or not isinstance(data, Takes):
        return data
    return data.take(torch.arange(most) * len(data) // most)
