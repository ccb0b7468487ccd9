"""Networks that remove noise from images: diffusers' UNet, called with tensors alone.

The network is diffusers' own class. Hooks translate what goes in and what comes out, so that its tensors keep their names, and its
checkpoints are those of the library. B: batch.
"""

from typing import Any

import torch
from torch import Tensor, nn

SMALL_UNET = {  # for digits
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}
DDPM_UNET = {  # that of Ho et al. 2020 on CIFAR-10, as published under google/ddpm-cifar10-32
    "block_out_channels": (128, 256, 256, 256),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
UNETS: dict[str, dict[str, Any]] = {"unet_small": SMALL_UNET, "unet_ddpm": DDPM_UNET}


def build_unet(name: str, in_shape: tuple[int, int, int], **network_args: Any) -> nn.Module:
    """A UNet that takes noisy images with their step, as of :func:`with_step`, and returns the noise (B, C, H, W).

    Args:
        name: One of :data:`UNETS`.
        in_shape: Channels, height, width of an image.
        **network_args: Arguments of ``diffusers.UNet2DModel``, in place of those of the name.

    Raises:
        TypeError: It does not take them.
        ValueError: They do not fit together.
    """
    from diffusers import UNet2DModel

    shape = {"sample_size": in_shape[1], "in_channels": in_shape[0], "out_channels": in_shape[0]}
    network: nn.Module = UNet2DModel(**{**shape, **UNETS[name], **network_args})
    network.register_forward_pre_hook(_unpacked)
    network.register_forward_hook(_noise)
    return network


def with_step(noisy: Tensor, step: Tensor) -> Tensor:
    """Noisy images (B, C, H, W) and their steps (B,) as one tensor (B, C + 1, H, W): a network has one input."""
    return torch.cat([noisy, step.to(noisy).view(-1, 1, 1, 1).expand(-1, 1, *noisy.shape[2:])], 1)


def _unpacked(_network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    (x,) = inputs
    return x[:, :-1], x[:, -1, 0, 0]


def _noise(_network: nn.Module, _inputs: Any, output: Any) -> Tensor:
    noise: Tensor = output.sample
    return noise
