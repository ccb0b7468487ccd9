"""What an axis of a tensor is made of, and the unification that ties axes together.

An axis is a row of segments. A segment holds `units` hidden units of one group, each unit `block` neighbouring positions wide
(a convolution's map flattened into a linear layer has one block of H*W columns a channel); positions of no group stay where they are.
Two axes that a network uses as one must carry the same groups in the same places: :meth:`Groups.unify` makes them so, by substitution
as in Prolog, or says why that cannot be.
"""

from collections.abc import Sequence
from math import lcm
from typing import NamedTuple

from paramgen.errors import ParamgenError

FIXED = -1


class CannotAlign(ParamgenError):  # noqa: N818 - read as a sentence where it is caught
    """The network's hidden units cannot be identified from its graph. Callers compare raw weights and report it."""


class Segment(NamedTuple):
    """Some positions of an axis.

    Args:
        group: Which group of hidden units they belong to; ``FIXED`` for none.
        units: How many units.
        block: Positions a unit.
    """

    group: int
    units: int
    block: int = 1

    @property
    def length(self) -> int:
        """Positions in all."""
        return self.units * self.block


Axis = tuple[Segment, ...]


def fixed(size: int) -> Axis:
    """An axis whose positions stay where they are."""
    return (Segment(FIXED, size),) if size else ()


def is_fixed(axis: Axis) -> bool:
    """Whether a resolved axis holds no group."""
    return all(s.group == FIXED for s in axis)


def length(axis: Axis) -> int:
    """Positions of an axis."""
    return sum(s.length for s in axis)


class Groups:
    """Groups of hidden units, each free or bound to an axis of other groups."""

    def __init__(self) -> None:
        self._bound: list[Axis | None] = []

    def fresh(self, size: int) -> Axis:
        """An axis of `size` units that nothing else carries yet; one unit alone has nowhere to go and is fixed."""
        if size < 2:
            return fixed(size)
        self._bound.append(None)
        return (Segment(len(self._bound) - 1, size),)

    def resolve(self, axis: Sequence[Segment]) -> Axis:
        """The axis in terms of free groups, neighbouring fixed positions joined."""
        out: list[Segment] = []
        for part in self._flat(axis):
            if part.group == FIXED and out and out[-1].group == FIXED:
                out[-1] = Segment(FIXED, out[-1].units + part.units)
            else:
                out.append(part)
        return tuple(out)

    def freeze(self, axis: Axis) -> None:
        """Let every position of an axis stay where it is."""
        for segment in self.resolve(axis):
            if segment.group != FIXED:
                self._bound[segment.group] = fixed(segment.units)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Make two axes carry the same groups in the same places.

        Returns:
            The common axis.

        Raises:
            CannotAlign: Their lengths or the borders of their units do not meet.
        """
        if length(a) != length(b):
            raise CannotAlign(f"an axis of {length(a)} positions is used as one of {length(b)}")
        left, right = self._flat(a), self._flat(b)
        while left:
            s, t = left[0], right[0]
            if s == t:
                left, right = left[1:], right[1:]
            elif s.length > t.length:
                left = self._cut(left, t.length)
            elif t.length > s.length:
                right = self._cut(right, s.length)
            else:
                self._tie(s, t)
            left, right = self._flat(left), self._flat(right)
        return self.resolve(a)

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """Pieces of an axis; a group that a border runs through becomes two."""
        pieces = []
        for size in sizes:
            piece: Axis = ()
            while (missing := size - length(piece)) > 0:
                axis = self._flat(axis)
                if axis[0].length > missing:
                    axis = self._cut(axis, missing)
                piece, axis = (*piece, axis[0]), axis[1:]
            pieces.append(piece)
        return [self.resolve(piece) for piece in pieces]

    def _flat(self, axis: Sequence[Segment]) -> Axis:
        return tuple(part for segment in axis for part in self._expand(segment))

    def _expand(self, segment: Segment) -> Axis:
        if segment.group == FIXED:
            return (Segment(FIXED, segment.length),)
        bound = self._bound[segment.group]
        if bound is None:
            return (segment,)
        return self._flat([Segment(s.group, s.units, s.block * segment.block) for s in bound])

    def _cut(self, axis: Axis, at: int) -> Axis:
        """The same axis with a border `at` positions into its first segment."""
        first, rest = axis[0], axis[1:]
        if first.group == FIXED:
            return (Segment(FIXED, at), Segment(FIXED, first.length - at), *rest)
        units, cuts_a_unit = divmod(at, first.block)
        if cuts_a_unit:
            raise CannotAlign(f"a border runs through units of {first.block} positions")
        head, tail = self.fresh(units), self.fresh(first.units - units)
        self._bound[first.group] = head + tail
        return tuple(Segment(s.group, s.units, first.block) for s in head + tail) + rest

    def _tie(self, s: Segment, t: Segment) -> None:
        """Make two different segments of one length the same."""
        if s.group == FIXED or t.group == FIXED:
            self.freeze((s, t))
            return
        block = lcm(s.block, t.block)  # the smallest unit in which both can move
        common = self.fresh(s.length // block)
        for segment in (s, t):
            self._bound[segment.group] = tuple(Segment(c.group, c.units, block // segment.block) for c in common)
