"""Prototypes, the diffusion head's input for each token (RPG, Wang et al. 2025, arXiv:2501.11587, section 2.3).

A recurrent model reads, for every token, its position, the network's permutation state and, where there is one, its condition. It never
sees the tokens, so that networks of one state and condition share their prototypes: they are computed once for each distinct *key*.
n networks, S distinct keys, L tokens, K states, C numbers a condition and one more that marks whether it is there.
"""

from collections.abc import Iterator
from typing import Any

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

    def keys(self, weights: Tensor, given: Tensor | None) -> Tensor:
        """Keys (n, K + C + 1) of networks of states (n, K), and conditions (n, C) or none."""
        if self.condition is None:
            return weights
        return torch.cat([weights, self.condition.mark(given, len(weights)).to(weights.dtype)], 1)

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


def distinct_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct keys (S, W) among keys (n, W), and the index of each key among them (n,)."""
    if keys.shape[1] == 0:
        return keys[:1], torch.zeros(len(keys), dtype=torch.long, device=keys.device)
    unique, which = torch.unique(keys, dim=0, return_inverse=True)
    return unique, which


def of_first(which: Tensor, count: int) -> Tensor:
    """Which of n networks have one of the first `count` distinct keys: (n,) bool."""
    first = list(dict.fromkeys(which.tolist()))[:count]
    return torch.isin(which, torch.tensor(first, device=which.device))
