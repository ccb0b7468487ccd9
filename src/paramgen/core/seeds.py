"""Seeds of random streams, derived from several numbers."""

import numpy as np
import torch


def mix(*numbers: int) -> int:
    """One well-mixed seed from several non-negative numbers, the same on every machine and Python version."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def generator(*numbers: int) -> torch.Generator:
    """A generator seeded by :func:`mix`."""
    return torch.Generator().manual_seed(mix(*numbers))
