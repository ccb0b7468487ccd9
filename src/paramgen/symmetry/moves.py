"""Rules of operations that move, cut and join axes (views, permutations, slices), see :mod:`paramgen.symmetry.rules`."""

from torch.fx import Node

from paramgen.symmetry.axes import FIXED, Axis, CannotAlign, Segment, fixed, is_fixed, length
from paramgen.symmetry.walk import Call, Labels, Walker, shapes_of


def same(w: Walker, c: Call) -> Labels:
    """Copies, casts, dropout, softmax."""
    return w[c.input]


def concatenate(w: Walker, c: Call) -> Labels:
    """Parts concatenated along one axis."""
    parts = [w[n] for n in c.args["tensors"]]
    dim = c.args["dim"] % len(parts[0])
    for part in parts[1:]:
        for d, axis in enumerate(part):
            if d != dim:
                w.tie(parts[0][d], axis)
    joined = tuple(s for part in parts for s in part[dim])
    return (*parts[0][:dim], joined, *parts[0][dim + 1 :])


def stack_labels(w: Walker, c: Call) -> Labels:
    """Parts stacked along a new axis."""
    parts = [w[n] for n in c.args["tensors"]]
    dim = c.args["dim"] % (len(parts[0]) + 1)
    for part in parts[1:]:
        for first_axis, axis in zip(parts[0], part, strict=True):
            w.tie(first_axis, axis)
    return (*parts[0][:dim], fixed(len(parts)), *parts[0][dim:])


def repeat(w: Walker, c: Call) -> Labels:
    """Copies repeated along each axis."""
    x, times = w[c.input], c.args["repeats"]
    x = (*map(fixed, [1] * (len(times) - len(x))), *x)
    w.pin([a for a in x if length(a) == 1])
    return tuple(a * n if length(a) > 1 else fixed(n) for a, n in zip(x, times, strict=True))


def pieces(w: Walker, c: Call) -> list[Labels]:
    """Split, chunk."""
    x, sizes = w[c.input], shapes_of(c.node)
    dim = c.args["dim"] % len(x)
    split = w.groups.split(x[dim], [shape[dim] for shape in sizes])
    return [(*x[:dim], piece, *x[dim + 1 :]) for piece in split]


def piece(w: Walker, c: Call) -> Labels:
    """x[:, start:end]."""
    x, (shape,) = w[c.input], shapes_of(c.node)
    dim = c.args["dim"] % len(x)
    size, start = length(x[dim]), c.args["start"] or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    if shape[dim] == size:
        return x
    if c.args["step"] != 1:
        w.pin((x[dim],))
        kept = fixed(shape[dim])
    else:
        kept = w.groups.split(x[dim], [start, shape[dim], size - start - shape[dim]])[1]
    return (*x[:dim], kept, *x[dim + 1 :])


def select(w: Walker, c: Call) -> Labels:
    """x[:, i]."""
    x = w[c.input]
    dim = c.args["dim"] % len(x)
    return _at(w, x, dim, c.args["index"] % length(x[dim]))


def unbind(w: Walker, c: Call) -> list[Labels]:
    """Every slice along an axis."""
    x = w[c.input]
    dim = c.args["dim"] % len(x)
    return [_at(w, x, dim, i) for i in range(length(x[dim]))]


def _at(w: Walker, x: Labels, dim: int, position: int) -> Labels:
    others = (*x[:dim], *x[dim + 1 :])
    if len(x[dim]) == 1 and w.groups.index_of(x[dim]) is not None:
        return tuple(w.groups.at(axis, x[dim], position) for axis in others)
    w.pin((x[dim],))
    return others


def look_up(w: Walker, c: Call) -> Labels:
    """table[:, numbers]: rows of a table, in any order."""
    x, where, (shape,) = w[c.input], c.args["indices"], shapes_of(c.node)
    dims = [d for d, index in enumerate(where) if isinstance(index, Node)]
    if len(dims) != 1:
        raise CannotAlign("only one axis can be looked up")
    (dim,) = dims
    w.pin((x[dim],))
    added = len(shape) - len(x) + 1
    return (*x[:dim], *map(fixed, shape[dim : dim + added]), *x[dim + 1 :])


def getitem(w: Walker, c: Call) -> Labels:
    """One of several results."""
    value = w.values[c.input]
    return value[c.args["index"]] if isinstance(value, list) else value


def permute(w: Walker, c: Call) -> Labels:
    """Axes in another order."""
    x = w[c.input]
    return tuple(x[d % len(x)] for d in c.args["dims"])


def transpose(w: Walker, c: Call) -> Labels:
    """Two axes exchanged."""
    x = list(w[c.input])
    a, b = (0, len(x) - 1) if c.name == "t" else (c.args["dim0"], c.args["dim1"])
    x[a], x[b] = x[b], x[a]
    return tuple(x)


def expand(w: Walker, c: Call) -> Labels:
    """Axes of one position repeated."""
    x, (shape,) = w[c.input], shapes_of(c.node)
    x = (*map(fixed, shape[: len(shape) - len(x)]), *x)
    w.pin([a for a, size in zip(x, shape, strict=True) if length(a) != size])
    return tuple(a if length(a) == size else fixed(size) for a, size in zip(x, shape, strict=True))


def reshape(w: Walker, c: Call) -> Labels:
    """Axes joined or split.

    A group can be joined with fixed axes and split again. If it is split between two axes, complete units move along the first, unless
    the network splits that axis into slices, which then have their own groups (q, k and v from one axis).
    """
    labels, (shape,) = w[c.input], shapes_of(c.node)
    w.pin([a for a in labels if length(a) == 1])
    x, sizes, out = [a for a in labels if length(a) > 1], list(shape), []
    while sizes:
        size = sizes.pop(0)
        if size == 1:
            out.append(fixed(1))
            continue
        axis = x.pop(0)
        while length(axis) < size and x:
            axis = join(w, axis, x.pop(0))
        if length(axis) > size:
            axis, rest = part(w, axis, size, _taken_apart(c.node, len(out)))
            x.insert(0, rest)
        out.append(axis)
    return tuple(out)


def join(w: Walker, outer: Axis, inner: Axis) -> Axis:
    """The axis of two that are flattened into one."""
    if len(outer) == 1 and (index := w.groups.index_of(outer)) is not None and index in w.groups.varies_along(inner):
        return tuple(s for i in range(length(outer)) for s in w.groups.at(inner, outer, i))
    outer, inner = w.groups.resolve(outer), w.groups.resolve(inner)
    if is_fixed(outer) and is_fixed(inner):
        return fixed(length(outer) * length(inner), min((s.group for s in (*outer, *inner)), default=FIXED))
    if is_fixed(outer):
        return inner * length(outer)
    if not is_fixed(inner):  # one axis cannot hold both orders
        w.groups.freeze(inner, w.groups.reason("reshape: two groups of hidden units on one axis"))
    return tuple(s._replace(block=s.block * length(inner)) for s in outer)


def part(w: Walker, axis: Axis, outer: int, taken_apart: bool = False) -> tuple[Axis, Axis]:
    """An axis as two, `outer` positions times the rest.

    Args:
        w: The walk.
        axis: What to split.
        outer: Positions of the first of the two.
        taken_apart: Whether slices along it are independent of each other. In walks for factors they always are.
    """
    axis, inner = w.groups.resolve(axis), length(axis) // outer
    if length(axis) % outer:
        raise CannotAlign(f"an axis of {length(axis)} positions is reshaped across {outer}")
    if is_fixed(axis):
        why = min(s.group for s in axis)
        return fixed(outer, why), fixed(inner, why)
    if all(s.units % inner == 0 if s.fixed else s.block % inner == 0 for s in axis):
        first = tuple(
            Segment(s.group, s.units // inner) if s.fixed else s._replace(block=s.block // inner) for s in axis
        )
        return first, fixed(inner)
    copies = next(n for n in range(outer, 0, -1) if outer % n == 0 and axis == axis[: len(axis) // n] * n)
    if copies > 1:
        one = axis[: len(axis) // copies]
        if copies == outer:
            return fixed(outer), one
        first, rest = part(w, one, outer // copies, taken_apart)
        return first * copies, rest
    slicewise = w.groups.for_each_slice(axis, lambda one: part(w, one, outer, taken_apart))
    if slicewise is not None:
        return slicewise
    if w.factors or taken_apart:
        return w.groups.slices(w.groups.split(axis, [inner] * outer))
    return tuple(_wholes(w, s, inner) for s in axis), fixed(inner)


def _wholes(w: Walker, segment: Segment, inner: int) -> Segment:
    """A segment's part of the first axis, where complete units of `inner` positions move."""
    if segment.fixed:
        if segment.units % inner:
            raise CannotAlign("a group of hidden units is split between two axes")
        return Segment(segment.group, segment.units // inner)
    if segment.block % inner:
        segment = w.groups.coarsen(segment, inner)
    return (
        segment._replace(block=segment.block // inner) if not segment.fixed else Segment(FIXED, segment.units // inner)
    )


def _taken_apart(node: Node, dim: int) -> bool:
    """Whether an axis of a value is only used to pick slices along it."""
    return bool(node.users) and all(_picks(user, dim) for user in node.users)


def _picks(user: Node, dim: int) -> bool:
    call = Call.of(user)
    if call.name not in ("select", "unbind", "permute", "transpose", "unsqueeze", "squeeze", "clone", "contiguous"):
        return False
    ndim = len(shapes_of(call.input)[0])
    if call.name in ("select", "unbind"):
        return bool(call.args["dim"] % ndim == dim)
    if call.name == "permute":
        return _taken_apart(user, [d % ndim for d in call.args["dims"]].index(dim))
    if call.name == "transpose":
        pair = [call.args["dim0"] % ndim, call.args["dim1"] % ndim]
        return _taken_apart(user, pair[1 - pair.index(dim)] if dim in pair else dim)
    if call.name == "unsqueeze":
        return _taken_apart(user, dim + (call.args["dim"] % (ndim + 1) <= dim))
    if call.name == "squeeze":
        removed = _squeezed(call, ndim)
        return dim not in removed and _taken_apart(user, dim - sum(d < dim for d in removed))
    return _taken_apart(user, dim)


def _squeezed(call: Call, ndim: int) -> list[int]:
    shape, dims = shapes_of(call.input)[0], call.args.get("dim", range(ndim))
    return [d % ndim for d in ([dims] if isinstance(dims, int) else dims) if shape[d] == 1]
