"""Wild-P-Diff (Reimagining Parameter Space Exploration with Diffusion Models, 2025): weights for a task from its description.

x: flattened networks (B, P). z: their latents (B, 1, l). C: numbers of a condition.
p-diff with other networks: a convolutional VAE to a latent vector, a UNet with batch norm whose step and condition are both added to the
noised latent, DDIM. No code is public.

The paper does not specify these choices: the VAE's stride, 3, and kernels of 5 (with them the model has the paper's 282.4 M parameters,
M = 2^20, for its 0.34 M adapters; with stride 2 or 4 it cannot), activation and norm; the weight of the VAE's divergence (the paper names
only the reconstruction; without any, a variational encoder's variances vanish); how the condition gets the latent's width (a hidden
layer). Departs: latents are standardised, as in p-diff here; some training conditions are dropped, so that it also samples
without and can be guided.
"""

from paramgen.backends.pdiff import PDiff
from paramgen.generators.settings import ConditionSettings, DiffusionSettings, OptimizerSettings, settings
from paramgen.nn.denoisers import DenoiserSettings
from paramgen.nn.latents import AutoencoderSettings

CONDITION = ConditionSettings()
AUTOENCODER = AutoencoderSettings(
    channels=[64, 128, 256, 256, 32], kernel_size=5, convs=1, stride=3, latent_dim=2048, kl_weight=1e-5, steps=20_000
)
DENOISER = DenoiserSettings(
    channels=[64, 128, 256, 512], kernel_size=5, norm="batch", convs=1, time="input", condition="latent"
)
DIFFUSION = DiffusionSettings(scheduler="DDIM", num_inference_steps=50)
OPTIMIZER = OptimizerSettings(schedule="cosine")


class WildPDiff(PDiff):
    """Wild-P-Diff: p-diff with the size and conditions of the Wild-P-Diff paper. Unconditional if the zoo has no conditions.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        cond_dim: C, width of a condition, from the data; 0 for none.
        condition: Training and sampling with a condition.
        autoencoder: The VAE, and the training phase that learns it.
        denoiser: The UNet.
        diffusion: Noise schedule, prediction and default solver.
        optimizer: Optimizer of the second phase. The first phase has its own learning rate.
    """

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
        super().__init__(
            seq_len,
            token_dim,
            num_networks,
            cond_dim,
            condition,
            settings(AUTOENCODER, autoencoder, "autoencoder"),
            settings(DENOISER, denoiser, "denoiser"),
            settings(DIFFUSION, diffusion, "diffusion"),
            settings(OPTIMIZER, optimizer, "optimizer"),
        )
