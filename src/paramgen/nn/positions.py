"""Position embeddings of tokens (RPG, Wang et al. 2025, arXiv:2501.11587, section 2.3 and table 4b).

A token has two coordinates: the index of the tensor it is cut from ('layer') and its place among that tensor's tokens.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from paramgen.errors import ParamgenError, require_choice

Position = Literal["layer", "index", "learned"]


def sinusoid(place: Tensor, width: int, base: float = 1e4) -> Tensor:
    """Interleaved sines and cosines of places (L,): (L, width) float32.

    Raises:
        ParamgenError: An odd width.
    """
    if width % 2:
        raise ParamgenError(f"a sinusoid has pairs of sine and cosine: its width must be even, not {width}")
    rate = torch.exp(torch.arange(0, width, 2, device=place.device) * (-math.log(base) / width))  # (width / 2,)
    angle = place[:, None].float() * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # (L, width)


def layer_sinusoid(positions: Tensor, width: int) -> Tensor:
    """2D sinusoid: the first half tells the place within the tensor, the second half which tensor.

    Args:
        positions: (L, 2) long, tensor and place within it.
        width: A multiple of 4.

    Returns:
        (L, width) float32.

    Raises:
        ParamgenError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ParamgenError(f"position 'layer' needs a d_model that is a multiple of 4, not {width}")
    layer, place = positions.unbind(1)
    return torch.cat([sinusoid(place, width // 2), sinusoid(layer, width // 2)], 1)


class Positions(nn.Module):
    """Embeds token positions; the sinusoids are computed on demand and take no memory.

    Args:
        kind: ``layer`` (2D sinusoid, the paper's default), ``index`` (1D, front to back), ``learned`` (starts as ``layer``).
        positions: (L, 2) long: tensor and place within it, one row a token.
        width: Width of the embedding.

    Raises:
        ParamgenError: An unknown kind or a width that does not fit it.
    """

    def __init__(self, kind: Position, positions: Tensor, width: int) -> None:
        super().__init__()
        require_choice(Position, position=kind)
        self.kind, self.width = kind, width
        self.register_buffer("places", positions.clone())
        start = layer_sinusoid(positions, width) if kind == "learned" else None
        self.table = None if start is None else nn.Parameter(start)
        self(slice(0, 1))  # refuses a width that does not fit

    places: Tensor  # (L, 2)

    def place(self, positions: Tensor) -> None:
        """Take other positions (L, 2); a learned table starts again from them."""
        self.places.copy_(positions)
        if self.table is not None:
            with torch.no_grad():
                self.table.copy_(layer_sinusoid(positions, self.width))

    def forward(self, piece: slice = slice(None)) -> Tensor:
        """The embeddings of the tokens in `piece` of the sequence: (L', width)."""
        if self.table is not None:
            return self.table[piece]
        if self.kind == "index":
            return sinusoid(torch.arange(len(self.places), device=self.places.device)[piece], self.width)
        return layer_sinusoid(self.places[piece], self.width)
