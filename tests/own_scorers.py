"""Functions that score networks, as a user would write them; ``CALLS`` says what they were called with."""

import torch
from torch import nn

CALLS: list[str] = []


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(4), nn.Linear(4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(x))


def bias(network: nn.Module) -> float:
    """The mean of the output at 0."""
    CALLS.append("bias")
    assert not network.training
    assert network(torch.zeros(1, 4)).shape == (1, network.out.out_features)
    with torch.no_grad():
        value = network.out.bias.mean().item()
        network.out.bias.fill_(0)  # what it does to its network, no other sees
    return value


def by_split(network: nn.Module, split: str) -> torch.Tensor:
    CALLS.append(split)
    return network.out.bias.mean() + {"train": 10, "val": 20, "test": 30}[split]


def positive_only(network: nn.Module) -> float:
    value = bias(network)
    if value < 0:
        raise ValueError("the bias is negative")
    return value


def nothing(network: nn.Module) -> float:
    return float("nan")


NO_FUNCTION = 3
