"""Seeds of random streams: one way to make them out of several numbers."""

import numpy as np
import torch


def mix(*numbers: int) -> int:
    """One seed out of several numbers of 0 or more, well mixed, the same on every machine and in every Python."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def generator(*numbers: int) -> torch.Generator:
    """A generator seeded by :func:`mix`."""
    return torch.Generator().manual_seed(mix(*numbers))
