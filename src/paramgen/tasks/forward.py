"""Run a network under other weights: the only place where this is done.

Weights are what the network's own ``load_state_dict`` makes of them: its tensors, in its dtypes, tied ones shared. Images come in the
dtype of the network's parameters. Attention layers run by their definition: torch's fused kernels of evaluation have no gradients.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.func import functional_call

from paramgen.core.params import COUNTER, REAL, StateDict, last_part, state_tensors, tied_names


def loadable(network: nn.Module, state: Mapping[str, Tensor], device: torch.device | str | None = None) -> StateDict:
    """A complete state dict as the network takes it: every tensor once, under its first name and in the network's dtype.

    Args:
        network: The architecture.
        state: Its state dict, or several stacked, each tensor (N, ...). Batch norm's counters may be missing, and so may all
            names of a tied tensor but one.
        device: Where the tensors go; they stay where they are when not given.

    Raises:
        ValueError: A tensor is missing.
    """
    return all_loadable(network, [state], device)[0]


def all_loadable(
    network: nn.Module, states: Sequence[Mapping[str, Tensor]], device: torch.device | str | None = None
) -> list[StateDict]:
    """As :func:`loadable`, of N state dicts: the network is read once."""
    firsts, own = tied_names(network), state_tensors(network)
    names = list(dict.fromkeys(firsts[name] for name in own))

    def taken(state: Mapping[str, Tensor]) -> StateDict:
        given = {firsts[name]: state[name] for name in reversed(own) if name in state}
        if missing := [name for name in names if name not in given and last_part(name) != COUNTER]:
            raise ValueError(f"the state dict lacks {missing[0]!r}; expected a complete one")
        tensors = {name: given.get(name, own[name]) for name in names}
        return {name: tensor.to(device or tensor.device, own[name].dtype) for name, tensor in tensors.items()}

    return [taken(state) for state in states]


class Caller:
    """Runs a network under other weights, many times: what the network is made of is read once and must not change meanwhile.

    Args:
        network: The architecture, in the mode that it will run in.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        modules = {name for name, _ in network.named_modules()}
        # a module that occurs under two names is given its tensors once: given twice, functional_call does not put its own ones back
        self._firsts = {
            name: first for name, first in tied_names(network).items() if name.rpartition(".")[0] in modules
        }
        self._dtype = next((p.dtype for p in network.parameters() if p.dtype in REAL), None)

    def __call__(self, state: Mapping[str, Tensor], x: Tensor, *more: Tensor) -> Tensor:
        """What the network returns; its own weights do not change.

        Args:
            state: What :func:`loadable` returns.
            x: Images (B, ...).
            *more: Further inputs, such as targets (B, ...).
        """
        tensors = {name: state[first] for name, first in self._firsts.items() if first in state}
        with _attention_by_definition():
            outputs: Tensor = functional_call(self.network, tensors, (self._in_dtype(x), *more), tie_weights=False)
            return outputs

    def _in_dtype(self, x: Tensor) -> Tensor:
        return x if self._dtype is None or not x.is_floating_point() else x.to(self._dtype)


def call(network: nn.Module, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What a network returns under other weights, once; see :class:`Caller`."""
    return Caller(network)(state, x)


@contextmanager
def _attention_by_definition() -> Iterator[None]:
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)
