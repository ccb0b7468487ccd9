"""Image classification: any set of :mod:`paramgen.tasks.vision.datasets` with any network of :mod:`paramgen.tasks.vision.networks`."""

from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from paramgen.errors import require_choice, require_fraction, require_non_negative, require_positive
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.score import Classifies
from paramgen.tasks.vision.datasets import SOURCES, ImagePool, Source, data_root, find_source, load_pool, stratified
from paramgen.tasks.vision.folders import ImageFolders
from paramgen.tasks.vision.networks import Shape, build_network
from paramgen.tasks.vision.splits import StreamedSplit, TensorSplit

Images = Literal["auto", "streamed"]


class ClassificationTask(Classifies, Task):
    """Classify images.

    Args:
        dataset: ``digits`` (from scikit-learn, no download), ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100``, ``stl10``,
            ``flowers102``, ``oxford_iiit_pet``, ``food101``, ``imagenet``, or ``image_folder``: a folder of ``CLASS/*.png``.
        network: ``mlp``, ``mlp3``, ``convnet3``, ``cnn_small``, ``cnn_medium``, ``cnn_digits``, ``timm:NAME``, ``torchvision:NAME``
            or ``package.module.Class``.
        network_args: Further arguments of the network, for example ``{hidden: [128]}``.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.
        download: Download missing data with torchvision.
        val_fraction: Share of the training images that becomes the val split, stratified by class.
        split_seed: Seed of the val split.
        augment: Random crops and flips that are standard for the dataset, only in training.
        image_size: Height and width to resize (in memory) or crop (streamed) images to. Default: unchanged.
        num_workers: Processes that decode streamed images.
        images: For image_folder: ``auto`` keeps small images in memory with their size and channels; ``streamed`` decodes each on demand,
            in three channels.

    Raises:
        ParamgenError: Unknown dataset, or a fraction that is not between 0 and 1.
    """

    def __init__(
        self,
        dataset: str = "digits",
        network: str = "mlp",
        network_args: dict[str, Any] | None = None,
        root: str | None = None,
        download: bool = False,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        augment: bool = True,
        image_size: int | None = None,
        num_workers: int = 0,
        images: Images = "auto",
    ) -> None:
        require_fraction(val_fraction=val_fraction)
        require_positive(image_size=image_size)
        require_non_negative(split_seed=split_seed, num_workers=num_workers)
        require_choice(Images, images=images)
        self._named, self.images = find_source(dataset), images
        self.dataset, self.network, self.network_args = dataset, network, dict(network_args or {})
        self.root, self.download, self.num_workers = root, download, num_workers
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.augment, self.image_size = augment, image_size

    @property
    def source(self) -> Source:
        """How the set is read; for an image folder, this depends on its images."""
        return self._named if self._folders is None else self._folders.source

    @property
    def in_shape(self) -> Shape:
        """Channels, height and width of an image."""
        channels, height, width = self.source.shape
        return (channels, self.image_size or height, self.image_size or width)

    @property
    def num_classes(self) -> int:
        """Number of classes; for an image folder, the number of its subfolders."""
        if self._folders is not None:
            return self._folders.num_classes
        return self._named.num_classes or self._training_pool.num_classes

    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""
        return build_network(self.network, self.num_classes, self.in_shape, **self.network_args)

    def start(self, source: str) -> nn.Module:
        """The network with published weights (``pretrained``) or those of a weights file."""
        how: dict[str, Any] = {"pretrained": True} if source == "pretrained" else {"checkpoint": source}
        return build_network(self.network, self.num_classes, self.in_shape, **how, **self.network_args)

    def data(self, split: str) -> SplitData:
        """A split: ``train``, ``val`` or ``test``.

        Raises:
            ParamgenError: No such split, or the data are not there.
        """
        self.check([None], split)
        if split == "test":
            pool = self._pool(train=False)
            return self._split(pool, torch.arange(len(pool.labels)))
        pool = self._training_pool
        count = max(1, round(self.val_fraction * len(pool.labels)))
        val, train = stratified(pool.labels, count, self.split_seed)
        return self._split(pool, val if split == "val" else train)

    def config(self) -> dict[str, Any]:
        """JSON-serialisable arguments that construct this task."""
        config = super().config()
        if self._named is not SOURCES["image_folder"]:
            del config["init_args"]["images"]
        return config

    @classmethod
    def upgraded(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """As in the base class: image folders were streamed in three channels before ``images`` existed."""
        return arguments if arguments.get("dataset") != "image_folder" else {"images": "streamed", **arguments}

    @cached_property
    def _folders(self) -> ImageFolders | None:
        """The images of an image folder."""
        if self._named is not SOURCES["image_folder"]:
            return None
        return ImageFolders(data_root(self.root), self.image_size, self.images == "streamed")

    @cached_property
    def _training_pool(self) -> ImagePool:
        return self._pool(train=True)

    def _pool(self, train: bool) -> ImagePool:
        if self._folders is not None:
            return self._folders.pool(train)
        return load_pool(self.dataset, self.root, train, self.download, self.image_size)

    def _split(self, pool: ImagePool, indices: torch.Tensor) -> SplitData:
        labels, source = pool.labels[indices], self.source
        if pool.raw is not None:
            pad, flip = (source.pad, source.flip) if self.augment else (0, False)
            raw, white, size = pool.raw[indices], source.white, self.image_size
            return TensorSplit(raw, labels, source.mean, source.std, pad=pad, flip=flip, white=white, size=size)
        assert pool.dataset is not None  # a pool is in memory or streamed
        return StreamedSplit(
            torch.utils.data.Subset(pool.dataset, indices.tolist()),
            labels,
            size=self.in_shape[1],
            mean=source.mean,
            std=source.std,
            augment=self.augment,
            num_workers=self.num_workers,
            channels=self.in_shape[0],
            margin=256 / 224 if source.streamed else 1.0,
        )
