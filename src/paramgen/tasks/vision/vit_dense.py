"""A vision transformer for segmentation and detection: UperNet (Xiao et al. 2018, arXiv:1807.10221) and the pyramid of ViTDet (Li et al.
2022, arXiv:2203.16527) on timm's ViT.

Departs: ViTDet's attention within windows and its relative positions are left out, so that timm's weights fit; it has boxes and no masks.
B: batch. C: channels. h, w: patches.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.errors import ParamgenError
from paramgen.tasks.published import require_timm_weights
from paramgen.tasks.vision.networks import Shape


class ViTPyramid(nn.Module):
    """timm's ViT, with maps of four resolutions.

    Args:
        backbone: Name of timm's network.
        in_shape: Channels, height, width of an image; the sides are multiples of the patch.
        blocks: Blocks that the maps are taken from; None: all four from the last one.
    """

    def __init__(self, backbone: str, in_shape: Shape, blocks: Sequence[int] | None) -> None:
        super().__init__()
        import timm  # 3 s

        self.name = backbone
        self.vit = timm.create_model(backbone, num_classes=0, img_size=in_shape[1:], in_chans=in_shape[0])
        self.blocks = blocks
        width: int = self.vit.num_features
        self.widths = [width // 4, width // 2, width, width] if blocks is None else [width] * 4
        self.scales = nn.ModuleList(
            [
                nn.Sequential(_doubled(width, self.widths[1]), nn.GELU(), _doubled(self.widths[1], self.widths[0])),
                _doubled(width, self.widths[1]),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) to maps (B, width, 4h, 4w), 2h, h and h/2."""
        maps = self.vit.forward_intermediates(x, indices=self.blocks or 1, norm=True, intermediates_only=True)
        maps = maps * 4 if len(maps) == 1 else maps
        return [scale(features) for scale, features in zip(self.scales, maps, strict=True)]

    def fetch(self) -> None:
        """Load the weights that timm publishes."""
        import timm

        require_timm_weights(self.name)
        published = timm.create_model(self.name, pretrained=True, num_classes=0, img_size=self.vit.patch_embed.img_size)
        self.vit.load_state_dict(published.state_dict())


class ViTUperNet(nn.Module):
    """UperNet: pooled features of the coarsest map, and a feature pyramid whose maps are joined for the logits.

    Args:
        num_classes: Classes of a pixel.
        in_shape: Channels, height, width of an image.
        backbone: Name of timm's network.
        channels: C of the maps.
        pools: Sides of the pooled maps.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: Shape,
        backbone: str = "vit_base_patch16_224",
        channels: int = 512,
        pools: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        import timm

        depth = len(timm.create_model(backbone, img_size=in_shape[1:], in_chans=in_shape[0]).blocks)
        self.pyramid = ViTPyramid(backbone, in_shape, [depth * i // 4 - 1 for i in (1, 2, 3, 4)])
        widths = self.pyramid.widths
        self.pools = list(pools)
        self.pooled = nn.ModuleList(_layer(widths[-1], channels, 1) for _ in pools)
        self.joined = _layer(widths[-1] + len(self.pools) * channels, channels, 3)
        self.lateral = nn.ModuleList(_layer(width, channels, 1) for width in widths[:-1])
        self.smooth = nn.ModuleList(_layer(channels, channels, 3) for _ in widths[:-1])
        self.fuse = _layer(len(widths) * channels, channels, 3)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes, H, W)."""
        *finer, coarsest = self.pyramid(x)
        pooled = [
            _sized(layer(F.adaptive_avg_pool2d(coarsest, side)), coarsest)
            for layer, side in zip(self.pooled, self.pools, strict=True)
        ]
        maps = [self.joined(torch.cat([coarsest, *pooled], 1))]
        for layer, features in zip(reversed(self.lateral), reversed(finer), strict=True):
            below = layer(features)
            maps.insert(0, below + _sized(maps[0], below))
        maps = [*(layer(features) for layer, features in zip(self.smooth, maps, strict=False)), maps[-1]]
        logits = self.classifier(self.fuse(torch.cat([_sized(features, maps[0]) for features in maps], 1)))
        return _sized(logits, x)


class _DetectionPyramid(nn.Module):
    """ViTDet's simple feature pyramid, as torchvision's detectors take a backbone."""

    def __init__(self, backbone: str, in_shape: Shape, channels: int) -> None:
        super().__init__()
        from timm.layers import LayerNorm2d

        self.out_channels, self.pyramid = channels, ViTPyramid(backbone, in_shape, None)
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, channels, 1, bias=False),
                LayerNorm2d(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                LayerNorm2d(channels),
            )
            for width in self.pyramid.widths
        )

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = [layer(features) for layer, features in zip(self.smooth, self.pyramid(x), strict=True)]
        maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return OrderedDict((str(i), features) for i, features in enumerate(maps))


def vitdet(
    num_classes: int, in_shape: Shape, backbone: str = "vit_base_patch16_224", channels: int = 256, **rcnn: Any
) -> nn.Module:
    """Torchvision's Faster R-CNN on ViTDet's pyramid.

    Args:
        num_classes: Classes of a box, with the background.
        in_shape: Channels, height, width of an image.
        backbone: Name of timm's network.
        channels: Of the maps.
        **rcnn: Further arguments of ``torchvision.models.detection.FasterRCNN``.
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    anchors = AnchorGenerator(tuple((side,) for side in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5)
    sides = {"min_size": in_shape[1], "max_size": in_shape[2]}
    pyramid = _DetectionPyramid(backbone, in_shape, channels)
    network: nn.Module = FasterRCNN(pyramid, num_classes, rpn_anchor_generator=anchors, **{**sides, **rcnn})
    return network


def fetch_backbone(network: nn.Module) -> None:
    """Load the weights that timm publishes into a network's ViT.

    Raises:
        ParamgenError: It has none.
    """
    pyramids = [module for module in network.modules() if isinstance(module, ViTPyramid)]
    if not pyramids:
        raise ParamgenError(f"no weights are published for {type(network).__name__}; start from a weights file")
    for pyramid in pyramids:
        pyramid.fetch()


def _doubled(channels: int, out: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, out, 2, stride=2)


def _layer(channels: int, out: int, kernel: int) -> nn.Module:
    convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


def _sized(x: Tensor, to: Tensor) -> Tensor:
    return F.interpolate(x, to.shape[2:], mode="bilinear", align_corners=False)
