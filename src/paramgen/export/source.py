"""What is exported: networks of a zoo or of a folder of samples, one at a time, and the module that they are weights of."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from paramgen.core.io import read_json
from paramgen.core.params import StateDict
from paramgen.core.samples import INDEX, each_network, samples_folder
from paramgen.core.zoo import Split, Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import TaskFamily, family_of
from paramgen.tasks.weights import load_weights


class NamedState(NamedTuple):
    """One network.

    Args:
        name: What its file is called, without a suffix.
        state: Complete state dict.
    """

    name: str
    state: StateDict


class Part(NamedTuple):
    """The module of a library in a network.

    Args:
        prefix: Of its tensors in the network's state dict; empty where it is the network.
        module: The module.
    """

    prefix: str
    module: nn.Module


@dataclass(frozen=True)
class ExportSource:
    """Networks to export.

    Args:
        zoo: The zoo that they belong to, or that their generator was fitted on.
        samples: A folder of generated networks. Default: the networks of the zoo.
        split: Of the zoo's networks: one split alone.
        limit: Maximum number of networks.
    """

    zoo: Zoo
    samples: Path | None = None
    split: Split | None = None
    limit: int | None = None

    @property
    def what(self) -> str:
        """Names it in messages."""
        return f"zoo {self.zoo.name!r}" if self.samples is None else f"samples {str(self.samples)!r}"

    def networks(self) -> Iterator[NamedState]:
        """Each network, read from its files when it is asked for.

        Raises:
            ParamgenError: A file is missing, damaged, or of another architecture; it is named.
        """
        if self.samples is not None:
            for network in each_network(self.samples, self.zoo, self.limit):
                yield NamedState(Path(network.file).stem, network.state)
            return
        indices = range(len(self.zoo)) if self.split is None else self.zoo.indices(self.split)
        for index in list(indices)[: self.limit]:
            yield NamedState(Path(self.zoo.entries[index].file).stem, self.zoo.full(index))

    @cached_property
    def family(self) -> TaskFamily:
        """The tasks of the zoo.

        Raises:
            ParamgenError: The zoo has no task, or names code that is not trusted.
        """
        return family_of(self.zoo)

    @cached_property
    def network(self) -> nn.Module:
        """The architecture in evaluation mode, with adapters if the zoo holds adapters; its weights are not those of any network."""
        with torch.random.fork_rng(devices=[]):
            return self.family.build().eval()

    def loaded(self, state: StateDict, name: str) -> nn.Module:
        """The architecture with the weights of one network; the same module each time."""
        load_weights(self.network, state, name)
        return self.network

    @property
    def network_name(self) -> str:
        """How the task names its network, such as ``timm:resnet18``; empty where it does not."""
        return str(getattr(self.family, "network", ""))

    @property
    def network_args(self) -> dict[str, Any]:
        """Further arguments of the network, as the task has them."""
        return dict(getattr(self.family, "network_args", None) or {})

    def refuse_adapters(self, library: str) -> None:
        """Raise ParamgenError where the networks are adapters, which `library` does not load by themselves."""
        if self.family.lora is not None:
            raise ParamgenError(f"{self.what} holds adapters, which {library} does not load; use --format peft")

    def part(self, base: type[nn.Module], library: str) -> Part:
        """The network's module of a library: the network itself, or the one module that holds all of its tensors.

        Raises:
            ParamgenError: It has none.
        """
        if (found := find_part(self.network, base)) is None:
            raise self.wrong_library(library)
        return found

    def wrong_library(self, library: str) -> ParamgenError:
        """The error to raise for networks that are not `library`'s."""
        kind = self.network_name or f"{type(self.network).__module__}.{type(self.network).__qualname__}"
        return ParamgenError(
            f"{self.what} holds networks of {kind!r}, which {library} cannot build; use --format safetensors, pth or onnx"
        )


def find_part(network: nn.Module, base: type[nn.Module]) -> Part | None:
    """The outermost module of a class that holds all tensors of a network; None if there is none."""
    for name, module in network.named_modules():
        if isinstance(module, base):
            prefix = f"{name}." if name else ""
            complete = all(key.startswith(prefix) for key in network.state_dict())
            return Part(prefix, module) if complete else None
    return None


def open_export(
    samples: str | None, zoo: str | None, split: Split | None, limit: int | None, trust: bool
) -> ExportSource:
    """The networks that a command line names.

    Raises:
        ParamgenError: Neither samples nor a zoo, no such folder, an incomplete one, or a zoo that is not found.
    """
    if samples is None and zoo is None:
        raise ParamgenError("nothing to export: give --samples FOLDER of `paramgen sample`, or --zoo ZOO")
    if samples is None:
        return ExportSource(Zoo(str(zoo), trust), None, split, limit)
    if split is not None:
        raise ParamgenError("split selects networks of a zoo; remove it for samples")
    folder = samples_folder(samples)
    name = zoo or (read_json(folder / INDEX, "samples").get("zoo") if (folder / INDEX).exists() else None)
    if name is None:
        raise ParamgenError(f"{samples!r} does not say which zoo its networks belong to: add --zoo ZOO")
    try:
        return ExportSource(Zoo(name, trust), folder, None, limit)
    except ParamgenError as error:
        raise error if zoo else type(error)(f"{error} To give its path, add --zoo PATH") from error
