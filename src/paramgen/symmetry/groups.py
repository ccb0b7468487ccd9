"""The symmetries of an architecture: which positions of which tensors belong to which hidden units."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from paramgen.core.params import ParamSpec, StateDict, state_tensors
from paramgen.symmetry.axes import FIXED, CannotAlign
from paramgen.symmetry.rules import find_rule
from paramgen.symmetry.walk import Graph, Walker

Permutations = dict[str, Tensor]  # group -> (U,) or (K, U) int64: new unit u is old unit perm[u]


class Place(NamedTuple):
    """Where a tensor carries a group of hidden units.

    Args:
        tensor: Its name.
        axis: Which of its axes.
        start: First position on that axis.
        units: How many units, U.
        block: Neighbouring positions a unit (H*W where a convolution's map is flattened into a linear layer).
        inverted: For gauges: the tensor is divided by the units' factors (the columns of a weight), not multiplied.
    """

    tensor: str
    axis: int
    start: int
    units: int
    block: int
    inverted: bool = False


@dataclass(frozen=True)
class PermutationSpec:
    """Groups of hidden units that may change places, and gauges that may be rescaled; inputs and outputs are fixed.

    Args:
        params: The tensors it speaks of, in the order of the vectors below.
        groups: Group name (the first tensor and axis that carry it) to all its places.
        gauges: The same for rescaling: one positive factor per unit does not change the function.
    """

    params: ParamSpec
    groups: Mapping[str, tuple[Place, ...]]
    gauges: Mapping[str, tuple[Place, ...]]

    @classmethod
    def of(
        cls, network: nn.Module, example_input: Tensor | tuple[Tensor, ...], params: ParamSpec | None = None
    ) -> Self:
        """Read the symmetries from the network's graph.

        Args:
            network: Any module; it is not changed.
            example_input: A small batch of its input, or its inputs.
            params: The tensors that may change (a zoo's ``spec``), by default all floating ones; the others are held fixed.

        Raises:
            CannotAlign: The network cannot be traced, mixes its hidden units, or has complex tensors.
        """
        tied = ParamSpec.of(network).aliases
        roots = {name: tied.get(name, name) for name in state_tensors(network)}
        params = params or ParamSpec.of(network)
        if numbers := [t.name for t in params.tensors if t.torch_dtype.is_complex]:
            raise CannotAlign(f"{numbers[0]!r} is complex")
        free = {roots.get(t.name, t.name) for t in params.tensors}
        example = example_input if isinstance(example_input, tuple) else (example_input,)
        try:
            program = torch.export.export(copy.deepcopy(network).eval(), example, strict=False)
        except Exception as error:  # the exporter passes on any error of the network's own code
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CannotAlign(f"the network cannot be traced: {first_line}") from error
        order = Walker(roots, free, "permutation", find_rule).run(program)
        scale = Walker(roots, free, "scale", find_rule).run(program)
        return cls(params, _places(order, params, roots), _gauges(_places(scale, params, roots)))

    @cached_property
    def units(self) -> dict[str, int]:
        """Hidden units of every group."""
        return {group: places[0].units for group, places in self.groups.items()}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Position of each tensor in a vector (P,)."""
        ends = list(accumulate(t.numel for t in self.params.tensors))
        return {t.name: slice(end - t.numel, end) for t, end in zip(self.params.tensors, ends, strict=True)}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor."""
        return {t.name: t.shape for t in self.params.tensors}

    def window(self, W: Tensor, place: Place) -> Tensor:
        """A view of the positions of one place: (K, U * block, the tensor's other axes) of (K, P)."""
        tensor = W[:, self.slices[place.tensor]].view(len(W), *self.shapes[place.tensor])
        return tensor.movedim(place.axis + 1, 1).narrow(1, place.start, place.units * place.block)

    def features(self, W: Tensor, place: Place) -> Tensor:
        """One row a unit: (K, U, F) of (K, P)."""
        return self.window(W, place).reshape(len(W), place.units, -1)

    def permute_(self, W: Tensor, group: str, perm: Tensor, rows: Tensor | None = None) -> None:
        """Permute one group's units in place.

        Args:
            W: (K, P).
            group: Which group.
            perm: (R, U) int64; new unit u is old unit perm[u].
            rows: (R,) the networks meant; all by default.
        """
        chosen = slice(None) if rows is None else rows
        for place in self.groups[group]:
            window = self.window(W, place)
            old = window[chosen]
            units = old.reshape(len(old), place.units, old.shape[1:].numel() // place.units)  # (R, U, F)
            new = units.take_along_dim(perm[:, :, None], 1)
            window[chosen] = new.view(old.shape)

    def rescale_(self, W: Tensor, gauge: str, factor: Tensor) -> None:
        """Multiply each unit's input weights by a factor and divide its output weights by it, in place: the same function.

        Args:
            W: (K, P).
            gauge: Which gauge.
            factor: (K, U), above 0.
        """
        for place in self.gauges[gauge]:
            by = (1 / factor if place.inverted else factor).repeat_interleave(place.block, 1)  # (K, U * block)
            window = self.window(W, place)
            window.mul_(by.view(*by.shape, *[1] * (window.ndim - 2)))

    def apply(self, state: Mapping[str, Tensor], perms: Mapping[str, Tensor]) -> StateDict:
        """One network with its units in another order: the same function, bit for bit the same numbers.

        Args:
            state: Its tensors; those that `params` does not name pass through.
            perms: (U,) int64 for some or all groups; new unit u is old unit perm[u].
        """
        out = dict(state)
        for group, perm in perms.items():
            for place in self.groups[group]:
                index = torch.arange(self.shapes[place.tensor][place.axis])
                moved = perm[:, None] * place.block + torch.arange(place.block)  # (U, block)
                index[place.start : place.start + moved.numel()] = place.start + moved.flatten()
                tensor = out[place.tensor]
                out[place.tensor] = tensor.index_select(place.axis, index.to(tensor.device))
        tied = {name: out[root] for name, root in self.params.aliases.items() if name in state}
        return out | tied

    def identity(self, K: int) -> Permutations:
        """The permutations that change nothing, (K, U) a group."""
        return {group: torch.arange(units).repeat(K, 1) for group, units in self.units.items()}


def _places(graph: Graph, params: ParamSpec, roots: Mapping[str, str]) -> dict[str, tuple[Place, ...]]:
    found: dict[int, list[Place]] = {}
    for tensor in params.tensors:
        root = roots.get(tensor.name, tensor.name)
        for axis, segments in enumerate(graph.axes.get(root, ())):
            start = 0
            for s in segments:
                if s.group != FIXED:
                    inverted = axis in graph.inverted[root]
                    found.setdefault(s.group, []).append(Place(tensor.name, axis, start, s.units, s.block, inverted))
                start += s.length
    return {_name(places[0]): tuple(places) for places in found.values()}


def _name(place: Place) -> str:
    return f"{place.tensor}[{place.axis}]" + (f"+{place.start}" if place.start else "")


def _gauges(places: Mapping[str, tuple[Place, ...]]) -> dict[str, tuple[Place, ...]]:
    """Those with both an upright and an inverted place: with one side alone there is nothing to balance."""
    return {name: found for name, found in places.items() if len({p.inverted for p in found}) == 2}


def stack(states: Sequence[Mapping[str, Tensor]], spec: PermutationSpec) -> Tensor:
    """State dicts as one matrix (K, P) float32."""
    return spec.params.flatten_many(states)


def pick(perms: Mapping[str, Tensor], k: int) -> Permutations:
    """The permutations of network k, (U,) a group, of (K, U)."""
    return {group: perm[k] for group, perm in perms.items()}


def coupled(groups: Mapping[str, Iterable[Place]]) -> dict[str, set[str]]:
    """For each group those that meet it on another axis of a tensor; itself, if it is on two axes of one."""
    on: dict[str, list[tuple[str, int]]] = {}
    for group, places in groups.items():
        for place in places:
            on.setdefault(place.tensor, []).append((group, place.axis))
    return {
        group: {other for p in places for other, axis in on[p.tensor] if axis != p.axis}
        for group, places in groups.items()
    }
