"""A split whose inputs and targets are tensors in memory, used unchanged."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from paramgen.tasks.items import SplitData


class ArraySplit(SplitData):
    """Inputs and targets in memory.

    Args:
        inputs: (M, ...).
        targets: (M, ...).
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        super().__init__(targets)
        self.inputs = inputs

    @property
    def input_source(self) -> object:
        """The inputs."""
        return self.inputs

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        yield from zip(self.inputs.split(batch_size), self.targets.split(batch_size), strict=True)

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class; nothing is augmented."""
        for index in order:  # (R, B)
            yield self.inputs[index], self.targets[index]

    def take(self, index: Tensor) -> "ArraySplit":
        """Some of its items."""
        return ArraySplit(self.inputs[index], self.targets[index])
