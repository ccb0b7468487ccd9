"""One classification task in several domains, one image folder each: ``DOMAIN/CLASS/*.png`` (PACS, Office-Home, DomainNet)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paramgen.errors import (
    ParamgenError,
    did_you_mean,
    first_line,
    require_fraction,
    require_non_negative,
    require_positive,
)
from paramgen.tasks.base import Description, SplitData, TaskFamily
from paramgen.tasks.lora import LoraSettings, lora_settings
from paramgen.tasks.score import Classifies
from paramgen.tasks.vision.datasets import IMAGENET, data_root, stratified
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.vision.splits import InMemory


class DomainFamily(Classifies, TaskFamily):
    """Classification of the same classes in several domains. A task's name is its domain's folder.

    Args:
        unseen: Unseen domains. All other folders are seen.
        network: As in ClassificationTask.
        network_args: Further arguments of the network.
        lora: Generate adapters on a network pretrained on all seen domains, instead of complete networks.
        root: Folder with one folder per domain. Default: ``$PARAMGEN_DATA``, else ``./data``.
        image_size: Height and width to resize images to. All images are kept in memory.
        val_fraction: Share of a domain's training images that becomes its val split, stratified by class.
        test_fraction: Share of a domain's images that becomes its test split.
        split_seed: Seed of the splits.
        pretrained: Start from the weights published by timm or torchvision.

    Raises:
        ParamgenError: No domains there, an unknown one, or domains whose classes differ.
    """

    def __init__(
        self,
        unseen: list[str],
        network: str = "convnet3",
        network_args: dict[str, Any] | None = None,
        lora: LoraSettings | None = None,
        root: str | None = None,
        image_size: int = 32,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        pretrained: bool = False,
    ) -> None:
        require_positive(image_size=image_size)
        require_fraction(val_fraction=val_fraction, test_fraction=test_fraction)
        require_non_negative(split_seed=split_seed)
        self._root = data_root(root)
        domains = sorted(p.name for p in self._root.iterdir() if p.is_dir()) if self._root.is_dir() else []
        if len(domains) < 2:
            raise ParamgenError(
                f"{self._root.absolute()} holds {len(domains)} domain folders, expected DOMAIN/CLASS/*.png with two domains "
                "or more; set root or PARAMGEN_DATA"
            )
        for name in unseen:
            if name not in domains:
                raise ParamgenError(
                    f"Unknown domain {name!r} in {self._root.absolute()}. {did_you_mean(name, domains)}"
                )
        self.unseen, self.seen = list(unseen), [d for d in domains if d not in unseen]
        if not self.seen:
            raise ParamgenError("every domain is unseen; at least one must be seen")
        self.classes = _classes(self._root, domains)
        self.network, self.network_args, self.pretrained = network, dict(network_args or {}), pretrained
        self.lora = lora_settings(lora)
        self.root, self.image_size, self.split_seed = root, image_size, split_seed
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self._domain = lru_cache(self._read)

    def plain(self) -> nn.Module:
        """The network."""
        shape = (3, self.image_size, self.image_size)
        return build_network(self.network, len(self.classes), shape, pretrained=self.pretrained, **self.network_args)

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """Images of one domain, or of several pooled."""
        self.check(names, split)
        parts = [self._part(name, split) for name in names]
        return parts[0].split if len(parts) == 1 else self._pool(parts).split

    def pretraining(self, split: str) -> SplitData | None:
        """The seen domains pooled."""
        return None if self.lora is None else self.pooled(self.seen, split)

    def describe(self, name: str) -> Description:
        """Some of its images."""
        self.check([name])
        return Description(name, self.names.index(name), None, None, *self._part(name, "train").some())

    def _part(self, name: str, split: str) -> InMemory:
        raw, labels = self._domain(name)
        test, rest = stratified(labels, max(1, round(self.test_fraction * len(labels))), self.split_seed)
        val, train = stratified(labels[rest], max(1, round(self.val_fraction * len(rest))), self.split_seed)
        indices = {"train": rest[train], "val": rest[val], "test": test}[split]
        return InMemory(raw[indices], labels[indices], *IMAGENET, flip=True)

    def _pool(self, parts: Sequence[InMemory]) -> InMemory:
        labels = torch.cat([part.labels for part in parts])
        return InMemory(torch.cat([part.raw for part in parts]), labels, *IMAGENET, flip=True)

    def _read(self, name: str) -> tuple[Tensor, Tensor]:
        """A domain's images (M, 3, size, size) uint8 and labels (M,)."""
        from torchvision.datasets import ImageFolder

        try:
            folder = ImageFolder(str(self._root / name))
            size = (self.image_size, self.image_size)
            images = [np.asarray(folder.loader(path).resize(size, resample=2)) for path, _ in folder.samples]
        except OSError as error:
            raise ParamgenError(f"cannot read domain {name!r}: {first_line(error)}") from error
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(folder.targets)


def _classes(root: Any, domains: Sequence[str]) -> list[str]:
    """The classes, which must be the same in all domains."""
    classes = {domain: sorted(p.name for p in (root / domain).iterdir() if p.is_dir()) for domain in domains}
    first, *others = domains
    for domain in others:
        if classes[domain] != classes[first]:
            differing = sorted(set(classes[domain]) ^ set(classes[first]))
            raise ParamgenError(f"domains {first!r} and {domain!r} differ in their classes: {', '.join(differing[:4])}")
    if not classes[first]:
        raise ParamgenError(f"domain {first!r} holds no class folders; expected {root / first}/CLASS/*.png")
    return classes[first]
