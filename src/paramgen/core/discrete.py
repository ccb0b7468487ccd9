"""Numbers that are not real: masks of pruned weights, and int8 weights. All code that makes networks from vectors rounds them here.

P': numbers of one tensor.
"""

import torch
from torch import Tensor

INTEGERS = (torch.int8,)  # integer dtypes that can be generated
MASK, MASKED = "_mask", "_orig"  # torch.nn.utils.prune's names: of a mask, and of the weight that it is for


def ones_at_largest(values: Tensor, ones: int) -> Tensor:
    """Masks: 1 at the largest of the values (..., P'), 0 elsewhere. Each has the same number of ones."""
    places = values.topk(ones, dim=-1).indices
    return torch.zeros_like(values).scatter_(-1, places, 1.0)


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest numbers that an integer dtype has; NaN becomes 0."""
    limits = torch.iinfo(dtype)
    return values.nan_to_num(0.0).round().clamp(limits.min, limits.max).to(dtype)
