"""Networks that give every pixel a class: a small one for digits, and any other whose outputs are made logits (B, classes, H, W)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class DigitsFCN(nn.Module):
    """A small fully convolutional network (Long et al. 2015): two halvings, and logits of all three resolutions added.

    Args:
        num_classes: Classes of a pixel.
        in_shape: Channels, height, width of an image.
        channels: Channels of the four 3x3 convolutions, each with batch norm and ReLU. The second and third halve the image, the last
            is dilated.
    """

    def __init__(
        self, num_classes: int, in_shape: tuple[int, int, int], channels: Sequence[int] = (8, 16, 24, 24)
    ) -> None:
        super().__init__()
        widths = [in_shape[0], *channels]
        self.backbone = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=stride, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            )
            for a, b, stride, dilation in zip(widths, channels, (1, 2, 2, 1), (1, 1, 1, 2), strict=False)
        )
        self.classifier = nn.ModuleList(nn.Conv2d(channels[i], num_classes, 1) for i in (0, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes, H, W)."""
        features = []
        for block in self.backbone:
            x = block(x)
            features.append(x)
        fine, middle, coarse = (
            layer(features[i]).contiguous() for layer, i in zip(self.classifier, (0, 1, 3), strict=True)
        )
        logits: Tensor = fine + _enlarged(middle + _enlarged(coarse, middle), fine)
        return logits


def _enlarged(x: Tensor, to: Tensor) -> Tensor:
    return F.interpolate(x, to.shape[2:], mode="bilinear", align_corners=False)


def with_logits(network: nn.Module) -> nn.Module:
    """The network, made to return logits: of torchvision's dictionaries of outputs, the one called ``out``.

    It keeps its class and the names of its tensors, so that its checkpoints are those of the library.
    """
    network.register_forward_hook(_logits)
    return network


def _logits(_network: nn.Module, _inputs: Any, output: Any) -> Any:
    return output["out"] if isinstance(output, Mapping) else output
