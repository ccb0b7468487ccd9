"""Permutation and scale canonicalisation: networks with the same function get the same weights.

The symmetries of an architecture are read from its graph (:class:`PermutationSpec`); :func:`weight_matching` and :func:`align_to` order
hidden units, :func:`balance_scale` fixes their scale, :class:`AlignedZoo` and :func:`aligned_distances` measure up to both.
A network whose symmetries cannot be read raises :class:`CannotAlign`: fall back to raw weights and say so.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paramgen.core.params import ParamSpec, StateDict
from paramgen.symmetry.axes import CannotAlign
from paramgen.symmetry.distance import AlignedZoo, aligned_distances
from paramgen.symmetry.groups import PermutationSpec, Place, Unplaced, stack
from paramgen.symmetry.matching import align_matrix, align_to, match, weight_matching
from paramgen.symmetry.scale import balance_matrix, balance_scale

__all__ = [
    "AlignResult",
    "AlignedZoo",
    "CannotAlign",
    "PermutationSpec",
    "Place",
    "Unplaced",
    "align_matrix",
    "align_state_dicts",
    "align_to",
    "align_with",
    "aligned_distances",
    "balance_matrix",
    "balance_scale",
    "match",
    "weight_matching",
]


class AlignResult(NamedTuple):
    """Aligned networks, their mean L2 distance to their mean before and after, and what was aligned."""

    state_dicts: list[StateDict]
    mean_cost_before: float
    mean_cost_after: float
    spec: PermutationSpec


def align_state_dicts(
    network: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    state_dicts: Sequence[Mapping[str, Tensor]],
    rounds: int = 4,
    seed: int = 0,
    scale: bool = True,
    members: Sequence[int] | None = None,
) -> AlignResult:
    """Bring networks of one architecture to a common order of hidden units, and a common scale.

    Args:
        network: The architecture, built.
        example_input: A small batch of its input.
        state_dicts: The networks, in full or only their generated tensors; other tensors are held fixed.
        rounds: Rounds to the running mean after the first assignment to one network.
        seed: Seed that selects this first network among the members.
        scale: Balance each unit's input and output norm first, where its activation allows it, and choose the basis of each space.
        members: Which networks make the mean (a zoo's train split); all by default. The others are aligned to it.

    Raises:
        CannotAlign: The network cannot be traced, or mixes its hidden units.
    """
    params = ParamSpec.of(network, [name for name, t in state_dicts[0].items() if t.is_floating_point()])
    spec = PermutationSpec.of(network, example_input, params)
    return align_with(spec, state_dicts, rounds, seed, scale, members)


def align_with(
    spec: PermutationSpec,
    state_dicts: Sequence[Mapping[str, Tensor]],
    rounds: int = 4,
    seed: int = 0,
    scale: bool = True,
    members: Sequence[int] | None = None,
) -> AlignResult:
    """As :func:`align_state_dicts`, with the symmetries of the architecture already read."""
    members = list(range(len(state_dicts)) if members is None else members)
    W, states = stack(state_dicts, spec), list(state_dicts)  # (K, P)
    before = _spread(W[members])
    if scale and (spec.gauges or spec.spaces):
        W = balance_matrix(W, spec)
        states = [spec.filled(state, row) for state, row in zip(states, W, strict=True)]
    first = members[int(torch.randint(len(members), (), generator=torch.Generator().manual_seed(seed)))]
    aligned = align_matrix(W, spec, W[first], rounds, members)
    return AlignResult(aligned.states(states, spec), before, _spread(aligned.weights[members]), spec)


def _spread(W: Tensor) -> float:
    spread: float = (W - W.mean(0)).norm(dim=1).mean().item()
    return spread
