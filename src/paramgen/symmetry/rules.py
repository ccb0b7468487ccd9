"""What each operation does to the axes of its operands (aten's names, without overload and in-place underscore).

Under a permutation walk a rule ties axes that must hold their units in one order; under a scale walk (`w.scale`) it ties axes that
must hold the same gauges and pins those that cannot scale. An operation of no rule is pointwise if torch tags it so.
"""

from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from paramgen.symmetry.axes import FIXED, Axis, CannotAlign, Segment, fixed, is_fixed, length
from paramgen.symmetry.walk import Call, Labels, Rule, Walker, shapes_of


def _by_number(call: Call) -> bool:
    """Whether it is a product with, or a quotient by, a positive or negative number."""
    rounded = call.args.get("rounding_mode") is not None
    return call.name in ("mul", "div") and not rounded and not isinstance(call.args["other"], Node)


def _dims(dims: int | Sequence[int] | None, ndim: int) -> list[int]:
    chosen = range(ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return [d % ndim for d in chosen]


def _pointwise(w: Walker, c: Call) -> Labels:
    return _broadcast(w, [w[n] for n in c.node.all_input_nodes], shapes_of(c.node)[0])


def _broadcast(w: Walker, operands: Sequence[Labels], shape: tuple[int, ...]) -> Labels:
    out: list[Axis] = []
    for back in range(len(shape), 0, -1):
        size = shape[-back]
        there = [a[-back] for a in operands if len(a) >= back and length(a[-back]) == size]
        for other in there[1:]:
            w.tie(there[0], other)
        if w.scale and len(there) < len(operands):  # a value that does not scale with the units meets them
            w.pin(there)
        out.append(there[0] if size > 1 else fixed(1))
    return tuple(out)


def _add(w: Walker, c: Call) -> Labels:
    if w.scale and not isinstance(c.args["other"], Node):
        w.freeze(c.input)
    return _pointwise(w, c)


def _prelu(w: Walker, c: Call) -> Labels:
    x, slope = w[c.input], w[c.args["weight"]]
    if length(slope[0]) > 1:
        if w.scale:
            w.pin(slope)
        else:
            w.tie(slope[0], x[1])
    return x


def _linear(w: Walker, c: Call) -> Labels:
    x, weight = w[c.input], w.use(c.args["weight"], inverted=(1,))
    w.tie(x[-1], weight[1])
    if c.args["bias"] is not None:
        w.tie(weight[0], w[c.args["bias"]][0])
    return (*x[:-1], weight[0])


def _conv(w: Walker, c: Call) -> Labels:
    x, (shape,), groups = w[c.input], shapes_of(c.node), c.args["groups"]
    at = len(x) - int(c.name[-2]) - 1  # the axis of channels; a batch axis may precede it
    if depthwise := groups == length(x[at]) > 1:
        into, out = 0, 0
    elif groups != 1:
        raise CannotAlign(f"{groups} groups of channels: only 1, or one a channel, can be aligned")
    else:
        into, out = (0, 1) if c.name.startswith("conv_transpose") else (1, 0)
    weight = w.use(c.args["weight"], inverted=() if depthwise else (into,))
    if depthwise and length(weight[0]) * length(weight[1]) != length(x[at]):
        raise CannotAlign("a depthwise convolution with several outputs a channel")
    w.pin((*x[at + 1 :], *weight[2:]))
    if depthwise and w.scale:  # filters scale with their output, the input's gauge would need them inverted too
        w.pin((x[at],))
    else:
        w.tie(x[at], weight[into])
    if c.args["bias"] is not None:
        w.tie(weight[out], w[c.args["bias"]][0])
    return (*x[:at], weight[out], *map(fixed, shape[at + 1 :]))


def _normalise(w: Walker, c: Call, x: Labels, axes: Sequence[int], statistics: Sequence[Node | None] = ()) -> Labels:
    """Batch, layer, group and RMS norm: `axes` of the input meet the affine weights; what is divided out cannot scale."""
    affine = [w[n] for n in (c.args.get("weight"), c.args.get("bias")) if n is not None]
    measured = [w[n] for n in statistics if n is not None]
    out = list(x)
    if w.scale:
        for labels in (x, *measured, *([] if c.args.get("weight") else affine)):
            w.pin(labels)
        for i, axis in enumerate(axes):
            out[axis] = affine[0][i] if affine else x[axis]
    for labels in affine + ([] if w.scale else measured):
        for i, axis in enumerate(axes):
            w.tie(out[axis], labels[i])
    return tuple(out)


def _batch_norm(w: Walker, c: Call) -> Labels:
    return _normalise(w, c, w[c.input], (1,), (c.args["running_mean"], c.args["running_var"]))


def _layer_norm(w: Walker, c: Call) -> Labels:
    x = w[c.input]
    return _normalise(w, c, x, range(len(x) - len(c.args["normalized_shape"]), len(x)))


def _group_norm(w: Walker, c: Call) -> Labels:
    x = w[c.input]
    if c.args["num_groups"] not in (1, length(x[1])) and not is_fixed(w.groups.resolve(x[1])):
        raise CannotAlign(f"{c.args['num_groups']} groups of channels: only 1, or one a channel, can be aligned")
    return _normalise(w, c, x, (1,))


def _spatial(w: Walker, c: Call) -> Labels:
    """Pooling, padding, upsampling: units pass, the map's axes are fixed."""
    x, (shape,) = w[c.input], shapes_of(c.node)
    kept = len(x) - (len(c.args["pad"]) // 2 if "pad" in c.args else int(c.name[-2]))
    w.pin(x[kept:])
    if w.scale and c.args.get("value") not in (None, 0):
        w.pin(x)
    return (*x[:kept], *map(fixed, shape[kept:]))


def _reduce(w: Walker, c: Call) -> Labels:
    x = w[c.input]
    gone = _dims(c.args.get("dim"), len(x))
    if w.scale:
        w.pin([x[d] for d in gone])
    keep = [fixed(1) if d in gone else a for d, a in enumerate(x) if c.args.get("keepdim") or d not in gone]
    return tuple(keep)


def _same(w: Walker, c: Call) -> Labels:
    return w[c.input]


def _cat(w: Walker, c: Call) -> Labels:
    parts = [w[n] for n in c.args["tensors"]]
    dim = c.args["dim"] % len(parts[0])
    for part in parts[1:]:
        for d, axis in enumerate(part):
            if d != dim:
                w.tie(parts[0][d], axis)
    joined = tuple(s for part in parts for s in part[dim])
    return (*parts[0][:dim], joined, *parts[0][dim + 1 :])


def _pieces(w: Walker, c: Call) -> list[Labels]:
    x, sizes = w[c.input], shapes_of(c.node)
    dim = c.args["dim"] % len(x)
    pieces = w.groups.split(x[dim], [shape[dim] for shape in sizes])
    return [(*x[:dim], piece, *x[dim + 1 :]) for piece in pieces]


def _slice(w: Walker, c: Call) -> Labels:
    x, (shape,) = w[c.input], shapes_of(c.node)
    dim = c.args["dim"] % len(x)
    size, start = length(x[dim]), c.args["start"] or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    if shape[dim] == size:
        return x
    if c.args["step"] != 1:
        w.pin((x[dim],))
        piece = fixed(shape[dim])
    else:
        piece = w.groups.split(x[dim], [start, shape[dim], size - start - shape[dim]])[1]
    return (*x[:dim], piece, *x[dim + 1 :])


def _select(w: Walker, c: Call) -> Labels:
    x = w[c.input]
    dim = c.args["dim"] % len(x)
    w.pin((x[dim],))
    return (*x[:dim], *x[dim + 1 :])


def _getitem(w: Walker, c: Call) -> Labels:
    value = w.values[c.input]
    return value[c.args["index"]] if isinstance(value, list) else value


def _permute(w: Walker, c: Call) -> Labels:
    x = w[c.input]
    return tuple(x[d] for d in _dims(c.args["dims"], len(x)))


def _transpose(w: Walker, c: Call) -> Labels:
    x = list(w[c.input])
    a, b = (0, len(x) - 1) if c.name == "t" else (c.args["dim0"], c.args["dim1"])
    x[a], x[b] = x[b], x[a]
    return tuple(x)


def _expand(w: Walker, c: Call) -> Labels:
    x, (shape,) = w[c.input], shapes_of(c.node)
    x = (*map(fixed, shape[: len(shape) - len(x)]), *x)
    return tuple(a if length(a) == size else fixed(size) for a, size in zip(x, shape, strict=True))


def _reshape(w: Walker, c: Call) -> Labels:
    """Axes joined or split; a group can be joined with fixed axes and taken apart again, never be split between two axes."""
    x, (shape,) = list(w[c.input]), shapes_of(c.node)
    x, sizes, out = [a for a in x if length(a) > 1], list(shape), []
    while sizes:
        wanted = sizes.pop(0)
        if wanted == 1:
            out.append(fixed(1))
            continue
        axis = x.pop(0)
        while length(axis) < wanted and x:
            axis = _join(w, axis, x.pop(0))
        if length(axis) > wanted:
            axis, rest = _part(w, axis, wanted)
            x.insert(0, rest)
        out.append(axis)
    return tuple(out)


def _join(w: Walker, outer: Axis, inner: Axis) -> Axis:
    outer, inner = w.groups.resolve(outer), w.groups.resolve(inner)
    if is_fixed(outer):
        return inner * length(outer) if not is_fixed(inner) else fixed(length(outer) * length(inner))
    if not is_fixed(inner):
        raise CannotAlign("two groups of hidden units are flattened into one axis")
    return tuple(Segment(s.group, s.units, s.block * length(inner)) for s in outer)


def _part(w: Walker, axis: Axis, outer: int) -> tuple[Axis, Axis]:
    """An axis as `outer` × the rest."""
    axis, inner = w.groups.resolve(axis), length(axis) // outer
    if length(axis) % outer:
        raise CannotAlign(f"an axis of {length(axis)} positions is reshaped across {outer}")
    if is_fixed(axis):
        return fixed(outer), fixed(inner)
    if any(s.block % inner if s.group != FIXED else s.units % inner for s in axis):
        raise CannotAlign("a group of hidden units is split between two axes (attention heads, say)")
    parts = (
        Segment(s.group, *((s.units // inner, 1) if s.group == FIXED else (s.units, s.block // inner))) for s in axis
    )
    return tuple(parts), fixed(inner)


def _matmul(w: Walker, c: Call) -> Labels:
    a = w[c.args["mat1"] if c.name == "addmm" else c.input]
    b = w[c.args["other"] if c.name == "matmul" else c.args["mat2"]]
    if len(a) < 2 or len(b) < 2:
        raise CannotAlign("a product with a vector")
    w.tie(a[-1], b[-2])
    if c.name == "addmm":
        w.tie(w[c.input][-1], b[-1])
    return (*_broadcast(w, (a[:-2], b[:-2]), shapes_of(c.node)[0][:-2]), a[-2], b[-1])


def _embedding(w: Walker, c: Call) -> Labels:
    weight, (shape,) = w[c.args["weight"]], shapes_of(c.node)
    w.pin(weight[:1])
    return (*map(fixed, shape[:-1]), weight[1])


def find_rule(call: Call) -> Rule | None:
    """The rule of an operation; ``None`` where hidden units would be mixed or nothing is known of it."""
    if call.name in RULES:
        return RULES[call.name]
    if torch.Tag.pointwise in getattr(call.node.target, "tags", ()):
        return Rule(_pointwise, gauges=_by_number(call))
    return None


def _all(rules: str, label: Callable[[Walker, Call], Labels | list[Labels]], gauges: bool = True) -> dict[str, Rule]:
    return dict.fromkeys(rules.split(), Rule(label, gauges))


RULES = {
    **_all("linear", _linear),
    **_all("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", _conv),
    **_all("matmul mm bmm addmm", _matmul, gauges=False),
    **_all("embedding", _embedding),
    **_all("batch_norm instance_norm", _batch_norm),
    **_all("layer_norm rms_norm", _layer_norm),
    **_all("group_norm", _group_norm),
    **_all("add sub", _add),
    **_all("relu leaky_relu neg abs", _pointwise),
    **_all("prelu", _prelu),
    **_all(
        "relu6 selu hardswish hardsigmoid mish threshold log_sigmoid rrelu", _pointwise, gauges=False
    ),  # not tagged as pointwise
    **_all("softmax log_softmax", _same, gauges=False),
    **_all("clone detach alias contiguous to _to_copy lift_fresh_copy dropout feature_dropout alpha_dropout", _same),
    **_all("sum mean amax amin", _reduce),
    **_all("var std logsumexp linalg_vector_norm", _reduce, gauges=False),
    **_all("max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d", _spatial),
    **_all("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d", _spatial),
    **_all("pad constant_pad_nd upsample_nearest2d upsample_bilinear2d", _spatial),
    **_all("cat", _cat),
    **_all("split split_with_sizes chunk", _pieces),
    **_all("getitem", _getitem),
    **_all("slice", _slice),
    **_all("select", _select),
    **_all("permute", _permute),
    **_all("transpose t", _transpose),
    **_all("expand", _expand),
    **_all("view reshape flatten unflatten squeeze unsqueeze _unsafe_view", _reshape),
}
