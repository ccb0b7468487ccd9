"""Weights to start from: networks of files or of the zoo, as tokens of a generator."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from paramgen.core.io import read_tensors
from paramgen.core.params import StateDict
from paramgen.core.spacing import evenly_spaced
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError

if TYPE_CHECKING:  # it imports Lightning, which takes seconds
    from paramgen.generators.base import ParameterGenerator


def start_tokens(model: "ParameterGenerator", start: str, n: int, trust: bool = False) -> Tensor:
    """Tokens (n, L, D) of the networks to start from, spread over n networks.

    Args:
        model: A generator that takes start weights.
        start: Safetensors files, or indices of networks in the zoo that it was fitted on; separated by commas.
        n: Networks to draw.
        trust: Of the zoo.

    Raises:
        ParamgenError: The generator takes no start weights; no such file or network, or one of other tensors.
    """
    if not model.has_start:
        kind = type(model).__name__
        raise ParamgenError(
            f"start {start!r} was given, but this {kind} takes no start weights: it was fitted without data.start"
        )
    assert model.codec is not None
    networks = [_network(model, name.strip(), trust) for name in start.split(",")]
    tokens = model.codec.encode_many(networks)  # (m, L, D)
    return tokens[evenly_spaced(len(networks), n)]


def _network(model: "ParameterGenerator", name: str, trust: bool) -> StateDict:
    assert model.codec is not None
    assert model.codec.spec is not None
    if not name.isdecimal():
        if not Path(name).is_file():
            raise ParamgenError(
                f"start {name!r}: no such file; expected a safetensors file or the index of a network in the zoo"
            )
        state = read_tensors(Path(name))
        model.codec.spec.check(state, where=name)
        return state
    zoo = Zoo(model.zoo_info["path"], trust)
    if zoo.spec != model.codec.spec:
        raise ParamgenError(
            f"zoo {zoo.name!r} holds other tensors than the generator takes: it is not the zoo of its fit"
        )
    if int(name) >= len(zoo):
        raise ParamgenError(f"start {name}: zoo {zoo.name!r} has networks 0 to {len(zoo) - 1}")
    return zoo[int(name)]
