"""Mixtures of training networks: augmentation in weight space, for zoos whose networks are linearly connected (aligned seeds).

B networks of a batch, of any shape (B, ...), standardised so that the zoo's mean is 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from paramgen.core.devices import to_device
from paramgen.errors import require_non_negative


@dataclass(frozen=True)
class MixingSettings:
    """Training on mixtures of the zoo's networks instead of on the networks themselves; for aligned zoos.

    Args:
        concentration: Of the Dirichlet distribution of the weights that the networks of a batch have in a mixture. 0: no mixing; 0.1:
            mostly one or two networks; 1: many.
        preserve_variance: Scale mixtures about the zoo's mean to the variance of single networks. Plain averages are closer to the mean.

    Raises:
        ParamgenError: A concentration below 0.
    """

    concentration: float = 0.0
    preserve_variance: bool = True

    def __post_init__(self) -> None:
        require_non_negative(**{"mixing.concentration": self.concentration})

    def mix(self, x: Tensor) -> Tensor:
        """Mixtures (B, ...) of networks (B, ...), as many as there are networks."""
        if not self.concentration or len(x) < 2:
            return x
        weights = torch.distributions.Dirichlet(torch.full((len(x),), self.concentration)).sample((len(x),))
        weights = to_device(weights, x.device).to(x.dtype)
        if self.preserve_variance:
            weights = weights / weights.norm(dim=1, keepdim=True)
        return torch.einsum("ij,j...->i...", weights, x)
