"""p-diff, neural network diffusion (Wang et al. 2024, arXiv:2402.13144).

x: flattened networks (B, P), P = L D. z: their latents (B, C, l). K: training networks.
First an autoencoder learns to reconstruct noised networks from noised latents; then a diffusion model learns the latents.

Departs from the paper: latents are standardised (without it the diffusion yields chance accuracy as soon as their scale is far from 1).
Departs from the authors' code: the autoencoder is in eval mode whenever it is not being trained, and latents are computed once.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from paramgen.core.devices import to_device
from paramgen.diffusion import Denoiser, Trajectory
from paramgen.errors import ParamgenError
from paramgen.generators.base import Denoised, ParameterGenerator, Phase
from paramgen.generators.batches import NetworkTokens, ParamBatch
from paramgen.generators.optim import decay_groups, fused_kernel, two_phases
from paramgen.generators.recipe import Facts
from paramgen.generators.sampling import Drawn, SampleRequest
from paramgen.generators.settings import ConditionSettings, DiffusionSettings, OptimizerSettings, settings
from paramgen.nn.autoencoder import ConvAutoencoder, LinearAutoencoder
from paramgen.nn.condition import ConditionedDenoiser, guided
from paramgen.nn.denoisers import DenoiserSettings
from paramgen.nn.latents import AutoencoderSettings
from paramgen.nn.pca import PCA

CONDITION, AUTOENCODER, DENOISER = ConditionSettings(), AutoencoderSettings(), DenoiserSettings()
DIFFUSION, OPTIMIZER = DiffusionSettings(), OptimizerSettings()
CHUNK = 2**24  # numbers of generated networks decoded at once
AT_ONCE = 50  # training networks encoded at once


class PDiff(ParameterGenerator):
    """Neural network diffusion: an autoencoder, then a diffusion model of its latents, in one fit.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        cond_dim: Width of a condition, from the data; 0 for none.
        condition: Training and sampling with a condition.
        autoencoder: The latent, and the training phase that learns it.
        denoiser: The network that denoises latents.
        diffusion: Noise schedule, prediction and default solver.
        optimizer: Optimizer of the second phase. The first phase has its own learning rate.

    Raises:
        ParamgenError: An unknown choice, a size below 1, a learning rate that is not above 0.
    """

    shape: tuple[int, int]
    has_guidance = True
    computing = (*ParameterGenerator.computing, "learn_latents")

    latent_mean: Tensor  # (C, l)
    latent_std: Tensor  # (C, l)
    learned: Tensor  # () bool: latents are known, the second phase has begun
    mask: Tensor  # (P,) bool, False on padding

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        num_networks: int,
        cond_dim: int = 0,
        condition: ConditionSettings = CONDITION,
        autoencoder: AutoencoderSettings = AUTOENCODER,
        denoiser: DenoiserSettings = DENOISER,
        diffusion: DiffusionSettings = DIFFUSION,
        optimizer: OptimizerSettings = OPTIMIZER,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        condition = settings(CONDITION, condition, "condition")
        denoiser = settings(DENOISER, denoiser, "denoiser")
        diffusion = settings(DIFFUSION, diffusion, "diffusion")
        self.phase = settings(AUTOENCODER, autoencoder, "autoencoder")
        self.optimizer_settings = settings(OPTIMIZER, optimizer, "optimizer")
        self.shape = (seq_len, token_dim)
        self.first_steps = self.phase.steps if self.phase.trained else 0
        self.scheduler, self.num_inference_steps = diffusion.scheduler, diffusion.num_inference_steps
        self.guidance_scale, self.cond_dim = condition.guidance_scale, cond_dim
        self.has_solver = denoiser.kind != "none"
        self.diffusion = diffusion.make()

        size = seq_len * token_dim
        self.autoencoder = self.phase.make(size, num_networks)
        self.latent_shape = self.autoencoder.latent_shape if self.autoencoder else (1, size)
        if denoiser.kind == "none" and not self.phase.trained:
            raise ParamgenError("model.denoiser.kind none decodes noise: model.autoencoder.kind must be conv or linear")
        self.denoiser = denoiser.make(self.latent_shape, cond_dim, condition.dropout)

        self.register_buffer("latent_mean", torch.zeros(self.latent_shape))
        self.register_buffer("latent_std", torch.ones(self.latent_shape))
        self.register_buffer("learned", torch.tensor(False))
        self.register_buffer("mask", torch.ones(size, dtype=torch.bool), persistent=False)
        self._latents: Tensor | None = None  # (K, C, l), in the second phase of a fit
        self._networks: NetworkTokens | None = None  # before that phase

    @classmethod
    def recipe(cls, facts: Facts) -> dict[str, Any]:
        """Principal components for all runs, and steps that follow the runs."""
        runs = 1 if facts.conditional else facts.runs
        return {
            "model.autoencoder.latent_dim": max(64, 2 * runs),
            "model.denoiser.width": 256,
            "model.diffusion.num_inference_steps": 20 if runs == 1 else 50,
            "model.optimizer.lr": 1e-3,
            "trainer.max_steps": 400 if runs == 1 else 1000,
        }

    def setup(self, stage: str) -> None:
        """Take the padding from the codec."""
        super().setup(stage)
        if self.codec is not None:
            self.mask.copy_(self.codec.mask.flatten())

    def begin(self, networks: NetworkTokens) -> None:
        """Standardise conditions; keep the training networks until their latents are learned."""
        self._networks = networks
        if isinstance(self.denoiser, ConditionedDenoiser) and networks.conditions is not None:
            self.denoiser.condition.standardise(networks.conditions)

    def phases(self, networks: NetworkTokens) -> Iterator[Phase]:
        """The autoencoder's, if it is trained, and the diffusion's."""
        if self.first_steps:
            yield Phase("autoencoder", self.first_steps if self.denoiser is not None else None)
        if self.denoiser is not None:
            self.learn_latents([*networks.batches(AT_ONCE)])
            yield Phase("diffusion", None)

    def on_train_batch_start(self, batch: ParamBatch, batch_idx: int) -> None:
        """Begin the second phase when the first one ends, or when resuming in the second."""
        if self._networks is not None and self.denoiser is not None and self.global_step >= self.first_steps:
            self.learn_latents([*self._networks.batches(AT_ONCE)])
            self._networks = None

    @torch.no_grad()
    def learn_latents(self, networks: list[Tensor]) -> None:
        """Compute the latents of all training networks once, and their statistics; the second phase follows.

        Args:
            networks: Batches (B, L, D) which together are the K training networks in order.
        """
        if isinstance(self.autoencoder, PCA) and not self.learned:
            self.autoencoder.fit(torch.cat([x.flatten(1) for x in networks]).to(self.device))
        if self.autoencoder is not None:
            self.autoencoder.eval()
        self._latents = torch.cat([self._encode(x.flatten(1).to(self.device)) for x in networks])  # (K, C, l)
        if self.phase.standardise != "none" and not self.learned:
            self.latent_mean.copy_(self._latents.mean(0))
            std = self._latents.std(0, correction=0)  # (C, l)
            if self.phase.standardise == "whole":
                std = std.square().mean().sqrt().expand_as(std)
            self.latent_std.copy_(torch.where(std > 1e-6 * std.max(), std, 1.0))
        self.learned.fill_(True)
        self._latents = (self._latents - self.latent_mean) / self.latent_std

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Reconstruction in the first phase, denoising in the second; ``ae_loss`` and ``diffusion_loss`` are logged separately."""
        if batch.token is not None:
            raise ParamgenError("p-diff needs complete networks: remove data.tokens_per_step")
        x = batch.x.flatten(1)  # (B, P)
        if not self.training:
            terms = {} if not self.phase.trained else {"ae_loss": self._reconstruction(x, 0.0, 0.0)}
            if self.denoiser is not None and (self.learned or not terms):
                z = (self._encode(x) - self.latent_mean) / self.latent_std
                terms["diffusion_loss"] = self.diffusion.loss(self._conditioned(batch.condition, len(x)), z)
            return {"loss": next(reversed(terms.values())), **terms}
        if self._latents is not None:
            loss = self.diffusion.loss(
                self._conditioned(batch.condition, len(x)), self._latents[to_device(batch.index, self.device)]
            )  # (B, C, l)
            return {"loss": loss, "diffusion_loss": loss}
        loss = self._reconstruction(x[: self.phase.batch_size], self.phase.input_noise, self.phase.latent_noise)
        return {"loss": loss, "ae_loss": loss}

    def _reconstruction(self, x: Tensor, input_noise: float, latent_noise: float) -> Tensor:
        """Mean squared error of the autoencoder, plus the divergence from a standard normal when it is variational."""
        assert isinstance(self.autoencoder, ConvAutoencoder | LinearAutoencoder)
        mu, logvar = self.autoencoder.encode(x + input_noise * torch.randn_like(x))  # (B, C, l)
        z = mu + latent_noise * torch.randn_like(mu)
        divergence = x.new_zeros(())
        if logvar is not None:
            z = z + (0.5 * logvar).exp() * torch.randn_like(mu) * self.training
            divergence = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).float().mean()
        error = (self.autoencoder.decode(z).float() - x).square() * self.mask  # (B, P)
        return error.sum() / (self.mask.sum() * len(x)) + self.phase.kl_weight * divergence

    def denoised(self, batch: ParamBatch, from_noise: bool = False) -> Denoised:
        """Reconstructions in the first phase, predictions from noised latents in the second."""
        if self._latents is None:
            assert isinstance(self.autoencoder, ConvAutoencoder | LinearAutoencoder)
            z = self._encode(batch.x.flatten(1))  # (B, C, l)
            x = self.autoencoder.decode(z + self.phase.latent_noise * torch.randn_like(z))
            return Denoised(x.view_as(batch.x), torch.ones(len(x)))
        z0 = self._latents[to_device(batch.index, self.device)]
        z, abar = self.diffusion.predict(self._conditioned(batch.condition, len(z0)), z0, from_noise=from_noise)
        return Denoised(self._decode(z), abar)

    def _conditioned(self, condition: Tensor | None, n: int) -> Denoiser:
        """The denoiser of n latents under their conditions (n, C)."""
        assert self.denoiser is not None
        if not isinstance(self.denoiser, ConditionedDenoiser):
            return self.denoiser
        entry = self.denoiser.condition
        return partial(self.denoiser, marked=entry.mark(condition, n, entry.kept(n)))

    def _guided(self, condition: Tensor | None, n: int, scale: float | None) -> Denoiser:
        """The same for sampling, with guidance if there is a condition."""
        conditional = self._conditioned(condition, n)
        if condition is None or scale is None or scale == 1 or not isinstance(self.denoiser, ConditionedDenoiser):
            return conditional
        return guided(conditional, self._conditioned(None, n), scale)

    def _encode(self, x: Tensor) -> Tensor:
        """Latents (B, C, l), not yet standardised, of networks (B, P)."""
        if self.autoencoder is None:
            return x[:, None]
        code = self.autoencoder.encode(x)
        return code.float() if isinstance(code, Tensor) else code.mu.float()

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks, all at once; memory bounds the batch only for very large networks."""
        rows = max(1, CHUNK // (self.shape[0] * self.shape[1]))
        chunks, kept = list[Tensor](), Trajectory()
        for part in request.parts(rows):
            z = self._sample_latents(part, kept if part.keep_trajectory else None)
            chunks.append(self._decode(z))
        states = torch.stack([self._decode(z) for z in kept.states]) if kept.states else None
        return Drawn(torch.cat(chunks), trajectory=states)

    def _sample_latents(self, request: SampleRequest, path: Trajectory | None) -> Tensor:
        """Standardised latents (n, C, l) of the wanted networks."""
        size, generator, wanted = (request.n, *self.latent_shape), request.generator, request.wanted
        if self.denoiser is None:
            drawn_on = generator.device if generator else self.device
            noise = torch.randn(size, generator=generator, device=drawn_on)[list(wanted)]
            return request.temperature * noise.to(self.device)
        assert request.scheduler is not None
        assert request.num_inference_steps is not None
        return self.diffusion.sample(
            self._guided(request.condition, len(wanted), request.guidance_scale),
            size,
            scheduler=request.scheduler,
            num_inference_steps=request.num_inference_steps,
            temperature=request.temperature,
            generator=generator,
            device=self.device,
            callback=request.watch(path),
            rows=request.rows,
        )

    def _decode(self, z: Tensor) -> Tensor:
        """Tokens (B, L, D) from standardised latents (B, C, l)."""
        z = z * self.latent_std + self.latent_mean
        x = z if self.autoencoder is None else self.autoencoder.decode(z)
        return x.reshape(len(z), *self.shape)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with parameter groups for each phase, or for the only phase."""
        steps, fused = int(self.trainer.estimated_stepping_batches), fused_kernel(self)
        optim = self.optimizer_settings
        first: list[dict[str, Any]] = []
        second: list[dict[str, Any]] = []
        if self.phase.trained and self.autoencoder is not None:
            first = decay_groups(self.autoencoder, self.phase.lr, optim.weight_decay)
        if self.denoiser is not None:
            second = decay_groups(self.denoiser, optim.lr, optim.weight_decay)
        if first and second and not 0 < self.first_steps < steps:
            raise ParamgenError(
                f"model.autoencoder.steps is {self.first_steps}, expected 1 to {steps - 1}: the second phase needs some of the "
                f"trainer's {steps} steps"
            )
        return two_phases(
            first,
            second,
            optim,
            first_steps=0 if not first else self.first_steps if second else steps,
            steps=steps,
            fused=fused,
        )
