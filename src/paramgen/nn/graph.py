"""A denoiser of whole networks that knows which of their hidden units may change places.

Units are tokens. What joins a unit to fixed inputs and outputs is its features; what joins two hidden units is the feature of a pair. Units
attend to one another, biased by their pairs; messages run along the pairs in both directions; every pair is updated from both its ends.
Nothing tells units of one layer apart, so permuting the units of a noised network permutes the prediction, exactly.

B: networks. N: units of all groups, and one token for the numbers of no unit. d: width of a token. p: width of a pair.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.errors import ParamgenError, require_positive
from paramgen.nn.embeddings import TimeEmbedding

PairPlace = tuple[int, int, int]  # first group, second group, numbers a pair


@dataclass(frozen=True)
class GraphSettings:
    """The denoiser of networks as graphs.

    Args:
        width: Width of a unit's token.
        pair_width: Width of a pair of units.
        depth: Blocks.
        heads: Attention heads; divides `width`.
        skip: Start every prediction from a share of the noised number, which depends on the time. Better for weights alone; worse with
            a behavioural loss, which then also learns from the noise.

    Raises:
        ParamgenError: A number below 1, or heads that do not divide the width.
    """

    width: int = 96
    pair_width: int = 32
    depth: int = 3
    heads: int = 4
    skip: bool = True

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("width", "pair_width", "depth", "heads")}
        require_positive("denoiser.", **numbers)
        if self.width % self.heads:
            raise ParamgenError(f"denoiser.heads is {self.heads}, expected a divisor of denoiser.width = {self.width}")

    def make(self, units: Sequence[tuple[int, int]], pairs: Sequence[PairPlace], rest: int) -> "GraphDenoiser":
        """The denoiser of networks with these units, pairs and other numbers."""
        return GraphDenoiser(units, pairs, rest, self.width, self.pair_width, self.depth, self.heads, self.skip)


class GraphDenoiser(nn.Module):
    """Predicts networks from noised ones, unit by unit and pair by pair.

    Args:
        units: Units and numbers a unit, (U, F), of each group.
        pairs: First group, second group and numbers a pair, of each field of pairs.
        rest: Numbers that belong to no unit.
        width: d.
        pair_width: p.
        depth: Blocks.
        heads: Attention heads; divides `width`.
        skip: Start predictions from a share of the noised numbers.
    """

    def __init__(
        self,
        units: Sequence[tuple[int, int]],
        pairs: Sequence[PairPlace],
        rest: int,
        width: int = 96,
        pair_width: int = 32,
        depth: int = 3,
        heads: int = 4,
        skip: bool = True,
    ) -> None:
        super().__init__()
        counts = [count for count, _ in units]
        self.spans = [slice(*ends) for ends in pairwise(accumulate(counts, initial=0))]
        self.joined = [(first, second) for first, second, _ in pairs]
        self.time = TimeEmbedding(width)
        self.unit_in = nn.ModuleList(nn.Linear(features, width) for _, features in units)
        self.pair_in = nn.ModuleList(
            nn.Linear(channels + (first == second), pair_width) for first, second, channels in pairs
        )
        self.rest_in = nn.Linear(rest, width) if rest else None
        self.blocks = nn.ModuleList(GraphBlock(self.spans, self.joined, width, pair_width, heads) for _ in range(depth))
        self.unit_out = nn.ModuleList(UnitHead(features, width, skip) for _, features in units)
        self.pair_out = nn.ModuleList(PairHead(channels, width, pair_width, skip) for _, _, channels in pairs)
        self.rest_out = UnitHead(rest, width, skip) if rest else None

    def forward(
        self, units: list[Tensor], pairs: list[Tensor], rest: Tensor, t: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Clean units (B, U, F), pairs (B, U, V, C) and other numbers (B, R) from noised ones at steps t (B,) or (1,)."""
        time = F.silu(self.time(t)).expand(len(rest), -1)  # (B, d)
        tokens = [layer(x) for layer, x in zip(self.unit_in, units, strict=True)]
        last = torch.zeros_like(time) if self.rest_in is None else self.rest_in(rest)
        h = torch.cat([*tokens, last[:, None]], 1)  # (B, N, d)
        fields = [
            layer(_with_diagonal(x) if a == b else x)
            for layer, x, (a, b) in zip(self.pair_in, pairs, self.joined, strict=True)
        ]  # (B, U, V, p)
        for block in self.blocks:
            h, fields = block(h, fields, time)
        clean = [head(h[:, span], x, time) for head, span, x in zip(self.unit_out, self.spans, units, strict=True)]
        joined = [
            head(field, h[:, self.spans[a]], h[:, self.spans[b]], x, time)
            for head, field, x, (a, b) in zip(self.pair_out, fields, pairs, self.joined, strict=True)
        ]
        others = rest if self.rest_out is None else self.rest_out(h[:, -1:], rest[:, None], time)[:, 0]
        return clean, joined, others


class GraphBlock(nn.Module):
    """Attention over all units, messages along the pairs, and an update of the pairs; time scales and shifts every part (adaLN).

    Args:
        spans: Positions of each group's units among the tokens.
        joined: The two groups of each field of pairs.
        width: d.
        pair_width: p.
        heads: Attention heads.
    """

    def __init__(
        self, spans: Sequence[slice], joined: Sequence[tuple[int, int]], width: int, pair_width: int, heads: int
    ) -> None:
        super().__init__()
        self.spans, self.heads = spans, heads
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.norm_in = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.fields = nn.ModuleList(PairField(a, b, width, pair_width, heads) for a, b in joined)

    def forward(self, h: Tensor, pairs: list[Tensor], time: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens (B, N, d) and pairs (B, U, V, p) from the same, at times (B, d)."""
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = self.modulation(time)[:, None].chunk(6, -1)
        x = self.norm_in(h) * (1 + scale) + shift
        fields = cast("list[PairField]", [*self.fields])
        normed = [field.norm(pair, time) for field, pair in zip(fields, pairs, strict=True)]
        bias = h.new_zeros(len(h), self.heads, h.shape[1], h.shape[1])
        messages = torch.zeros_like(h)
        for field, pair in zip(fields, normed, strict=True):
            a, b = self.spans[field.first], self.spans[field.second]
            to_first, to_second = field.messages(pair, x[:, a], x[:, b])
            messages[:, a] += to_first
            messages[:, b] += to_second
            each = field.bias(pair).permute(0, 3, 1, 2)  # (B, heads, U, V)
            bias[:, :, a, b] += each
            bias[:, :, b, a] += each.transpose(2, 3)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        h = h + (1 + gate) * (self.out(attended) + messages)
        x = self.norm_mlp(h) * (1 + scale_mlp) + shift_mlp
        h = h + (1 + gate_mlp) * self.mlp(x)
        updated = [
            pair + field.update(norm, x[:, self.spans[field.first]], x[:, self.spans[field.second]])
            for field, pair, norm in zip(fields, pairs, normed, strict=True)
        ]
        return h, updated


class PairField(nn.Module):
    """What one block knows of the pairs of two groups.

    Args:
        first: The group of a pair's first unit.
        second: Of its second.
        width: d.
        pair_width: p.
        heads: Attention heads that the pairs bias.
    """

    def __init__(self, first: int, second: int, width: int, pair_width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.scale = nn.Linear(width, 2 * pair_width)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)
        self.plain_norm = nn.LayerNorm(pair_width, elementwise_affine=False)
        self.bias = nn.Linear(pair_width, heads)
        self.values = nn.ModuleList(nn.Linear(width, pair_width) for _ in range(2))
        self.sent = nn.ModuleList(nn.Linear(pair_width, width) for _ in range(2))
        self.ends = nn.ModuleList(nn.Linear(width, 2 * pair_width) for _ in range(2))
        self.own, self.back = nn.Linear(pair_width, 2 * pair_width), nn.Linear(2 * pair_width, pair_width)

    def norm(self, pair: Tensor, time: Tensor) -> Tensor:
        """Normalised pairs (B, U, V, p), scaled and shifted by the time (B, d)."""
        scale, shift = self.scale(time)[:, None, None].chunk(2, -1)
        normed: Tensor = self.plain_norm(pair) * (1 + scale) + shift
        return normed

    def messages(self, pair: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """What units (B, U, d) and (B, V, d) hear of one another along their pairs (B, U, V, p)."""
        from_second = torch.einsum("buvp,bvp->bup", pair, self.values[1](second)) / math.sqrt(pair.shape[2])
        from_first = torch.einsum("buvp,bup->bvp", pair, self.values[0](first)) / math.sqrt(pair.shape[1])
        return self.sent[0](from_second), self.sent[1](from_first)

    def update(self, pair: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """The change of normalised pairs (B, U, V, p), given their ends (B, U, d) and (B, V, d)."""
        hidden = self.own(pair) + self.ends[0](first)[:, :, None] + self.ends[1](second)[:, None]
        change: Tensor = self.back(F.gelu(hidden))
        return change


class UnitHead(nn.Module):
    """The clean numbers of a unit: a share of the noised ones, which depends on the time, and what the token adds.

    Args:
        features: Numbers a unit.
        width: d.
        skip: Whether a share of the noised numbers is added.
    """

    def __init__(self, features: int, width: int, skip: bool) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, features)
        self.kept = nn.Linear(width, features) if skip else None

    def forward(self, h: Tensor, noised: Tensor, time: Tensor) -> Tensor:
        """(B, U, F) of tokens (B, U, d), noised numbers (B, U, F) and times (B, d)."""
        clean: Tensor = self.out(self.norm(h))
        return clean if self.kept is None else clean + self.kept(time)[:, None] * noised


class PairHead(nn.Module):
    """The clean numbers of a pair: a share of the noised ones, what the pair adds, and products of its ends.

    Args:
        channels: Numbers a pair.
        width: d.
        pair_width: p.
        skip: Whether a share of the noised numbers is added.
        rank: Terms of the products, over all numbers of a pair.
    """

    def __init__(self, channels: int, width: int, pair_width: int, skip: bool, rank: int = 64) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(pair_width), nn.Linear(pair_width, channels)
        self.ends_norm = nn.LayerNorm(width)
        self.rank = max(8, rank // channels)
        self.ends = nn.ModuleList(nn.Linear(width, channels * self.rank) for _ in range(2))
        self.kept = nn.Linear(width, channels) if skip else None

    def forward(self, pair: Tensor, first: Tensor, second: Tensor, noised: Tensor, time: Tensor) -> Tensor:
        """(B, U, V, C) of pairs (B, U, V, p), ends (B, U, d) and (B, V, d), noised numbers (B, U, V, C) and times (B, d)."""
        a, b = (
            end(self.ends_norm(h)).unflatten(-1, (-1, self.rank))
            for end, h in zip(self.ends, (first, second), strict=True)
        )  # (B, U, C, rank)
        product = torch.einsum("bucr,bvcr->buvc", a, b) / math.sqrt(self.rank)
        clean: Tensor = self.out(self.norm(pair)) + product
        return clean if self.kept is None else clean + self.kept(time)[:, None, None] * noised


def _with_diagonal(pairs: Tensor) -> Tensor:
    """Pairs of one group (B, U, U, C) with one number more: whether both ends are the same unit."""
    same = torch.eye(pairs.shape[1], dtype=pairs.dtype, device=pairs.device)
    return torch.cat([pairs, same[None, :, :, None].expand(len(pairs), -1, -1, -1)], -1)
