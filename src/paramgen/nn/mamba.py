"""Mamba-1 (Gu & Dao 2023, arXiv:2312.00752) and Mamba-2 (Dao & Gu 2024, arXiv:2405.21060) in plain torch.

Parameters have the names, shapes, initialisation and order of random draws of ``mamba_ssm.Mamba`` and ``mamba_ssm.Mamba2``,
so state dicts load strictly in both directions. On CUDA the scan itself runs in ``mamba_ssm``'s kernels when they are installed.

Letters: B batch, L tokens, H heads, P width of a head, G groups, N d_state, D = expand * d_model = H * P.

Departs from ``mamba_ssm``: `d_input` may differ from `d_model` (the second layer of RPG-Large), and a layer can continue from a
:class:`MambaState`, so that a long sequence is computed piece by piece.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramgen.errors import ParamgenError
from paramgen.nn.scan import (
    Kernel,
    check_kernel,
    fused_selective_scan,
    fused_ssd,
    kernels,
    say_once,
    selective_scan,
    ssd,
)


class MambaState(NamedTuple):
    """State of a layer after a piece of the sequence."""

    conv: Tensor  # (B, channels, d_conv - 1): the last inputs of the causal convolution
    scan: Tensor  # Mamba-2 (B, H, N, P), Mamba-1 (B, D, N)


class _MambaLayer(nn.Module):
    """Shared by both layers: the choice of kernel, the causal convolution, the initialisation of dt."""

    conv1d: nn.Conv1d

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        check_kernel(kernel)
        self.kernel = kernel

    def _fused(self, u: Tensor, fused: Callable[..., Tensor], *inputs: Any) -> Tensor | None:
        """The kernel's result, or None if torch must compute it."""
        if self.kernel == "cuda" and not u.is_cuda:
            raise ParamgenError(f"kernel 'cuda' was requested, but the tensors are on {u.device}; use kernel: auto")
        name = type(self).__name__
        if self.kernel == "torch" or not u.is_cuda or not kernels():
            say_once(f"{name}: torch")
            return None
        try:
            y = fused(*inputs)
        except Exception as error:
            if self.kernel == "cuda":
                raise ParamgenError(f"kernel 'cuda': mamba_ssm failed on {u.device}: {error}") from error
            say_once(f"{name}: torch, because mamba_ssm failed: {error}")
            return None
        say_once(f"{name}: kernels of mamba_ssm")
        return y

    def _convolve(self, x: Tensor, state: MambaState | None) -> tuple[Tensor, Tensor]:
        """Causal convolution and SiLU over (B, L, channels); also the inputs that the next piece needs."""
        width = self.conv1d.kernel_size[0] - 1
        x = x.mT  # (B, channels, L)
        x = F.pad(x, (width, 0)) if state is None else torch.cat([state.conv.to(x.dtype), x], -1)
        y = F.conv1d(x, self.conv1d.weight, self.conv1d.bias, groups=self.conv1d.groups)
        return F.silu(y).mT, x[..., x.shape[-1] - width :]

    @staticmethod
    def _dt_bias(n: int, dt_min: float, dt_max: float, floor: float) -> Tensor:
        dt = torch.exp(torch.rand(n) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min)).clamp(min=floor)
        return dt + torch.log(-torch.expm1(-dt))  # softplus of it is dt


def _undecayed(*parameters: nn.Parameter) -> None:
    for parameter in parameters:
        parameter._no_weight_decay = True  # type: ignore[attr-defined]


def _precise(*tensors: Tensor) -> list[Tensor]:
    """At least float32: a scan in bf16 loses its state to rounding."""
    return [t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Turns autocast off, on devices that have it: the meta device has none."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


class GatedRMSNorm(nn.Module):
    """``RMSNorm(x * silu(z))`` over each of `groups` equal parts of the last dimension."""

    def __init__(self, d: int, groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x, z (..., d) -> (..., d) in the dtype of z."""
        gated, weight = _precise(x * F.silu(z), self.weight)
        parts = gated.unflatten(-1, (self.groups, -1))
        return (F.rms_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2) * weight).to(z.dtype)


class Mamba2(_MambaLayer):
    """A Mamba-2 layer, (B, L, d_input) -> (B, L, d_model).

    Args:
        d_model: Width of the output.
        d_state: N, numbers of state per channel.
        d_conv: Length of the causal convolution.
        expand: Inner width over `d_model`.
        headdim: P, width of a head.
        ngroups: Groups of heads that share B and C.
        chunk_size: T of the scan; affects speed only.
        d_input: Width of the input, `d_model` by default.
        kernel: ``torch``, ``cuda`` (``mamba_ssm`` or an error), or ``auto``: the kernels where they can be used.

    Raises:
        ParamgenError: Heads do not divide the inner width, groups do not divide the heads, or the kernel is not installed.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 64,
        d_input: int | None = None,
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__(kernel)
        d = expand * d_model
        if d % headdim or (d // headdim) % ngroups:
            raise ParamgenError(
                f"d_model {d_model}: the inner width {d} must be a multiple of headdim {headdim} times {ngroups} groups"
            )
        self.d_inner, self.d_state, self.headdim, self.ngroups = d, d_state, headdim, ngroups
        self.nheads, self.chunk_size = d // headdim, chunk_size
        channels = d + 2 * ngroups * d_state
        # the order of these lines is the order of mamba_ssm's random draws
        self.in_proj = nn.Linear(d_input or d_model, d + channels + self.nheads, bias=bias)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels, padding=d_conv - 1, bias=conv_bias)
        self.dt_bias = nn.Parameter(self._dt_bias(self.nheads, dt_min, dt_max, dt_init_floor))
        self.A_log = nn.Parameter(torch.log(torch.empty(self.nheads).uniform_(*A_init_range)))
        self.D = nn.Parameter(torch.ones(self.nheads))
        _undecayed(self.dt_bias, self.A_log, self.D)
        self.norm = GatedRMSNorm(d, ngroups)
        self.out_proj = nn.Linear(d, d_model, bias=bias)

    def forward(self, u: Tensor) -> Tensor:
        """The whole sequence: (B, L, d_input) -> (B, L, d_model)."""
        return self._run(u, None)[0]

    def resume(self, u: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        """The next piece of a sequence (B, L, d_input) after `state` (None: the first); always in torch."""
        y, state = self._run(u, state, piecewise=True)
        assert state is not None
        return y, state

    def _run(self, u: Tensor, state: MambaState | None, piecewise: bool = False) -> tuple[Tensor, MambaState | None]:
        d, g, N = self.d_inner, self.ngroups, self.d_state
        z, xBC, dt = self.in_proj(u).split([d, d + 2 * g * N, self.nheads], -1)
        xBC, conv = self._convolve(xBC, state)
        x, Bm, Cm = xBC.split([d, g * N, g * N], -1)
        x, Bm, Cm = x.unflatten(-1, (-1, self.headdim)), Bm.unflatten(-1, (g, N)), Cm.unflatten(-1, (g, N))
        last = None
        with _without_autocast(u.device):
            dt, bias, A_log, skip = _precise(dt, self.dt_bias, self.A_log, self.D)
            dt, A = F.softplus(dt + bias), -A_log.exp()
            y = None if piecewise else self._fused(u, fused_ssd, x, dt, A, Bm, Cm, self.chunk_size)
            if y is None:
                x, Bm, Cm = _precise(x, Bm, Cm)
                y, last = ssd(x, dt, A, Bm, Cm, self.chunk_size, None if state is None else state.scan)
            y = y + x * skip[:, None]  # (B, L, H, P)
        out = self.out_proj(self.norm(y.flatten(2).to(z.dtype), z))
        return out, MambaState(conv, last) if piecewise and last is not None else None


class Mamba1(_MambaLayer):
    """A Mamba-1 layer, (B, L, d_input) -> (B, L, d_model).

    Args:
        d_model: Width of the output.
        d_state: N, numbers of state per channel.
        d_conv: Length of the causal convolution.
        expand: Inner width over `d_model`.
        dt_rank: Rank of the map that makes dt; ``None`` for ``ceil(d_model / 16)``.
        chunk_size: Tokens whose states are in memory at once.
        d_input: Width of the input, `d_model` by default.
        kernel: As in :class:`Mamba2`.

    Raises:
        ParamgenError: The kernel is not installed.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 32,
        d_input: int | None = None,
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__(kernel)
        d = self.d_inner = expand * d_model
        self.d_state, self.chunk_size = d_state, chunk_size
        self.dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        # the order of these lines is the order of mamba_ssm's random draws
        self.in_proj = nn.Linear(d_input or d_model, 2 * d, bias=bias)
        self.conv1d = nn.Conv1d(d, d, d_conv, groups=d, padding=d_conv - 1, bias=conv_bias)
        self.x_proj = nn.Linear(d, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(self._dt_bias(d, dt_min, dt_max, dt_init_floor))
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(d, 1))
        self.D = nn.Parameter(torch.ones(d))
        _undecayed(self.A_log, self.D)
        self.out_proj = nn.Linear(d, d_model, bias=bias)

    def forward(self, u: Tensor) -> Tensor:
        """The whole sequence: (B, L, d_input) -> (B, L, d_model)."""
        return self._run(u, None)[0]

    def resume(self, u: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        """The next piece of a sequence (B, L, d_input) after `state` (None: the first); always in torch."""
        y, state = self._run(u, state, piecewise=True)
        assert state is not None
        return y, state

    def _run(self, u: Tensor, state: MambaState | None, piecewise: bool = False) -> tuple[Tensor, MambaState | None]:
        x, z = self.in_proj(u).chunk(2, -1)
        x, conv = self._convolve(x, state)
        dt, Bm, Cm = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], -1)
        dt = F.linear(dt, self.dt_proj.weight)
        last = None
        with _without_autocast(u.device):
            dt, bias, A_log, skip = _precise(dt, self.dt_proj.bias, self.A_log, self.D)
            x, Bm, Cm = _precise(x, Bm, Cm)
            dt, A = F.softplus(dt + bias), -A_log.exp()
            y = None if piecewise else self._fused(u, fused_selective_scan, x, dt, A, Bm, Cm)
            if y is None:
                y, last = selective_scan(x, dt, A, Bm, Cm, self.chunk_size, None if state is None else state.scan)
            y = (y + x * skip).to(z.dtype) * F.silu(z)  # (B, L, D)
        return self.out_proj(y), MambaState(conv, last) if piecewise and last is not None else None
