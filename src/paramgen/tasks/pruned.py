"""Pruned networks: each layer keeps the same number of its weights, those of the largest magnitude; a mask says which.

Names are those of torch.nn.utils.prune: ``X.weight_orig`` and ``X.weight_mask`` for ``X.weight``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from paramgen.core.discrete import ones_at_largest
from paramgen.core.params import StateDict, last_part, with_versions
from paramgen.errors import require_fraction
from paramgen.tasks.base import Task
from paramgen.tasks.compressed import CompressedTask, compressible, with_layers
from paramgen.tasks.compressed_layers import CompressedConvolution, CompressedLayer

ORIGINAL, PRUNING_MASK = "weight_orig", "weight_mask"


class PrunedTask(CompressedTask):
    """A task whose networks are pruned: in each layer, all weights but the largest are 0.

    Args:
        of: The task of the plain networks.
        sparsity: Share of each layer's weights that are 0.

    Raises:
        ParamgenError: A sparsity that is not between 0 and 1.
    """

    def __init__(self, of: Task, sparsity: float = 0.8) -> None:
        require_fraction(sparsity=sparsity)
        super().__init__(of)
        self.sparsity = sparsity

    def build(self) -> nn.Module:
        """A fresh network, pruned."""
        network = self.of.build()
        masks = magnitude_masks([network.state_dict()], compressible(network), self.sparsity)
        pruned = with_layers(network, _pruned_layer)
        pruned.load_state_dict(with_versions({**pruned.state_dict(), **masks}, pruned))
        return pruned

    def plain_state(self, state: Mapping[str, Tensor]) -> StateDict:
        """The state dict of the plain network, whose weights are 0 where the masks are."""
        plain = {name: tensor for name, tensor in state.items() if last_part(name) not in (ORIGINAL, PRUNING_MASK)}
        for name, mask in state.items():
            if last_part(name) == PRUNING_MASK:
                layer = name.removesuffix(PRUNING_MASK)
                plain[f"{layer}weight"] = state[f"{layer}{ORIGINAL}"] * mask
        return plain


class _PrunedLayer(CompressedLayer):
    """A layer whose weight is ``weight_orig`` times ``weight_mask``."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.weight_orig = nn.Parameter(layer.weight.detach().clone())
        self.register_buffer(PRUNING_MASK, torch.ones_like(layer.weight))

    def plain(self) -> Tensor:
        return self.weight_orig * self.get_buffer(PRUNING_MASK)


class _PrunedConvolution(_PrunedLayer, CompressedConvolution):
    """The same of a convolution."""


def _pruned_layer(layer: nn.Module) -> nn.Module:
    return (_PrunedLayer if isinstance(layer, nn.Linear) else _PrunedConvolution)(layer)


def magnitude_masks(states: Iterable[Mapping[str, Tensor]], layers: Iterable[str], sparsity: float) -> StateDict:
    """Masks of layers: 1 at the weights of the largest magnitude, averaged over some plain networks.

    Args:
        states: State dicts of plain networks.
        layers: Names of layers.
        sparsity: Share of each layer's weights that are 0; one weight is always kept.
    """
    size = {name: torch.tensor(0.0) for name in layers}
    for state in states:
        size = {name: total + state[f"{name}.weight"].abs() for name, total in size.items()}
    masks = {}
    for name, total in size.items():
        ones = max(1, total.numel() - round(sparsity * total.numel()))
        masks[f"{name}.{PRUNING_MASK}"] = ones_at_largest(total.flatten(), ones).view_as(total)
    return masks


def pruned_state(state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> StateDict:
    """A plain network's state dict in the form of a pruned one; weights that the masks drop are 0."""
    masked = {f"{name.removesuffix(PRUNING_MASK)}weight": mask for name, mask in masks.items()}
    kept = {f"{name.removesuffix('weight')}{ORIGINAL}": state[name] * mask for name, mask in masked.items()}
    return {name: tensor for name, tensor in state.items() if name not in masked} | kept | dict(masks)
