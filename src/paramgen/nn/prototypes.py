"""Prototypes, the diffusion head's input for each token (RPG, Wang et al. 2025, arXiv:2501.11587, section 2.3).

A recurrent model reads, for every token, its position, the network's permutation state and, where there is one, its condition. It never
sees the tokens, so that networks of one state and condition share their prototypes: they are computed once for each distinct *key*.
n networks, S distinct keys, L tokens, K states, C numbers a condition and one more that marks whether it is there.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from paramgen.nn.condition import ConditionInput
from paramgen.nn.positions import Positions
from paramgen.nn.recurrence import Recurrence
from paramgen.nn.states import StateEmbeddings


class Prototypes(nn.Module):
    """One prototype a token for each distinct key.

    Args:
        positions: Embeds the tokens' positions.
        states: Embeds the permutation states.
        condition: Embeds conditions; None for networks without.
        recurrence: (S, L, d_in) -> (S, L, d_model), never looking ahead; with ``resume`` piece by piece.
        condition_tokens: Number of last tokens that get the condition. Default: all.
    """

    def __init__(
        self,
        positions: Positions,
        states: StateEmbeddings,
        condition: ConditionInput | None,
        recurrence: Recurrence,
        condition_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.positions, self.states, self.condition, self.recurrence = positions, states, condition, recurrence
        self.condition_tokens = condition_tokens

    def keys(self, weights: Tensor, given: Tensor | None, kept: Tensor | None = None) -> Tensor:
        """Keys (n, K + C + 1) of networks of states (n, K), and conditions (n, C) or none.

        Args:
            weights: (n, K).
            given: (n, C) or None.
            kept: Which conditions are not dropped (n,); all if None.
        """
        if self.condition is None:
            return weights
        return torch.cat([weights, self.condition.mark(given, len(weights), kept).to(weights.dtype)], 1)

    def forward(self, keys: Tensor) -> Tensor:
        """(S, K + C + 1) -> (S, L, d_model)."""
        z: Tensor = self.recurrence(self._inputs(keys, slice(None)))
        return z

    def pieces(self, keys: Tensor, length: int, part: int) -> Iterator[tuple[int, Tensor]]:
        """Prototypes (S, l, d_model) of at most `part` tokens after the other, and the place of the first of them.

        Args:
            keys: (S, K + C + 1).
            length: Tokens whose prototypes are in memory at once.
            part: Tokens handed out at once, at most `length`.
        """
        carried: Any = None
        L = len(self.positions.places)
        for start in range(0, L, length):
            if length >= L:
                z = self(keys)  # (S, L, d_model)
            else:
                z, carried = self.recurrence.resume(self._inputs(keys, slice(start, start + length)), carried)
            for first in range(0, z.shape[1], part):
                yield start + first, z[:, first : first + part]

    def _inputs(self, keys: Tensor, piece: slice) -> Tensor:
        """What the recurrence reads at some places: (S, L', d_in)."""
        weights, condition = keys.split([self.states.count, keys.shape[1] - self.states.count], 1)
        u: Tensor = self.positions(piece) + self.states(weights)[:, None]  # (S, L', d_in)
        if self.condition is None:
            return u
        added = self.condition(condition)[:, None]  # (S, 1, d_in)
        if self.condition_tokens is not None:
            L = len(self.positions.places)
            place = torch.arange(L, device=u.device)[piece]
            added = added * (place >= L - self.condition_tokens)[:, None]
        read: Tensor = u + added
        return read


class Distinct(NamedTuple):
    """The distinct ones among n things."""

    first: Tensor  # (S,) a place of each
    which: Tensor  # (n,) which of them each thing is


def distinct(things: Tensor) -> Distinct:
    """The distinct rows of things (n, W), on the CPU: on a device, how many there are is known only when it has done all its work."""
    _, which = torch.unique(things.flatten(1), dim=0, return_inverse=True)
    places = torch.arange(len(things))
    first = torch.full((int(which.max()) + 1,), len(things)).scatter_reduce(0, which, places, "amin")
    return Distinct(first, which)


def of_first(things: Tensor, count: int) -> Tensor:
    """The places (m,) of those of n things (n, W), on the CPU, that are one of the first `count` distinct ones."""
    which = distinct(things).which
    first = list(dict.fromkeys(which.tolist()))[:count]
    return torch.isin(which, torch.tensor(first)).nonzero()[:, 0]
