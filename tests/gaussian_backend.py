"""The smallest backend that is one: a Gaussian per token value, fitted by gradient descent. docs/backends.md shows it."""

import torch
from torch import Tensor, nn

from paramgen.generators.base import ParameterGenerator
from paramgen.generators.batches import ParamBatch
from paramgen.generators.sampling import Drawn, SampleRequest, on_cpu


class GaussianBackend(ParameterGenerator):
    """A Gaussian per weight.

    Args:
        seq_len: L, tokens a network; from the data.
        token_dim: D, numbers a token; from the data.
        lr: Learning rate.
    """

    def __init__(self, seq_len: int, token_dim: int, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.mean = nn.Parameter(torch.zeros(seq_len, token_dim))
        self.log_std = nn.Parameter(torch.zeros(seq_len, token_dim))

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        mean, log_std = self.mean.expand_as(batch.x), self.log_std.expand_as(batch.x)
        nll = 0.5 * ((batch.x - mean) * (-log_std).exp()).square() + log_std
        noise = torch.rand((), device=batch.x.device)  # shows which process drew it
        return {"loss": nll.mean(), "noise": noise}

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        noise = torch.randn(request.n, *self.mean.shape, generator=on_cpu(request.generator)).to(self.mean)
        return Drawn(self.mean + request.temperature * self.log_std.exp() * noise)  # (n, L, D)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)
