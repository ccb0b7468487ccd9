"""A linear latent in closed form, in place of an autoencoder."""

import torch
from torch import Tensor, nn


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
        """Take the components of networks x (K, P), by the K x K Gram matrix: P may be large, K is not.

        Args:
            x: (K, P).
        """
        k = len(self.components)
        mean = x.double().mean(0)
        centred = x.double() - mean  # (K, P)
        values, vectors = torch.linalg.eigh(centred @ centred.T)  # rising
        values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
        kept = values > 1e-12 * values[0].clamp_min(1e-300)
        rows = (vectors[:, kept].T @ centred) / values[kept].sqrt()[:, None]  # (kept, P)
        self.mean.copy_(mean)
        self.components.zero_()
        self.components[: len(rows)] = rows.to(self.components.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, 1, k) of networks x (B, P)."""
        return ((x - self.mean) @ self.components.T)[:, None]

    def decode(self, z: Tensor) -> Tensor:
        """Networks (B, P) from latents z (B, 1, k)."""
        return z[:, 0] @ self.components + self.mean
