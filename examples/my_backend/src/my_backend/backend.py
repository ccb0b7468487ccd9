"""A Gaussian over networks whose covariance has few directions: factor analysis, fitted by gradient descent."""

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from paramgen import Drawn, ParamBatch, ParameterGenerator, SampleRequest


class LowRankGaussian(ParameterGenerator):
    """A Gaussian over the numbers of all tokens. Its covariance is F F' plus a diagonal, where F has `rank` columns.

    Args:
        seq_len: L, tokens per network; from the data.
        token_dim: D, numbers per token; from the data.
        rank: Number of directions in which networks vary together.
        lr: Learning rate.
    """

    def __init__(self, seq_len: int, token_dim: int, rank: int = 8, lr: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokens, self.lr = (seq_len, token_dim), lr
        self.mean = nn.Parameter(torch.zeros(seq_len * token_dim))
        self.factor = nn.Parameter(0.1 * torch.randn(seq_len * token_dim, rank))
        self.log_variance = nn.Parameter(torch.zeros(seq_len * token_dim))

    def gaussian(self) -> LowRankMultivariateNormal:
        """The distribution of the L * D numbers of a network."""
        return LowRankMultivariateNormal(self.mean, self.factor, self.variance())

    def variance(self) -> Tensor:
        """Variance of each number beyond the common directions; padding and constant weights have none, hence the floor."""
        return self.log_variance.exp() + 1e-3

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Negative log-likelihood per number."""
        x = batch.x.flatten(1)  # (B, L * D)
        return {"loss": -self.gaussian().log_prob(x).mean() / x.shape[1]}

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """The mean and noise along the directions and on each number."""
        noise = [
            torch.randn(request.n, size, generator=request.generator) for size in (self.factor.shape[1], len(self.mean))
        ]
        z, eps = (request.temperature * each.to(self.mean) for each in noise)  # (n, rank), (n, L * D)
        x = self.mean + z @ self.factor.T + eps * self.variance().sqrt()
        return Drawn(x.unflatten(1, self.tokens))  # (n, L, D)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)
