"""Models that relate the tokens of a network to each other (RPG, Wang et al. 2025, arXiv:2501.11587, section 2.3, tables 4a and 5).

Every model maps (B, L, d_in) to prototypes (B, L, d_out) and never looks ahead, so that a long sequence can be computed piece by
piece: ``resume`` takes a piece and the state after the piece before it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramgen.errors import ParamgenError, require_choice, require_positive
from paramgen.nn.mamba import Mamba1, Mamba2
from paramgen.nn.scan import Kernel

Recurrent = Literal["mamba", "mamba1", "lstm", "transformer", "none"]


class MambaStack(nn.Module):
    """Mamba layers on top of each other: no residual, no norm, no MLP, as in RPG's code.

    Args:
        widths: d_model of each layer; the input has the first one's width.
        version: 2 (RPG's code) or 1 (RPG's text).
        d_state: N.
        d_conv: Length of the causal convolution.
        expand: Inner width over d_model.
        chunk_size: Tokens a chunk of the scan; ``None``: what is fastest.
        kernel: ``auto``, ``torch`` or ``cuda``.
    """

    def __init__(
        self,
        widths: list[int],
        version: Literal[1, 2] = 2,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        chunk_size: int | None = None,
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__()
        best = (128 if max(widths) >= 4096 else 64) if version == 2 else 32
        make: type[Mamba1 | Mamba2] = Mamba2 if version == 2 else Mamba1
        self.layers = nn.ModuleList(
            make(
                width,
                d_state=d_state,
                d_conv=d_conv,
                expand=expand,
                chunk_size=chunk_size or best,
                d_input=before,
                kernel=kernel,
            )
            for before, width in zip([widths[0], *widths], widths, strict=False)
        )

    def forward(self, u: Tensor) -> Tensor:
        """(B, L, widths[0]) -> (B, L, widths[-1])."""
        for layer in self.layers:
            u = layer(u)
        return u

    def resume(self, u: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """The next piece (B, L', widths[0]) and the state after it."""
        after = []
        for layer, before in zip(self.layers, state or [None] * len(self.layers), strict=True):
            u, last = layer.resume(u, before)  # type: ignore[operator]
            after.append(last)
        return u, after


class LSTM(nn.Module):
    """Stacked LSTM, all layers of one width."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)

    def forward(self, u: Tensor) -> Tensor:
        """(B, L, width) -> (B, L, width)."""
        out: Tensor = self.lstm(u)[0]
        return out

    def resume(self, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next piece (B, L', width) and the state after it."""
        out: tuple[Tensor, Any] = self.lstm(u, state)
        return out


class CausalTransformer(nn.Module):
    """Transformer encoder with causal attention, as in the paper's section B.8.

    Args:
        width: d_model.
        layers: Number of layers.
        heads: Attention heads, a divisor of `width`.

    Raises:
        ParamgenError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, layers: int, heads: int = 8) -> None:
        super().__init__()
        if width % heads:
            raise ParamgenError(f"d_model {width} is not a multiple of the transformer's {heads} heads")
        self.heads = heads
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "norm2": nn.LayerNorm(width),
                    "mlp": nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)),
                }
            )
            for _ in range(layers)
        )

    def forward(self, u: Tensor) -> Tensor:
        """(B, L, width) -> (B, L, width)."""
        return self.resume(u, None)[0]

    def resume(self, u: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The next piece (B, L', width); the state is all keys and values so far, which grow with the sequence."""
        B, L, _ = u.shape
        after = []
        for i, block in enumerate(self.blocks):
            qkv = block["qkv"](block["norm1"](u)).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # type: ignore[index]
            q, kv = qkv[0], qkv[1:]  # (B, heads, L', dim), (2, B, heads, L', dim)
            if state is not None:
                kv = torch.cat([state[i], kv], -2)
            total = kv.shape[-2]
            mask = torch.ones(L, total, dtype=torch.bool, device=u.device).tril(total - L)
            mixed = F.scaled_dot_product_attention(q, kv[0], kv[1], attn_mask=mask)  # (B, heads, L', dim)
            u = u + block["out"](mixed.transpose(1, 2).flatten(2))  # type: ignore[index]
            u = u + block["mlp"](block["norm2"](u))  # type: ignore[index]
            after.append(kv)
        return u, after


class Tokenwise(nn.Module):
    """The ablation: the same depth, but each token on its own, so that nothing passes between tokens."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(layers))
        )

    def forward(self, u: Tensor) -> Tensor:
        """(B, L, width) -> (B, L, width)."""
        out: Tensor = self.layers(u)
        return out

    def resume(self, u: Tensor, state: None) -> tuple[Tensor, None]:
        """The next piece; there is no state."""
        return self.layers(u), None


Recurrence = MambaStack | LSTM | CausalTransformer | Tokenwise


@dataclass(frozen=True)
class RecurrenceSettings:
    """The recurrent model.

    Args:
        kind: ``mamba`` (Mamba-2, the authors' code), ``mamba1`` (the paper's text), ``lstm``, ``transformer`` (causal), ``none``.
        d_model: Width of each layer. Default: 256-256. Only Mamba layers may have different widths.
        d_state: State size per channel of Mamba layers.
        d_conv: Length of Mamba's causal convolution.
        expand: Mamba's inner width divided by d_model.
        kernel: Mamba's scan: ``torch``, ``cuda`` (mamba_ssm, or an error) or ``auto``.

    Raises:
        ParamgenError: An unknown choice, no layer, or a width below 1.
    """

    kind: Recurrent = "mamba"
    d_model: list[int] | None = None
    d_state: int = 32
    d_conv: int = 4
    expand: int = 2
    kernel: Kernel = "auto"

    def __post_init__(self) -> None:
        require_choice(Recurrent, "recurrence.", kind=self.kind)
        require_choice(Kernel, "recurrence.", kernel=self.kernel)
        if not self.widths:
            raise ParamgenError("recurrence.d_model is empty: give the width of each layer, for example [256, 256]")
        if min(self.widths) < 1:
            raise ParamgenError(f"recurrence.d_model is {self.widths}, expected widths of 1 or more")

    @property
    def widths(self) -> list[int]:
        """Width of each layer."""
        return [256, 256] if self.d_model is None else self.d_model

    def make(self, chunk_size: int | None = None) -> Recurrence:
        """The recurrent model.

        Args:
            chunk_size: Of the Mambas' scan; by default what is fastest.

        Raises:
            ParamgenError: A size below 1, or widths that the kind cannot have.
        """
        if self.kind in ("mamba", "mamba1"):
            require_positive("recurrence.", d_state=self.d_state, d_conv=self.d_conv, expand=self.expand)
            version: Literal[1, 2] = 2 if self.kind == "mamba" else 1
            return MambaStack(self.widths, version, self.d_state, self.d_conv, self.expand, chunk_size, self.kernel)
        if len(set(self.widths)) > 1:
            raise ParamgenError(
                f"recurrence.d_model is {self.widths}: the layers of {self.kind!r} must have one width; only those of mamba may differ"
            )
        kinds: dict[str, type[LSTM | CausalTransformer | Tokenwise]] = {
            "lstm": LSTM,
            "transformer": CausalTransformer,
            "none": Tokenwise,
        }
        return kinds[self.kind](self.widths[0], len(self.widths))
