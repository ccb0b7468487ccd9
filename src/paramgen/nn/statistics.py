"""Batch norm in evaluation mode with gradients for its running statistics, which torch's batch norm does not have."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class StatisticsNorm(nn.Module):
    """Batch norm in evaluation mode, written out; parameters and buffers have torch's names.

    Args:
        norm: The layer that it replaces; tensors are shared with it.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(norm, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""

        def channel(values: Tensor) -> Tensor:
            return values.view(-1, *[1] * (x.dim() - 2))

        y = (x - channel(self.running_mean)) * channel((self.running_var + self.eps).rsqrt())
        if self.weight is None or self.bias is None:
            return y
        return torch.addcmul(channel(self.bias), y, channel(self.weight))


def with_statistics_gradients(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode whose batch-norm layers are :class:`StatisticsNorm`; its state dict has the same keys."""
    return _convert(copy.deepcopy(network)).eval()


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm) and module.track_running_stats:
        return StatisticsNorm(module)
    for name, child in module.named_children():
        module.add_module(name, _convert(child))
    return module
