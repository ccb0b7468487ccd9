"""p-diff, neural network diffusion (Wang et al. 2024, arXiv:2402.13144).

x: flattened networks (B, P), P = L D. z: their latents (B, C, l). K: training networks.
First an autoencoder learns to reconstruct noised networks from noised latents; then a diffusion model learns the latents.

Departs from the paper: latents are standardised (without it the diffusion yields chance accuracy as soon as their scale is far from 1).
Departs from the authors' code: the autoencoder is in eval mode whenever it is not being trained, and latents are computed once.
"""

from functools import partial
from typing import Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW

from paramgen.data import ParamBatch
from paramgen.diffusion import BetaSchedule, Denoiser, Diffusion, PredictionType, Trajectory
from paramgen.errors import ParamgenError, positive
from paramgen.generator import Denoised, ParameterGenerator
from paramgen.nn.autoencoder import Activation, ConvAutoencoder, LinearAutoencoder, Norm
from paramgen.nn.condition import ConditionedDenoiser, Entry, guided
from paramgen.nn.pca import PCA
from paramgen.nn.unet1d import ConvChain, MLPDenoiser, TimeEntry, UNet1d
from paramgen.optim import Schedule, fused_kernel, lr_factor, scheduled, two_phases
from paramgen.sampling import Drawn, SampleRequest

Latent = Literal["autoencoder", "pca", "none"]
Standardise = Literal["each", "whole", "none"]
DenoiserKind = Literal["unet", "conv", "mlp", "none"]
CHUNK = 2**24  # numbers of generated networks decoded at once


class PDiff(ParameterGenerator):
    """Neural network diffusion: an autoencoder, then a diffusion model of its latents, in one fit.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        cond_dim: Numbers of a condition, from the data; 0 for none.
        cond_entry: Where a condition enters the denoiser: ``latent`` (added to its input), ``film`` (scales and shifts every layer) or
            ``concat`` (beside its input).
        cond_dropout: Share of training conditions that are left out, so that it can also sample without one.
        guidance_scale: Above 1 samples follow the condition more than they were taught to; needs cond_dropout.
        latent: ``autoencoder`` (the paper), ``pca`` (closed form, no first phase) or ``none`` (diffusion of the weights).
        autoencoder: ``conv`` (the paper) or ``linear`` (Table 5).
        ae_channels: Channels of the conv encoder's layers, 16-32-64-64 when left out, or widths of the linear one, 512-256.
        ae_kernel_size: Of the conv autoencoder.
        ae_convs: Convolutions in each of its layers.
        ae_stride: By how much each of its layers shortens.
        ae_norm: ``instance`` (the paper), ``group``, ``batch`` or ``none`` (Table 6).
        ae_activation: ``leaky_relu``, ``elu`` or ``silu``.
        latent_channels: Channels of the convolutional latent.
        latent_dim: Width of a latent vector; when left out the conv latent stays convolutional, and linear has 128, pca 64 (K - 1 at most).
        kl_weight: Above 0 the autoencoder is variational (Table 7).
        input_noise: Standard deviation of the noise on networks.
        latent_noise: Standard deviation of the noise on latents.
        ae_steps: Optimizer steps of the first phase; the second lasts until the trainer's ``max_steps``.
        ae_lr: Learning rate of the first phase.
        ae_batch_size: Networks a step of the first phase; the first so many of each batch, all when left out.
        standardise_latent: Zero mean and unit variance over the zoo: ``each`` number of the latent by itself; the latent as a ``whole``,
            with one scale, so that it keeps its shape; or ``none``.
        denoiser: ``unet`` (the paper), ``conv`` (the released recipe), ``mlp``, or ``none``: decode standard normal noise, Table 7's VAE.
        denoiser_channels: Channels of its layers; 32-64-128-128 for unet and 64-128-256-512-256-128-64 for conv when left out.
        denoiser_kernel_size: Of unet and conv.
        denoiser_norm: Of unet and conv.
        denoiser_activation: Of unet and conv.
        denoiser_convs: Convolutions in each layer of unet.
        denoiser_time: Where unet is told the step: all ``layers``, or the ``input``.
        denoiser_width: Of mlp.
        denoiser_depth: Residual blocks of mlp.
        num_train_timesteps: T of the diffusion.
        beta_schedule: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2``.
        beta_start: First beta.
        beta_end: Last beta.
        prediction_type: ``epsilon`` (the paper), ``sample`` or ``v_prediction``.
        scheduler: Solver for sampling when none is given.
        num_inference_steps: Its steps when none are given.
        lr: Learning rate of the second phase.
        lr_schedule: ``constant``, ``cosine`` or ``linear``, for each phase.
        weight_decay: Of AdamW, in both phases.

    Raises:
        ParamgenError: An unknown choice, a size below 1, a rate that is not above 0.
    """

    has_guidance = True

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
        cond_entry: Entry = "film",
        cond_dropout: float = 0.1,
        guidance_scale: float = 1.0,
        latent: Latent = "autoencoder",
        autoencoder: Literal["conv", "linear"] = "conv",
        ae_channels: list[int] | None = None,
        ae_kernel_size: int = 7,
        ae_convs: int = 2,
        ae_stride: int = 2,
        ae_norm: Norm = "instance",
        ae_activation: Activation = "leaky_relu",
        latent_channels: int = 4,
        latent_dim: int | None = None,
        kl_weight: float = 0.0,
        input_noise: float = 1e-3,
        latent_noise: float = 0.1,
        ae_steps: int = 30_000,
        ae_lr: float = 1e-3,
        ae_batch_size: int | None = None,
        standardise_latent: Standardise = "each",
        denoiser: DenoiserKind = "unet",
        denoiser_channels: list[int] | None = None,
        denoiser_kernel_size: int = 7,
        denoiser_norm: Norm = "instance",
        denoiser_activation: Activation = "leaky_relu",
        denoiser_convs: int = 2,
        denoiser_time: TimeEntry = "layers",
        denoiser_width: int = 512,
        denoiser_depth: int = 4,
        num_train_timesteps: int = 1000,
        beta_schedule: BetaSchedule = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 2e-2,
        prediction_type: PredictionType = "epsilon",
        scheduler: str = "DDPM",
        num_inference_steps: int = 1000,
        lr: float = 1e-3,
        lr_schedule: Schedule = "constant",
        weight_decay: float = 2e-6,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        positive("model.", lr=lr, ae_lr=ae_lr, ae_batch_size=ae_batch_size, latent_dim=latent_dim)
        positive("model.", denoiser_width=denoiser_width, denoiser_depth=denoiser_depth)
        size = seq_len * token_dim
        self.shape, self.latent = (seq_len, token_dim), latent
        self.kl_weight, self.input_noise, self.latent_noise = kl_weight, input_noise, latent_noise
        self.ae_steps = ae_steps if latent == "autoencoder" else 0
        self.ae_lr, self.lr, self.lr_schedule, self.weight_decay = ae_lr, lr, lr_schedule, weight_decay
        self.ae_batch_size = ae_batch_size
        self.standardise_latent = standardise_latent
        self.scheduler, self.num_inference_steps = scheduler, num_inference_steps
        self.guidance_scale, self.cond_dim = guidance_scale, cond_dim
        self.has_solver = denoiser != "none"
        self.diffusion = Diffusion(num_train_timesteps, beta_schedule, beta_start, beta_end, prediction_type)
        self.diffusion.check(scheduler, num_inference_steps)

        self.autoencoder: ConvAutoencoder | LinearAutoencoder | PCA | None = None
        variational = kl_weight > 0
        if latent == "pca":
            self.autoencoder = PCA(size, min(latent_dim or 64, num_networks - 1))
        elif latent == "autoencoder" and autoencoder == "conv":
            self.autoencoder = ConvAutoencoder(
                size,
                ae_channels or (16, 32, 64, 64),
                ae_kernel_size,
                ae_convs,
                ae_norm,
                ae_activation,
                latent_channels,
                latent_dim,
                variational,
                ae_stride,
            )
        elif latent == "autoencoder" and autoencoder == "linear":
            self.autoencoder = LinearAutoencoder(
                size, ae_channels or (512, 256), latent_dim or 128, ae_activation, variational
            )
        elif latent != "none":
            raise ParamgenError(f"model.latent is {latent!r} and model.autoencoder {autoencoder!r}: no such pair")
        self.latent_shape = self.autoencoder.latent_shape if self.autoencoder else (1, size)

        form = (denoiser_kernel_size, denoiser_norm, denoiser_activation)

        def make(channels: int, cond_width: int) -> nn.Module:
            shape = (channels, self.latent_shape[1])
            if denoiser == "unet":
                down = denoiser_channels or (32, 64, 128, 128)
                return UNet1d(channels, down, *form, denoiser_convs, denoiser_time, cond_width)
            if denoiser == "conv":
                widths = denoiser_channels or (64, 128, 256, 512, 256, 128, 64)
                return ConvChain(shape, widths, *form, cond_width)
            if denoiser == "mlp":
                return MLPDenoiser(shape, denoiser_width, denoiser_depth, cond_width)
            raise ParamgenError(f"model.denoiser is {denoiser!r}, expected unet, conv, mlp or none")

        self.denoiser: nn.Module | None = None
        if denoiser == "none" and latent != "autoencoder":
            raise ParamgenError(
                "model.denoiser none decodes noise with an autoencoder: model.latent must be autoencoder"
            )
        if denoiser != "none" and cond_dim:
            self.denoiser = ConditionedDenoiser(make, self.latent_shape, cond_dim, cond_entry, cond_dropout)
        elif denoiser != "none":
            self.denoiser = make(self.latent_shape[0], 0)

        self.register_buffer("latent_mean", torch.zeros(self.latent_shape))
        self.register_buffer("latent_std", torch.ones(self.latent_shape))
        self.register_buffer("learned", torch.tensor(False))
        self.register_buffer("mask", torch.ones(size, dtype=torch.bool), persistent=False)
        self._latents: Tensor | None = None  # (K, C, l), in the second phase of a fit

    def setup(self, stage: str) -> None:
        """Take the padding from the codec, and refuse data that do not fit."""
        super().setup(stage)
        if self.codec is None:
            return
        if self.codec.shape != self.shape:
            raise ParamgenError(f"the generator was made for tokens {self.shape}, the data give {self.codec.shape}")
        self.mask.copy_(self.codec.mask.flatten())
        if isinstance(self.denoiser, ConditionedDenoiser) and stage == "fit":
            self.denoiser.condition.standardise(self.trainer.datamodule.conditions)

    def on_train_batch_start(self, batch: ParamBatch, batch_idx: int) -> None:
        """Begin the second phase when it is time, also after resuming in the midst of it."""
        if self._latents is None and self.denoiser is not None and self.global_step >= self.ae_steps:
            loader = self.trainer.datamodule.predict_dataloader()  # the train split in order
            self.learn_latents([b.x for b in loader])

    @torch.no_grad()
    def learn_latents(self, networks: list[Tensor]) -> None:
        """Compute the latents of all training networks once, and their statistics; what comes after is the second phase.

        Args:
            networks: Batches (B, L, D) which together are the K training networks in order.
        """
        if isinstance(self.autoencoder, PCA) and not self.learned:
            self.autoencoder.fit(torch.cat([x.flatten(1) for x in networks]).to(self.device))
        if self.autoencoder is not None:
            self.autoencoder.eval()
        self._latents = torch.cat([self._encode(x.flatten(1).to(self.device)) for x in networks])  # (K, C, l)
        if self.standardise_latent != "none" and not self.learned:
            self.latent_mean.copy_(self._latents.mean(0))
            std = self._latents.std(0, correction=0)  # (C, l)
            if self.standardise_latent == "whole":
                std = std.square().mean().sqrt().expand_as(std)
            self.latent_std.copy_(torch.where(std > 1e-6 * std.max(), std, 1.0))
        self.learned.fill_(True)
        self._latents = (self._latents - self.latent_mean) / self.latent_std

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Reconstruction in the first phase, denoising in the second; ``ae_loss`` and ``diffusion_loss`` are logged apart."""
        if batch.token is not None:
            raise ParamgenError("p-diff sees whole networks: leave data.tokens_per_step out")
        x = batch.x.flatten(1)  # (B, P)
        if not self.training:
            terms = {} if self.latent != "autoencoder" else {"ae_loss": self._reconstruction(x, 0.0, 0.0)}
            if self.denoiser is not None and (self.learned or not terms):
                z = (self._encode(x) - self.latent_mean) / self.latent_std
                terms["diffusion_loss"] = self.diffusion.loss(self._told(batch.condition, len(x)), z)
            return {"loss": next(reversed(terms.values())), **terms}
        if self._latents is not None:
            loss = self.diffusion.loss(self._told(batch.condition, len(x)), self._latents[batch.index])  # (B, C, l)
            return {"loss": loss, "diffusion_loss": loss}
        loss = self._reconstruction(x[: self.ae_batch_size], self.input_noise, self.latent_noise)
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
        return error.sum() / (self.mask.sum() * len(x)) + self.kl_weight * divergence

    def denoised(self, batch: ParamBatch, from_noise: bool = False) -> Denoised:
        """Reconstructions in the first phase, predictions from noised latents in the second."""
        if self._latents is None:
            assert isinstance(self.autoencoder, ConvAutoencoder | LinearAutoencoder)
            z = self._encode(batch.x.flatten(1))  # (B, C, l)
            x = self.autoencoder.decode(z + self.latent_noise * torch.randn_like(z))
            return Denoised(x.view_as(batch.x), x.new_ones(len(x)))
        z0 = self._latents[batch.index]
        z, abar = self.diffusion.predict(self._told(batch.condition, len(z0)), z0, from_noise=from_noise)
        return Denoised(self._decode(z), abar)

    def _told(self, condition: Tensor | None, n: int) -> Denoiser:
        """The denoiser of n latents, told their conditions (n, C)."""
        assert self.denoiser is not None
        if not isinstance(self.denoiser, ConditionedDenoiser):
            return self.denoiser
        return partial(self.denoiser, marked=self.denoiser.condition.mark(condition, n))

    def _guided(self, condition: Tensor | None, n: int, scale: float | None) -> Denoiser:
        """The same in sampling, with guidance where there is a condition."""
        told = self._told(condition, n)
        if condition is None or scale is None or scale == 1 or not isinstance(self.denoiser, ConditionedDenoiser):
            return told
        return guided(told, self._told(None, n), scale)

    def _encode(self, x: Tensor) -> Tensor:
        """Latents (B, C, l), not yet standardised, of networks (B, P)."""
        if self.autoencoder is None:
            return x[:, None]
        code = self.autoencoder.encode(x)
        return code.float() if isinstance(code, Tensor) else code.mu.float()

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks, all at once; memory bounds the batch only for very large networks."""
        rows = max(1, CHUNK // (self.shape[0] * self.shape[1]))
        conditions = None if request.condition is None else request.condition.split(rows)
        chunks, kept = list[Tensor](), Trajectory()
        for start in range(0, request.n, rows):
            watch = kept if request.keep_trajectory and start == 0 else None
            condition = None if conditions is None else conditions[len(chunks)]
            z = self._sample_latents(request, min(rows, request.n - start), condition, watch)
            chunks.append(self._decode(z))
        states = torch.stack([self._decode(z) for z in kept.states]) if kept.states else None
        return Drawn(torch.cat(chunks), trajectory=states)

    def _sample_latents(
        self, request: SampleRequest, n: int, condition: Tensor | None, watch: Trajectory | None
    ) -> Tensor:
        """Standardised latents (n, C, l) of some of the networks that are asked for."""
        size, generator = (n, *self.latent_shape), request.generator
        if self.denoiser is None:
            drawn_on = generator.device if generator else self.device
            return request.temperature * torch.randn(size, generator=generator, device=drawn_on).to(self.device)
        assert request.scheduler is not None
        assert request.num_inference_steps is not None
        return self.diffusion.sample(
            self._guided(condition, n, request.guidance_scale),
            size,
            scheduler=request.scheduler,
            num_inference_steps=request.num_inference_steps,
            temperature=request.temperature,
            generator=generator,
            device=self.device,
            callback=watch,
        )

    def _decode(self, z: Tensor) -> Tensor:
        """Tokens (B, L, D) from standardised latents (B, C, l)."""
        z = z * self.latent_std + self.latent_mean
        x = z if self.autoencoder is None else self.autoencoder.decode(z)
        return x.reshape(len(z), *self.shape)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a parameter group for each phase, or for the diffusion alone when the latent is not trained."""
        steps = int(self.trainer.estimated_stepping_batches)
        second = [] if self.denoiser is None else [*self.denoiser.parameters()]
        if self.latent != "autoencoder":
            optimizer = AdamW(second, self.lr, weight_decay=self.weight_decay, fused=fused_kernel(self))
            return scheduled(optimizer, lr_factor(self.lr_schedule, steps))
        assert self.autoencoder is not None
        first = [*self.autoencoder.parameters()]
        if not second:
            optimizer = AdamW(first, self.ae_lr, weight_decay=self.weight_decay, fused=fused_kernel(self))
            return scheduled(optimizer, lr_factor(self.lr_schedule, steps))
        if not 0 < self.ae_steps < steps:
            raise ParamgenError(
                f"model.ae_steps is {self.ae_steps}, expected 1 to {steps - 1}: the second phase needs steps of the trainer's {steps}"
            )
        return two_phases(
            first,
            second,
            first_steps=self.ae_steps,
            steps=steps,
            first_lr=self.ae_lr,
            second_lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.lr_schedule,
            fused=fused_kernel(self),
        )
