"""Embeddings of the diffusion step."""

import math

import torch
from torch import Tensor, nn


def time_features(t: Tensor, width: int = 256) -> Tensor:
    """Cosines and sines of diffusion steps (B,) at geometric rates: (B, width) float32.

    Args:
        t: (B,) integers or floats.
        width: Even.
    """
    rate = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(1e4) / (width // 2)))
    angle = t[:, None].float() * rate  # (B, width / 2)
    return torch.cat([angle.cos(), angle.sin()], 1)  # (B, width)


class TimeEmbedding(nn.Module):
    """Diffusion steps (B,) as learned features (B, width).

    Args:
        width: Features a step.
        frequencies: Width of the sinusoids beneath.
    """

    def __init__(self, width: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Features (B, width) of steps (B,)."""
        features: Tensor = self.layers(time_features(t, self.frequencies))
        return features
