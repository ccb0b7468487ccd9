"""D2NWG, diffusion-based neural network weights generation (Soro et al. 2024, arXiv:2402.18153): weights for a dataset.

x: flattened networks (B, P). z: their latents (B, C, l). C: channels of a latent.
Latent diffusion (Rombach et al. 2022, arXiv:2112.10752) of weights: a variational autoencoder learns a latent map with a small KL
divergence, then a UNet denoises it. The embedding of a dataset modulates every layer of the UNet. It is unconditional where the zoo has no
conditions.

Departs: the embedding is the zoo's condition (statistics of pixels, or of CLIP features, of the dataset's images) and a small network that
is trained with the UNet, in place of a set transformer that is trained before it by contrast with the latents. Complete networks are
encoded (the paper's model-wise vectors), not layer by layer.
"""

from paramgen.backends.pdiff import PDiff
from paramgen.generators.settings import ConditionSettings, DiffusionSettings, OptimizerSettings, settings
from paramgen.nn.denoisers import DenoiserSettings
from paramgen.nn.latents import AutoencoderSettings

CONDITION = ConditionSettings()
AUTOENCODER = AutoencoderSettings(
    channels=[32, 64, 128, 128],
    kernel_size=5,
    norm="group",
    activation="silu",
    kl_weight=1e-4,
    input_noise=0.0,
    latent_noise=0.0,
    steps=20_000,
    standardise="whole",
)
DENOISER = DenoiserSettings(channels=[64, 128, 256, 256], kernel_size=5, norm="group", activation="silu")
DIFFUSION = DiffusionSettings(scheduler="DDIM", num_inference_steps=50)
OPTIMIZER = OptimizerSettings(schedule="cosine")


class D2NWG(PDiff):
    """D2NWG: latent diffusion with a variational autoencoder and a dataset as its condition. Unconditional if the zoo has none.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        cond_dim: Width of a condition, from the data; 0 for none.
        condition: Training and sampling with a condition.
        autoencoder: The variational autoencoder, and the training phase that learns it.
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
