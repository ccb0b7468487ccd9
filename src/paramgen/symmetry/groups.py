"""The symmetries of an architecture: which positions of which tensors belong to which hidden units."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from paramgen.core.params import ParamSpec, StateDict, state_tensors
from paramgen.errors import first_line
from paramgen.symmetry.axes import CannotAlign
from paramgen.symmetry.rules import find_rule
from paramgen.symmetry.walk import WALKS, Graph, Walker

Permutations = dict[str, Tensor]  # group -> (U,) or (K, U) int64: new unit u is old unit perm[u]


class Place(NamedTuple):
    """Where a tensor carries a group of hidden units.

    Args:
        tensor: Its name.
        axis: Which of its axes.
        start: First position on that axis.
        units: How many units, U.
        block: Neighbouring positions a unit (H*W where a convolution's map is flattened into a linear layer; the dimensions of a head
            where the units are attention heads; the channels of a group where they are groups of a convolution).
        inverted: For gauges and spaces: the tensor meets the inverse of the factors (the columns of a weight).
    """

    tensor: str
    axis: int
    start: int
    units: int
    block: int
    inverted: bool = False


class Unplaced(NamedTuple):
    """Positions of a tensor's axis that are held fixed because of an operation that is not understood."""

    tensor: str
    axis: int
    why: str


@dataclass(frozen=True)
class PermutationSpec:
    """Groups of hidden units that may change places, and what may be rescaled or turned; inputs and outputs are fixed.

    Args:
        params: The tensors it speaks of, in the order of the vectors below.
        groups: Group name (the first tensor and axis that carry it) to all its places.
        gauges: The same for rescaling: one positive factor per unit does not change the function.
        spaces: The same for turning: one invertible matrix (units, units) does not change the function. The rank of an adapter is
            one, and q with k, and v with the projection, of each attention head. What a space holds is in no gauge.
        unplaced: What is held fixed because an operation is not understood.
    """

    params: ParamSpec
    groups: Mapping[str, tuple[Place, ...]]
    gauges: Mapping[str, tuple[Place, ...]]
    spaces: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    unplaced: tuple[Unplaced, ...] = ()

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
            CannotAlign: The network cannot be traced, has complex tensors, or none of its hidden units can be placed.
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
            raise CannotAlign(f"the network cannot be traced: {first_line(error)}") from error
        order, scale, linear = (Walker(roots, free, walk, find_rule).run(program) for walk in WALKS)
        spaces = _two_sided(_places(linear, params, roots))
        gauges = {name: p for name, p in _two_sided(_places(scale, params, roots)).items() if not _within(p, spaces)}
        groups, unplaced = _places(order, params, roots), _unplaced(order, params, roots)
        if unplaced and not (groups or gauges or spaces):
            raise CannotAlign(f"no hidden units can be placed; {unplaced[0].why}")
        return cls(params, groups, gauges, spaces, unplaced)

    @cached_property
    def units(self) -> dict[str, int]:
        """Hidden units of every group."""
        return {group: places[0].units for group, places in self.groups.items()}

    @cached_property
    def stopped(self) -> dict[str, list[str]]:
        """The reasons why tensors are held fixed, and for each of them the tensors and axes: ``0.weight[0]``."""
        tensors: dict[str, list[str]] = {}
        for tensor, axis, why in self.unplaced:
            tensors.setdefault(why, []).append(f"{tensor}[{axis}]")
        return tensors

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Position of each tensor in a vector (P,)."""
        ends = list(accumulate(t.numel for t in self.params.tensors))
        return {t.name: slice(end - t.numel, end) for t, end in zip(self.params.tensors, ends, strict=True)}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor."""
        return {t.name: t.shape for t in self.params.tensors}

    @cached_property
    def nested(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Groups whose units hold spaces of their own: for each such group, tuples of spaces, one space a unit.

        An attention block's heads are a group. Each head holds two spaces, q with k and v with the projection: the positions of a unit
        have no order of their own, and what takes them for features must choose a basis first (:func:`balance_matrix` does).
        """
        inside: dict[str, tuple[tuple[str, ...], ...]] = {}
        ranges = {space: frozenset(p[:5] for p in places) for space, places in self.spaces.items()}
        names = {places: space for space, places in ranges.items()}
        for group, places in self.groups.items():
            slots = []
            for in_first_unit in ranges.values():
                carriers = [p for p in places if unit_of(p, 0) in in_first_unit]
                units = [names.get(frozenset(unit_of(p, u) for p in carriers)) for u in range(places[0].units)]
                if None not in units:
                    slots.append(tuple(unit for unit in units if unit is not None))
            if slots:
                inside[group] = tuple(slots)
        return inside

    def window(self, W: Tensor, place: Place) -> Tensor:
        """A view of the positions of one place: (K, U * block, the tensor's other axes) of (K, P)."""
        tensor = W[:, self.slices[place.tensor]].view(len(W), *self.shapes[place.tensor])
        return tensor.movedim(place.axis + 1, 1).narrow(1, place.start, place.units * place.block)

    def features(self, W: Tensor, place: Place) -> Tensor:
        """One row a unit: (K, U, F) of (K, P)."""
        window = self.window(W, place)
        return window.reshape(len(W), place.units, window.shape[1:].numel() // place.units)

    def put_(self, W: Tensor, place: Place, features: Tensor) -> None:
        """Write what :meth:`features` reads, in place."""
        window = self.window(W, place)
        window.copy_(features.reshape(window.shape))

    def permute_(self, W: Tensor, group: str, perm: Tensor, rows: Tensor | None = None) -> None:
        """Permute one group's units in place.

        Args:
            W: (K, P).
            group: Which group.
            perm: (R, U) int64; new unit u is old unit perm[u].
            rows: (R,) indices of the networks; all by default.
        """
        selected = slice(None) if rows is None else rows
        for place in self.groups[group]:
            window = self.window(W, place)
            old = window[selected]
            units = old.reshape(len(old), place.units, old.shape[1:].numel() // place.units)  # (R, U, F)
            new = units.take_along_dim(perm[:, :, None], 1)
            window[selected] = new.view(old.shape)

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

    def turn_(self, W: Tensor, space: str, turn: Tensor, rows: Tensor | None = None) -> None:
        """Turn a space by an orthogonal matrix, in place: the same function.

        Args:
            W: (K, P).
            space: Which space.
            turn: (R, U, U) orthogonal, so that it is its own inverse transposed.
            rows: (R,) indices of the networks; all by default.
        """
        selected = slice(None) if rows is None else rows
        for place in self.spaces[space]:
            window = self.window(W, place)
            old = window[selected]
            numbers = old.shape[1:].numel() // place.units
            window[selected] = (turn.to(W.dtype) @ old.reshape(len(old), place.units, numbers)).view(old.shape)

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

    def filled(self, state: Mapping[str, Tensor], row: Tensor) -> StateDict:
        """A state dict with the values of a vector (P,); tensors that `params` does not name pass through."""
        return {**state, **{k: t for k, t in self.params.unflatten(row).items() if k in state}}

    def identity(self, K: int) -> Permutations:
        """The permutations that change nothing, (K, U) a group."""
        return {group: torch.arange(units).repeat(K, 1) for group, units in self.units.items()}


def _places(graph: Graph, params: ParamSpec, roots: Mapping[str, str]) -> dict[str, tuple[Place, ...]]:
    by_group: dict[int, list[Place]] = {}
    for tensor in params.tensors:
        for axis, segments in enumerate(graph.axes.get(roots.get(tensor.name, tensor.name), ())):
            start = 0
            for s in segments:
                if not s.fixed:
                    by_group.setdefault(s.group, []).append(Place(tensor.name, axis, start, s.units, s.block, s.dual))
                start += s.length
    return {_name(places[0]): tuple(places) for places in by_group.values()}


def _name(place: Place) -> str:
    return f"{place.tensor}[{place.axis}]" + (f"+{place.start}" if place.start else "")


def _unplaced(graph: Graph, params: ParamSpec, roots: Mapping[str, str]) -> tuple[Unplaced, ...]:
    return tuple(
        Unplaced(t.name, axis, "; ".join(why))
        for t in params.tensors
        for axis, why in graph.stopped.get(roots.get(t.name, t.name), {}).items()
    )


def _two_sided(places: Mapping[str, tuple[Place, ...]]) -> dict[str, tuple[Place, ...]]:
    """Those with both an upright and an inverted place: one side alone cannot be balanced."""
    return {name: gauge_places for name, gauge_places in places.items() if len({p.inverted for p in gauge_places}) == 2}


def _within(gauge: Sequence[Place], spaces: Mapping[str, Sequence[Place]]) -> bool:
    """Whether a gauge is part of a space: factors are matrices with a diagonal alone."""
    p = gauge[0]
    return any(
        (q.tensor, q.axis) == (p.tensor, p.axis) and q.start <= p.start < q.start + q.units * q.block
        for places in spaces.values()
        for q in places
    )


def unit_of(place: Place, unit: int) -> tuple[str, int, int, int, int]:
    """Tensor, axis, start, units and block of a space that is one unit of a group."""
    return (place.tensor, place.axis, place.start + unit * place.block, place.block, 1)


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
