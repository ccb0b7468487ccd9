import pytest
import torch
from torch import nn

from paramgen.nn.rows import conv_row


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_the_1d_convolution_with_channels_innermost(dtype):
    torch.manual_seed(0)
    conv, h = nn.Conv1d(3, 4, 5, padding=2), torch.randn(2, 3, 1, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        rows = conv_row(conv, h)
    assert rows.dtype == dtype
    assert rows.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(rows[:, :, 0].float(), conv(h[:, :, 0]), atol=1e-5 if dtype == torch.float32 else 0.05)
