"""Small networks that use attention heads, slices and groups of channels in unusual ways, for tests of alignment."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS, D = 3, 12


class Block(nn.Module):
    """Tokens (B, 3, 6) through an embedding, something in between, and a head."""

    def __init__(self, width: int = 3 * D, out: int = D) -> None:
        super().__init__()
        self.embed, self.norm, self.qkv = nn.Linear(6, D), nn.LayerNorm(D), nn.Linear(D, width)
        self.back, self.head = nn.Linear(out, D), nn.Linear(D, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(F.gelu(x + self.back(self.inner(self.qkv(self.norm(x))))).mean(1))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v, each (B, HEADS, N, D / HEADS)."""
        B, N, width = x.shape
        return x.view(B, N, 3, HEADS, width // 3 // HEADS).permute(2, 0, 3, 1, 4).unbind(0)

    def inner(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Plain(Block):
    def inner(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*self.heads(x)).transpose(1, 2).flatten(2)


class Unfused(Block):
    """Attention by products, and one table of biases looked up for all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, HEADS))
        self.where = torch.arange(3)[:, None] - torch.arange(3) + 2

    def inner(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        weights = (q * 0.5) @ k.transpose(-2, -1) + self.table[self.where].permute(2, 0, 1)
        return (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)


class OneHead(Block):
    def inner(self, x: Tensor) -> Tensor:
        q, k, v = x.chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v)


class Grouped(Block):
    """Four heads of q for two of k and v."""

    def __init__(self) -> None:
        super().__init__(width=16 + 8 + 8, out=16)

    def inner(self, x: Tensor) -> Tensor:
        q, k, v = x.split([16, 8, 8], -1)
        q, k, v = (t.unflatten(-1, (-1, 4)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)


class Rotary(Block):
    """Dimensions of a head are turned in pairs."""

    def inner(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        angle = torch.arange(3.0)[:, None] * torch.tensor([1.0, 1.0, 0.1, 0.1])

        def turned(t: Tensor) -> Tensor:
            other = torch.stack([-t[..., 1::2], t[..., ::2]], -1).reshape(t.shape)
            return t * angle.cos() + other * angle.sin()

        return F.scaled_dot_product_attention(turned(q), turned(k), v).transpose(1, 2).flatten(2)


class KeysAreValues(Block):
    def inner(self, x: Tensor) -> Tensor:
        q, k, _ = self.heads(x)
        return F.scaled_dot_product_attention(q, k, k).transpose(1, 2).flatten(2)


class MeanOfHeads(Block):
    def __init__(self) -> None:
        super().__init__(out=D // HEADS)

    def inner(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*self.heads(x)).mean(1)


class SharedByHeads(Block):
    """One layer for the dimensions of every head."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Linear(D // HEADS, D // HEADS)

    def inner(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return F.scaled_dot_product_attention(q, k, self.each(v)).transpose(1, 2).flatten(2)


class MixedAcrossHeads(Block):
    """Heads and tokens are three each: head i meets token i."""

    def inner(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return F.scaled_dot_product_attention(q + q.transpose(1, 2), k, v).transpose(1, 2).flatten(2)


class RolledHeads(Block):
    def inner(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return F.scaled_dot_product_attention(q, k.roll(1, 1), v).transpose(1, 2).flatten(2)


class HeadsOfHeads(Block):
    """Heads are summed with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(HEADS, HEADS)

    def inner(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)  # (B, HEADS, N, N)
        weights = self.mix(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (weights @ v).transpose(1, 2).flatten(2)


class StackedAgain(Block):
    """q, k and v are used as one tensor: nothing takes their axis apart."""

    def __init__(self) -> None:
        super().__init__(out=3 * D)

    def inner(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (3, HEADS, -1)).softmax(-1).flatten(2)


class RankOne(Block):
    def __init__(self) -> None:
        super().__init__(width=1, out=1)

    def inner(self, x: Tensor) -> Tensor:
        return x


class Unknown(Block):
    """A layer that alignment does not know, and a hidden layer behind it."""

    def __init__(self) -> None:
        super().__init__(width=2 * D, out=7)
        self.more = nn.Linear(D, 7)

    def inner(self, x: Tensor) -> Tensor:
        return F.relu(self.more(F.glu(x, -1)))


class Channels(nn.Module):
    """Images (B, 3, 6) read as (B, 3, 2, 3): groups of channels, filters of which several belong to one channel, and a norm by groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.norm = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1, groups=8), nn.GroupNorm(4, 16)
        self.third, self.back = nn.Conv2d(16, 12, 1, groups=4), nn.ConvTranspose2d(12, 8, 1, groups=4)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.wide(F.relu(self.first(x.unflatten(-1, (2, 3))))))
        return self.head(F.relu(self.back(F.gelu(self.third(x)))).mean((2, 3)))


class OneChannel(nn.Module):
    """A single channel whose map is flattened: its factor must not be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.head = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 1, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(F.relu(self.first(x.unflatten(-1, (2, 3)))))).flatten(1))


class Pictures(nn.Sequential):
    """A classifier of pictures (B, C, H, W) with a layer that alignment does not know."""

    def __init__(self, num_classes: int, in_shape: tuple[int, int, int]) -> None:
        inputs = in_shape[0] * in_shape[1] * in_shape[2]
        super().__init__(
            nn.Flatten(), nn.Linear(inputs, 8), nn.GLU(1), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, num_classes)
        )
