"""Samples from kernel densities: a point of those that are known, plus Gaussian noise. k points, n samples, G groups of d numbers."""

import torch
from torch import Generator, Tensor


def kernel_samples(
    points: Tensor, n: int, generator: Generator, bandwidth: float | None = None, temperature: float = 1.0
) -> Tensor:
    """Samples (n, G, d) of a kernel density of points (k, G, d); the groups are drawn independently of each other.

    With d = 1 every number has a density of its own; with G = 1 whole points are drawn.

    Args:
        points: (k, G, d) on the CPU.
        n: How many.
        generator: On the CPU.
        bandwidth: Standard deviation of the noise over that of the points, number by number. Default: Scott's k^(-1/5).
        temperature: Factor on the noise.
    """
    k, G, d = points.shape
    choice = torch.randint(k, (n, G), generator=generator)
    centres = points.gather(0, choice[:, :, None].expand(n, G, d))  # (n, G, d)
    spread = points.double().std(0, correction=min(1, k - 1)).to(points.dtype)  # (G, d)
    width = k**-0.2 if bandwidth is None else bandwidth
    return centres + temperature * width * spread * torch.randn(n, G, d, generator=generator)
