"""Permutation states: which trained network or training run a sequence represents (RPG, arXiv:2501.11587, sections 2.3 and B.6).

A state is given by weights over the K known ones, (S, K) with rows that sum to 1: one-hot for a known state, other weights for a
mixture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramgen.errors import ParamgenError, require_choice, require_non_negative

States = Literal["checkpoint", "run", "none"]
StateEmbedding = Literal["one_hot", "normal", "trained"]
RandomState = Literal["random", "mixture"]


@dataclass(frozen=True)
class StateSettings:
    """The permutation states.

    Args:
        kind: One state per ``checkpoint``, one per ``run``, or ``none``.
        embedding: ``one_hot`` (fixed, the paper), ``normal`` (fixed random vectors), ``trained`` (a trained table).
        sample: Default state of samples: ``random`` (all equally often) or ``mixture`` (of two).

    Raises:
        ParamgenError: An unknown choice.
    """

    kind: States = "checkpoint"
    embedding: StateEmbedding = "one_hot"
    sample: RandomState = "random"

    def __post_init__(self) -> None:
        require_choice(States, "state.", kind=self.kind)
        require_choice(StateEmbedding, "state.", embedding=self.embedding)
        require_choice(RandomState, "state.", sample=self.sample)

    def make(self, num_networks: int, num_runs: int, width: int) -> "StateEmbeddings":
        """The embeddings of the states of K networks or R runs.

        Raises:
            ParamgenError: More one-hot states than the width has room for.
        """
        count = {"checkpoint": num_networks, "run": num_runs, "none": 0}[self.kind]
        return StateEmbeddings(self.embedding, count, width)


class StateEmbeddings(nn.Module):
    """Vectors of K states.

    Args:
        kind: ``one_hot`` (fixed), ``normal`` (fixed, standard normal), ``trained`` (starts standard normal).
        count: K; 0 for no states at all, which embed as zeros.
        width: Width of the vectors.

    Raises:
        ParamgenError: An unknown kind, or more one-hot states than the width has room for.
    """

    def __init__(self, kind: StateEmbedding, count: int, width: int) -> None:
        super().__init__()
        require_choice(StateEmbedding, "state.", embedding=kind)
        if kind == "one_hot" and count > width:
            raise ParamgenError(
                f"{count} one-hot states do not fit d_model {width}; use state.embedding: normal or trained, or a larger recurrence.d_model"
            )
        require_non_negative(states=count)
        self.kind, self.count, self.width = kind, count, width
        if kind == "one_hot" or count == 0:
            self.table = None
        elif kind == "trained":
            self.table = nn.Parameter(torch.randn(count, width))
        else:
            self.register_buffer("table", torch.randn(count, width))

    table: Tensor | None  # (K, width)

    def weights(self, state: Tensor) -> Tensor:
        """States (S,) long on the CPU, each -1 to K - 1, as weights (S, K); -1 is an unknown one, equal parts of all.

        Raises:
            ParamgenError: A state out of range.
        """
        self._check(state, -1)
        one_hot = F.one_hot(state.clamp_min(0), max(self.count, 1))[:, : self.count].float()  # (S, K)
        return torch.where((state < 0)[:, None], 1 / max(self.count, 1), one_hot)

    def draw(self, n: int, mixture: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Weights (n, K) of random states, whose counts differ by one at most, or of mixtures of two different states."""
        if self.count == 0:
            return torch.zeros(n, 0)
        order = torch.cat([torch.randperm(self.count, generator=generator) for _ in range(-(-n // self.count))])
        first = F.one_hot(order[:n], self.count).float()  # (n, K)
        if not mixture:
            return first
        further = 1 + torch.randint(max(self.count - 1, 1), (n,), generator=generator)
        second = F.one_hot((order[:n] + further) % self.count, self.count).float()
        return torch.lerp(first, second, torch.rand(n, 1, generator=generator))

    def asked(
        self,
        n: int,
        state: int | Sequence[int] | Tensor | RandomState,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Weights (n, K) of the requested states.

        Args:
            n: Number of states.
            state: A known state for all, one for each (n,), weights over the known states (n, K), ``random`` or ``mixture``.
            generator: Source of randomness.

        Raises:
            ParamgenError: A state out of range, a number of states other than n, or an unknown word.
        """
        if isinstance(state, str):
            if state not in ("random", "mixture"):
                raise ParamgenError(f"state {state!r}: expected a number, a list of {n} numbers, random or mixture")
            return self.draw(n, state == "mixture", generator)
        if isinstance(state, Tensor) and state.is_floating_point():
            weights = state.float()
        else:
            indices = torch.as_tensor(state).cpu()
            self._check(indices, 0)
            weights = self.weights(indices.expand(n) if indices.dim() == 0 else indices)
        if tuple(weights.shape) != (n, self.count):
            raise ParamgenError(
                f"states of shape {tuple(weights.shape)}; expected ({n},), or weights ({n}, {self.count})"
            )
        return weights

    def _check(self, states: Tensor, least: int) -> None:
        """Raise ParamgenError unless all states, on the CPU, are `least` to K - 1."""
        wrong = states[(states < least) | (states >= self.count)]
        if wrong.numel():
            raise ParamgenError(
                f"state {int(wrong[0])} is out of range: the generator knows the states 0 to {self.count - 1}"
            )

    def forward(self, weights: Tensor) -> Tensor:
        """(S, K) -> (S, width)."""
        if self.count == 0:
            return weights.new_zeros(len(weights), self.width)
        if self.table is None:
            return F.pad(weights, (0, self.width - self.count))
        return weights @ self.table.to(weights.dtype)


def known(weights: Tensor) -> list[int | None]:
    """The known state of each of n weights (n, K); None for mixtures, and without states."""
    if weights.shape[1] == 0:
        return [None] * len(weights)
    share, state = weights.max(1)
    return [int(i) if s == 1 else None for i, s in zip(state, share, strict=True)]
