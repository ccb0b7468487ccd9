"""Which of many items to take when only some are wanted."""

import torch
from torch import Tensor


def evenly_spaced(size: int, n: int) -> Tensor:
    """Indices (n,) of the first items of `n` equal parts of `size` items; repeated, in order, if `n` is above `size`."""
    return torch.arange(n) * size // n


def first_to_last(size: int, n: int) -> Tensor:
    """Indices (n,) from the first to the last of `size` items, evenly spaced; repeated, in order, if `n` is above `size`."""
    return torch.linspace(0, size - 1, n).round().long()
