"""Object detection: boxes with classes (mAP).

N: networks. M: images. B: batch. K: boxes of an image. D: detections of an image.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, require_choice
from paramgen.tasks.score import Measured, Scores
from paramgen.tasks.scoring import run_many
from paramgen.tasks.vision.annotated import DETECTED
from paramgen.tasks.vision.dense import SCENES, DenseTask
from paramgen.tasks.vision.detectors import box_lists, digits_fcos, with_tensors
from paramgen.tasks.vision.scenes import Scenes
from paramgen.tasks.vision.vit_dense import vitdet

DETECTED_AT_ONCE = 32  # images that networks are scored on at once
DetectionMetric = Literal["mAP", "mAP50"]


class DetectionTask(DenseTask):
    """Find every object of a picture: its box and its class.

    The score is COCO's mean average precision, by torchmetrics and pycocotools (``pip install 'paramgen[vision]'``). Boxes that hold a
    crowd, and VOC's difficult ones, do not count.

    Args:
        dataset: ``digit_scenes`` (pictures composed from scikit-learn's digits), ``voc`` or ``coco``.
        network: ``fcos_digits``, ``vitdet`` (Faster R-CNN on timm's ViT), ``torchvision:NAME``
            (``torchvision:fasterrcnn_resnet50_fpn``), or ``package.module.Class`` of a network that is called as torchvision's detectors
            are.
        network_args: Further arguments of the network. torchvision's do not resize images unless ``min_size`` is given.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.
        metric: The score: ``mAP`` (mean over intersections over union of 0.5 to 0.95) or ``mAP50``.
        image_size: Height and width that images are fitted into. Default: 32 for digit_scenes, else 512.
        val_fraction: Share of the training images that becomes the val split.
        split_seed: Seed of the val split.
        augment: Random scales, crops and flips in training, of images from files.
        num_workers: Processes that read images; 0 for none.
        scenes: Number of composed pictures to train on; the test split has a third as many.

    Raises:
        ParamgenError: Unknown dataset or metric, or a number that is too small.
    """

    own_networks = MappingProxyType({"fcos_digits": digits_fcos, "vitdet": vitdet})
    sets = DETECTED
    standardised = False  # detectors do that
    takes_targets = True

    def __init__(
        self,
        dataset: str = SCENES,
        network: str = "fcos_digits",
        network_args: dict[str, Any] | None = None,
        root: str | None = None,
        metric: DetectionMetric = "mAP",
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
        require_choice(DetectionMetric, metric=metric)
        self.metric = metric
        self.score = ScoreSpec(metric)

    def prepared(self, network: nn.Module) -> nn.Module:
        """The detector, made to take and return tensors."""
        return with_tensors(network)

    @property
    def library_args(self) -> dict[str, Any]:
        """Torchvision's detectors resize images unless they are given their size."""
        sides = {"min_size": self.in_shape[1], "max_size": self.in_shape[1]}
        return sides if self.network.startswith("torchvision:") else {}

    def scene_targets(self, scenes: Scenes) -> Tensor:
        """Their boxes, (M, K, 6)."""
        return scenes.boxes

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The losses (N, B) that networks in training return."""
        return output

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """The number of detections (N, B); no score is computed from them."""
        return Measured((output[..., 4] > 0).sum(-1))

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks on a split."""
        data = self.items(split, most)
        metrics = [self._metric() for _ in states]
        for run in run_many(self.architecture.to(device), states, data, DETECTED_AT_ONCE, device):
            truth = box_lists(run.target.cpu())
            for metric, found in zip(metrics[run.networks], run.output.cpu(), strict=True):
                metric.update(_detections(found), truth)
        key = {"mAP": "map", "mAP50": "map_50"}[self.metric]
        return Scores(torch.tensor([metric.compute()[key].item() for metric in metrics], dtype=torch.float64))

    def _metric(self) -> Any:
        from torchmetrics.detection import MeanAveragePrecision

        try:
            return MeanAveragePrecision(backend="pycocotools")
        except ImportError as error:
            raise ParamgenError("mAP needs pycocotools: pip install 'paramgen[vision]'") from error


def _detections(found: Tensor) -> list[dict[str, Tensor]]:
    """Detections (B, D, 6) as torchmetrics takes them; empty rows and those that are not finite are left out."""
    parts = [rows[(rows[:, 4] > 0) & rows.isfinite().all(1)] for rows in found]
    return [{"boxes": rows[:, :4], "labels": rows[:, 4].long(), "scores": rows[:, 5]} for rows in parts]
