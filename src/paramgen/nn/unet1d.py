"""Denoisers of latents z (B, C, L): ``denoise(z_t, t) -> (B, C, L)``, t (B,) or (1,); with a condition's features c (B, cond_width),
``denoise(z_t, t, c)``, which modulate every layer (FiLM).

UNet1d is p-diff's (Wang et al. 2024, arXiv:2402.13144): four layers of 1D convolutions down and four up. ConvChain is the form of the
released recipe: convolutions at full length, the time added along it. MLPDenoiser suits short latents without an order, such as PCA's.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.nn.autoencoder import ACTIVATIONS, Activation, Norm, conv_layer, make_norm
from paramgen.nn.condition import FiLM
from paramgen.nn.embeddings import TimeEmbedding, time_features
from paramgen.nn.rows import conv_row

TimeEntry = Literal["layers", "input"]


class UNet1d(nn.Module):
    """Convolutions down and up with skips.

    Time and condition enter between a norm and its activation: added after both, the next instance norm would remove them, as
    it removes the mean of every channel. For the same reason the last convolution also sees the input itself.

    Args:
        latent_channels: C.
        channels: Output channels of each layer on the way down; every layer halves the length.
        kernel_size: Odd.
        norm: After each convolution.
        activation: Likewise.
        convs: Convolutions a layer.
        time: Where it enters: it scales and shifts the channels of all ``layers``, or is added to the ``input``, as sinusoids along it
            (Wild-P-Diff).
        cond_width: Width of a condition's features; 0 for none.
    """

    def __init__(
        self,
        latent_channels: int,
        channels: Sequence[int] = (32, 64, 128, 128),
        kernel_size: int = 7,
        norm: Norm = "instance",
        activation: Activation = "leaky_relu",
        convs: int = 2,
        time: TimeEntry = "layers",
        cond_width: int = 0,
    ) -> None:
        super().__init__()
        time_width, pad = channels[-1], kernel_size // 2
        self.stride = 2 ** len(channels)
        self.time = TimeEmbedding(time_width) if time == "layers" else None

        def layer(i: int, o: int, stride: int) -> nn.Sequential:
            return conv_layer(nn.Conv1d(i, o, kernel_size, stride, pad), o, kernel_size, convs, norm, activation)

        widths = (latent_channels, *channels)
        self.down = nn.ModuleList([layer(i, o, 2) for i, o in pairwise(widths)])
        outputs = (channels[0], *channels)  # of each layer on the way up, shallowest first
        self.up = nn.ModuleList([layer(c + skip, o, 1) for c, skip, o in zip(channels, widths, outputs, strict=False)])
        self.shift = nn.ModuleList([nn.Linear(time_width, 2 * o) for o in channels if time == "layers"])
        self.film = nn.ModuleList([FiLM(cond_width, o) for o in channels if cond_width])
        self.last = nn.Conv1d(channels[0] + latent_channels, latent_channels, kernel_size, padding=pad)

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """The prediction (B, C, L) for z_t (B, C, L) at steps t (B,) or (1,)."""
        length = z.shape[-1]
        if self.time is None:
            z = z + time_features(t, length + length % 2)[:, None, :length].to(z.dtype)
        h = F.pad(z, (0, max(2, -(-length // self.stride)) * self.stride - length))
        time = None if self.time is None else F.silu(self.time(t))
        skips = []
        for i, layer in enumerate(self.down):
            assert isinstance(layer, nn.Sequential)
            skips.append(h)
            h = layer[:-1](h)  # (B, channels, L / 2^i), not yet activated
            if time is not None:
                scale, shift = self.shift[i](time)[..., None].chunk(2, 1)  # (B, channels, 1)
                h = h * (1 + scale) + shift
            h = layer[-1](h if c is None else self.film[i](h, c))
        for layer, skip in zip(reversed(self.up), reversed(skips), strict=True):
            h = layer(torch.cat([F.interpolate(h, scale_factor=2.0), skip], 1))
        networks: Tensor = self.last(torch.cat([h, skips[0]], 1))[..., :length]
        return networks


class ConvChain(nn.Module):
    """Convolutions at full length; the time is added along the length before each.

    Args:
        latent_shape: (C, L).
        channels: Channels between the convolutions.
        kernel_size: Odd.
        norm: After each convolution but the last.
        activation: Likewise.
        cond_width: Width of a condition's features; 0 for none.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int],
        channels: Sequence[int] = (64, 128, 256, 512, 256, 128, 64),
        kernel_size: int = 7,
        norm: Norm = "batch",
        activation: Activation = "elu",
        cond_width: int = 0,
    ) -> None:
        super().__init__()
        latent_channels, length = latent_shape
        widths = (latent_channels, *channels, latent_channels)
        self.time = TimeEmbedding(length)
        self.convs = nn.ModuleList(
            [nn.Conv1d(i, o, kernel_size, padding=kernel_size // 2) for i, o in pairwise(widths)]
        )
        self.after = nn.ModuleList(
            [nn.Sequential(make_norm(norm, o, rows=True), ACTIVATIONS[activation]()) for o in channels]
            + [nn.Identity()]
        )
        self.film = nn.ModuleList([FiLM(cond_width, o) for o in channels if cond_width])

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """The prediction (B, C, L) for z_t (B, C, L) at steps t (B,) or (1,)."""
        time = self.time(t)[:, None, None]  # (B, 1, 1, L)
        z = z[:, :, None]  # (B, C, 1, L)
        for i, (conv, after) in enumerate(zip(self.convs, self.after, strict=True)):
            assert isinstance(conv, nn.Conv1d)
            z = conv_row(conv, z + time)
            if c is None or i == len(self.film):  # the last is neither normed nor modulated
                z = after(z)
            else:
                assert isinstance(after, nn.Sequential)
                z = after[1](self.film[i](after[0](z), c))
        return z[:, :, 0]


class MLPDenoiser(nn.Module):
    """A residual multilayer perceptron on the flattened latent; the time is added to every block.

    Args:
        latent_shape: (C, L).
        width: Of the residual stream.
        depth: Blocks.
        cond_width: Width of a condition's features; 0 for none.
    """

    def __init__(self, latent_shape: tuple[int, int], width: int = 512, depth: int = 4, cond_width: int = 0) -> None:
        super().__init__()
        size = latent_shape[0] * latent_shape[1]
        self.time = TimeEmbedding(width)
        self.first = nn.Linear(size, width)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
                for _ in range(depth)
            ]
        )
        self.film = nn.ModuleList([FiLM(cond_width, width) for _ in range(depth) if cond_width])
        out = nn.Linear(width, size)
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)
        self.last = nn.Sequential(nn.LayerNorm(width), out)

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """The prediction (B, C, L) for z_t (B, C, L) at steps t (B,) or (1,)."""
        time = self.time(t)  # (B or 1, width)
        h = self.first(z.flatten(1))  # (B, width)
        for i, block in enumerate(self.blocks):
            u = h + time
            h = h + block(u if c is None else self.film[i](u, c))
        out: Tensor = self.last(h).view_as(z)
        return out
