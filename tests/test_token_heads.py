import pytest
import torch
import torch.nn.functional as F

from paramgen.errors import ParamgenError
from paramgen.nn.token_heads import ConvHead, MLPHead

PAPER = [1, 32, 64, 128, 64, 32, 1]


def heads():
    torch.manual_seed(0)
    return {"conv": ConvHead(32, 48, [1, 8, 16, 8, 1], 7), "mlp": MLPHead(32, 48, 64, 2)}


@pytest.mark.parametrize("name", ["conv", "mlp"])
def test_tokens_are_denoised_independently_of_each_other(name):
    head = heads()[name].eval()
    x, z, t = torch.randn(6, 32), torch.randn(6, 48), torch.randint(1000, (6,))
    together = head(x, t, head.project(z))
    alone = torch.cat([head(x[i : i + 1], t[i : i + 1], head.project(z[i : i + 1])) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["conv", "mlp"])
def test_one_step_for_all_equals_that_step_for_each(name):
    head = heads()[name].eval()
    x, c = torch.randn(6, 32), head_project(heads()[name])
    torch.testing.assert_close(head(x, torch.tensor([7]), c), head(x, torch.full((6,), 7), c), rtol=1e-5, atol=1e-6)


def head_project(head):
    return head.project(torch.randn(6, 48, generator=torch.Generator().manual_seed(1)))


def test_conv_head_adds_the_prototype_multiplies_the_time_and_adds_mirrored_layers():
    head = ConvHead(32, 48, PAPER).eval()
    x, z, t = torch.randn(4, 32), torch.randn(4, 48), torch.randint(1000, (4,))
    rate = torch.exp(-torch.arange(128) / 128 * torch.log(torch.tensor(1e4)))
    angle = t[:, None] * rate
    time = head.time(torch.cat([angle.cos(), angle.sin()], 1))[:, None]
    c = head.condition(z)[:, None]

    def layer(i, h):
        h = head.convs[i]((h + c) * time)
        return F.elu(head.norms[i](h[:, :, None])[:, :, 0]) if i < 5 else h

    first = layer(0, x[:, None])  # 32 channels
    second = layer(1, first)  # 64
    h = layer(2, second)  # 128
    h = layer(3, h) + second
    h = layer(4, h) + first
    expected = layer(5, h)[:, 0]
    torch.testing.assert_close(head(x, t, head.project(z)), expected, rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_memory_alone():
    torch.manual_seed(0)
    head = ConvHead(32, 48, [1, 8, 16, 8, 1])
    again = ConvHead(32, 48, [1, 8, 16, 8, 1], checkpointing=True)
    again.load_state_dict(head.state_dict())
    x, z, t = torch.randn(4, 32), torch.randn(4, 48), torch.randint(1000, (4,))
    for h in (head, again):
        h(x, t, h.project(z)).square().sum().backward()
    for p, q in zip(head.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_channels_and_kernels_that_do_not_fit_are_refused():
    with pytest.raises(ParamgenError, match="from 1 to 1 symmetrically"):
        ConvHead(32, 48, [1, 8, 16, 1])
    with pytest.raises(ParamgenError, match="odd"):
        ConvHead(32, 48, PAPER, kernel_size=6)
    with pytest.raises(ParamgenError, match="hidden is 0, expected 1 or more"):
        MLPHead(32, 48, 0)
