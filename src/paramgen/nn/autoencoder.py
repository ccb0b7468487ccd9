"""Parameter autoencoders of p-diff (Wang et al. 2024, arXiv:2402.13144, section 2.3, appendix B).

x: a flattened network (B, P). z: its latent (B, C, L). mu, logvar: a Gaussian over z, when the encoder is variational (Table 7).

The paper gives four layers of two convolutions, a norm and an activation, but no widths; the widths are our choice. Any P works: the
vector is padded with zeros to a multiple of the total stride, and cropped again.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["instance", "group", "batch", "none"]
Activation = Literal["leaky_relu", "elu", "silu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "silu": nn.SiLU}


class Code(NamedTuple):
    """The output of an encoder."""

    mu: Tensor  # (B, C, L)
    logvar: Tensor | None  # (B, C, L), None unless variational


def make_norm(norm: Norm, channels: int, rows: bool = False) -> nn.Module:
    """A normalisation layer for (B, channels, L), or with `rows` for (B, channels, 1, L), compared in Table 6."""
    if norm == "instance":
        return (nn.InstanceNorm2d if rows else nn.InstanceNorm1d)(channels, affine=True)
    if norm == "group":
        return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)
    if norm == "batch":
        return (nn.BatchNorm2d if rows else nn.BatchNorm1d)(channels)
    return nn.Identity()


def conv_layer(
    inner: nn.Module, channels: int, kernel_size: int, convs: int, norm: Norm, activation: Activation
) -> nn.Sequential:
    """`inner` (the convolution that changes length or channels) and further convolutions, each with norm and activation."""
    modules: list[nn.Module] = []
    for i in range(convs):
        conv = inner if i == 0 else nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2)
        modules += [conv, make_norm(norm, channels), ACTIVATIONS[activation]()]
    return nn.Sequential(*modules)


class ConvAutoencoder(nn.Module):
    """Strided 1D convolutions down to a latent, transposed ones back up.

    Args:
        length: P.
        channels: Output channels of each encoder layer.
        kernel_size: Odd.
        convs: Convolutions a layer: 2 in the paper, 1 in the released recipe.
        norm: After each convolution but the last of encoder and decoder.
        activation: Likewise.
        latent_channels: C of a convolutional latent (B, C, P / stride^layers).
        latent_dim: Width of a latent vector (B, 1, latent_dim) through a linear layer; None for the convolutional latent.
        variational: The encoder also gives logvar.
        stride: Stride of each layer.
    """

    def __init__(
        self,
        length: int,
        channels: Sequence[int] = (16, 32, 64, 64),
        kernel_size: int = 7,
        convs: int = 2,
        norm: Norm = "instance",
        activation: Activation = "leaky_relu",
        latent_channels: int = 4,
        latent_dim: int | None = None,
        variational: bool = False,
        stride: int = 2,
    ) -> None:
        super().__init__()
        total_stride = stride ** len(channels)
        short = max(2, -(-length // total_stride))  # instance norm needs two places
        self.length, self.padded = length, short * total_stride
        shape, pad = (channels[-1], short), kernel_size // 2

        down = [
            conv_layer(nn.Conv1d(i, o, kernel_size, stride, pad), o, kernel_size, convs, norm, activation)
            for i, o in pairwise((1, *channels))
        ]
        up = [
            conv_layer(_up(i, o, kernel_size, stride), o, kernel_size, convs, norm, activation)
            for i, o in pairwise(reversed(channels))
        ]
        up.append(nn.Sequential(_up(channels[0], 1, kernel_size, stride)))
        gaussian = 1 + variational
        if latent_dim is None:
            self.latent_shape = (latent_channels, short)
            into: list[nn.Module] = [nn.Conv1d(channels[-1], gaussian * latent_channels, kernel_size, padding=pad)]
            out: list[nn.Module] = [nn.Conv1d(latent_channels, channels[-1], kernel_size, padding=pad)]
        else:
            self.latent_shape = (1, latent_dim)
            into = [nn.Flatten(), nn.Linear(shape[0] * short, gaussian * latent_dim), nn.Unflatten(1, (gaussian, -1))]
            out = [nn.Flatten(), nn.Linear(latent_dim, shape[0] * short), nn.Unflatten(1, shape)]
        self.variational = variational
        self.encoder = nn.Sequential(*down, *into)
        self.decoder = nn.Sequential(*out, *up)

    def encode(self, x: Tensor) -> Code:
        """The latent of networks x (B, P)."""
        code = self.encoder(F.pad(x[:, None], (0, self.padded - self.length)))  # (B, C or 2C, L)
        return Code(*code.chunk(2, 1)) if self.variational else Code(code, None)

    def decode(self, z: Tensor) -> Tensor:
        """Networks (B, P) from latents z (B, C, L)."""
        networks: Tensor = self.decoder(z)[:, 0, : self.length]
        return networks


class LinearAutoencoder(nn.Module):
    """Fully connected layers, the alternative of Table 5.

    Args:
        length: P.
        widths: Widths of the encoder's layers; the decoder mirrors them.
        latent_dim: Width of the latent (B, 1, latent_dim).
        activation: Between the layers.
        variational: The encoder also gives logvar.
    """

    def __init__(
        self,
        length: int,
        widths: Sequence[int] = (512, 256),
        latent_dim: int = 128,
        activation: Activation = "leaky_relu",
        variational: bool = False,
    ) -> None:
        super().__init__()
        self.latent_shape = (1, latent_dim)
        self.variational = variational
        gaussian = 1 + variational
        self.encoder = _dense((length, *widths, gaussian * latent_dim), activation)
        self.decoder = _dense((latent_dim, *reversed(widths), length), activation)

    def encode(self, x: Tensor) -> Code:
        """The latent of networks x (B, P)."""
        code = self.encoder(x)[:, None]  # (B, 1, L or 2L)
        return Code(*code.chunk(2, 2)) if self.variational else Code(code, None)

    def decode(self, z: Tensor) -> Tensor:
        """Networks (B, P) from latents z (B, 1, L)."""
        networks: Tensor = self.decoder(z.flatten(1))
        return networks


def _up(channels_in: int, channels_out: int, kernel_size: int, stride: int) -> nn.ConvTranspose1d:
    """A transposed convolution that makes the length exactly `stride` times as long."""
    return nn.ConvTranspose1d(
        channels_in, channels_out, kernel_size, stride, kernel_size // 2, output_padding=stride - 1
    )


def _dense(widths: Sequence[int], activation: Activation) -> nn.Sequential:
    modules: list[nn.Module] = []
    for i, o in pairwise(widths):
        modules += [nn.Linear(i, o), ACTIVATIONS[activation]()]
    return nn.Sequential(*modules[:-1])
