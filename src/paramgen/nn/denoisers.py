"""Denoisers of latents by name, with or without a condition."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from paramgen.errors import require_choice, require_positive
from paramgen.nn.autoencoder import Activation, Norm
from paramgen.nn.condition import ConditionedDenoiser, ConditionEntry
from paramgen.nn.unet1d import ConvChain, MLPDenoiser, TimeEntry, UNet1d

DenoiserKind = Literal["unet", "conv", "mlp", "none"]


@dataclass(frozen=True)
class DenoiserSettings:
    """The network that denoises latents.

    Args:
        kind: ``unet`` (p-diff's), ``conv`` (its released recipe), ``mlp``, or ``none``: decode standard normal noise, Table 7's VAE.
        channels: Channels of its layers; by default 32-64-128-128 for unet and 64-128-256-512-256-128-64 for conv.
        kernel_size: Kernel size of unet and conv; odd.
        norm: Norm of unet and conv: ``instance``, ``group``, ``batch`` or ``none``.
        activation: Activation of unet and conv: ``leaky_relu``, ``elu`` or ``silu``.
        convs: Convolutions per layer of unet.
        time: Where the step enters unet: all ``layers``, or the ``input``.
        width: Width of mlp.
        depth: Residual blocks of mlp.
        condition: Where a condition enters: ``latent`` (added to the input), ``film`` (scales and shifts every layer) or ``concat`` (an
            additional channel of the input).

    Raises:
        ParamgenError: An unknown choice, or a size below 1.
    """

    kind: DenoiserKind = "unet"
    channels: list[int] | None = None
    kernel_size: int = 7
    norm: Norm = "instance"
    activation: Activation = "leaky_relu"
    convs: int = 2
    time: TimeEntry = "layers"
    width: int = 512
    depth: int = 4
    condition: ConditionEntry = "film"

    def __post_init__(self) -> None:
        require_choice(DenoiserKind, "denoiser.", kind=self.kind)
        require_choice(Norm, "denoiser.", norm=self.norm)
        require_choice(Activation, "denoiser.", activation=self.activation)
        require_choice(TimeEntry, "denoiser.", time=self.time)
        require_choice(ConditionEntry, "denoiser.", condition=self.condition)
        require_positive("denoiser.", width=self.width, depth=self.depth)

    def make(self, latent_shape: tuple[int, int], cond_dim: int = 0, cond_dropout: float = 0.0) -> nn.Module | None:
        """The denoiser of latents (C, l), conditioned where there are conditions; None for kind ``none``.

        Args:
            latent_shape: (C, l).
            cond_dim: Numbers of a condition; 0 for none.
            cond_dropout: Share of training conditions that are dropped.
        """
        if self.kind == "none":
            return None
        if not cond_dim:
            return self._plain(latent_shape[0], latent_shape[1])
        return ConditionedDenoiser(
            lambda channels, width: self._plain(channels, latent_shape[1], width),
            latent_shape,
            cond_dim,
            self.condition,
            cond_dropout,
        )

    def _plain(self, channels: int, length: int, cond_width: int = 0) -> nn.Module:
        form = (self.kernel_size, self.norm, self.activation)
        if self.kind == "unet":
            down = self.channels or (32, 64, 128, 128)
            return UNet1d(channels, down, *form, self.convs, self.time, cond_width)
        if self.kind == "conv":
            widths = self.channels or (64, 128, 256, 512, 256, 128, 64)
            return ConvChain((channels, length), widths, *form, cond_width)
        return MLPDenoiser((channels, length), self.width, self.depth, cond_width)
