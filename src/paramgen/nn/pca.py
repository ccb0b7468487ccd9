"""A linear latent in closed form, in place of an autoencoder."""

import torch
from torch import Tensor, nn

from paramgen.core.components import principal_components


class PCA(nn.Module):
    """Principal components of K networks; mean and components are buffers, so that a checkpoint carries them.

    Args:
        length: P.
        components: k, at most K - 1.
    """

    mean: Tensor  # (P,)
    components: Tensor  # (k, P), orthonormal rows; zero where the networks have fewer directions

    def __init__(self, length: int, components: int) -> None:
        super().__init__()
        self.latent_shape = (1, components)
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("components", torch.zeros(components, length))

    def fit(self, x: Tensor) -> None:
        """Take the components of networks.

        Args:
            x: (K, P).
        """
        principal = principal_components(x, len(self.components))
        self.mean.copy_(principal.mean)
        self.components.zero_()
        self.components[: len(principal.basis)] = principal.basis.flip(0)  # the largest first

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, 1, k) of networks x (B, P)."""
        return ((x - self.mean) @ self.components.T)[:, None]

    def decode(self, z: Tensor) -> Tensor:
        """Networks (B, P) from latents z (B, 1, k)."""
        return z[:, 0] @ self.components + self.mean
