"""Select which tensors of a network are generated: by glob, by regular expression, or by the papers' subsets."""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from paramgen.core.params import can_be_generated, state_tensors
from paramgen.errors import ParamgenError, did_you_mean

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def select_tensors(network: nn.Module | Mapping[str, Tensor], patterns: Sequence[str]) -> list[str]:
    """Names of the selected tensors, floating or complex, in the order of the state dict.

    Args:
        network: The network, or its state dict where its class is not known; subsets but ``all`` need the network.
        patterns: Each a glob on the names of the state dict (``layer4.*``), ``re:`` with a regular expression that the whole name
            matches, or a subset: one of :data:`SUBSETS`.

    Raises:
        ParamgenError: No patterns, one that selects nothing (similar names are listed), or an invalid regular expression.
    """
    state = state_tensors(network) if isinstance(network, nn.Module) else network
    names = [name for name, tensor in state.items() if can_be_generated(tensor)]
    if not patterns:
        raise ParamgenError(f"no parameters selected; give globs, re:… or a subset: {', '.join(SUBSETS)}")
    selected: set[str] = set()
    for pattern in patterns:
        matched = _subset(pattern, network, names) if pattern in SUBSETS else _match(pattern, names)
        if not matched:
            raise ParamgenError(
                f"Parameter pattern {pattern!r} matches nothing. {did_you_mean(pattern, [*names, *SUBSETS])}"
            )
        selected.update(matched)
    return [name for name in names if name in selected]


def _subset(name: str, network: nn.Module | Mapping[str, Tensor], names: list[str]) -> list[str]:
    if name == "all":
        return names
    if not isinstance(network, nn.Module):
        raise ParamgenError(
            f"subset {name!r} needs a task, which says which layers there are; give names or globs instead"
        )
    return SUBSETS[name](network, names)


def _match(pattern: str, names: list[str]) -> list[str]:
    if not pattern.startswith("re:"):
        return [name for name in names if fnmatchcase(name, pattern)]
    try:
        expression = re.compile(pattern.removeprefix("re:"))
    except re.error as error:
        raise ParamgenError(f"parameter pattern {pattern!r} is not a valid regular expression: {error}") from error
    return [name for name in names if expression.fullmatch(name)]


def _under(modules: Sequence[str], names: list[str], affine_only: bool = False) -> list[str]:
    last = ("weight", "bias")
    return [n for n in names if n.rpartition(".")[0] in modules and (not affine_only or n.rpartition(".")[2] in last)]


def _norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, NORMS)]


def _classifier(network: nn.Module, names: list[str]) -> list[str]:
    """The last module that has a weight matrix."""
    heads = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return _under(heads[-1:], names)


SUBSETS: dict[str, Callable[[nn.Module, list[str]], list[str]]] = {
    "all": lambda _, names: names,
    "norms": lambda network, names: _under(_norms(network), names),
    "last_two_norms": lambda network, names: _under(_norms(network)[-2:], names, affine_only=True),
    "classifier": _classifier,
}
"""Subsets by name. ``norms`` are all normalisation layers with their statistics, ``last_two_norms`` the weights and biases of the last two
(p-diff's 2,048 numbers of ResNet-18), whose statistics then do not change."""
