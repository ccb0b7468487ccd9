"""An autoencoder of a network's tokens, token by token (SANE: Schürholt, Mahoney and Borth 2024, arXiv:2406.09997).

x: tokens (B, L, D). z: their latents (B, L, d), one for each token. A transformer encodes each token in the context of the others, a linear
layer narrows it to d numbers, and a second transformer decodes. Long networks are read in windows of tokens, with a halo of context on both
sides.

Contrast (NT-Xent: Chen et al. 2020, arXiv:2002.05709): latents of two noised views of one network are pulled together, those of different
networks are pushed apart.
Departs: one table or sinusoid of positions (which tensor, where in it) in place of three; views differ by noise alone, not by permutations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.errors import ParamgenError, require_choice, require_non_negative, require_positive
from paramgen.nn.positions import Position, Positions


@dataclass(frozen=True)
class TokenAutoencoderSettings:
    """The autoencoder of tokens, and its loss.

    Args:
        latent_dim: d, numbers in the latent of one token.
        width: Width of the transformers; a multiple of 4 and of `heads`.
        depth: Layers of each transformer.
        heads: Attention heads.
        expansion: Width of a layer's MLP, as a multiple of `width`.
        dropout: Dropout in training.
        position: ``learned`` (starts as ``layer``), ``layer`` (which tensor, where in it) or ``index`` (front to back).
        window: Tokens that are read together. Default: all.
        halo: Tokens of context on both sides of a window.
        input_noise: Standard deviation of the noise on training networks, in units of the codec.
        contrast: Share of the contrastive loss in the sum, 0 to 1; needs `input_noise`.
        contrast_temperature: Its temperature.

    Raises:
        ParamgenError: An unknown position, a size below 1, a width that its heads do not divide, a share outside 0 to 1, contrast without
            noise.
    """

    latent_dim: int = 32
    width: int = 128
    depth: int = 2
    heads: int = 4
    expansion: int = 4
    dropout: float = 0.0
    position: Position = "learned"
    window: int | None = None
    halo: int = 0
    input_noise: float = 0.1
    contrast: float = 0.05
    contrast_temperature: float = 0.1

    def __post_init__(self) -> None:
        require_choice(Position, "autoencoder.", position=self.position)
        sizes = ("latent_dim", "width", "depth", "heads", "expansion", "window", "contrast_temperature")
        require_positive("autoencoder.", **{name: getattr(self, name) for name in sizes})
        require_non_negative(
            **{"autoencoder.halo": self.halo, "autoencoder.input_noise": self.input_noise},
        )
        if self.width % self.heads:
            raise ParamgenError(f"autoencoder.width {self.width} is not a multiple of autoencoder.heads {self.heads}")
        for name in ("dropout", "contrast"):
            if not 0 <= getattr(self, name) < 1:
                raise ParamgenError(f"autoencoder.{name} is {getattr(self, name)}, expected 0 or more and below 1")
        if self.contrast and not self.input_noise:
            raise ParamgenError("autoencoder.contrast needs autoencoder.input_noise: without noise all views are equal")


class TokenAutoencoder(nn.Module):
    """Encodes and decodes networks token by token, each token in the context of the others.

    Args:
        seq_len: L.
        token_dim: D.
        settings: Its size and loss.
    """

    def __init__(self, seq_len: int, token_dim: int, settings: TokenAutoencoderSettings) -> None:
        super().__init__()
        self.settings, self.latent_shape = settings, (seq_len, settings.latent_dim)
        width, nowhere = settings.width, torch.zeros(seq_len, 2, dtype=torch.long)
        self.positions = nn.ModuleList(Positions(settings.position, nowhere, width) for _ in range(2))
        self.encoder, self.decoder = _transformer(settings), _transformer(settings)
        self.into, self.narrow = nn.Linear(token_dim, width), nn.Linear(width, settings.latent_dim)
        self.widen, self.out = nn.Linear(settings.latent_dim, width), nn.Linear(width, token_dim)
        self.project = nn.Sequential(nn.Linear(settings.latent_dim, width), nn.SiLU(), nn.Linear(width, width))

    def place(self, places: Tensor) -> None:
        """Take the places (L, 2) of the tokens; learned tables start again from them where the places are new."""
        for positions in self.positions:
            assert isinstance(positions, Positions)
            if not torch.equal(positions.places.cpu(), places):
                positions.place(places)

    def encode(self, x: Tensor, piece: slice | None = None) -> Tensor:
        """Latents (B, L', d) of tokens x (B, L', D).

        Args:
            x: All tokens, or those of one piece.
            piece: Which these are; they are then read together. Default: all, in windows.
        """
        return self._encode(x, piece) if piece else self._in_windows(self._encode, x)

    def decode(self, z: Tensor, piece: slice | None = None) -> Tensor:
        """Tokens (B, L', D) of latents z (B, L', d); `piece` as in :meth:`encode`."""
        return self._decode(z, piece) if piece else self._in_windows(self._decode, z)

    def losses(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and contrast of networks: scalars; the contrast is 0 outside of training and where it is not used.

        Args:
            x: (B, L, D).
            mask: (L, D), False on padding, which does not count.
        """
        if not self.training:
            return _error(self.decode(self.encode(x)), x, mask), x.new_zeros(())
        piece, settings = self._some_window(x.shape[1]), self.settings
        x, mask = x[:, piece], mask[piece]
        views = [x + settings.input_noise * torch.randn_like(x) * mask for _ in range(1 + (settings.contrast > 0))]
        z = self.encode(torch.cat(views), piece)  # (B or 2 B, L', d)
        reconstruction = _error(self.decode(z, piece), x.repeat(len(views), 1, 1), mask)
        if settings.contrast == 0:
            return reconstruction, x.new_zeros(())
        return reconstruction, contrastive_loss(self.project(z.mean(1)), settings.contrast_temperature)

    def _encode(self, x: Tensor, piece: slice) -> Tensor:
        narrow: Tensor = self.narrow(self.encoder(self.into(x) + self.positions[0](piece)))
        return narrow

    def _decode(self, z: Tensor, piece: slice) -> Tensor:
        tokens: Tensor = self.out(self.decoder(self.widen(z) + self.positions[1](piece)))
        return tokens

    def _some_window(self, length: int) -> slice:
        """A random window with its halos, or all tokens."""
        window = self.settings.window
        if window is None or window >= length:
            return slice(0, length)
        first = int(torch.randint(-(-length // window), ())) * window
        return slice(max(0, first - self.settings.halo), min(length, first + window + self.settings.halo))

    def _in_windows(self, function: Callable[[Tensor, slice], Tensor], x: Tensor) -> Tensor:
        """A function of tokens (B, L, …), window by window; of every window with its halos the window itself is kept."""
        length = x.shape[1]
        window, halo = self.settings.window or length, self.settings.halo
        pieces = []
        for first in range(0, length, window):
            low, high = max(0, first - halo), min(length, first + window + halo)
            pieces.append(function(x[:, low:high], slice(low, high))[:, first - low : first - low + window])
        return torch.cat(pieces, 1)


def contrastive_loss(features: Tensor, temperature: float) -> Tensor:
    """NT-Xent of 2 B feature vectors (2 B, d), where rows i and i + B are two views of one network: a scalar."""
    unit = F.normalize(features.float(), dim=1)
    similar = unit @ unit.T / temperature  # (2 B, 2 B)
    similar = similar.masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), -torch.inf)
    other = torch.arange(len(unit), device=unit.device).roll(len(unit) // 2)
    return F.cross_entropy(similar, other)


def _error(predicted: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of tokens (B, L, D) where `mask` (L, D) is True."""
    return ((predicted.float() - x).square() * mask).sum() / (mask.sum() * len(x))


def _transformer(settings: TokenAutoencoderSettings) -> nn.Sequential:
    """Layers that normalise first, and a last norm."""
    layers = [
        nn.TransformerEncoderLayer(
            settings.width,
            settings.heads,
            settings.expansion * settings.width,
            settings.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        for _ in range(settings.depth)
    ]
    return nn.Sequential(*layers, nn.LayerNorm(settings.width))
