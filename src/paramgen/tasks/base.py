"""What a task is: a network to build, data to train and score it on."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paramgen.tasks.score import Scored
from paramgen.tasks.vision.networks import load_weights, read_weights


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


class Task(Scored):
    """A target network, its data and its score, from plain arguments."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""

    @abstractmethod
    def data(self, split: str) -> SplitData:
        """A split: ``train``, ``val`` (carved from train by a fixed seed) or ``test``, which belongs to the evaluator.

        Raises:
            ParamgenError: No such split, or the data are not there.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """``{"class_path", "init_args"}`` with plain values, for :func:`paramgen.tasks.load_task`."""

    @classmethod
    def upgraded(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments that a file records, as this version takes them: what a missing one meant when the file was written is filled in."""
        return arguments

    def start(self, source: str) -> nn.Module:
        """The network with start weights: ``pretrained``, or those of a weights file.

        Raises:
            ParamgenError: The task has no such weights, or they do not fit.
        """
        network = self.build()
        load_weights(network, read_weights(source), where=source)
        return network
