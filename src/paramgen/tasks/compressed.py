"""Networks whose weights are stored in another form than the one they run with: pruned by masks, or in int8.

The task is that of the plain networks; linear layers and convolutions are replaced.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from paramgen.core.params import StateDict, tied_names
from paramgen.errors import ParamgenError
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.score import ScoredAs, Scores

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def compressible(network: nn.Module) -> list[str]:
    """Names of the layers that can be replaced: plain linear layers and convolutions whose weight is not tied to another's."""
    firsts = list(tied_names(network).values())
    return [
        name
        for name, module in network.named_modules()
        if type(module) in LAYERS
        and getattr(module, "padding_mode", "zeros") == "zeros"
        and firsts.count(f"{name}.weight") == 1
    ]


def with_layers(network: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """The same network, in place, with its layers replaced.

    Raises:
        ParamgenError: It has none that can be.
    """
    names = compressible(network)
    if not names:
        raise ParamgenError(f"{type(network).__name__} has no linear layer or convolution to compress")
    for name in names:
        network.set_submodule(name, make(network.get_submodule(name)))
    return network


class CompressedTask(ScoredAs, Task):
    """A task of networks in another form; the arguments are those of its subclasses.

    Args:
        of: The task of the plain networks.
    """

    within: ClassVar[str | None] = "of"

    def __init__(self, of: Task) -> None:
        self.of, self.has_data = of, of.has_data
        self.take_score(of)

    @abstractmethod
    def plain_state(self, state: Mapping[str, Tensor]) -> StateDict:
        """The complete state dict of the plain network with the same function.

        Args:
            state: A complete state dict of a network in the other form.
        """

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """The plain task's, of the plain networks with the same functions."""
        return self.of.evaluate([self.plain_state(state) for state in states], split, most, device)

    def count(self, split: str, most: int | None = None) -> int:
        """The plain task's."""
        return self.of.count(split, most)

    def data(self, split: str) -> SplitData:
        """The plain task's."""
        return self.of.items(split)
