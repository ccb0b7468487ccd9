"""SANE (Schürholt, Mahoney and Borth 2024, arXiv:2406.09997), drawn as S_KDE30 (Schürholt et al. 2022, arXiv:2209.14733).

x: networks as tokens (B, L, D). z: their latents (B, L, d). K: training networks. k: the best of them by their score on val.
An autoencoder of tokens learns to reconstruct networks. New networks are decoded from a kernel density of the latents of the k best ones.
The generator keeps these as tokens, SANE's prompt examples, so that their latents are always those of its current encoder.

Departs: positions and views of the autoencoder (see :mod:`paramgen.nn.token_autoencoder`); Scott's bandwidth by default. Networks are not
aligned first (``paramgen zoo align`` does it). Batch-norm statistics are generated, unless ``paramgen sample --recalibrate true`` measures
them on train items, as the authors do. Their bootstrapping, which keeps the samples that score best, is left out.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from paramgen.core.density import kernel_samples
from paramgen.core.spacing import evenly_spaced
from paramgen.errors import ParamgenError, require_choice, require_positive
from paramgen.generators.base import Denoised, ParameterGenerator
from paramgen.generators.batches import NetworkTokens, ParamBatch
from paramgen.generators.optim import one_phase
from paramgen.generators.sampling import Drawn, SampleRequest, on_cpu
from paramgen.generators.settings import OptimizerSettings, settings
from paramgen.nn.token_autoencoder import TokenAutoencoder, TokenAutoencoderSettings

NETWORKS_READ_AT_ONCE = 50  # training networks read at once
Independent = Literal["number", "token", "network"]
TOKENS_CODED_AT_ONCE = 2**15  # of networks encoded or decoded
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DensitySettings:
    """The kernel density of latents that samples are drawn from.

    Args:
        best: Share of the training networks whose latents it is made of, those with the best scores on val.
        independent: What is drawn independently of the rest: every ``number`` of the latent (S_KDE30), every ``token``, or the ``network``.
        bandwidth: Standard deviation of the noise over that of the latents. Default: Scott's k^(-1/5), of k latents.

    Raises:
        ParamgenError: A share outside 0 to 1, an unknown choice, or a bandwidth that is not above 0.
    """

    best: float = 0.3
    independent: Independent = "number"
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        require_positive("density.", bandwidth=self.bandwidth)
        if not 0 < self.best <= 1:
            raise ParamgenError(f"density.best is {self.best}, expected more than 0 and at most 1")
        require_choice(Independent, "density.", independent=self.independent)

    def count(self, networks: int) -> int:
        """How many of K training networks that is, at least 2."""
        return max(2, round(self.best * networks))

    def groups(self, z: Tensor) -> Tensor:
        """Latents (k, L, d) as groups (k, G, ·) that are drawn independently."""
        if self.independent == "token":
            return z
        return z.flatten(1)[:, :, None] if self.independent == "number" else z.flatten(1)[:, None]


AUTOENCODER, DENSITY = TokenAutoencoderSettings(), DensitySettings()
OPTIMIZER = OptimizerSettings(schedule="cosine", warmup_steps=20)


class SANE(ParameterGenerator):
    """An autoencoder of tokens, and a kernel density of the latents of the best networks.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        autoencoder: The autoencoder and its loss.
        density: What samples are drawn from.
        optimizer: AdamW and its learning rate.

    Raises:
        ParamgenError: An unknown choice, or a size that does not fit.
    """

    shape: tuple[int, int]
    examples: Tensor  # (k, L, D) the best training networks

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        num_networks: int,
        autoencoder: TokenAutoencoderSettings = AUTOENCODER,
        density: DensitySettings = DENSITY,
        optimizer: OptimizerSettings = OPTIMIZER,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.optimizer_settings = settings(OPTIMIZER, optimizer, "optimizer")
        self.density = settings(DENSITY, density, "density")
        self.shape = (seq_len, token_dim)
        self.autoencoder = TokenAutoencoder(seq_len, token_dim, settings(AUTOENCODER, autoencoder, "autoencoder"))
        self.register_buffer("examples", torch.zeros(self.density.count(num_networks), seq_len, token_dim))

    def setup(self, stage: str) -> None:
        """Take the places of the tokens from the codec."""
        super().setup(stage)
        if self.codec is not None:
            self.autoencoder.place(self.codec.positions)

    def begin(self, networks: NetworkTokens) -> None:
        """Keep the best training networks by their score on val; evenly spaced ones where the zoo records no scores."""
        k = len(self.examples)
        if networks.goodness is None:
            _log.warning(
                "SANE draws from the best networks on val, but the zoo records no scores: it takes every %d-th",
                len(networks) // k,
            )
            best = evenly_spaced(len(networks), k)
        else:
            best = networks.goodness.argsort(descending=True, stable=True)[:k]
        self.examples.copy_(torch.cat([networks.read(index, None) for index in best.split(NETWORKS_READ_AT_ONCE)]))

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Reconstruction of the tokens and, in training, the contrast of two noised views."""
        if batch.token is not None:
            raise ParamgenError(
                "SANE needs complete networks: remove data.tokens_per_step; model.autoencoder.window reads part of them"
            )
        reconstruction, contrast = self.autoencoder.losses(batch.x, self.token_mask())
        share = self.autoencoder.settings.contrast if self.training else 0.0
        loss = (1 - share) * reconstruction + share * contrast
        return {"loss": loss, "ae_loss": reconstruction, "contrast_loss": contrast}

    def denoised(self, batch: ParamBatch, from_noise: bool = False) -> Denoised:
        """Reconstructions of the networks of a batch."""
        if from_noise:
            raise ParamgenError("SANE predicts no networks from noise: remove from_noise from the behavioural loss")
        noise = self.autoencoder.settings.input_noise * torch.randn_like(batch.x)
        x = self.autoencoder.decode(self.autoencoder.encode(batch.x + noise * self.token_mask()))
        return Denoised(x, torch.ones(len(x)))

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks, decoded from latents of the kernel density."""
        rows = max(1, TOKENS_CODED_AT_ONCE // self.shape[0])
        z = torch.cat([self.autoencoder.encode(x) for x in self.examples.split(rows)]).float().cpu()  # (k, L, d)
        groups = self.density.groups(z)
        drawn = kernel_samples(
            groups, request.n, on_cpu(request.generator), self.density.bandwidth, request.temperature
        )
        latents = drawn.view(request.n, *z.shape[1:])[list(request.wanted)].to(self.device)
        return Drawn(torch.cat([self.autoencoder.decode(z) for z in latents.split(rows)]) * self.token_mask())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW without decay on biases."""
        return one_phase(self, self.optimizer_settings)
