import pytest
import torch
from torch import nn

from paramgen.nn.rows import conv_row, modulated_conv_row


def _case(dtype: torch.dtype) -> tuple[nn.Conv1d, list[torch.Tensor]]:
    torch.manual_seed(0)
    conv = nn.Conv1d(3, 4, 5, padding=2).to(dtype)
    sizes = ((2, 3, 1, 6), (2, 1, 1, 6), (2, 1, 1, 6))
    return conv, [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]


def test_gradients_of_a_modulated_convolution_are_right():
    conv, (h, scale, shift) = _case(torch.float64)

    def layer(h, scale, shift, weight, bias):
        return torch.func.functional_call(_Layer(conv), {"conv.weight": weight, "conv.bias": bias}, (h, scale, shift))

    assert torch.autograd.gradcheck(layer, (h, scale, shift, conv.weight, conv.bias))
    one = scale[:1].detach().requires_grad_()  # one step for all
    assert torch.autograd.gradcheck(layer, (h, one, shift, conv.weight, conv.bias))


class _Layer(nn.Module):
    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, h, scale, shift):
        return modulated_conv_row(self.conv, h, scale, shift)


def test_the_modulated_input_is_not_kept_for_the_backward_pass():
    conv, (h, scale, shift) = _case(torch.float32)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        modulated_conv_row(conv, h, scale, shift)
    assert [x.data_ptr() for x in kept if x.numel() == h.numel()] == [h.data_ptr()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_the_1d_convolution_with_channels_innermost(dtype):
    conv, (h, scale, shift) = _case(torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        rows, modulated = conv_row(conv, h), modulated_conv_row(conv, h, scale, shift)
    exact = conv(h[:, :, 0]), conv((h * scale + shift)[:, :, 0])
    for found, expected in zip((rows, modulated), exact, strict=True):
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(found[:, :, 0].float(), expected, atol=1e-5 if dtype == torch.float32 else 0.05)
