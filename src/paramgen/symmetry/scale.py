"""Removing the symmetries of factors.

A unit's input weights times s and its output weights over s compute the same through a ReLU, and so does a space whose input weights are
multiplied by an invertible matrix, and whose output weights by its inverse, where nothing but linear operations lies between.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from paramgen.core.factors import balanced_factors
from paramgen.core.params import StateDict
from paramgen.symmetry.groups import PermutationSpec, Place, coupled, stack

BALANCING_ROUNDS = 200
_NUMBERS = 1 << 23  # weights processed at a time, in float64


def balance_matrix(W: Tensor, spec: PermutationSpec, tolerance: float = 1e-7) -> Tensor:
    """Rescale hidden units so that each one's input norm equals its output norm, biases counted with the input; likewise spaces.

    That is the network of smallest L2 norm among those that differ by scale alone (Stock et al. 2019, *Equi-normalization*,
    arXiv:1902.10416): it is reached by balancing gauge after gauge, and does not depend on the start. Units without
    input or without output weights do not change, nor do networks with NaN or infinite weights. A space (the rank of an adapter,
    q and k of a head) takes the basis of its singular vectors, in the order of its singular values
    (:func:`paramgen.core.factors.balanced_factors`).

    Args:
        W: (K, P).
        spec: The architecture's gauges and spaces.
        tolerance: Stop when no factor differs from 1 by more.
    """
    if not (spec.gauges or spec.spaces):
        return W
    step = max(1, _NUMBERS // W.shape[1])
    return torch.cat([_balance(part, spec, tolerance) for part in W.split(step)]) if len(W) else W


def balance_scale(state: Mapping[str, Tensor], spec: PermutationSpec) -> StateDict:
    """One network, balanced (:func:`balance_matrix`); tensors that `spec.params` does not name pass through."""
    if not (spec.gauges or spec.spaces):
        return dict(state)
    return spec.filled(state, balance_matrix(stack([state], spec), spec)[0])


def _balance(W: Tensor, spec: PermutationSpec, tolerance: float) -> Tensor:
    finite = W.isfinite().all(1)
    X = W[finite].double()  # (K, P)
    neighbours = coupled(spec.gauges)
    for turn in range(BALANCING_ROUNDS):
        most, first = 0.0, turn == 0
        for gauge, places in spec.gauges.items():
            into, out = (_squares(X, spec, places, inverted) for inverted in (False, True))  # (K, U)
            power = 0.125 if gauge in neighbours[gauge] else 0.25  # half steps where both sides are in one tensor
            factor = torch.where((into > 0) & (out > 0), out / into, 1.0) ** power  # (K, U)
            spec.rescale_(X, gauge, factor)
            most = max(most, (factor - 1).abs().max().item() if factor.numel() else 0.0)
        for places in spec.spaces.values():
            most = max(most, _balance_space(X, spec, places, first, tolerance))
        if most <= tolerance:
            break
    out_rows = W.clone()
    out_rows[finite] = X.to(W.dtype)
    return out_rows


def _balance_space(X: Tensor, spec: PermutationSpec, places: tuple[Place, ...], first: bool, tolerance: float) -> float:
    """Balance one space of all networks, at first and wherever it is out of balance; returns how far it was."""
    if not len(X):
        return 0.0
    into, out = ([p for p in places if p.inverted is inverted] for inverted in (False, True))
    x, y = (torch.cat([spec.features(X, p) for p in side], 2) for side in (into, out))  # (K, U, F), (K, U, E)
    xx, yy = x @ x.mT, y @ y.mT
    gap: float = ((xx - yy).norm() / (xx.norm() + yy.norm()).clamp_min(torch.finfo(X.dtype).tiny)).item()
    if not first and gap <= tolerance:
        return 0.0
    new = balanced_factors(x, y)
    for side, features in ((into, new.x), (out, new.y)):
        parts = features.split([spec.features(X, p).shape[2] for p in side], 2)
        for place, part in zip(side, parts, strict=True):
            spec.put_(X, place, part)
    return gap


def _squares(X: Tensor, spec: PermutationSpec, places: tuple[Place, ...], inverted: bool) -> Tensor:
    squares = [spec.features(X, p).square().sum(2) for p in places if p.inverted is inverted]
    return torch.stack(squares).sum(0)
