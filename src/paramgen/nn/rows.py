"""1D convolutions as 2D ones over pictures of one row, whose channels may lie innermost in memory."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_row(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """What `conv` (stride 1, zero padding) makes of h (B, C, 1, L), with `conv`'s own parameters: (B, C', 1, L').

    On a CPU channels innermost is 7 to 9 % faster in float32 and 7 % slower in bf16 (measured at kernel 7), so autocast keeps the layout.
    """
    weight = conv.weight[:, :, None]  # (C', C, 1, kernel)
    if not torch.is_autocast_enabled(h.device.type):
        weight = weight.contiguous(memory_format=torch.channels_last)
    return F.conv2d(h, weight, conv.bias, padding=(0, int(conv.padding[0])))
