"""One image set seen under many angles, contrasts, or amounts of noise: each is a task, and neighbouring tasks are similar."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import cos, radians, sin
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.errors import ParamgenError, did_you_mean
from paramgen.tasks.base import Description, SplitData, TaskFamily
from paramgen.tasks.lora import LoraSettings, lora_settings
from paramgen.tasks.score import Classifies
from paramgen.tasks.vision.classification import ClassificationTask
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.vision.splits import InMemory, TensorSplit

Corruption = Literal["rotation", "shear", "contrast", "noise"]


def _affine(raw: Tensor, matrix: list[list[float]]) -> Tensor:
    grid = F.affine_grid(torch.tensor([matrix]).expand(len(raw), 2, 3), list(raw.shape), align_corners=False)
    return F.grid_sample(raw, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotate(raw: Tensor, degrees: float) -> Tensor:
    """Images (M, C, H, W) rotated anticlockwise about their centre, bilinearly, with black borders."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    return _affine(raw, [[c, -s, 0.0], [s, c, 0.0]])


def shear(raw: Tensor, amount: float) -> Tensor:
    """Images (M, C, H, W) whose rows are pushed sideways by `amount` times their height."""
    return _affine(raw, [[1.0, amount, 0.0], [0.0, 1.0, 0.0]])


def contrast(raw: Tensor, factor: float) -> Tensor:
    """Images (M, C, H, W) whose distance to their own mean is multiplied."""
    mean = raw.mean((1, 2, 3), keepdim=True)
    return mean + factor * (raw - mean)


def with_noise(raw: Tensor, share: float) -> Tensor:
    """Images (M, C, H, W) with Gaussian noise of this share of their range, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return raw + share * raw.max() * torch.randn(raw.shape, generator=generator)


CORRUPTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rotation": rotate,
    "shear": shear,
    "contrast": contrast,
    "noise": with_noise,
}


class RotatedFamily(Classifies, TaskFamily):
    """Classification of a dataset that is rotated, sheared, faded or noisy. Task names are like ``rotation+030``.

    Args:
        dataset: A dataset that is kept in memory.
        network: As in ClassificationTask.
        network_args: Further arguments of the network.
        corruption: Transformation of the images.
        seen: Seen levels (degrees for a rotation).
        unseen: Unseen levels.
        pretrain_level: Level at which the network is pretrained. null: no pretraining.
        lora: Generate adapters on the pretrained network instead of complete networks.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.
        val_fraction: Share of the training images that becomes the val split.
        image_size: Height and width to resize images to.

    Raises:
        ParamgenError: A level both seen and unseen or given twice, or a set that is streamed.
    """

    def __init__(
        self,
        seen: list[float],
        unseen: list[float],
        dataset: str = "digits",
        network: str = "mlp",
        network_args: dict[str, Any] | None = None,
        corruption: Corruption = "rotation",
        pretrain_level: float | None = 0.0,
        lora: LoraSettings | None = None,
        root: str | None = None,
        val_fraction: float = 0.1,
        image_size: int | None = None,
    ) -> None:
        self.base = ClassificationTask(
            dataset, root=root, val_fraction=val_fraction, image_size=image_size, augment=False
        )
        if corruption not in CORRUPTIONS:
            raise ParamgenError(f"Unknown corruption {corruption!r}. {did_you_mean(corruption, CORRUPTIONS)}")
        levels = [*seen, *unseen]
        self._levels = {f"{corruption}{level:+04g}": float(level) for level in levels}
        if len(self._levels) < len(levels) or not seen:
            raise ParamgenError(
                f"seen is {seen} and unseen is {unseen}, expected each level once, to six digits, and at least one seen level"
            )
        names = list(self._levels)
        self._seen_levels, self._unseen_levels = list(seen), list(unseen)
        self.seen, self.unseen = names[: len(seen)], names[len(seen) :]
        self.dataset, self.network, self.network_args = dataset, network, dict(network_args or {})
        self.corruption, self.pretrain_level = corruption, pretrain_level
        self.root, self.val_fraction, self.image_size = root, val_fraction, image_size
        self.lora = lora_settings(lora)
        self._corrupted = lru_cache(self._corrupt)

    def plain(self) -> nn.Module:
        """The network."""
        return build_network(self.network, self.base.num_classes, self.base.in_shape, **self.network_args)

    def level(self, name: str) -> float:
        """The strength of a task's corruption."""
        self.check([name])
        return self._levels[name]

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """The set's images at one level, or at several pooled."""
        self.check(names, split)
        parts = [self._corrupted(self._levels[name], split) for name in names]
        if len(parts) == 1:
            return parts[0].split
        return self._images(torch.cat([p.raw for p in parts]), torch.cat([p.labels for p in parts])).split

    def pretraining(self, split: str) -> SplitData | None:
        """The images at the level that the network is trained on first."""
        return None if self.pretrain_level is None else self._corrupted(self.pretrain_level, split).split

    def describe(self, name: str) -> Description:
        """Cosine and sine of its angle, or its level; some of its images."""
        level = self.level(name)
        angle = radians(level)
        code = [cos(angle), sin(angle)] if self.corruption == "rotation" else [level]
        some = self._corrupted(level, "train").some()
        return Description(name, self.names.index(name), torch.tensor(code), None, some.images, some.labels)

    def config(self) -> dict[str, Any]:
        """JSON-serialisable arguments that construct this family."""
        config = super().config()
        config["init_args"] |= {"seen": self._seen_levels, "unseen": self._unseen_levels}
        return config

    def _corrupt(self, level: float, split: str) -> InMemory:
        data = self.base.data(split)
        if not isinstance(data, TensorSplit):
            raise ParamgenError(
                f"dataset {self.dataset!r} is streamed; corruptions need a dataset that is kept in memory"
            )
        white = self.base.source.white
        raw = CORRUPTIONS[self.corruption](data.raw.float(), level).round().clamp(0, white).byte()
        return self._images(raw, data.targets)

    def _images(self, raw: Tensor, labels: Tensor) -> InMemory:
        source = self.base.source
        return InMemory(raw, labels, source.mean, source.std, source.white)
