"""Detectors that take and return tensors: a small one for digits, and torchvision's.

A detector is torchvision's own class. Hooks translate what goes in and what comes out, so that its tensors keep their names, and its
checkpoints are those of the library. B: batch. K: boxes of an image. D: detections of an image, at most.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_DETECTIONS = 100  # D, as COCO counts


class DigitsBackbone(nn.Module):
    """Features of composed digits: three 3x3 convolutions with batch norm and ReLU, two of which halve the image.

    Args:
        in_channels: Channels of an image.
        channels: Channels of the three convolutions; the last must be a multiple of 32, which FCOS's group norm needs.
    """

    def __init__(self, in_channels: int, channels: tuple[int, int, int] = (16, 32, 32)) -> None:
        super().__init__()
        widths, self.out_channels = [in_channels, *channels], channels[-1]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[i], widths[i + 1], 3, stride=(1, 2, 2)[i], padding=1, bias=False),
                nn.BatchNorm2d(widths[i + 1]),
                nn.ReLU(),
            )
            for i in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, channels, H / 4, W / 4)."""
        for block in self.blocks:
            x = block(x)
        return x


def digits_fcos(
    num_classes: int, in_shape: tuple[int, int, int], channels: tuple[int, int, int] = (16, 32, 32)
) -> nn.Module:
    """Torchvision's FCOS (Tian et al. 2019) on one level of a small backbone.

    Args:
        num_classes: Classes of a box, with the background.
        in_shape: Channels, height, width of an image.
        channels: Of the backbone.
    """
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    network: nn.Module = FCOS(
        DigitsBackbone(in_shape[0], channels),
        num_classes,
        min_size=min(in_shape[1:]),
        max_size=max(in_shape[1:]),
        image_mean=[0.0] * in_shape[0],
        image_std=[1.0] * in_shape[0],
        anchor_generator=AnchorGenerator(sizes=((8,),), aspect_ratios=((1.0,),)),
        score_thresh=0.05,
        topk_candidates=100,
        detections_per_img=20,
    )
    return network


def with_tensors(detector: nn.Module) -> nn.Module:
    """The detector, made to take and return tensors.

    In training it takes images (B, C, H, W) and boxes (B, K, 6), and returns losses (B,); otherwise it takes images and returns
    detections (B, D, 6): left, top, right, bottom, class and score; rows of class 0 are empty.
    """
    detector.register_forward_pre_hook(_as_lists)
    detector.register_forward_hook(_as_tensor)
    return detector


def box_lists(boxes: Tensor) -> list[dict[str, Tensor]]:
    """Boxes (B, K, 6) as torchvision and torchmetrics take them; empty rows are left out."""
    parts = [rows[rows[:, 4] > 0] for rows in boxes]
    return [{"boxes": rows[:, :4], "labels": rows[:, 4].long(), "iscrowd": rows[:, 5].long()} for rows in parts]


def _as_lists(_detector: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    images, *boxes = inputs
    if not boxes:
        return (list(images),)
    single = boxes[0].where(boxes[0][..., 5:] == 0, 0)  # crowds are not learnt
    return list(images), box_lists(single)


def _as_tensor(_detector: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    if isinstance(output, dict):  # losses of a batch
        return torch.stack(list(output.values())).sum().expand(len(inputs[0]))
    rows = [
        torch.cat([found["boxes"], found["labels"][:, None].to(found["boxes"]), found["scores"][:, None]], 1)[
            :MOST_DETECTIONS
        ]
        for found in output
    ]
    return torch.stack([F.pad(part, (0, 0, 0, MOST_DETECTIONS - len(part))) for part in rows])
