"""Layers that compute their weight from what they store."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

_CONVOLVE: dict[type[nn.Module], Callable[..., Tensor]] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d}


class CompressedLayer(nn.Module, ABC):
    """A linear layer or a convolution that computes its weight from what it stores.

    Args:
        layer: The plain layer, whose bias it takes over.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._convolve = _CONVOLVE.get(type(layer))
        self._how: dict[str, Any] = {}
        if self._convolve is not None:
            self._how = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
        self.register_parameter("bias", layer.bias)  # type: ignore[arg-type]  # all layers of LAYERS have one, or None

    @abstractmethod
    def plain(self) -> Tensor:
        """The weight that the layer runs with."""

    def forward(self, x: Tensor) -> Tensor:
        """As the plain layer."""
        if self._convolve is None:
            return F.linear(x, self.plain(), self.bias)  # type: ignore[arg-type]
        return self._convolve(x, self.plain(), self.bias, **self._how)


class CompressedConvolution(CompressedLayer):
    """A convolution, whose networks are not stacked on a CPU (:mod:`paramgen.tasks.stacked`)."""
