"""Many related tasks that share one network: which are seen, which are kept unseen, and what describes each.

N: networks. T: tasks. C: numbers of a condition.
"""

import copy
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from paramgen.core.params import StateDict
from paramgen.core.trust import SOMEWHERE
from paramgen.errors import ParamgenError, did_you_mean
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.factory import construct
from paramgen.tasks.lora import LoraSettings, inject
from paramgen.tasks.score import Classifies
from paramgen.tasks.scoring import run_many
from paramgen.tasks.vision.splits import TensorSplit

UNLABELLED = 64  # train images that a description holds


@dataclass(frozen=True)
class Description:
    """What is known of a task without its labels; a condition is made from it.

    Args:
        name: The task.
        index: Its place among the family's names.
        code: (C,) numbers that say what the task is: the bits of a relabeling, cosine and sine of an angle; or None.
        background: (channels, H, W) in [0, 1], the place without anything in it; None where there is none.
        images: (m, channels, H, W) in [0, 1], a few unlabelled train images.
    """

    name: str
    index: int
    code: Tensor | None
    background: Tensor | None
    images: Tensor


class TaskFamily(Classifies, ABC):
    """Related tasks of one network, from plain arguments.

    A subclass sets ``seen``, ``unseen`` and ``lora`` and keeps its arguments as attributes of the same names.
    """

    seen: list[str]
    unseen: list[str]
    lora: LoraSettings | None = None

    @abstractmethod
    def plain(self) -> nn.Module:
        """The network without adapters, freshly initialised from torch's global seed."""

    @abstractmethod
    def data(self, names: Sequence[str], split: str) -> SplitData:
        """A split (``train``, ``val``, ``test``) of one task, or of several pooled.

        Raises:
            ParamgenError: No such task or split, or the data are not there.
        """

    @abstractmethod
    def describe(self, name: str) -> Description:
        """What is known of a task without its labels.

        Raises:
            ParamgenError: No such task, or it lacks what describes it.
        """

    def pretraining(self, split: str) -> SplitData | None:
        """What the network is trained on before any task is; None when it is not."""
        return None

    @property
    def names(self) -> list[str]:
        """All tasks, seen ones first."""
        return [*self.seen, *self.unseen]

    def build(self) -> nn.Module:
        """The network that is trained for every task: with adapters where the family has them."""
        network = self.plain()
        return network if self.lora is None else inject(network, self.lora)

    def task(self, name: str) -> "Member":
        """One task of the family."""
        return Member(self, name)

    def check(self, names: Sequence[str], split: str = "train") -> None:
        """Raise ParamgenError for a task or split that is not there."""
        if split not in ("train", "val", "test"):
            raise ParamgenError(f"Unknown split {split!r}. Available: train, val, test.")
        known = set(self.names)
        for name in names:
            if name not in known:
                raise ParamgenError(f"Unknown task {name!r} of this family. {did_you_mean(name, known)}")

    def config(self) -> dict[str, Any]:
        """``{"class_path", "init_args"}`` with plain values, for :func:`load_family`."""
        arguments = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {
                k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in arguments.items()
            },
        }


class Member(Classifies, Task):
    """One task of a family.

    Args:
        family: The family, or its configuration.
        name: The task.

    Raises:
        ParamgenError: The family has no such task.
    """

    def __init__(self, family: TaskFamily | dict[str, Any], name: str) -> None:
        self.family = family if isinstance(family, TaskFamily) else load_family(family)
        self.family.check([name])
        self.name = name

    def build(self) -> nn.Module:
        """The family's network."""
        return self.family.build()

    def data(self, split: str) -> SplitData:
        """A split of this task alone."""
        return self.family.data([self.name], split)

    def config(self) -> dict[str, Any]:
        """JSON-serialisable arguments that construct this task."""
        init_args = {"family": self.family.config(), "name": self.name}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": init_args}


def load_family(config: Mapping[str, Any], trust: bool = False, where: str = SOMEWHERE) -> TaskFamily:
    """The family of a recorded configuration.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``; the class may be given by its name alone where paramgen has it.
        trust: Import classes that are not part of paramgen.
        where: The file that contains it, for messages.

    Raises:
        UntrustedError: `trust` is false, and the configuration names such a class, or a file to read or fetch.
        ParamgenError: No such class, or arguments that it does not take.
    """
    return construct(config, TaskFamily, "task family", trust, where)  # type: ignore[type-abstract]


def lora_settings(given: LoraSettings | Mapping[str, Any] | None) -> LoraSettings | None:
    """Settings given as such or, in a recorded configuration, as plain values."""
    try:
        return LoraSettings(**given) if isinstance(given, Mapping) else given
    except TypeError as error:
        raise ParamgenError(f"lora does not take these settings: {error}") from error


class FamilyZoo(Protocol):
    """What :func:`score_family` needs of a zoo."""

    @property
    def task_config(self) -> dict[str, Any] | None:
        """The family's configuration."""

    def complete(self, generated: Mapping[str, Tensor]) -> StateDict:
        """Generated tensors with the rest."""


def score_family(
    zoo: FamilyZoo,
    weights: Sequence[Mapping[str, Tensor]],
    names: Sequence[str],
    split: str,
    family: TaskFamily | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Scores of N networks, each on its own task.

    Tasks that share their images (relabelings) are predicted together, the others one after the other, networks of a task together.

    Args:
        zoo: Completes the weights, and says which family it is.
        weights: N generated state dicts.
        names: N names of tasks.
        split: ``train``, ``val`` or ``test``.
        family: The zoo's family where it is at hand: its data are then read once. A zoo that names classes of its own needs it.
        device: Where to compute.

    Returns:
        (N,) scores, float64.

    Raises:
        ValueError: Not as many names as weights.
        ParamgenError: No such task or split.
    """
    if len(weights) != len(names):
        raise ValueError(f"expected one name for each of {len(weights)} networks, got {len(names)}")
    family = family or load_family(zoo.task_config or {})
    model = family.build()
    splits = {name: family.data([name], split) for name in dict.fromkeys(names)}
    alike: dict[int, list[int]] = defaultdict(list)  # networks whose tasks have the same images
    for i, name in enumerate(names):
        data = splits[name]
        alike[id(data.raw) if isinstance(data, TensorSplit) else id(data)].append(i)
    value = torch.empty(len(names), dtype=torch.float64)
    for chosen in alike.values():
        items: dict[int, list[Tensor]] = defaultdict(list)
        states = [zoo.complete(weights[i]) for i in chosen]
        for run in run_many(model, states, splits[names[chosen[0]]], device=device):
            for i, output in zip(chosen[run.networks], run.output, strict=True):
                own = (
                    splits[names[i]].targets[run.items].to(output.device)
                )  # tasks of the same inputs differ in their targets
                items[i].append(family.measure(output[None], own).items[0].cpu())
        for i, parts in items.items():
            value[i] = family.value(torch.cat(parts)[None])[0]
    return value


class SideBySide(SplitData):
    """Training data of R networks, each its own task's: network r draws from split r.

    Args:
        splits: R splits of one length.

    Raises:
        ValueError: They differ in length, so that one epoch is not one epoch for all.
    """

    def __init__(self, splits: Sequence[SplitData]) -> None:
        if len({len(split) for split in splits}) != 1:
            raise ValueError("expected splits of one length")
        super().__init__(splits[0].targets)
        self.splits = splits
        raws = {id(split.raw) if isinstance(split, TensorSplit) else id(split) for split in splits}
        self._labels = torch.stack([split.targets for split in splits]) if len(raws) == 1 else None  # (R, M)

    def batches(self, batch_size: int) -> Any:
        """Not defined: networks of several tasks are scored by :func:`score_family`."""
        raise NotImplementedError("parallel splits are for training only")

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Any:
        """As in the base class, row r of the order from split r."""
        if self._labels is not None:  # the same images for all: read once
            images = self.splits[0].training_batches(order, generators)
            for (x, _), index in zip(images, order, strict=True):
                yield x, self._labels.gather(1, index)
            return
        columns = [
            split.training_batches(order[:, r : r + 1], generators[r : r + 1]) for r, split in enumerate(self.splits)
        ]
        for batches in zip(*columns, strict=True):
            yield torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


class InMemory:
    """Raw images and labels of some tasks, and what turns them into a split.

    Args:
        raw: (M, C, H, W) uint8.
        labels: (M,) int64.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        white: Value of a white pixel.
        pad: Random crops in training, as :class:`TensorSplit` has them.
        flip: Random flips in training.
    """

    def __init__(
        self,
        raw: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        white: int = 255,
        pad: int = 0,
        flip: bool = False,
    ) -> None:
        self.raw, self.labels, self.white = raw, labels, white
        self.normal = {"mean": mean, "std": std, "white": white, "pad": pad, "flip": flip}

    @cached_property
    def split(self) -> TensorSplit:
        """The images as a split."""
        return TensorSplit(self.raw, self.labels, **self.normal)  # type: ignore[arg-type]

    def pixels(self, most: int = UNLABELLED) -> Tensor:
        """Some images, evenly spaced (m, C, H, W), in [0, 1]."""
        chosen = torch.linspace(0, len(self.raw) - 1, min(most, len(self.raw))).round().long()
        return self.raw[chosen].float() / self.white


def relabelled(split: SplitData, labels: Tensor) -> SplitData:
    """The same images under other labels (M,); pixels are shared."""
    other = copy.copy(split)
    other.targets = labels
    return other
