"""The scans of Mamba-1 and Mamba-2 in torch, and ``mamba_ssm``'s kernels for the same where they can be used.

Letters: B batch, L tokens, H heads, P width of a head, G groups, N d_state, D channels, T chunk, n chunks, R = H / G.
Both compute ``h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t`` and ``y_t = C_t h_t``. A is a number per head in Mamba-2, whose scan
is then made of matrix products (Dao & Gu 2024, arXiv:2405.21060), and a vector of N per channel in Mamba-1 (arXiv:2312.00752).
"""

import logging
import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from paramgen.errors import ParamgenError, require_choice

Kernel = Literal["auto", "torch", "cuda"]
log = logging.getLogger(__name__)


class Scan(NamedTuple):
    """Outputs of a scan and the state it ends in."""

    y: Tensor
    last: Tensor


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, Bm: Tensor, Cm: Tensor, chunk: int = 64, initial: Tensor | None = None
) -> Scan:
    """The scan of Mamba-2 as matrix products over chunks, with the stable segment sum.

    Differences of two cumulative sums would lose ``dt A`` to 1e-4 in float32, and products in log space overflow; here every
    exponent is a sum of its own terms, all of one sign.

    Args:
        x: (B, L, H, P) inputs.
        dt: (B, L, H) steps, positive.
        A: (H,) negative.
        Bm: (B, L, G, N) input maps.
        Cm: (B, L, G, N) output maps.
        chunk: Maximum number of tokens per chunk; does not change the result.
        initial: (B, H, N, P) state before the first token; zero by default.

    Returns:
        y (B, L, H, P) and the last state (B, H, N, P).
    """
    B, L, H, P = x.shape
    G, N = Bm.shape[2:]
    R, n = H // G, -(-L // chunk)
    T = -(-L // n)  # equal chunks need the least padding
    if pad := n * T - L:  # a padded token has dt = 0: it neither decays the state nor adds to it
        x, Bm, Cm = (F.pad(v, (0, 0, 0, 0, 0, pad)) for v in (x, Bm, Cm))
        dt = F.pad(dt, (0, 0, 0, pad))
    X = (x * dt[..., None]).view(B, n, T, G, R, P).permute(0, 1, 3, 4, 2, 5)  # (B, n, G, R, T, P)
    a = (dt * A).view(B, n, T, G, R).permute(0, 1, 3, 4, 2)  # (B, n, G, R, T)
    Bc = Bm.view(B, n, T, G, N).transpose(2, 3)  # (B, n, G, T, N)
    Cc = Cm.view(B, n, T, G, N).transpose(2, 3)  # (B, n, G, T, N)
    decay = segment_decay(a)  # (B, n, G, R, T, T)
    Y = ((Cc @ Bc.mT).unsqueeze(3) * decay) @ X  # (B, n, G, R, T, P)

    weighted = (X * decay[..., -1, :, None]).transpose(3, 4).reshape(B, n, G, T, R * P)
    added = (Bc.mT @ weighted).view(B, n, G, N, R, P)  # what each chunk adds to the state
    since = a.cumsum(-1)  # (B, n, G, R, T)
    chunk_decay = since[..., -1].exp()[:, :, :, None, :, None]  # (B, n, G, 1, R, 1)
    h = x.new_zeros(B, G, N, R, P) if initial is None else initial.view(B, G, R, N, P).transpose(2, 3)
    before = []
    for more, kept in zip(
        added.unbind(1), chunk_decay.unbind(1), strict=True
    ):  # unbind: slices would have a quadratic backward
        before.append(h)
        h = torch.addcmul(more, kept, h)
    if n > 1 or initial is not None:
        carried = Cc @ torch.stack(before, 1).reshape(B, n, G, N, R * P)  # (B, n, G, T, R P)
        Y = torch.addcmul(Y, carried.view(B, n, G, T, R, P).transpose(3, 4), since.exp()[..., None])
    y = Y.permute(0, 1, 4, 2, 3, 5).reshape(B, n * T, H, P)[:, :L]
    return Scan(y, h.transpose(2, 3).reshape(B, H, N, P))


def segment_decay(a: Tensor) -> Tensor:
    """``exp(a_{s+1} + ... + a_t)`` for s <= t and 0 above the diagonal: (..., T) -> (..., T, T)."""
    T = a.shape[-1]
    lower = torch.ones(T, T, dtype=torch.bool, device=a.device).tril()
    terms = torch.where(lower.tril(-1), a[..., :, None], 0)
    return torch.where(lower, terms.cumsum(-2), -math.inf).exp()


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, Bm: Tensor, Cm: Tensor, chunk: int = 32, initial: Tensor | None = None
) -> Scan:
    """The scan of Mamba-1, chunk by chunk; with gradients, the backward pass recomputes each chunk from the state before it.

    Only one state per chunk is stored: memory is O(B D N (L / T + T)), where plain autograd keeps O(B D N L) several times over.

    Args:
        x: (B, L, D) inputs.
        dt: (B, L, D) steps, positive.
        A: (D, N) negative.
        Bm: (B, L, N) input maps.
        Cm: (B, L, N) output maps.
        chunk: Maximum number of tokens per chunk; does not change the result.
        initial: (B, D, N) state before the first token; zero by default.

    Returns:
        y (B, L, D) and the last state (B, D, N).
    """
    h = x.new_zeros(x.shape[0], *A.shape) if initial is None else initial
    ys = []
    for start in range(0, x.shape[1], chunk):
        part = slice(start, start + chunk)
        pieces = (x[:, part], dt[:, part], A, Bm[:, part], Cm[:, part], h)
        y, h = (
            checkpoint(_scan_chunk, *pieces, use_reentrant=False) if torch.is_grad_enabled() else _scan_chunk(*pieces)
        )
        ys.append(y)
    return Scan(torch.cat(ys, 1), h)


def _scan_chunk(x: Tensor, dt: Tensor, A: Tensor, Bm: Tensor, Cm: Tensor, h: Tensor) -> Scan:
    """One chunk of the scan from the state `h` (B, D, N) before it."""
    decay = torch.einsum("btd,dn->tbdn", dt, A).exp()  # (T, B, D, N)
    states = []
    for kept, added in zip(decay.unbind(), torch.einsum("btd,btn->tbdn", dt * x, Bm).unbind(), strict=True):
        h = torch.addcmul(added, kept, h)
        states.append(h)
    return Scan(torch.einsum("tbdn,btn->btd", torch.stack(states), Cm), h)


INSTALL = "install it with a CUDA build of torch: pip install --no-build-isolation 'paramgen[cuda]'"


@cache
def kernels() -> dict[str, Callable[..., Any]]:
    """``mamba_ssm``'s scans by name; empty if the package or its CUDA build is missing or broken."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except Exception as error:
        log.debug("mamba_ssm cannot be used: %s", error)
        return {}
    return {"ssd": mamba_chunk_scan_combined, "selective_scan": selective_scan_fn}


@cache
def say_once(message: str) -> None:
    """Log `message` unless it was logged before."""
    log.info(message)


def check_kernel(kernel: str) -> None:
    """Raise ParamgenError when `kernel` is unknown, or demands ``mamba_ssm`` where it is missing."""
    require_choice(Kernel, "recurrence.", kernel=kernel)
    if kernel == "cuda" and not kernels():
        raise ParamgenError(f"kernel 'cuda' needs mamba_ssm, which cannot be imported here; {INSTALL}")


def fused_ssd(x: Tensor, dt: Tensor, A: Tensor, Bm: Tensor, Cm: Tensor, chunk: int) -> Tensor:
    """:func:`ssd` without an initial state in ``mamba_ssm``'s Triton kernel; x, Bm and Cm keep their dtype."""
    y: Tensor = kernels()["ssd"](x.contiguous(), dt, A, Bm.contiguous(), Cm.contiguous(), chunk)
    return y


def fused_selective_scan(x: Tensor, dt: Tensor, A: Tensor, Bm: Tensor, Cm: Tensor) -> Tensor:
    """:func:`selective_scan` without an initial state in ``mamba_ssm``'s CUDA kernel."""
    y: Tensor = kernels()["selective_scan"](
        *(v.mT.contiguous() for v in (x, dt)), A, *(v.mT.contiguous() for v in (Bm, Cm))
    )
    return y.mT
