"""Tasks: a network to build, data to train it on, and a score. A single task is a family of one.

N: networks. C: numbers of a condition.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from paramgen.core.params import with_versions
from paramgen.errors import ParamgenError, did_you_mean, one_line, require_choice, shown
from paramgen.tasks.items import FirstImages, SplitData, TaskSplit, spread
from paramgen.tasks.lora import LoraSettings, inject
from paramgen.tasks.score import Scored, ScoredAs, Scores
from paramgen.tasks.scoring import score_each, score_networks
from paramgen.tasks.weights import load_weights_file

__all__ = ["UNLABELLED", "Description", "FirstImages", "Member", "SplitData", "Task", "TaskFamily"]

UNLABELLED = 64  # train images that a description holds


@dataclass(frozen=True)
class Description:
    """What is known about a task; conditions are computed from it, without its labels unless they ask for classes.

    Args:
        name: The task.
        index: Its place among the family's names.
        code: (C,) numbers that say what the task is: the bits of a relabeling, cosine and sine of an angle; or None.
        background: (channels, H, W) in [0, 1], an empty image of the place; None if there is none.
        images: (m, channels, H, W) in [0, 1], a few train images.
        labels: (m,) long, labels of these images; None of a task without classes.
    """

    name: str
    index: int
    code: Tensor | None
    background: Tensor | None
    images: Tensor
    labels: Tensor | None = None


class Outline(NamedTuple):
    """What is known about a family without its data."""

    network: nn.Module
    seen: int  # tasks


class TaskFamily(Scored):
    """Related tasks of one network and one score, from plain arguments.

    A subclass sets ``seen``, ``unseen`` (names of tasks) and ``lora`` and keeps its arguments as attributes of the same names. A single
    task (:class:`Task`) is a family of one. Its name is None, which is what ``zoo.json`` records.
    """

    seen: Sequence[str] = ()
    unseen: Sequence[str] = ()
    lora: LoraSettings | None = None
    has_data: bool = True
    """Whether networks can be trained, run on items and aligned."""
    reads: ClassVar[Sequence[str]] = ()
    """Arguments that may name a file, a folder or an address to read code or weights from."""
    within: ClassVar[str | None] = None
    """The argument that is a task or a family itself."""

    @abstractmethod
    def plain(self) -> nn.Module:
        """The network without adapters, freshly initialised from torch's global seed."""

    @abstractmethod
    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """A split (``train``, ``val``, ``test``) of one task, or of several together.

        Raises:
            ParamgenError: No such task or split, the tasks cannot be pooled, or the data are not there.
        """

    def describe(self, name: str) -> Description:
        """What is known about a task.

        Raises:
            ParamgenError: No such task, or it lacks what describes it.
        """
        raise ParamgenError(f"{type(self).__name__} describes no task, so it has no conditions; remove condition")

    def population(self) -> "Task | None":
        """The task of the zoo of a family whose networks are data themselves, such as one field a picture; None of other families.

        Each network is trained on a task of the family. The zoo is one of a single task: its networks are samples of one distribution,
        and new ones belong to no task of the family.
        """
        return None

    def pretraining(self, split: str) -> SplitData | None:
        """Data for pretraining the network; None if it is not pretrained."""
        return None

    @classmethod
    def outline(cls, **arguments: Any) -> Outline:
        """The network that is trained for every task, and the number of seen tasks.

        A subclass whose construction reads data overrides this.

        Args:
            **arguments: Of the class.
        """
        family = cls(**arguments)
        return Outline(family.build(), max(1, len(family.seen)))

    @property
    def names(self) -> list[str | None]:
        """All tasks, seen ones first; [None] of a single task."""
        return [*self.seen, *self.unseen] or [None]

    def build(self) -> nn.Module:
        """The network that is trained for every task: with adapters where the family has them."""
        return self.adapted()

    def adapted(self, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The network of every task with new adapters, where the family has them, on a plain network's weights (default: new ones)."""
        network = self.plain()
        if weights is not None:
            network.load_state_dict(with_versions(weights, network))
        return network if self.lora is None else inject(network, self.lora)

    def task(self, name: str | None = None) -> "Task":
        """One task of the family, by its name; the only one where the family has one.

        Raises:
            ParamgenError: No such task, or no name and several tasks.
        """
        if name is None and len(self.names) == 1:
            name = self.names[0]
        if name is None:
            raise ParamgenError(
                f"{type(self).__name__} is a family of many tasks, not one: `paramgen evaluate` scores its zoos; choose one of "
                "its tasks with the class Member"
            )
        return Member(self, name)

    def check(self, names: Sequence[str | None], split: str = "train") -> None:
        """Raise ParamgenError for an unknown task or split."""
        require_choice(TaskSplit, split=split)
        available = set(self.names)
        for name in names:
            if name not in available:
                named = [other for other in available if other is not None]
                raise ParamgenError(f"Unknown task {name!r} of this family. {did_you_mean(str(name), named)}")

    def evaluate_each(
        self,
        states: Sequence[Mapping[str, Tensor]],
        names: Sequence[str | None],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks, each on its own task. Tasks that share their inputs (relabelings) are run together.

        Args:
            states: N complete state dicts.
            names: N names of tasks.
            split: ``train``, ``val`` or ``test``.
            most: Maximum number of items of each task to score on, evenly spaced. Default: all.
            device: Where to compute.

        Raises:
            ValueError: Not as many names as networks.
            ParamgenError: No such task or split.
        """
        splits = {name: self.task(name).items(split, most) for name in dict.fromkeys(names)}
        return score_each(self, self.architecture.to(device), states, [splits[name] for name in names], device)

    def config(self) -> dict[str, Any]:
        """``{"class_path", "init_args"}`` with plain values, for :func:`paramgen.tasks.load_family`.

        The arguments of the class are read from attributes of the same names.
        """
        arguments = {name: _plain(getattr(self, name)) for name in signature(type(self)).parameters}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": arguments}

    @classmethod
    def upgraded(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Recorded arguments in the form of this version; missing ones get the value they had when the file was written."""
        return arguments

    @cached_property
    def architecture(self) -> nn.Module:
        """The architecture, for running networks; the random state does not change."""
        with torch.random.fork_rng(devices=[]):
            return self.build()


class Task(TaskFamily):
    """A target network, its data and its score, from plain arguments: a family whose only task is itself."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""

    @abstractmethod
    def data(self, split: str) -> SplitData:
        """A split: ``train``, ``val`` (carved from train by a fixed seed) or ``test``, which belongs to the evaluator.

        Raises:
            ParamgenError: No such split, or the data are not there.
        """

    def plain(self) -> nn.Module:
        """The network, which has no adapters."""
        return self.build()

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """A split of this task, which has no name."""
        self.check(names, split)
        return self.data(split)

    def task(self, name: str | None = None) -> "Task":
        """This task."""
        self.check([name])
        return self

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks on a split.

        A task whose score is not computed from single items, such as mAP or FID, overrides this method and :meth:`count`.

        Args:
            states: N complete state dicts.
            split: ``train``, ``val`` or ``test``.
            most: Maximum number of items to score on, evenly spaced. Default: all.
            device: Where to compute.
        """
        return score_networks(self, self.architecture.to(device), states, self.items(split, most), device=device)

    def evaluate_each(
        self,
        states: Sequence[Mapping[str, Tensor]],
        names: Sequence[str | None],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """As :meth:`evaluate`: every name is that of this task."""
        if len(names) != len(states):
            raise ValueError(f"expected one name for each of {len(states)} networks, got {len(names)}")
        self.check(names)
        return self.evaluate(states, split, most, device)

    def items(self, split: str, most: int | None = None) -> SplitData:
        """A limited number of a split's items, evenly spaced (default: all), made once for each number.

        Raises:
            ParamgenError: The split cannot be read, is empty, or is no :class:`SplitData`.
        """
        if (split, most) not in self._splits:
            self._splits[split, most] = spread(self._read(split), most)
        return self._splits[split, most]

    def count(self, split: str, most: int | None = None) -> int:
        """Number of items that :meth:`evaluate` runs each network on; its cost is proportional to it."""
        return len(self.items(split, most))

    def start(self, source: str) -> nn.Module:
        """The network with start weights: ``pretrained``, or those of a weights file.

        Raises:
            ParamgenError: The task has no such weights, or they do not fit.
        """
        network = self.build()
        load_weights_file(network, source)
        return network

    @cached_property
    def _splits(self) -> dict[tuple[str, int | None], SplitData]:
        return {}

    def _read(self, split: str) -> SplitData:
        """A split that has items."""
        name = type(self).__name__
        try:
            data: object = self.data(split)
        except OSError as error:
            raise ParamgenError(f"{name} cannot read its {split} data: {one_line(error)}") from error
        if not isinstance(data, SplitData):
            raise ParamgenError(
                f"{name}.data({split!r}) returned {shown(data)}, expected SplitData, such as ArraySplit"
            )
        if not len(data):
            raise ParamgenError(f"{name} has no {split} data: data({split!r}) returned a split without items")
        return data


class Member(ScoredAs, Task):
    """One task of a family, by itself.

    Args:
        family: The family.
        name: The task.

    Raises:
        ParamgenError: The family has no such task.
    """

    within: ClassVar[str | None] = "family"

    def __init__(self, family: TaskFamily, name: str) -> None:
        family.check([name])
        self.family, self.name = family, name
        self.take_score(family)

    def build(self) -> nn.Module:
        """The family's network."""
        return self.family.build()

    def data(self, split: str) -> SplitData:
        """A split of this task alone."""
        return self.family.pooled([self.name], split)


def _plain(value: Any) -> Any:
    """An argument as a plain value."""
    if isinstance(value, TaskFamily):
        return value.config()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
