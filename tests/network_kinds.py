"""Small networks for the digits, each with something that is not a float32 matrix of its own."""

import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 16), nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x.flatten(1))))


class Double(Plain):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.double()


class BFloat16(Plain):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.bfloat16()


class Attention(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.e, self.b = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, 0]
        return self.b((x + self.e(x, x, x, need_weights=False)[0]).flatten(1))


class Encoder(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.e = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.b = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.e(x[:, 0]).flatten(1))


class Scalar(Plain):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.scale = nn.Parameter(torch.rand(()) + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(x)


class Tied(nn.Module):
    """A weight that two layers share, and a layer and a batch norm that occur under two names."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.a, self.c, self.b = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, num_classes)
        self.c.weight = self.a.weight
        self.n = nn.BatchNorm1d(64)
        self.again = nn.Sequential(self.a, self.n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.c(torch.relu(self.again(x.flatten(1))))))


class ConvNorm(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(F.max_pool2d(torch.relu(self.n(self.a(x))), 2).flatten(1))


class Extra(Plain):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 2}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.loaded = state


class Permuted(Plain):
    """Each network draws its own order of the pixels; a batch norm makes it worth recalibrating."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("perm", torch.randperm(64))
        self.n = nn.BatchNorm1d(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.n(x.flatten(1)[:, self.perm]))


class Masked(Plain):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("keep", torch.rand(16, 64) > 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(F.linear(x.flatten(1), self.a.weight * self.keep, self.a.bias)))


class Complex(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, 64, dtype=torch.complex64) / 8)
        self.b = nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b((x.flatten(1).to(self.w.dtype) @ self.w.T).abs())


class Lazy(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.b = nn.LazyLinear(num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(x.flatten(1))


class Empty(Plain):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.nothing = nn.Parameter(torch.empty(0))
