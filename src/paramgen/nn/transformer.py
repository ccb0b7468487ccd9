"""A transformer over all noisy tokens of a network at once, with adaptive layer norm (DiT: Peebles and Xie 2022, arXiv:2212.09748).

B networks, L tokens of D numbers. d: width. c: features of the step, and of the condition where there is one (B or 1, d).
Every layer normalises, then scales and shifts by c; every residual branch is gated by c. Gates and last projection start at 0, so that the
untrained network answers 0, the mean of standardised tokens.

Departs from DiT: the noisy tokens themselves, scaled by c, are added to the answer. At low noise the answer is close to the input, and
tokens may be wider than d. A start (G.pt: Peebles et al. 2022, arXiv:2209.12892) is a second set of tokens, added to the embedding of the
first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.errors import ParamgenError, require_positive
from paramgen.nn.condition import ConditionInput
from paramgen.nn.embeddings import TimeEmbedding
from paramgen.nn.positions import Position, Positions


@dataclass(frozen=True)
class TransformerSettings:
    """The transformer that denoises all tokens of a network together.

    Args:
        width: d, features of a token; a multiple of 4 and of `heads`.
        depth: Layers.
        heads: Attention heads.
        expansion: Width of a layer's MLP, as a multiple of d.
        dropout: Dropout of every residual branch in training.
        position: ``learned`` (starts as ``layer``), ``layer`` (which tensor, where in it) or ``index`` (front to back).

    Raises:
        ParamgenError: A size below 1, a width that its heads do not divide, a dropout outside 0 to 1.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    expansion: int = 4
    dropout: float = 0.0
    position: Position = "learned"

    def __post_init__(self) -> None:
        require_positive("denoiser.", width=self.width, depth=self.depth, heads=self.heads, expansion=self.expansion)
        if self.width % self.heads:
            raise ParamgenError(f"denoiser.width {self.width} is not a multiple of denoiser.heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ParamgenError(f"denoiser.dropout is {self.dropout}, expected 0 or more and below 1")

    def make(
        self, seq_len: int, token_dim: int, cond_dim: int = 0, cond_dropout: float = 0.0, start: bool = False
    ) -> "TokenTransformer":
        """The transformer of networks (L, D).

        Args:
            seq_len: L.
            token_dim: D.
            cond_dim: Numbers of a condition; 0 for none.
            cond_dropout: Share of training conditions that are left out.
            start: Whether it takes start weights.
        """
        condition = ConditionInput(cond_dim, self.width, cond_dropout) if cond_dim else None
        return TokenTransformer(seq_len, token_dim, self, condition, start)


class Modulation(nn.Module):
    """Scales, shifts and gates from c, all 0 at the start.

    Args:
        width: d.
        parts: How many vectors (…, d).
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.layer = zeroed(nn.Linear(width, parts * width))

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        """C (B or 1, d) -> `parts` vectors (B or 1, 1, d)."""
        return self.layer(F.silu(c))[:, None].chunk(self.parts, -1)  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """Attention over all tokens, then an MLP on each; both normalised and gated by c.

    Args:
        width: d.
        heads: Attention heads.
        expansion: Width of the MLP over d.
        dropout: Of both branches in training.
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.modulation = Modulation(width, 6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(approximate="tanh"), nn.Linear(expansion * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Tokens' features (B, L, d) after this layer."""
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = self.modulation(c)
        h = h + gate * self.dropout(self._attend(self.norms[0](h) * (1 + scale) + shift))
        updated: Tensor = h + gate_mlp * self.dropout(self.mlp(self.norms[1](h) * (1 + scale_mlp) + shift_mlp))
        return updated

    def _attend(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, L, d / heads)
        attended: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return attended


class TokenTransformer(nn.Module):
    """Predicts all tokens of a network from all of its noisy tokens.

    Args:
        seq_len: L.
        token_dim: D.
        settings: Its size.
        condition: Embeds conditions; None for networks without.
        start: Whether it takes start weights.
    """

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        settings: TransformerSettings,
        condition: ConditionInput | None = None,
        start: bool = False,
    ) -> None:
        super().__init__()
        width = settings.width
        self.positions = Positions(settings.position, torch.zeros(seq_len, 2, dtype=torch.long), width)
        self.time, self.condition = TimeEmbedding(width), condition
        self.first = nn.Linear(token_dim, width)
        self.start = zeroed(nn.Linear(token_dim + 1, width)) if start else None  # the last number: whether there is one
        self.layers = nn.ModuleList(
            TransformerLayer(width, settings.heads, settings.expansion, settings.dropout) for _ in range(settings.depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = Modulation(width, 2)
        self.skip = zeroed(nn.Linear(width, 1))
        self.last = zeroed(nn.Linear(width, token_dim))

    def forward(self, x_t: Tensor, t: Tensor, marked: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """The prediction (B, L, D) for noisy tokens.

        Args:
            x_t: (B, L, D).
            t: (B,) or (1,), steps.
            marked: (B, C + 1), marked conditions; for networks that have them.
            start: (B, L, D + 1), start weights and whether there are any; for networks that take them.
        """
        c = self.time(t)  # (B or 1, d)
        if self.condition is not None:
            assert marked is not None
            c = c + self.condition(marked)
        h = self.first(x_t) + self.positions()  # (B, L, d)
        if self.start is not None:
            assert start is not None
            h = h + self.start(start)
        for layer in self.layers:
            h = layer(h, c)
        scale, shift = self.modulation(c)
        predicted: Tensor = self.last(self.norm(h) * (1 + scale) + shift) + self.skip(F.silu(c))[:, None] * x_t
        return predicted


def zeroed(layer: nn.Linear) -> nn.Linear:
    """A linear layer that answers 0 until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
