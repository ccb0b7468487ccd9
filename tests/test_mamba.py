import math
import sys
import types

import pytest
import torch
import torch.nn.functional as F

from paramgen.errors import ParamgenError
from paramgen.nn import scan
from paramgen.nn.mamba import Mamba1, Mamba2


def mamba2_by_steps(layer, u):
    """Mamba-2 token by token from the paper's recurrence, with the layer's own parameters."""
    p = dict(layer.named_parameters())
    d, N, G, H = layer.d_inner, layer.d_state, layer.ngroups, layer.nheads
    P, width = d // H, p["conv1d.weight"].shape[-1]
    h = u.new_zeros(u.shape[0], H, N, P)
    recent = u.new_zeros(u.shape[0], d + 2 * G * N, width)
    A, ys = -p["A_log"].exp(), []
    for t in range(u.shape[1]):
        proj = u[:, t] @ p["in_proj.weight"].T
        z, xBC, dt = proj[:, :d], proj[:, d : 2 * d + 2 * G * N], proj[:, 2 * d + 2 * G * N :]
        recent = torch.cat([recent[..., 1:], xBC[..., None]], -1)
        mixed = F.silu((recent * p["conv1d.weight"][:, 0]).sum(-1) + p["conv1d.bias"])
        x = mixed[:, :d].view(-1, H, P)
        Bm = mixed[:, d : d + G * N].view(-1, G, N).repeat_interleave(H // G, 1)
        Cm = mixed[:, d + G * N :].view(-1, G, N).repeat_interleave(H // G, 1)
        dt = torch.log1p((dt + p["dt_bias"]).exp())
        h = (dt * A).exp()[..., None, None] * h + dt[..., None, None] * Bm[..., None] * x[..., None, :]
        y = (Cm[..., None] * h).sum(2) + p["D"][:, None] * x
        gated = (y.flatten(1) * F.silu(z)).view(-1, G, d // G)
        normed = gated / (gated.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        ys.append((normed.flatten(1) * p["norm.weight"]) @ p["out_proj.weight"].T)
    return torch.stack(ys, 1)


def mamba1_by_steps(layer, u):
    """Mamba-1 token by token."""
    p = dict(layer.named_parameters())
    d, N, rank = layer.d_inner, layer.d_state, layer.dt_rank
    h, recent = u.new_zeros(u.shape[0], d, N), u.new_zeros(u.shape[0], d, p["conv1d.weight"].shape[-1])
    A, ys = -p["A_log"].exp(), []
    for t in range(u.shape[1]):
        proj = u[:, t] @ p["in_proj.weight"].T
        x, z = proj[:, :d], proj[:, d:]
        recent = torch.cat([recent[..., 1:], x[..., None]], -1)
        x = F.silu((recent * p["conv1d.weight"][:, 0]).sum(-1) + p["conv1d.bias"])
        low = x @ p["x_proj.weight"].T
        dt = torch.log1p((low[:, :rank] @ p["dt_proj.weight"].T + p["dt_proj.bias"]).exp())
        Bm, Cm = low[:, rank : rank + N], low[:, rank + N :]
        h = (dt[..., None] * A).exp() * h + (dt * x)[..., None] * Bm[:, None]
        y = (h * Cm[:, None]).sum(-1) + p["D"] * x
        ys.append((y * F.silu(z)) @ p["out_proj.weight"].T)
    return torch.stack(ys, 1)


def make(kind, seed=0):
    torch.manual_seed(seed)
    if kind == "mamba1":
        layer, by_steps = Mamba1(32, d_state=8, chunk_size=8), mamba1_by_steps
    else:
        groups = 2 if kind == "mamba2, two groups" else 1
        layer, by_steps = Mamba2(64, d_state=16, headdim=32, ngroups=groups, chunk_size=16), mamba2_by_steps
    return layer, by_steps


KINDS = ["mamba2", "mamba2, two groups", "mamba1"]


def relative(got, expected):
    return ((got.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("L", [1, 3, 16, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_and_its_gradients_match_a_float64_recurrence(kind, L):
    layer, by_steps = make(kind)
    exact, _ = make(kind)
    exact.double()
    u = torch.randn(2, L, layer.in_proj.in_features)
    weigh = torch.randn(2, L, layer.out_proj.out_features)
    u32, u64 = u.clone().requires_grad_(), u.double().requires_grad_()
    got, expected = layer(u32), by_steps(exact, u64)
    assert relative(got, expected) < 1e-5
    (got * weigh).sum().backward()
    (expected * weigh.double()).sum().backward()
    assert relative(u32.grad, u64.grad) < 1e-5
    for (name, p), q in zip(layer.named_parameters(), exact.parameters(), strict=True):
        assert (p.grad.double() - q.grad).norm() <= 1e-5 * q.grad.norm() + 1e-6, name


@pytest.mark.parametrize("kind", KINDS)
def test_double_layer_is_exact(kind):
    layer, by_steps = make(kind)
    layer.double()
    u = torch.randn(3, 37, layer.in_proj.in_features, dtype=torch.float64)
    assert relative(layer(u), by_steps(layer, u)) < 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_a_sequence_give_the_same_as_the_whole(kind):
    layer, _ = make(kind)
    u = torch.randn(2, 40, layer.in_proj.in_features)
    state, ys = None, []
    for piece in u.split([1, 2, 20, 17], 1):
        y, state = layer.resume(piece, state)
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, 1), layer(u), rtol=1e-5, atol=1e-6)


def test_decay_keeps_small_steps_after_a_long_sum():
    a = torch.full((1, 512), -1e-5)
    a[0, :256] = -100.0  # what a difference of cumulative sums would drown the rest in
    expected = math.exp(-1e-5 * 255)
    assert scan.segment_decay(a)[0, 511, 256].item() == pytest.approx(expected, rel=1e-7)


def test_scan_stays_float32_under_autocast():
    layer, by_steps = make("mamba2")
    u = torch.randn(2, 33, 64)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(u)
    assert got.dtype == torch.bfloat16
    assert relative(got, by_steps(layer, u).double()) < 2e-2


def test_gradients_of_the_chunked_scan_pass_gradcheck():
    torch.manual_seed(0)
    x, dt = torch.randn(2, 7, 3), torch.rand(2, 7, 3)
    A, Bm, Cm, start = -torch.rand(3, 4), torch.randn(2, 7, 4), torch.randn(2, 7, 4), torch.randn(2, 3, 4)
    inputs = [v.double().requires_grad_() for v in (x, dt, A, Bm, Cm, start)]
    assert torch.autograd.gradcheck(lambda *a: scan.selective_scan(*a[:5], 3, a[5]), inputs)


# Names and shapes of mamba_ssm 2.x for d_model 256, d_state 32; D = 512, 8 heads
MAMBA2_STATE = {
    "dt_bias": (8,),
    "A_log": (8,),
    "D": (8,),
    "in_proj.weight": (2 * 512 + 2 * 32 + 8, 256),
    "conv1d.weight": (512 + 2 * 32, 1, 4),
    "conv1d.bias": (512 + 2 * 32,),
    "norm.weight": (512,),
    "out_proj.weight": (256, 512),
}
MAMBA1_STATE = {
    "A_log": (512, 32),
    "D": (512,),
    "in_proj.weight": (1024, 256),
    "conv1d.weight": (512, 1, 4),
    "conv1d.bias": (512,),
    "x_proj.weight": (16 + 2 * 32, 512),
    "dt_proj.weight": (512, 16),
    "dt_proj.bias": (512,),
    "out_proj.weight": (256, 512),
}


@pytest.mark.parametrize(("cls", "expected"), [(Mamba2, MAMBA2_STATE), (Mamba1, MAMBA1_STATE)])
def test_state_dict_has_the_names_and_shapes_of_mamba_ssm(cls, expected):
    assert {name: tuple(v.shape) for name, v in cls(256, d_state=32).state_dict().items()} == expected


def test_no_weight_decay_marks_are_those_of_mamba_ssm():
    marked = {n for n, p in Mamba2(64).named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert marked == {"dt_bias", "A_log", "D"}
    assert {n for n, p in Mamba1(64).named_parameters() if getattr(p, "_no_weight_decay", False)} == {"A_log", "D"}


def inverse_softplus_dt(n):
    dt = torch.exp(torch.rand(n) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
    return dt + torch.log(-torch.expm1(-dt))


def test_mamba2_draws_its_weights_in_the_order_of_mamba_ssm():
    torch.manual_seed(7)
    layer = Mamba2(64, d_state=16)
    torch.manual_seed(7)
    in_proj = torch.nn.Linear(64, 2 * 128 + 32 + 2, bias=False)
    conv = torch.nn.Conv1d(128 + 32, 128 + 32, 4, groups=160, padding=3)
    dt_bias = inverse_softplus_dt(2)
    A_log = torch.empty(2).uniform_(1, 16).log()
    out_proj = torch.nn.Linear(128, 64, bias=False)
    assert torch.equal(layer.in_proj.weight, in_proj.weight)
    assert torch.equal(layer.conv1d.weight, conv.weight)
    assert torch.equal(layer.conv1d.bias, conv.bias)
    assert torch.equal(layer.dt_bias, dt_bias)
    assert torch.equal(layer.A_log, A_log)
    assert torch.equal(layer.out_proj.weight, out_proj.weight)


def test_mamba1_draws_its_weights_in_the_order_of_mamba_ssm():
    torch.manual_seed(7)
    layer = Mamba1(64)
    torch.manual_seed(7)
    torch.nn.Linear(64, 256, bias=False), torch.nn.Conv1d(128, 128, 4, groups=128, padding=3)
    torch.nn.Linear(128, 36, bias=False), torch.nn.Linear(4, 128)
    weight = torch.empty(128, 4).uniform_(-(4**-0.5), 4**-0.5)
    bias = inverse_softplus_dt(128)
    assert torch.equal(layer.dt_proj.weight, weight)
    assert torch.equal(layer.dt_proj.bias, bias)
    assert torch.equal(layer.out_proj.weight, torch.nn.Linear(128, 64, bias=False).weight)
    assert torch.equal(layer.A_log[5], torch.arange(1.0, 17).log())


@pytest.fixture
def stand_in_mamba_ssm(monkeypatch):
    """A third-party mamba_ssm whose two functions follow their documented arguments, step by step."""

    def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size):
        H, G = x.shape[2], B.shape[2]
        B, C = B.repeat_interleave(H // G, 2), C.repeat_interleave(H // G, 2)
        h, ys = x.new_zeros(x.shape[0], H, x.shape[3], B.shape[3]), []
        for t in range(x.shape[1]):
            h = (dt[:, t] * A).exp()[..., None, None] * h
            h = h + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
            ys.append(torch.einsum("bhpn,bhn->bhp", h, C[:, t]))
        return torch.stack(ys, 1)

    def selective_scan_fn(u, delta, A, B, C):  # u, delta (B D L), B, C (B N L)
        h, ys = u.new_zeros(u.shape[0], *A.shape), []
        for t in range(u.shape[2]):
            h = (delta[..., t, None] * A).exp() * h + (delta * u)[..., t, None] * B[:, None, :, t]
            ys.append((h * C[:, None, :, t]).sum(-1))
        return torch.stack(ys, -1)

    names = ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    combined = types.ModuleType("mamba_ssm.ops.triton.ssd_combined")
    combined.mamba_chunk_scan_combined = mamba_chunk_scan_combined
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = selective_scan_fn
    monkeypatch.setitem(sys.modules, combined.__name__, combined)
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    scan.kernels.cache_clear()
    yield
    scan.kernels.cache_clear()


@pytest.mark.usefixtures("stand_in_mamba_ssm")
def test_kernels_are_called_as_they_document_and_agree_with_torch():
    torch.manual_seed(0)
    x, dt, A = torch.randn(2, 19, 4, 8), torch.rand(2, 19, 4), -torch.rand(4)
    Bm, Cm = torch.randn(2, 19, 2, 5), torch.randn(2, 19, 2, 5)
    torch.testing.assert_close(scan.fused_ssd(x, dt, A, Bm, Cm, 8), scan.ssd(x, dt, A, Bm, Cm, 8).y)
    x, dt, A, Bm, Cm = x[..., 0], dt, -torch.rand(4, 5), Bm[:, :, 0], Cm[:, :, 0]
    torch.testing.assert_close(scan.fused_selective_scan(x, dt, A, Bm, Cm), scan.selective_scan(x, dt, A, Bm, Cm, 8).y)


@pytest.mark.usefixtures("stand_in_mamba_ssm")
def test_demanded_kernel_on_cpu_tensors_is_refused():
    with pytest.raises(ParamgenError, match="tensors are on cpu"):
        Mamba2(64, kernel="cuda")(torch.randn(1, 2, 64))


@pytest.mark.skipif(bool(scan.kernels()), reason="mamba_ssm is installed")
@pytest.mark.parametrize("cls", [Mamba1, Mamba2])
def test_demanded_kernel_without_mamba_ssm_names_the_install_line(cls):
    with pytest.raises(ParamgenError, match=r"pip install --no-build-isolation 'paramgen\[cuda\]'"):
        cls(64, kernel="cuda")


def test_unknown_kernel_and_indivisible_heads_are_refused():
    with pytest.raises(ParamgenError, match="expected auto, torch or cuda"):
        Mamba2(64, kernel="gpu")
    with pytest.raises(ParamgenError, match="multiple of headdim 64"):
        Mamba2(48)


@pytest.mark.skipif(not (torch.cuda.is_available() and scan.kernels()), reason="needs CUDA and mamba_ssm")
@pytest.mark.parametrize("kind", KINDS)
def test_mamba_ssm_kernels_agree_with_torch_on_cuda(kind):
    layer, _ = make(kind)
    layer.cuda()
    u = torch.randn(2, 70, layer.in_proj.in_features, device="cuda")
    layer.kernel = "cuda"
    fused = layer(u)
    layer.kernel = "torch"
    torch.testing.assert_close(fused, layer(u), rtol=2e-3, atol=2e-3)
