"""Where the numbers of a network lie in its graph of hidden units.

Every number of a network belongs to one unit (an entry of a bias, a weight that joins the unit to a fixed input or output), to a pair of
units of two layers (a weight between them), or to no unit (a bias of an output). This splits a vector of P numbers accordingly and puts it
together again; permuting the units of a network permutes the rows of the parts and nothing else.

B: networks. P: generated parameters. U: units of a group. F: numbers of a unit. C: numbers of a pair. R: numbers of no unit.
"""

import math
import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from paramgen.errors import ParamgenError, require_positive
from paramgen.symmetry.axes import CannotAlign
from paramgen.symmetry.groups import PermutationSpec, Place


class UnitParts(NamedTuple):
    """The numbers of some networks, by what they belong to."""

    units: list[Tensor]  # of each group (B, U, F)
    pairs: list[Tensor]  # of each pair of groups (B, U, V, C)
    rest: Tensor  # (B, R)


class PairShape(NamedTuple):
    """Which groups a field of pairs joins, and numbers a pair."""

    first: int
    second: int
    channels: int


class UnitLayout(nn.Module):
    """Splits vectors of P numbers by hidden unit, and joins them again.

    Args:
        shapes: Every generated tensor and its shape, in the order of the vector.
        groups: Of a :class:`PermutationSpec`: each group's places.

    Raises:
        CannotAlign: A tensor has three or more axes of hidden units.
        ParamgenError: Places that are empty or overlap.
    """

    order: Tensor  # (P,) where the numbers of the parts lie in the vector
    inverse: Tensor  # (P,)

    def __init__(self, shapes: Mapping[str, Sequence[int]], groups: Mapping[str, Sequence[Place]]) -> None:
        super().__init__()
        self.shapes = {name: tuple(map(operator.index, shape)) for name, shape in shapes.items()}
        self.groups = {name: tuple(Place(*place) for place in places) for name, places in groups.items()}
        # the size comes first: a checkpoint whose shapes hold more numbers than its weights is refused before they are laid out
        self.register_buffer("order", torch.empty(sum(map(math.prod, self.shapes.values())), dtype=torch.long), False)
        self._placed = self._places_by_axis()
        units: dict[int, list[Tensor]] = {g: [] for g in range(len(self.groups))}
        pairs: dict[tuple[int, int], list[Tensor]] = {}
        rest: list[Tensor] = []
        start = 0
        for name, shape in self.shapes.items():
            numbers = torch.arange(start, start + torch.Size(shape).numel()).view(shape)
            start += numbers.numel()
            for joined, piece in self._pieces(name, numbers):
                if not joined:
                    rest.append(piece.flatten())
                elif len(joined) == 1:
                    units[joined[0]].append(piece.flatten(1))
                elif len(joined) == 2:
                    first, second = sorted(joined)
                    piece = piece if joined == (first, second) else piece.transpose(0, 1)
                    pairs.setdefault((first, second), []).append(piece.flatten(2))
                else:
                    raise CannotAlign(f"{name!r} has {len(joined)} axes of hidden units, expected 2 at most")
        self._units = [torch.cat(parts, 1) for parts in units.values()]
        self._pairs = [torch.cat(parts, 2) for parts in pairs.values()]
        self._rest = torch.cat(rest) if rest else torch.zeros(0, dtype=torch.long)
        self.pair_groups = list(pairs)
        self.order = torch.cat([part.flatten() for part in (*self._units, *self._pairs, self._rest)])
        self.register_buffer("inverse", self.order.argsort(), persistent=False)

    @classmethod
    def of(cls, spec: PermutationSpec) -> Self:
        """The layout of an architecture whose symmetries are known.

        Raises:
            CannotAlign: As the class; or units that hold groups of their own, as attention heads do.
        """
        if spec.nested:
            raise CannotAlign(f"the units of {next(iter(spec.nested))!r} are groups themselves, as attention heads are")
        return cls(spec.shapes, spec.groups)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(dict(saved["shapes"]), dict(saved["groups"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, for a checkpoint."""
        return {
            "shapes": [[name, list(shape)] for name, shape in self.shapes.items()],
            "groups": [[name, [list(place) for place in places]] for name, places in self.groups.items()],
        }

    @property
    def size(self) -> int:
        """P, numbers of a network."""
        return len(self.order)

    @property
    def unit_shapes(self) -> list[tuple[int, int]]:
        """Units and numbers a unit, (U, F), of each group."""
        return [(len(index), index.shape[1]) for index in self._units]

    @property
    def pair_shapes(self) -> list[PairShape]:
        """Of each field of pairs."""
        return [PairShape(*groups, index.shape[2]) for groups, index in zip(self.pair_groups, self._pairs, strict=True)]

    @property
    def rest_size(self) -> int:
        """R, numbers that belong to no unit."""
        return len(self._rest)

    def split(self, x: Tensor) -> UnitParts:
        """The parts of networks (B, P)."""
        ordered, parts, start = x[:, self.order], list[Tensor](), 0
        for index in (*self._units, *self._pairs, self._rest):
            parts.append(ordered[:, start : start + index.numel()].view(len(x), *index.shape))
            start += index.numel()
        count = len(self._units)
        return UnitParts(parts[:count], parts[count:-1], parts[-1])

    def join(self, parts: UnitParts) -> Tensor:
        """Networks (B, P) from their parts."""
        rows = [part.flatten(1) for part in (*parts.units, *parts.pairs, parts.rest)]
        return torch.cat(rows, 1)[:, self.inverse]

    def mean_over_units(self, x: Tensor) -> Tensor:
        """Networks (B, P) whose numbers are their mean over the units of a group, or the pairs of two: the same after any permutation."""
        units, pairs, rest = self.split(x)
        return self.join(
            UnitParts(
                [part.mean(1, keepdim=True).expand_as(part) for part in units],
                [part.mean((1, 2), keepdim=True).expand_as(part) for part in pairs],
                rest,
            )
        )

    def _pieces(self, name: str, numbers: Tensor) -> list[tuple[tuple[int, ...], Tensor]]:
        """Which groups meet in each piece of a tensor, and its numbers: axes of units first, (U, V, ..., rest)."""
        axes = [self._segments(name, axis, size) for axis, size in enumerate(numbers.shape)]
        pieces = []
        for segments in product(*axes):
            piece, joined, dims, dim = numbers, list[int](), list[int](), 0
            for group, start, count, block in segments:
                piece = piece.narrow(dim, start, count * block)
                if group is not None:
                    piece = piece.unflatten(dim, (count, block))
                    joined.append(group)
                    dims.append(dim)
                    dim += 1
                dim += 1
            pieces.append((tuple(joined), piece.movedim(dims, list(range(len(dims))))))
        return pieces

    def _places_by_axis(self) -> dict[tuple[str, int], list[tuple[int, int, int, int]]]:
        """For each tensor and axis with hidden units: first position, group, units and positions a unit, in order."""
        found: dict[tuple[str, int], list[tuple[int, int, int, int]]] = defaultdict(list)
        for g, (name, places) in enumerate(self.groups.items()):
            for place in places:
                require_positive(f"group {name!r}: ", units=place.units, block=place.block)
                found[place.tensor, place.axis].append((place.start, g, place.units, place.block))
        for (name, axis), placed in found.items():
            placed.sort()
            if any(start + units * block > after for (start, _, units, block), (after, *_) in pairwise(placed)):
                raise ParamgenError(f"hidden units overlap on axis {axis} of {name!r}")
        return found

    def _segments(self, name: str, axis: int, size: int) -> list[tuple[int | None, int, int, int]]:
        """An axis as a row of segments: group or None, first position, units, positions a unit."""
        segments: list[tuple[int | None, int, int, int]] = []
        end = 0
        for start, group, units, block in self._placed.get((name, axis), []):
            if start > end:
                segments.append((None, end, start - end, 1))
            segments.append((group, start, units, block))
            end = start + units * block
        return [*segments, (None, end, size - end, 1)] if end < size else segments
