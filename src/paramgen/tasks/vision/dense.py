"""What segmentation and detection have in common: sets of pictures with masks or boxes, by name."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from paramgen.errors import (
    ParamgenError,
    arguments_for,
    did_you_mean,
    require_fraction,
    require_non_negative,
    require_positive,
)
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.vision.annotated import Annotated, open_annotated
from paramgen.tasks.vision.datasets import IMAGENET, data_root
from paramgen.tasks.vision.dense_splits import PairSplit
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.vision.scenes import NUM_CLASSES, SIZES, Scenes, digit_scenes
from paramgen.tasks.vision.vit_dense import fetch_backbone

SCENES = "digit_scenes"
SCENES_TEST = 3  # training pictures for each test picture
SCENES_SIDE = 32


class DenseTask(Task):
    """Predict something at every place of a picture. Subclasses say what, and which sets there are."""

    network: str
    network_args: dict[str, Any]
    own_networks: ClassVar[Mapping[str, Callable[..., nn.Module]]]
    sets: ClassVar[dict[str, Annotated]]
    standardised: ClassVar[bool]  # images from files: by ImageNet's mean and deviation, or else in [0, 1]
    dataset: str
    root: str | None
    image_size: int | None
    val_fraction: float
    split_seed: int
    augment: bool
    num_workers: int
    scenes: int

    def _read_arguments(
        self,
        dataset: str,
        network: str,
        network_args: dict[str, Any] | None,
        root: str | None,
        image_size: int | None,
        val_fraction: float,
        split_seed: int,
        augment: bool,
        num_workers: int,
        scenes: int,
    ) -> None:
        if dataset != SCENES and dataset not in self.sets:
            raise ParamgenError(f"Unknown dataset {dataset!r}. {did_you_mean(dataset, [SCENES, *self.sets])}")
        require_fraction(val_fraction=val_fraction)
        require_positive(image_size=image_size)
        if dataset == SCENES and ((image_size or SCENES_SIDE) < SIZES[1] or scenes < 2):
            raise ParamgenError(
                f"image_size is {image_size} and scenes is {scenes}, expected {SIZES[1]} or more and 2 or more"
            )
        require_non_negative(split_seed=split_seed, num_workers=num_workers)
        self.network, self.network_args = network, dict(network_args or {})
        self.dataset, self.root, self.image_size = dataset, root, image_size
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.augment, self.num_workers, self.scenes = augment, num_workers, scenes

    @abstractmethod
    def prepared(self, network: nn.Module) -> nn.Module:
        """A network of a library, made to take and return tensors."""

    @abstractmethod
    def scene_targets(self, scenes: Scenes) -> Tensor:
        """What networks learn of composed pictures, (M, ...)."""

    @property
    def library_args(self) -> dict[str, Any]:
        """Arguments that networks of a library get unless ``network_args`` has them."""
        return {}

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        side = self.image_size or (SCENES_SIDE if self.dataset == SCENES else 512)
        return (1 if self.dataset == SCENES else 3, side, side)

    @property
    def num_classes(self) -> int:
        """Number of classes of a pixel or a box, with the background where the set has one."""
        return NUM_CLASSES if self.dataset == SCENES else self.sets[self.dataset].num_classes

    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""
        return self._built()

    def start(self, source: str) -> nn.Module:
        """The network with published weights (``pretrained``) or those of a weights file."""
        if self.network in self.own_networks and source == "pretrained":
            network = self.build()
            fetch_backbone(network)
            return network
        if self.network in self.own_networks:
            return super().start(source)
        return self._built(**({"pretrained": True} if source == "pretrained" else {"checkpoint": source}))

    def data(self, split: str) -> SplitData:
        """A split: ``train``, ``val`` (carved from train by a fixed seed) or ``test``.

        Raises:
            ParamgenError: No such split, or the data are not there.
        """
        self.check([None], split)
        part = "test" if split == "test" else "train"
        count = self._count(part)
        places = torch.arange(count)
        if part == "train":
            order = torch.randperm(count, generator=torch.Generator().manual_seed(self.split_seed))
            held = max(1, round(self.val_fraction * count))
            places = (order[:held] if split == "val" else order[held:]).sort().values
        if self.dataset == SCENES:
            scenes = digit_scenes(part, count, self.in_shape[1])
            return ArraySplit(scenes.images[places], self.scene_targets(scenes)[places])
        mean, std = IMAGENET if self.standardised else ((0.0,) * 3, (1.0,) * 3)
        some = Subset(self._opened[part], places.tolist())
        return PairSplit(some, len(places), self.in_shape[1], mean, std, self.augment, self.num_workers)

    def _count(self, part: str) -> int:
        if self.dataset != SCENES:
            return len(self._opened[part])
        return self.scenes if part == "train" else max(1, self.scenes // SCENES_TEST)

    def _built(self, **how: Any) -> nn.Module:
        if self.network not in self.own_networks:
            arguments = {**self.library_args, **self.network_args, **how}
            network = build_network(self.network, self.num_classes, self.in_shape, **arguments)
        else:
            with arguments_for(f"network {self.network!r}"):
                network = self.own_networks[self.network](self.num_classes, self.in_shape, **self.network_args)
        return self.prepared(network)

    @cached_property
    def _opened(self) -> dict[str, Any]:
        return {part: self._open(part) for part in ("train", "test")}

    def _open(self, part: str) -> Dataset[Any]:
        return open_annotated(self.dataset, self.sets, data_root(self.root), part)
