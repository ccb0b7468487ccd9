"""Networks of int8 weights: of each output channel a scale and a zero point, as in torch's per-channel affine quantisation.

A weight is scale (q - zero point), q in int8. ``X.weight_int8`` and ``X.zero_point`` are generated as integers.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from paramgen.core.discrete import rounded
from paramgen.core.params import StateDict, last_part, with_versions
from paramgen.tasks.base import Task
from paramgen.tasks.compressed import CompressedTask, compressible, with_layers
from paramgen.tasks.compressed_layers import CompressedConvolution, CompressedLayer

INT8_WEIGHT = "weight_int8"
INT8_STEPS = 255  # between the smallest and the largest of int8
SMALLEST_SCALE = 1e-8  # scale of a channel of zeros


class QuantisedTask(CompressedTask):
    """A task whose networks have int8 weights, each output channel with a scale and a zero point. Biases are floating.

    Args:
        of: The task of the plain networks.
    """

    def __init__(self, of: Task) -> None:
        super().__init__(of)

    def build(self) -> nn.Module:
        """A fresh network, quantised."""
        network = self.of.build()
        state = quantised_state(network.state_dict(), compressible(network))
        quantised = with_layers(network, _quantised_layer)
        quantised.load_state_dict(with_versions(state, quantised))
        return quantised

    def plain_state(self, state: Mapping[str, Tensor]) -> StateDict:
        """The state dict of the plain network, with the weights in floating point."""
        layers = [name.removesuffix(INT8_WEIGHT) for name in state if last_part(name) == INT8_WEIGHT]
        stored = {f"{layer}{part}" for layer in layers for part in (INT8_WEIGHT, "scale", "zero_point")}
        plain = {name: tensor for name, tensor in state.items() if name not in stored}
        for layer in layers:
            q, scale, zero = (state[f"{layer}{part}"] for part in (INT8_WEIGHT, "scale", "zero_point"))
            plain[f"{layer}weight"] = dequantised(q, scale, zero)
        return plain


class _QuantisedLayer(CompressedLayer):
    """A layer whose weight is scale (weight_int8 - zero_point)."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        ones = (-1, *[1] * (layer.weight.dim() - 1))
        channels = torch.zeros(layer.weight.shape[0]).view(ones)
        self.register_buffer(INT8_WEIGHT, torch.zeros(layer.weight.shape, dtype=torch.int8))
        self.register_buffer("scale", channels.clone())
        self.register_buffer("zero_point", channels.to(torch.int8))

    def plain(self) -> Tensor:
        return dequantised(self.get_buffer(INT8_WEIGHT), self.get_buffer("scale"), self.get_buffer("zero_point"))


class _QuantisedConvolution(_QuantisedLayer, CompressedConvolution):
    """The same of a convolution."""


def _quantised_layer(layer: nn.Module) -> nn.Module:
    return (_QuantisedLayer if isinstance(layer, nn.Linear) else _QuantisedConvolution)(layer)


def dequantised(q: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Weights (out, ...) in the dtype of the scales: scale (q - zero point)."""
    return scale * (q.to(scale.dtype) - zero_point.to(scale.dtype))


def quantised_state(state: Mapping[str, Tensor], layers: list[str]) -> StateDict:
    """A plain network's state dict with int8 weights.

    Args:
        state: Of a plain network.
        layers: Names of the layers whose weights are quantised.
    """
    new = {name: tensor for name, tensor in state.items() if name.removesuffix(".weight") not in layers}
    for name in layers:
        W = state[f"{name}.weight"].detach()  # (out, ...)
        inner = tuple(range(1, W.dim()))
        low, high = W.amin(inner, keepdim=True).clamp_max(0), W.amax(inner, keepdim=True).clamp_min(0)
        scale = ((high - low) / INT8_STEPS).clamp_min(SMALLEST_SCALE)
        zero = rounded(-128 - low / scale, torch.int8)
        new[f"{name}.{INT8_WEIGHT}"] = rounded(W / scale + zero, torch.int8)
        new[f"{name}.scale"], new[f"{name}.zero_point"] = scale, zero
    return new
