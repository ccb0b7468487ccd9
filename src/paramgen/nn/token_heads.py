"""Denoisers of single tokens, shared by all tokens (RPG, Wang et al. 2025, arXiv:2501.11587, appendix A.3; MAR, arXiv:2406.11838).

n tokens of D numbers, each noised at its own step t, each with its prototype z of width d_model:
``head(x_t (n, D), t (n,) or (1,), head.project(z (n, d_model))) -> (n, D)``. The projection is separate because it does not depend on
x_t or t: sampling computes it once for all steps, training once for all noise draws of a token.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from paramgen.errors import ParamgenError, require_choice, require_positive
from paramgen.nn.embeddings import time_features
from paramgen.nn.rows import conv_row

HeadKind = Literal["conv", "mlp"]


class ConvHead(nn.Module):
    """RPG's shared 1D-convolutional denoiser.

    A token is a signal of one channel along its D numbers. Each layer computes ``conv((h + c) * t)``, the prototype added and the
    time multiplied along the length, then batch norm and ELU except in the last; the first layers' outputs are added to their
    mirror images'.

    Args:
        token_dim: D.
        d_model: Width of the prototypes.
        channels: Channels from 1 to 1, symmetric; ``[1, 32, 64, 128, 64, 32, 1]`` in the paper, ``[1, 16, 32, 16, 1]`` costs a tenth.
        kernel_size: Odd length of the convolutions.
        checkpointing: Recompute the layers in the backward pass instead of storing their outputs: less memory, a third more work.

    Raises:
        ParamgenError: Channels that do not go from 1 to 1 symmetrically, or an even kernel.
    """

    def __init__(
        self, token_dim: int, d_model: int, channels: list[int], kernel_size: int = 7, checkpointing: bool = False
    ) -> None:
        super().__init__()
        if len(channels) < 3 or channels[0] != 1 or channels != channels[::-1] or min(channels) < 1:
            raise ParamgenError(
                f"channels {channels}: expected them to go from 1 to 1 symmetrically, as [1, 16, 32, 16, 1]"
            )
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ParamgenError(f"kernel_size {kernel_size}: expected an odd one, so that the length stays {token_dim}")
        self.checkpointing = checkpointing
        self.time = nn.Sequential(nn.Linear(256, token_dim), nn.SiLU(), nn.Linear(token_dim, token_dim))
        self.condition = nn.Linear(d_model, token_dim)
        pairs = list(pairwise(channels))
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel_size, padding=kernel_size // 2) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs[:-1])

    def project(self, z: Tensor) -> Tensor:
        """Prototypes (n, d_model) as what is added to the token: (n, D)."""
        added: Tensor = self.condition(z)
        return added

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Noised tokens (n, D), their steps (n,) or one for all (1,), their projected prototypes (n, D) -> (n, D)."""
        scale = self.time(time_features(t).to(self.condition.weight.dtype))[:, None, None]  # (n or 1, 1, 1, D)
        shift = c[:, None, None] * scale  # (n, 1, 1, D)
        recompute = self.checkpointing and torch.is_grad_enabled()
        h = x_t[:, None, None]  # (n, 1, 1, D): as images of one row, whose channels may be innermost
        kept: list[Tensor] = []
        for i in range(len(self.convs)):
            h = (
                checkpoint(self._layer, i, h, scale, shift, use_reentrant=False)
                if recompute
                else self._layer(i, h, scale, shift)
            )
            mirror = len(self.convs) - 2 - i
            if 0 <= mirror < i:
                h = h + kept[mirror]
            kept.append(h)
        return h[:, 0, 0]

    def _layer(self, i: int, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        conv = self.convs[i]
        assert isinstance(conv, nn.Conv1d)
        h = conv_row(
            conv, (h * scale).add_(shift)
        )  # of (h + c) * t; one addcmul along the length takes three times as long
        return nn.functional.elu(self.norms[i](h), inplace=True) if i < len(self.norms) else h


class MLPHead(nn.Module):
    """A residual MLP on whole tokens, conditioned through shift and scale; at small scale several times faster than ConvHead.

    Prototype and time enter by addition before any nonlinearity, so that sampling computes each of them once.

    Args:
        token_dim: D.
        d_model: Width of the prototypes.
        hidden: Width of the MLP.
        blocks: Residual blocks.

    Raises:
        ParamgenError: A size below 1.
    """

    def __init__(self, token_dim: int, d_model: int, hidden: int = 128, blocks: int = 2) -> None:
        super().__init__()
        require_positive(hidden=hidden, blocks=blocks)
        self.hidden, self.blocks = hidden, blocks
        modulation = hidden * (1 + 2 * blocks)
        self.time = nn.Sequential(nn.Linear(256, hidden), nn.SiLU(), nn.Linear(hidden, modulation))
        self.condition = nn.Linear(d_model, modulation)
        self.enter = nn.Linear(token_dim, hidden)
        self.mix = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
            for _ in range(blocks)
        )
        self.leave = nn.Linear(hidden, token_dim)

    def project(self, z: Tensor) -> Tensor:
        """Prototypes (n, d_model) as shifts and scales (n, hidden * (1 + 2 * blocks))."""
        added: Tensor = self.condition(z)
        return added

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Noised tokens (n, D), steps (n,) or one for all (1,), projected prototypes (n, hidden * (1 + 2 blocks)) -> (n, D)."""
        c = c + self.time(time_features(t).to(self.condition.weight.dtype))
        first, *rest = c.split(self.hidden, -1)  # (n, hidden) each
        h = self.enter(x_t) + first
        for mix, shift, scale in zip(self.mix, rest[::2], rest[1::2], strict=True):
            normed = nn.functional.layer_norm(h, h.shape[-1:])
            h = h + mix(torch.addcmul(normed + shift, normed, scale))
        tokens: Tensor = self.leave(h)
        return tokens


@dataclass(frozen=True)
class HeadSettings:
    """The denoiser of single tokens.

    Args:
        kind: ``conv`` (the paper's) or ``mlp``.
        channels: Channels of the conv head, from 1 to 1. Default: 1-32-64-128-64-32-1.
        kernel_size: Kernel size of the conv head; odd.
        hidden: Width of the mlp head.
        blocks: Residual blocks of the mlp head.
        checkpointing: Recompute the conv head's layers in the backward pass to save memory.
        compile: Use torch.compile for the head; faster on CUDA.

    Raises:
        ParamgenError: An unknown kind.
    """

    kind: HeadKind = "conv"
    channels: list[int] | None = None
    kernel_size: int = 7
    hidden: int = 128
    blocks: int = 2
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        require_choice(HeadKind, "head.", kind=self.kind)

    def make(self, token_dim: int, d_model: int) -> ConvHead | MLPHead:
        """The head of tokens of D numbers and prototypes of width d_model.

        Raises:
            ParamgenError: Sizes that do not fit each other.
        """
        head: ConvHead | MLPHead
        if self.kind == "conv":
            channels = self.channels or [1, 32, 64, 128, 64, 32, 1]
            head = ConvHead(token_dim, d_model, channels, self.kernel_size, self.checkpointing)
        else:
            head = MLPHead(token_dim, d_model, self.hidden, self.blocks)
        if self.compile:
            head.compile()
        return head
