"""Where the numbers of each tensor lie among the tokens, L tokens of D numbers each, and which ranges of numbers a token is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core.params import TensorSpec


@dataclass(frozen=True)
class Block:
    """Position of one tensor in the row of L * D numbers: `rows` pieces of `width` numbers, one every `stride`, from `offset`."""

    spec: TensorSpec
    source: int  # where it starts among the P parameters
    offset: int
    rows: int
    width: int
    stride: int

    def view(self, flat: Tensor) -> Tensor:
        """The tensor's own numbers in `flat` (..., L * D): (..., rows, width), without padding."""
        piece = flat[..., self.offset : self.offset + self.rows * self.stride]
        numbers: Tensor = piece.unflatten(-1, (self.rows, self.stride))[..., : self.width]
        return numbers


class Piece(NamedTuple):
    """Consecutive numbers of one tensor that lie together among the chosen tokens."""

    block: int
    first: int  # among the tensor's numbers
    size: int
    place: int  # of the first, in the row of L' * D numbers


class TokenPieces:
    """The ranges of numbers that each token is made of, worked out once for all tokens.

    Args:
        blocks: Where the tensors are, in order.
        token_dim: D.
    """

    def __init__(self, blocks: Sequence[Block], token_dim: int) -> None:
        self.token_dim = token_dim
        tables = [_table(i, block, token_dim) for i, block in enumerate(blocks)]
        self.token, self.block, self.first, self.size, self.place = torch.cat(tables, 1)  # (N,) each

    def of(self, token: Tensor) -> list[Piece]:
        """The pieces of some tokens (L',) in ascending order; neighbours in one tensor are joined."""
        begin, end = torch.searchsorted(self.token, token), torch.searchsorted(self.token, token, right=True)
        counts = end - begin  # (L',)
        which = torch.arange(len(token)).repeat_interleave(counts)
        row = torch.arange(len(which)) + (begin - counts.cumsum(0) + counts)[which]
        columns = (self.block[row], self.first[row], self.size[row], self.place[row] + which * self.token_dim)
        joined: list[Piece] = []
        for piece in map(Piece, *(column.tolist() for column in columns)):
            if joined and _follows(joined[-1], piece):
                joined[-1] = joined[-1]._replace(size=joined[-1].size + piece.size)
            else:
                joined.append(piece)
        return joined


def _table(i: int, block: Block, token_dim: int) -> Tensor:
    """Pieces of block i in order, as columns token, block, first, size and place within the token: (5, N)."""
    start = block.offset + torch.arange(block.rows) * block.stride  # (rows,)
    lowest, highest = start // token_dim, (start + block.width - 1) // token_dim
    counts = highest - lowest + 1
    row = torch.arange(block.rows).repeat_interleave(counts)  # (N,)
    token = torch.arange(len(row)) + (lowest - counts.cumsum(0) + counts)[row]
    begin = torch.maximum(start[row], token * token_dim)
    end = torch.minimum(start[row] + block.width, (token + 1) * token_dim)
    first = row * block.width + begin - start[row]
    return torch.stack([token, torch.full_like(token, i), first, end - begin, begin - token * token_dim])


def _follows(a: Piece, b: Piece) -> bool:
    return (b.block, b.first, b.place) == (a.block, a.first + a.size, a.place + a.size)
