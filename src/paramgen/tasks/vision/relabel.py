"""Binary relabelings: every way to split the classes of an image set in two is a task (RPG, arXiv:2501.11587, section 4).

code: (classes,) one bit a class, the label that its images get. Ten classes have 2^10 - 2 = 1,022 codes, without all zeros and all ones.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paramgen.errors import ParamgenError, require_non_negative
from paramgen.tasks.base import UNLABELLED, Description, SplitData, TaskFamily
from paramgen.tasks.lora import LoraSettings, lora_settings
from paramgen.tasks.score import Classifies
from paramgen.tasks.vision.classification import ClassificationTask
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.vision.splits import LabelledImages

MOST_CLASSES = 16  # 65,534 codes


def all_codes(classes: int) -> list[str]:
    """All codes of `classes` classes in order, without all zeros and all ones: 2^classes - 2.

    Raises:
        ParamgenError: More than 16 classes.
    """
    if classes > MOST_CLASSES:
        raise ParamgenError(
            f"a set of {classes} classes has 2^{classes} relabelings, expected {MOST_CLASSES} classes or fewer"
        )
    return [format(i, f"0{classes}b") for i in range(1, 2**classes - 1)]


def flipped(code: str) -> str:
    """The code with every bit flipped (Table 10)."""
    return code.translate(str.maketrans("01", "10"))


class RelabelFamily(Classifies, TaskFamily):
    """Binary relabelings of a dataset's classes. A task's name is its code, such as ``0110010101``.

    Args:
        dataset: A set of :mod:`paramgen.tasks.vision.datasets`.
        network: As of a classification task; it gets two outputs.
        network_args: Further arguments of the network.
        seen: Number of seen codes, or the codes.
        unseen: Number of unseen codes, or the codes.
        seed: Seed that selects the codes.
        lora: Generate adapters instead of complete networks.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.
        val_fraction: Share of the training images that becomes the val split.
        image_size: Height and width to resize images to.

    Raises:
        ParamgenError: More than 16 classes, more codes than there are, a code that is none, or one both seen and unseen.
    """

    def __init__(
        self,
        dataset: str = "digits",
        network: str = "mlp",
        network_args: dict[str, Any] | None = None,
        seen: int | list[str] = 400,
        unseen: int | list[str] = 40,
        seed: int = 0,
        lora: LoraSettings | None = None,
        root: str | None = None,
        val_fraction: float = 0.1,
        image_size: int | None = None,
    ) -> None:
        require_non_negative(seed=seed)
        self.base = ClassificationTask(
            dataset, root=root, val_fraction=val_fraction, image_size=image_size, augment=False
        )
        self.dataset, self.network, self.network_args = dataset, network, dict(network_args or {})
        self.seed, self.root, self.val_fraction, self.image_size = seed, root, val_fraction, image_size
        self.lora = lora_settings(lora)
        self.seen, self.unseen = _divide(self.base.num_classes, seen, unseen, seed)
        self._given = {"seen": seen, "unseen": unseen}

    def plain(self) -> nn.Module:
        """The network with two outputs."""
        return build_network(self.network, 2, self.base.in_shape, **self.network_args)

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """The set's images under a code's labels; codes cannot be pooled, they contradict each other."""
        self.check(names, split)
        if len(names) != 1:
            raise ParamgenError(f"{len(names)} relabelings cannot be pooled: they label the same images differently")
        data: SplitData = self._splits(split)
        return data.relabelled(self.bits(names[0])[data.targets])

    def describe(self, name: str) -> Description:
        """Its bits; the images are the same for every task, their labels are not."""
        self.check([name])
        bits, some = self.bits(name), self._images
        return Description(name, self.names.index(name), bits.float(), None, some.images, bits[some.labels])

    def config(self) -> dict[str, Any]:
        """Arguments that construct this family; a number of codes stays a number."""
        config = super().config()
        config["init_args"] |= self._given
        return config

    @staticmethod
    def bits(code: str) -> Tensor:
        """(classes,) int64."""
        return torch.tensor([int(bit) for bit in code])

    @cached_property
    def _splits(self) -> Any:
        return lru_cache(self.base.data)  # pixels in memory once, shared by all tasks

    @cached_property
    def _images(self) -> LabelledImages:
        """Normalised train images taken back, with their classes."""
        x, classes = next(self._splits("train").batches(UNLABELLED))
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (self.base.source.mean, self.base.source.std))
        return LabelledImages(x * std + mean, classes)


def _divide(classes: int, seen: int | list[str], unseen: int | list[str], seed: int) -> tuple[list[str], list[str]]:
    codes = all_codes(classes)
    named = [code for codes_given in (seen, unseen) if not isinstance(codes_given, int) for code in codes_given]
    for code in named:
        if code not in codes:
            raise ParamgenError(
                f"{code!r} is not a code of {classes} classes; expected {classes} bits that are not all equal"
            )
    if len(set(named)) < len(named):
        raise ParamgenError("a code is given twice, or as both seen and unseen")
    for name, given in (("seen", seen), ("unseen", unseen)):
        require_non_negative(**{name: given if isinstance(given, int) else None})
    counts = sum(given for given in (seen, unseen) if isinstance(given, int))
    remaining = [code for code in codes if code not in named]
    if counts > len(remaining):
        raise ParamgenError(
            f"seen and unseen request {counts} codes, but only {len(remaining)} of the codes of {classes} classes are left"
        )
    drawn = [remaining[i] for i in np.random.default_rng(seed).permutation(len(remaining))[:counts]]
    first = drawn[:seen] if isinstance(seen, int) else list(seen)
    second = drawn[counts - unseen :] if isinstance(unseen, int) else list(unseen)
    return first, second
