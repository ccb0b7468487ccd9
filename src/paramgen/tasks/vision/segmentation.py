"""Semantic segmentation: a class for every pixel (mIoU, mAcc or pixel accuracy).

N: networks. M: images. B: batch. C: classes.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.score import ScoreSpec
from paramgen.errors import require_choice
from paramgen.tasks.score import Measured, Scores, at_least_float32
from paramgen.tasks.scoring import run_many
from paramgen.tasks.vision.annotated import SEGMENTED, VOID
from paramgen.tasks.vision.dense import SCENES, DenseTask
from paramgen.tasks.vision.scenes import Scenes
from paramgen.tasks.vision.segmenters import DigitsFCN, with_logits
from paramgen.tasks.vision.vit_dense import ViTUperNet

SEGMENTED_AT_ONCE = 64  # images that networks are scored on at once
SegmentationMetric = Literal["mIoU", "mAcc", "accuracy"]


class SegmentationTask(DenseTask):
    """Give every pixel of a picture its class.

    The score is computed over all pixels of a split, by torchmetrics. Pixels without a class do not count.

    Args:
        dataset: ``digit_scenes`` (pictures composed from scikit-learn's digits), ``voc``, ``coco_voc`` (COCO with the classes of VOC) or
            ``ade20k``.
        network: ``fcn_digits``, ``vit_upernet`` (UperNet on timm's ViT), ``torchvision:NAME`` (``torchvision:fcn_resnet50``), or
            ``package.module.Class`` of a network that returns logits (B, C, H, W), or a dictionary with them as ``out``.
        network_args: Further arguments of the network.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.
        metric: The score: ``mIoU`` (mean over classes of intersection over union), ``mAcc`` (mean over classes of the share of their
            pixels that are right) or ``accuracy`` (share of all pixels that are right).
        image_size: Height and width that images are fitted into. Default: 32 for digit_scenes, else 512.
        val_fraction: Share of the training images that becomes the val split.
        split_seed: Seed of the val split.
        augment: Random scales, crops and flips in training, of images from files.
        num_workers: Processes that read images; 0 for none.
        scenes: Number of composed pictures to train on; the test split has a third as many.

    Raises:
        ParamgenError: Unknown dataset or metric, or a number that is too small.
    """

    own_networks = MappingProxyType({"fcn_digits": DigitsFCN, "vit_upernet": ViTUperNet})
    sets = SEGMENTED
    standardised = True

    def __init__(
        self,
        dataset: str = SCENES,
        network: str = "fcn_digits",
        network_args: dict[str, Any] | None = None,
        root: str | None = None,
        metric: SegmentationMetric = "mIoU",
        image_size: int | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        augment: bool = True,
        num_workers: int = 0,
        scenes: int = 600,
    ) -> None:
        self._read_arguments(
            dataset, network, network_args, root, image_size, val_fraction, split_seed, augment, num_workers, scenes
        )
        require_choice(SegmentationMetric, metric=metric)
        self.metric = metric
        self.score = ScoreSpec("pixel accuracy" if metric == "accuracy" else metric)

    def prepared(self, network: nn.Module) -> nn.Module:
        """The network, made to return logits (B, C, H, W)."""
        return with_logits(network)

    def scene_targets(self, scenes: Scenes) -> Tensor:
        """The classes of their pixels, (M, S, S)."""
        return scenes.masks

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy (N, B) of the pixels that have a class, of logits (N, B, C, H, W) and classes (N, B, H, W)."""
        logits, classes = at_least_float32(output).flatten(0, 1), target.flatten(0, 1)
        each = F.cross_entropy(logits, classes, ignore_index=VOID, reduction="none")  # (N * B, H, W)
        known = (classes != VOID).flatten(1).sum(1).clamp_min(1)
        return (each.flatten(1).sum(1) / known).view(target.shape[:2])

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """The share of each image's pixels that are right, (N, B)."""
        right, known = output.argmax(2) == target, (target != VOID).flatten(1).sum(1).clamp_min(1)
        return Measured(right.flatten(2).sum(2) / known)

    def chance(self, targets: Tensor) -> float | None:
        """The score of one class everywhere, the most frequent one; None where masks are read with their images."""
        if targets.dim() == 1:
            return None
        share = (targets.flatten().bincount(minlength=self.num_classes).max() / targets.numel()).item()
        return {"accuracy": share, "mAcc": 1 / self.num_classes, "mIoU": share / self.num_classes}[self.metric]

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks on a split, over all of its pixels."""
        data, loss = self.items(split, most), torch.zeros(len(states))
        metrics = [self._metric().to(device) for _ in states]
        for run in run_many(self.architecture.to(device), states, data, SEGMENTED_AT_ONCE, device):
            each = run.target.expand(len(run.output), *run.target.shape)
            loss[run.networks] += self.loss(run.output, each).sum(1).float().cpu()
            for metric, logits in zip(metrics[run.networks], run.output, strict=True):
                metric.update(logits.argmax(1), run.target)
        value = torch.tensor([metric.compute().item() for metric in metrics], dtype=torch.float64)
        return Scores(value, loss / len(data))

    def _metric(self) -> Any:
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        if self.metric == "mIoU":
            return MulticlassJaccardIndex(self.num_classes, ignore_index=VOID, validate_args=False)
        average = "macro" if self.metric == "mAcc" else "micro"
        return MulticlassAccuracy(self.num_classes, average=average, ignore_index=VOID, validate_args=False)
