"""Latents of whole networks by name: autoencoders, principal components, or the weights themselves."""

from dataclasses import dataclass
from typing import Literal

from paramgen.errors import require_choice, require_positive
from paramgen.nn.autoencoder import Activation, ConvAutoencoder, LinearAutoencoder, Norm
from paramgen.nn.pca import PCA

LatentKind = Literal["conv", "linear", "pca", "none"]
Standardise = Literal["each", "whole", "none"]


@dataclass(frozen=True)
class AutoencoderSettings:
    """The latent, and the training phase that learns it.

    Args:
        kind: ``conv`` (p-diff's autoencoder), ``linear`` (its Table 5), ``pca`` (closed form, no training phase) or ``none`` (diffusion of
            the weights themselves).
        channels: Channels of the conv encoder's layers (default 16-32-64-64) or widths of the linear one (default 512-256).
        kernel_size: Kernel size of the conv autoencoder; odd.
        convs: Convolutions per layer.
        stride: Stride of each layer.
        norm: ``instance``, ``group``, ``batch`` or ``none``.
        activation: ``leaky_relu``, ``elu`` or ``silu``.
        latent_channels: Channels of a convolutional latent.
        latent_dim: Width of a latent vector. Default: conv keeps a convolutional latent, linear 128, pca 64 (K - 1 at most).
        kl_weight: Weight of the KL divergence from a standard normal. Above 0, the autoencoder is variational.
        input_noise: Standard deviation of the noise on networks.
        latent_noise: Standard deviation of the noise on latents.
        steps: Optimizer steps of this phase; the diffusion's lasts until the trainer's ``max_steps``.
        lr: Learning rate of this phase.
        batch_size: Batch size of this phase (a prefix of each batch). Default: full batch.
        standardise: Standardise latents over the zoo: ``each`` number separately, the ``whole`` latent with one scale, or ``none``.

    Raises:
        ParamgenError: An unknown choice, a size below 1, or a rate that is not above 0.
    """

    kind: LatentKind = "conv"
    channels: list[int] | None = None
    kernel_size: int = 7
    convs: int = 2
    stride: int = 2
    norm: Norm = "instance"
    activation: Activation = "leaky_relu"
    latent_channels: int = 4
    latent_dim: int | None = None
    kl_weight: float = 0.0
    input_noise: float = 1e-3
    latent_noise: float = 0.1
    steps: int = 30_000
    lr: float = 1e-3
    batch_size: int | None = None
    standardise: Standardise = "each"

    def __post_init__(self) -> None:
        require_choice(LatentKind, "autoencoder.", kind=self.kind)
        require_choice(Norm, "autoencoder.", norm=self.norm)
        require_choice(Activation, "autoencoder.", activation=self.activation)
        require_choice(Standardise, "autoencoder.", standardise=self.standardise)
        require_positive("autoencoder.", lr=self.lr, batch_size=self.batch_size, latent_dim=self.latent_dim)

    @property
    def trained(self) -> bool:
        """Whether it is trained by gradients, in a phase of its own."""
        return self.kind in ("conv", "linear")

    def make(self, size: int, num_networks: int) -> ConvAutoencoder | LinearAutoencoder | PCA | None:
        """The networks between a flattened network and its latent; None where the latent is the network.

        Args:
            size: P.
            num_networks: K, which bounds the components of ``pca``.
        """
        variational = self.kl_weight > 0
        if self.kind == "none":
            return None
        if self.kind == "pca":
            return PCA(size, min(self.latent_dim or 64, num_networks - 1))
        if self.kind == "linear":
            widths = self.channels or (512, 256)
            return LinearAutoencoder(size, widths, self.latent_dim or 128, self.activation, variational)
        return ConvAutoencoder(
            size,
            channels=self.channels or (16, 32, 64, 64),
            kernel_size=self.kernel_size,
            convs=self.convs,
            norm=self.norm,
            activation=self.activation,
            latent_channels=self.latent_channels,
            latent_dim=self.latent_dim,
            variational=variational,
            stride=self.stride,
        )
