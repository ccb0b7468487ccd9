"""What a task is: a network to build, data to train and score it on."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paramgen.tasks.items import FirstImages, SplitData, spread
from paramgen.tasks.score import Scored, Scores
from paramgen.tasks.scoring import score_networks
from paramgen.tasks.vision.networks import load_weights, read_weights

__all__ = ["FirstImages", "SplitData", "Task"]


class Task(Scored):
    """A target network, its data and its score, from plain arguments."""

    has_data: ClassVar[bool] = True  # whether networks can be trained, run on items and aligned: data() answers

    @abstractmethod
    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""

    @abstractmethod
    def data(self, split: str) -> SplitData:
        """A split: ``train``, ``val`` (carved from train by a fixed seed) or ``test``, which belongs to the evaluator.

        Raises:
            ParamgenError: No such split, or the data are not there.
        """

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
        return score_networks(self, self._network.to(device), states, self._items(split, most), device=device)

    def count(self, split: str, most: int | None = None) -> int:
        """How many items :meth:`evaluate` runs each network on; what it costs grows with them."""
        return len(self._items(split, most))

    def config(self) -> dict[str, Any]:
        """``{"class_path", "init_args"}`` with plain values, for :func:`paramgen.tasks.load_task`.

        The arguments of the class are read from attributes of the same names.
        """
        arguments = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": arguments}

    @classmethod
    def upgraded(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments that a file records, as this version takes them: what a missing one meant when the file was written is filled in."""
        return arguments

    def start(self, source: str) -> nn.Module:
        """The network with start weights: ``pretrained``, or those of a weights file.

        Raises:
            ParamgenError: The task has no such weights, or they do not fit.
        """
        network = self.build()
        load_weights(network, read_weights(source), where=source)
        return network

    @cached_property
    def _network(self) -> nn.Module:
        """The architecture, for running networks; the random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            return self.build()

    def _items(self, split: str, most: int | None) -> SplitData:
        """Items of a split, made once for each number of them."""
        if (split, most) not in self._splits:
            self._splits[split, most] = spread(self.data(split), most)
        return self._splits[split, most]

    @cached_property
    def _splits(self) -> dict[tuple[str, int | None], SplitData]:
        return {}
