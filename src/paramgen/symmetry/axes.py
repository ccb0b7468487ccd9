"""The structure of a tensor's axes, and the unification that ties axes together.

An axis is a row of segments. A segment holds `units` hidden units of one group, each unit `block` neighbouring positions wide
(a convolution's map flattened into a linear layer has one block of H*W columns a channel); positions of no group stay where they are.
Two axes that a network uses as one must carry the same groups in the same places: :meth:`Groups.unify` makes them so, by substitution
as in Prolog, or says why that cannot be.

Where factors are looked for (a number a unit, or a matrix a group) an axis may carry the inverse of a group's factors: the columns of a
weight undo what the rows of the weight before did. Such a segment is `dual`.

Slices of a tensor may carry groups of their own: q, k and v that are cut from one axis, or attention heads. Then the axis of slices
is an *index*, its positions stay where they are, and another axis is *sliced*: it carries another axis at each position of the index.
"""

from collections.abc import Callable, Sequence
from math import lcm
from typing import NamedTuple

from paramgen.errors import ParamgenError

FIXED = -1


class CannotAlign(ParamgenError):  # noqa: N818 - read as a sentence where it is caught
    """The network's hidden units cannot be identified from its graph. Callers compare raw weights and report it."""


class Segment(NamedTuple):
    """Some positions of an axis.

    Args:
        group: Which group of hidden units they belong to. Below 0 for none: ``FIXED``, or a number of :meth:`Groups.reason`.
        units: How many units.
        block: Positions a unit.
        dual: Whether the axis carries the inverse of the group's factors.
    """

    group: int
    units: int
    block: int = 1
    dual: bool = False

    @property
    def length(self) -> int:
        """Positions in all."""
        return self.units * self.block

    @property
    def fixed(self) -> bool:
        """Whether its positions stay where they are."""
        return self.group < 0


Axis = tuple[Segment, ...]


def fixed(size: int, why: int = FIXED) -> Axis:
    """An axis whose positions stay where they are."""
    return (Segment(why, size),) if size else ()


def is_fixed(axis: Axis) -> bool:
    """Whether a resolved axis holds no group."""
    return all(s.fixed for s in axis)


def length(axis: Axis) -> int:
    """Positions of an axis."""
    return sum(s.length for s in axis)


class _Sliced(NamedTuple):
    """The index that an axis varies along, and what it carries at each position."""

    along: int
    axes: tuple[Axis, ...]


class Groups:
    """Groups of hidden units, each free or bound to an axis of other groups.

    Args:
        factors: Whether they carry factors, so that a group and its dual differ, or an order, so that they do not.
    """

    def __init__(self, factors: bool = False) -> None:
        self.factors = factors
        self.reasons: list[str] = []
        self._bound: list[Axis | None] = []
        self._indices: set[int] = set()
        self._sliced: dict[int, _Sliced] = {}

    def fresh(self, size: int) -> Axis:
        """An axis of `size` units that nothing else carries yet; one unit alone has nowhere to go and is fixed.

        One unit alone has a factor, though.
        """
        if size < (1 if self.factors else 2):
            return fixed(size)
        self._bound.append(None)
        return (Segment(len(self._bound) - 1, size),)

    def reason(self, text: str) -> int:
        """The number of a reason why positions are fixed, for :meth:`freeze` and :func:`fixed`."""
        if text not in self.reasons:
            self.reasons.append(text)
        return FIXED - 1 - self.reasons.index(text)

    def why(self, axis: Axis) -> list[str]:
        """The reasons why positions of an axis are fixed, other than that they meet the network's inputs or outputs."""
        numbers = dict.fromkeys(s.group for s in self.resolve(axis) if s.group < FIXED)
        return [self.reasons[FIXED - 1 - number] for number in numbers]

    def dual(self, axis: Axis) -> Axis:
        """The axis that undoes this one's factors; the same axis if it has no factors."""
        return tuple(s._replace(dual=not s.dual) for s in axis) if self.factors else axis

    def resolve(self, axis: Sequence[Segment]) -> Axis:
        """The axis in terms of free groups, neighbouring fixed positions joined."""
        out: list[Segment] = []
        for part in self._flat(axis):
            if part.fixed and out and out[-1].group == part.group:
                out[-1] = Segment(part.group, out[-1].units + part.units)
            else:
                out.append(part)
        return tuple(out)

    def freeze(self, axis: Axis, why: int = FIXED) -> None:
        """Let every position of an axis stay where it is."""
        for segment in self.resolve(axis):
            if segment.fixed or segment.group in self._indices:
                continue
            sliced = self._sliced.get(segment.group)
            self._bound[segment.group] = fixed(segment.units, why)
            for each in sliced.axes if sliced else ():
                self.freeze(each, why)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Make two axes carry the same groups in the same places.

        Returns:
            The common axis.

        Raises:
            CannotAlign: Their lengths or the borders of their units do not meet.
        """
        if length(a) != length(b):
            raise CannotAlign(f"an axis of {length(a)} positions is used as one of {length(b)}")
        segments_a, segments_b = self._flat(a), self._flat(b)
        while segments_a:
            s, t = segments_a[0], segments_b[0]
            if s.length > t.length:
                segments_a = self._cut(segments_a, t.length)
            elif t.length > s.length:
                segments_b = self._cut(segments_b, s.length)
            else:
                if s != t:
                    self._tie(s, t)
                segments_a, segments_b = segments_a[1:], segments_b[1:]
            segments_a, segments_b = self._flat(segments_a), self._flat(segments_b)
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

    def coarsen(self, segment: Segment, block: int) -> Segment:
        """The same positions as units of `block` positions, each of which moves as a whole.

        Raises:
            CannotAlign: The borders of the units do not meet.
        """
        per, remainder = divmod(block, segment.block)
        if remainder or segment.units % per:
            raise CannotAlign(f"{segment.units} units of {segment.block} positions are used as units of {block}")
        coarse = self.fresh(segment.units // per)
        self._bound[segment.group] = tuple(s._replace(block=s.block * per) for s in coarse)
        (merged,) = self.resolve((segment,))
        return merged

    def slices(self, pieces: Sequence[Axis]) -> tuple[Axis, Axis]:
        """An index, and an axis that carries another one of some pieces at each of its positions."""
        index = self._new(len(pieces))
        self._indices.add(index)
        return (Segment(index, len(pieces)),), self._varying(index, pieces)

    def for_each_slice(self, axis: Axis, split: Callable[[Axis], tuple[Axis, Axis]]) -> tuple[Axis, Axis] | None:
        """A sliced axis split in two, slice by slice; ``None`` for an axis that is not sliced."""
        sliced = self._sliced.get(axis[0].group) if len(axis) == 1 and axis[0].block == 1 else None
        if sliced is None:
            return None
        outer, inner = zip(*(split(piece) for piece in self._pieces(axis[0], sliced)), strict=True)
        return self._varying(sliced.along, outer), self._varying(sliced.along, inner)

    def at(self, axis: Axis, index: Axis, position: int) -> Axis:
        """What an axis carries in the slice at one position of an index."""
        (index_segment,) = self._flat(index)
        out: Axis = ()
        for segment in self._flat(axis):
            sliced = self._sliced.get(segment.group)
            meant = sliced and self._flat((Segment(sliced.along, index_segment.units),)) == (index_segment,)
            if sliced and meant and segment.block == 1:
                out += self._pieces(segment, sliced)[position]
            else:
                out += (segment,)
        return out

    def index_of(self, axis: Axis) -> int | None:
        """The number of the index that an axis is, or repeats."""
        groups = {(s.group, s.block) for s in self._flat(axis)}
        group, block = next(iter(groups), (FIXED, 1))
        return group if len(groups) == 1 and block == 1 and group in self._indices else None

    def varies_along(self, axis: Axis) -> set[int]:
        """The numbers of the indices that an axis varies along."""
        slices = (self._sliced.get(s.group) for s in self._flat(axis)) if self._sliced else ()
        return {self._flat((Segment(sliced.along, 1),))[0].group for sliced in slices if sliced}

    def _new(self, size: int) -> int:
        self._bound.append(None)
        return len(self._bound) - 1

    def _varying(self, index: int, pieces: Sequence[Axis]) -> Axis:
        resolved = [self.resolve(p) for p in pieces]
        if all(is_fixed(p) for p in resolved) or all(p == resolved[0] for p in resolved):
            return resolved[0]
        number = self._new(length(resolved[0]))
        self._sliced[number] = _Sliced(index, tuple(pieces))
        return (Segment(number, length(resolved[0])),)

    def _pieces(self, segment: Segment, sliced: _Sliced) -> list[Axis]:
        return [self.dual(axis) if segment.dual else axis for axis in sliced.axes]

    def _flat(self, axis: Sequence[Segment]) -> Axis:
        return tuple(part for segment in axis for part in self._expand(segment))

    def _expand(self, segment: Segment) -> Axis:
        if segment.fixed:
            return (Segment(segment.group, segment.length),)
        bound = self._bound[segment.group]
        if bound is None:
            return (segment,)
        return self._flat([Segment(s.group, s.units, s.block * segment.block, s.dual ^ segment.dual) for s in bound])

    def _cut(self, axis: Axis, at: int) -> Axis:
        """The same axis with a border `at` positions into its first segment."""
        first, rest = axis[0], axis[1:]
        if first.group in self._indices or first.group in self._sliced:
            self.freeze((first,))
            first = Segment(FIXED, first.length)
        if first.fixed:
            return (Segment(first.group, at), Segment(first.group, first.length - at), *rest)
        units, cuts_a_unit = divmod(at, first.block)
        if cuts_a_unit:
            raise CannotAlign(f"a border runs through units of {first.block} positions")
        head, tail = self.fresh(units), self.fresh(first.units - units)
        self._bound[first.group] = head + tail
        return tuple(Segment(s.group, s.units, first.block, first.dual) for s in head + tail) + rest

    def _tie(self, s: Segment, t: Segment) -> None:
        """Make two different segments of one length the same."""
        if s.group in self._indices and t.group in self._indices and s.units == t.units:
            if s.group != t.group:
                self._bound[t.group] = (Segment(s.group, s.units),)
        elif s.group in self._sliced and t.group in self._sliced and self._tie_slices(s, t):
            pass
        elif s.fixed or t.fixed or s.group == t.group or {s.group, t.group} & {*self._indices, *self._sliced}:
            why = s.group if s.fixed else t.group if t.fixed else FIXED
            self.freeze((s, t), why)
        else:
            block = lcm(s.block, t.block)  # the smallest unit in which both can move
            common = self.fresh(s.length // block)
            for segment in (s, t):
                self._bound[segment.group] = tuple(
                    Segment(c.group, c.units, block // segment.block, segment.dual) for c in common
                )

    def _tie_slices(self, s: Segment, t: Segment) -> bool:
        """Tie two sliced axes slice by slice, if they vary along one index."""
        if s.group == t.group or s.block != 1 or t.block != 1 or self.varies_along((s,)) != self.varies_along((t,)):
            return False
        s_pieces, t_pieces = (self._pieces(x, self._sliced[x.group]) for x in (s, t))
        for a, b in zip(s_pieces, t_pieces, strict=True):
            self.unify(a, b)
        return True
