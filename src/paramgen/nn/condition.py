"""How a task's condition enters a network, the same for every backend.

C: numbers of a condition. A *marked* condition (B, C + 1) ends in 1; a missing condition is all 0. Thus a
generator learns to do without (condition dropout) and can be guided (Ho and Salimans 2022, arXiv:2207.12598).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from paramgen.core.devices import to_device
from paramgen.errors import ParamgenError, require_choice

ConditionEntry = Literal["latent", "film", "concat"]
"""Where a condition enters a denoiser: added to its input, the scale and shift of every layer, or an additional channel."""

FILM_WIDTH = 256  # features of a condition that modulate layers


class ConditionInput(nn.Module):
    """Marked conditions as features (B, width).

    Args:
        cond_dim: C.
        width: Of the features.
        dropout: Share of training conditions to drop.
        hidden: Width of the hidden layer.
    """

    mean: Tensor  # (C,)
    scale: Tensor  # (C,)

    def __init__(self, cond_dim: int, width: int, dropout: float = 0.0, hidden: int = 256) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ParamgenError(f"condition.dropout is {dropout}, expected 0 or more and below 1")
        self.cond_dim, self.dropout = cond_dim, dropout
        self.layers = nn.Sequential(nn.Linear(cond_dim + 1, hidden), nn.SiLU(), nn.Linear(hidden, width))
        self.register_buffer("mean", torch.zeros(cond_dim))
        self.register_buffer("scale", torch.ones(cond_dim))

    def standardise(self, conditions: Tensor) -> None:
        """Take mean and spread of the seen tasks' conditions (K, C); a number that is the same for all tasks has no effect."""
        self.mean.copy_(conditions.mean(0))
        self.scale.copy_(inverse_spread(conditions))

    def kept(self, n: int) -> Tensor | None:
        """Which of n conditions are not dropped (n,) bool, on the CPU; None outside training, where none is."""
        return torch.rand(n) >= self.dropout if self.training and self.dropout else None

    def mark(self, condition: Tensor | None, n: int, kept: Tensor | None = None) -> Tensor:
        """Marked conditions (n, C + 1), all 0 if `condition` is None.

        Args:
            condition: (n, C) or None.
            n: Rows.
            kept: Which are not dropped, as of :meth:`kept`; all if None.

        Raises:
            ParamgenError: A condition of another width, or no condition for a generator that was trained without dropout.
        """
        if condition is None:
            if self.dropout == 0:
                raise ParamgenError(
                    f"the generator needs a condition of {self.cond_dim} numbers: it was fitted with condition.dropout 0"
                )
            return self.mean.new_zeros(n, self.cond_dim + 1)
        if condition.dim() != 2 or condition.shape[1] != self.cond_dim:
            raise ParamgenError(f"the condition has {condition.shape[-1]} numbers, the generator takes {self.cond_dim}")
        marked = torch.cat([condition.to(self.mean), self.mean.new_ones(len(condition), 1)], 1)
        return marked if kept is None else marked * to_device(kept, marked.device)[:, None]

    def forward(self, marked: Tensor) -> Tensor:
        """Features (B, width) of marked conditions (B, C + 1)."""
        condition, present = marked[:, :-1], marked[:, -1:]
        embedded: Tensor = self.layers(torch.cat([(condition - self.mean) * self.scale * present, 1 - present], 1))
        return embedded


def inverse_spread(conditions: Tensor) -> Tensor:
    """1 / standard deviation (C,) of each number of conditions (K, C); 0 for one that is the same in all of them, up to rounding."""
    std = conditions.std(0, correction=0)
    return torch.where(std > 1e-6 * conditions.abs().amax(0), 1 / std, 0.0)


class FiLM(nn.Module):
    """Features scaled and shifted by a condition (Perez et al. 2018, arXiv:1709.07871); starts as the identity.

    Args:
        width: Of the condition's features.
        channels: Of what is modulated.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Features h (B, channels, ...) modulated by c (B, width)."""
        scale, shift = self.layer(c).view(len(c), 2, -1, *[1] * (h.dim() - 2)).unbind(1)
        modulated: Tensor = h * (1 + scale) + shift
        return modulated


class ConditionedDenoiser(nn.Module):
    """A denoiser of latents (B, C', l) with a condition.

    Args:
        make: The denoiser for a number of latent channels and a width of FiLM's features (0 for none).
        latent_shape: (C', l).
        cond_dim: C.
        entry: ``latent``: added to the noised latent (Wild-P-Diff). ``film``: the scale and shift of every layer. ``concat``: one more
            channel of the noised latent.
        dropout: Share of training conditions to drop.

    Raises:
        ParamgenError: An unknown entry.
    """

    def __init__(
        self,
        make: Callable[[int, int], nn.Module],
        latent_shape: tuple[int, int],
        cond_dim: int,
        entry: ConditionEntry = "film",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_choice(ConditionEntry, "denoiser.", condition=entry)
        channels, length = latent_shape
        widths = {"latent": channels * length, "film": FILM_WIDTH, "concat": length}
        self.entry, self.channels = entry, channels
        self.condition = ConditionInput(cond_dim, widths[entry], dropout)
        self.denoiser = make(channels + (entry == "concat"), FILM_WIDTH if entry == "film" else 0)

    def forward(self, z: Tensor, t: Tensor, marked: Tensor) -> Tensor:
        """The prediction (B, C', l) for z_t at steps t, under marked conditions (B, C + 1)."""
        c = self.condition(marked)  # (B, width)
        predicted: Tensor
        if self.entry == "film":
            predicted = self.denoiser(z, t, c)
        elif self.entry == "latent":
            predicted = self.denoiser(z + c.view_as(z), t)
        else:
            predicted = self.denoiser(torch.cat([z, c[:, None].to(z.dtype)], 1), t)[:, : self.channels]
        return predicted


def guided(
    conditional: Callable[[Tensor, Tensor], Tensor], unconditional: Callable[[Tensor, Tensor], Tensor], scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """A denoiser that goes `scale` times the difference from the unconditional to the conditional prediction.

    Args:
        conditional: ``denoise(x_t, t)`` with the condition.
        unconditional: The same without the condition.
        scale: 0 without the condition, 1 with it, above 1 beyond it.
    """
    if scale == 1:
        return conditional

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x_t, t)
        return without + scale * (conditional(x_t, t) - without)

    return denoise
