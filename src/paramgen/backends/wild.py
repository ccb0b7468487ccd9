"""Wild-P-Diff (Reimagining Parameter Space Exploration with Diffusion Models, 2025): weights for a task from its description.

x: flattened networks (B, P). z: their latents (B, 1, l). C: numbers of a condition.
p-diff with other networks: a convolutional VAE to a latent vector, a UNet with batch norm whose step and condition are both added to the
noised latent, DDIM. No code is public.

The paper leaves open what is chosen here: the VAE's stride, 3, and kernels of 5 (with them the whole has the paper's 282.4 M parameters,
M = 2^20, for its 0.34 M adapters; with stride 2 or 4 it cannot), activation and norm; how much the VAE's divergence counts (the paper names
the reconstruction alone; without any, a variational encoder's variances vanish); how the condition comes to the latent's width (a layer
between). Departs: latents are standardised, as in p-diff here; a part of the training conditions is left out, so that it also samples
without and can be guided.
"""

from paramgen.backends.pdiff import PDiff
from paramgen.diffusion import BetaSchedule, PredictionType
from paramgen.nn.autoencoder import Activation, Norm
from paramgen.nn.condition import Entry
from paramgen.nn.unet1d import TimeEntry
from paramgen.optim import Schedule


class WildPDiff(PDiff):
    """Wild-P-Diff: p-diff at the size and with the conditions of its sequel; unconditional where the zoo has no conditions.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        cond_dim: C, from the data; 0 for none.
        cond_entry: Where a condition enters the UNet: ``latent`` (the paper), ``film`` or ``concat``.
        cond_dropout: Share of training conditions that are left out.
        guidance_scale: Above 1 samples follow the condition more than they were taught to; needs cond_dropout.
        vae_channels: Of the encoder's layers, 64-128-256-256-32 when left out; the decoder mirrors them.
        vae_kernel_size: Of its convolutions.
        vae_stride: By how much each layer shortens.
        vae_norm: ``instance``, ``group``, ``batch`` or ``none``.
        vae_activation: ``leaky_relu``, ``elu`` or ``silu``.
        latent_dim: Width of the latent.
        kl_weight: Of the latents' divergence from a standard normal.
        input_noise: Standard deviation of the noise on networks.
        latent_noise: Standard deviation of the noise on latents.
        vae_steps: Optimizer steps of the first phase; the second lasts until the trainer's ``max_steps``.
        vae_lr: Learning rate of the first phase.
        vae_batch_size: Networks a step of the first phase; the first so many of each batch, all when left out.
        unet_channels: Of the UNet's layers on the way down, 64-128-256-512 when left out; the way up mirrors them.
        unet_kernel_size: Of its convolutions.
        unet_norm: After each convolution.
        unet_time: Where the step is added: to the ``input`` (the paper) or to all ``layers``.
        num_train_timesteps: T of the diffusion.
        beta_schedule: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2``.
        prediction_type: ``epsilon`` (the paper), ``sample`` or ``v_prediction``.
        scheduler: Solver for sampling when none is given.
        num_inference_steps: Its steps when none are given.
        lr: Learning rate of the second phase.
        lr_schedule: ``constant``, ``cosine`` or ``linear``, for each phase.
        weight_decay: Of AdamW, in both phases.
    """

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        num_networks: int,
        cond_dim: int = 0,
        cond_entry: Entry = "latent",
        cond_dropout: float = 0.1,
        guidance_scale: float = 1.0,
        vae_channels: list[int] | None = None,
        vae_kernel_size: int = 5,
        vae_stride: int = 3,
        vae_norm: Norm = "instance",
        vae_activation: Activation = "leaky_relu",
        latent_dim: int = 2048,
        kl_weight: float = 1e-5,
        input_noise: float = 1e-3,
        latent_noise: float = 0.1,
        vae_steps: int = 20_000,
        vae_lr: float = 1e-3,
        vae_batch_size: int | None = None,
        unet_channels: list[int] | None = None,
        unet_kernel_size: int = 5,
        unet_norm: Norm = "batch",
        unet_time: TimeEntry = "input",
        num_train_timesteps: int = 1000,
        beta_schedule: BetaSchedule = "linear",
        prediction_type: PredictionType = "epsilon",
        scheduler: str = "DDIM",
        num_inference_steps: int = 50,
        lr: float = 1e-3,
        lr_schedule: Schedule = "cosine",
        weight_decay: float = 2e-6,
    ) -> None:
        super().__init__(
            seq_len,
            token_dim,
            num_networks,
            cond_dim,
            cond_entry,
            cond_dropout,
            guidance_scale,
            ae_channels=vae_channels or [64, 128, 256, 256, 32],
            ae_kernel_size=vae_kernel_size,
            ae_convs=1,
            ae_stride=vae_stride,
            ae_norm=vae_norm,
            ae_activation=vae_activation,
            latent_dim=latent_dim,
            kl_weight=kl_weight,
            input_noise=input_noise,
            latent_noise=latent_noise,
            ae_steps=vae_steps,
            ae_lr=vae_lr,
            ae_batch_size=vae_batch_size,
            denoiser_channels=unet_channels or [64, 128, 256, 512],
            denoiser_kernel_size=unet_kernel_size,
            denoiser_norm=unet_norm,
            denoiser_convs=1,
            denoiser_time=unet_time,
            num_train_timesteps=num_train_timesteps,
            beta_schedule=beta_schedule,
            prediction_type=prediction_type,
            scheduler=scheduler,
            num_inference_steps=num_inference_steps,
            lr=lr,
            lr_schedule=lr_schedule,
            weight_decay=weight_decay,
        )
