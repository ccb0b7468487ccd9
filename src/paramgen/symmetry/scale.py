"""Removing the scale symmetry: a unit's input weights times s and its output weights over s compute the same through a ReLU."""

from collections.abc import Mapping

import torch
from torch import Tensor

from paramgen.core.params import StateDict
from paramgen.symmetry.groups import PermutationSpec, Place, coupled, stack

BALANCING_ROUNDS = 200
_NUMBERS = 1 << 23  # weights worked on at once, in float64


def balance_matrix(W: Tensor, spec: PermutationSpec, tolerance: float = 1e-7) -> Tensor:
    """Rescale hidden units so that each one's input norm equals its output norm, biases counted with the input.

    That is the network of smallest L2 norm among those that differ by scale alone (Stock et al. 2019, *Equi-normalization*,
    arXiv:1902.10416): it is reached by balancing gauge after gauge, and does not depend on where it began. Units without
    input or without output weights are left alone, and so are networks with NaN or infinite weights.

    Args:
        W: (K, P).
        spec: The architecture's gauges.
        tolerance: Stop when no factor differs from 1 by more.
    """
    if not spec.gauges:
        return W
    step = max(1, _NUMBERS // W.shape[1])
    return torch.cat([_balance(part, spec, tolerance) for part in W.split(step)]) if len(W) else W


def balance_scale(state: Mapping[str, Tensor], spec: PermutationSpec) -> StateDict:
    """One network, balanced (:func:`balance_matrix`); tensors that `spec.params` does not name pass through."""
    if not spec.gauges:
        return dict(state)
    balanced = spec.params.unflatten(balance_matrix(stack([state], spec), spec)[0])
    return {name: balanced.get(name, tensor) for name, tensor in state.items()}


def _balance(W: Tensor, spec: PermutationSpec, tolerance: float) -> Tensor:
    finite = W.isfinite().all(1)
    X = W[finite].double()  # (K, P)
    neighbours = coupled(spec.gauges)
    for _ in range(BALANCING_ROUNDS):
        most = 0.0
        for gauge, places in spec.gauges.items():
            into, out = (_squares(X, spec, places, inverted) for inverted in (False, True))  # (K, U)
            power = 0.125 if gauge in neighbours[gauge] else 0.25  # half steps where both sides are in one tensor
            factor = torch.where((into > 0) & (out > 0), out / into, 1.0) ** power  # (K, U)
            spec.rescale_(X, gauge, factor)
            most = max(most, (factor - 1).abs().max().item() if factor.numel() else 0.0)
        if most <= tolerance:
            break
    out_rows = W.clone()
    out_rows[finite] = X.to(W.dtype)
    return out_rows


def _squares(X: Tensor, spec: PermutationSpec, places: tuple[Place, ...], inverted: bool) -> Tensor:
    found = [spec.features(X, p).square().sum(2) for p in places if p.inverted is inverted]
    return torch.stack(found).sum(0)
