"""Weights of a whole network, from a file or as a state dict."""

from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from paramgen.core.intake import Architecture
from paramgen.core.params import StateDict, with_versions
from paramgen.core.weight_files import read_state_dict, wrapper_prefix
from paramgen.errors import ParamgenError


def read_weights(path: str | Path, own: Collection[str] | None = None) -> StateDict:
    """Tensors of a weights file, bare or in a checkpoint, without the prefixes of wrappers.

    Args:
        path: The file.
        own: Names in the network, where it is known: nothing is removed from names that it has.

    Raises:
        ParamgenError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    tensors = {name: value for name, value in read_state_dict(path, first=True).items() if isinstance(value, Tensor)}
    if not tensors:
        raise ParamgenError(f"{path} holds no state dict")
    prefix = wrapper_prefix(tensors, own)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def load_weights_file(network: nn.Module, path: str | Path) -> None:
    """Load a weights file into a network, in place.

    Raises:
        ParamgenError: As :func:`read_weights` and :func:`load_weights`.
    """
    load_weights(network, read_weights(path, network.state_dict().keys()), where=str(path))


def load_weights(network: nn.Module, weights: StateDict, where: str) -> None:
    """Load a complete state dict into a network.

    Args:
        network: Changed in place.
        weights: Its state dict, complete.
        where: Where the weights come from, for the message.

    Raises:
        ParamgenError: Missing, unexpected or differently shaped tensors, or others that the network cannot take unchanged; the first is
            named.
    """
    architecture = Architecture(network)
    network.load_state_dict(with_versions({**architecture.extra, **architecture.fit(weights, where)}, network))
