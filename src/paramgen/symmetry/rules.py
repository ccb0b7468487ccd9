"""The effect of each operation on the axes of its operands (aten's names, without overload and in-place underscore).

Under a permutation walk a rule ties axes that must hold their units in one order; under a walk for factors (`w.factors`) it ties axes that
must hold the same factors, contracts those whose factors undo each other, and pins those that can have none. An operation of no rule
is pointwise if torch tags it so.
"""

from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from paramgen.symmetry import moves
from paramgen.symmetry.axes import Axis, CannotAlign, fixed, length
from paramgen.symmetry.moves import join, part
from paramgen.symmetry.walk import Call, Labels, Rule, Walk, Walker, shapes_of


def _by_number(call: Call) -> bool:
    """Whether it is a product with, or a quotient by, a positive or negative number."""
    rounded = call.args.get("rounding_mode") is not None
    return call.name in ("mul", "div") and not rounded and not isinstance(call.args["other"], Node)


def _dims(dims: int | Sequence[int] | None, ndim: int) -> list[int]:
    selected = range(ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return [d % ndim for d in selected]


def _pointwise(w: Walker, c: Call) -> Labels:
    return _broadcast(w, [w[n] for n in c.node.all_input_nodes], shapes_of(c.node)[0])


def _broadcast(w: Walker, operands: Sequence[Labels], shape: tuple[int, ...]) -> Labels:
    w.same_slices(operands)
    out: list[Axis] = []
    for back in range(len(shape), 0, -1):
        size = shape[-back]
        axes = [a[-back] for a in operands if len(a) >= back]
        present = [a for a in axes if length(a) == size]
        for other in present[1:]:
            w.tie(present[0], other)
        if w.factors and (len(present) < len(operands) or size == 1):  # a value without the units' factors meets them
            w.pin(axes)
        index = next((a for a in present if w.groups.index_of(a) is not None), present[0])
        out.append(index if size > 1 else fixed(1))
    return tuple(out)


def _add(w: Walker, c: Call) -> Labels:
    if w.factors and not isinstance(c.args["other"], Node):
        w.freeze(c.input)
    return _pointwise(w, c)


def _prelu(w: Walker, c: Call) -> Labels:
    x, slope = w[c.input], w[c.args["weight"]]
    if length(slope[0]) > 1:
        if w.factors:
            w.pin(slope)
        else:
            w.tie(slope[0], x[1])
    return x


def _linear(w: Walker, c: Call) -> Labels:
    x, weight = w[c.input], w[c.args["weight"]]
    w.contract(x[-1], weight[1])
    if c.args["bias"] is not None:
        w.tie(weight[0], w[c.args["bias"]][0])
    return (*x[:-1], weight[0])


def _conv(w: Walker, c: Call) -> Labels:
    x, weight, (shape,) = w[c.input], w[c.args["weight"]], shapes_of(c.node)
    at = len(x) - int(c.name[-2]) - 1  # the axis of channels; a batch axis may precede it
    transposed = c.name.startswith("conv_transpose")
    w.pin((*x[at + 1 :], *weight[2:]))
    if c.args["groups"] > 1:
        channels = _grouped(w, c, x[at], weight, transposed)
    else:
        w.contract(x[at], weight[0 if transposed else 1])
        channels = weight[1 if transposed else 0]
    if c.args["bias"] is not None:
        w.tie(channels, w[c.args["bias"]][0])
    return (*x[:at], channels, *map(fixed, shape[at + 1 :]))


def _grouped(w: Walker, c: Call, x: Axis, weight: Labels, transposed: bool) -> Axis:
    """Complete groups of channels change places, with their outputs; one channel per group if depthwise."""
    groups, per = c.args["groups"], length(weight[1 if transposed else 0])
    w.pin((weight[1],))
    if (
        w.factors
    ):  # filters have the factors of their output; those of the input would need the inverse on the same axis
        w.pin((x,) if w.walk == "scale" and not transposed else (x, weight[0]))
        return fixed(per * groups) if transposed else weight[0]
    groups_axis, _ = part(w, x, groups)
    channels = join(w, groups_axis, fixed(per if transposed else per // groups))
    w.tie(weight[0], x if transposed else channels)
    return channels


def _normalise(w: Walker, c: Call, x: Labels, axes: Sequence[int], statistics: Sequence[Node | None] = ()) -> Labels:
    """Batch, layer, group and RMS norm: `axes` of the input meet the affine weights; normalised axes cannot scale."""
    affine = [w[n] for n in (c.args.get("weight"), c.args.get("bias")) if n is not None]
    measured = [w[n] for n in statistics if n is not None]
    out = list(x)
    if w.factors:
        for labels in (x, *measured, *([] if c.args.get("weight") else affine)):
            w.pin(labels)
        for i, axis in enumerate(axes):
            out[axis] = affine[0][i] if affine else x[axis]
    for labels in affine + ([] if w.factors else measured):
        for i, axis in enumerate(axes):
            w.tie(out[axis], labels[i])
    return tuple(out)


def _batch_norm(w: Walker, c: Call) -> Labels:
    return _normalise(w, c, w[c.input], (1,), (c.args["running_mean"], c.args["running_var"]))


def _layer_norm(w: Walker, c: Call) -> Labels:
    x = w[c.input]
    return _normalise(w, c, x, range(len(x) - len(c.args["normalized_shape"]), len(x)))


def _group_norm(w: Walker, c: Call) -> Labels:
    x, groups = w[c.input], c.args["num_groups"]
    if not w.factors and groups > 1:
        part(w, x[1], groups)  # complete groups of channels move
    return _normalise(w, c, x, (1,))


def _spatial(w: Walker, c: Call) -> Labels:
    """Pooling, padding, upsampling: units pass, the map's axes are fixed."""
    x, (shape,) = w[c.input], shapes_of(c.node)
    kept = len(x) - (len(c.args["pad"]) // 2 if "pad" in c.args else int(c.name[-2]))
    w.pin(x[kept:])
    if w.factors and c.args.get("value") not in (None, 0):
        w.pin(x)
    return (*x[:kept], *map(fixed, shape[kept:]))


def _reduce(w: Walker, c: Call) -> Labels:
    x = w[c.input]
    removed = _dims(c.args.get("dim"), len(x))
    if w.factors:
        w.pin([x[d] for d in removed])
    keep = [fixed(1) if d in removed else a for d, a in enumerate(x) if c.args.get("keepdim") or d not in removed]
    return tuple(keep)


def _along(w: Walker, c: Call) -> Labels:
    """Positions of some axes meet each other in their order."""
    x = w[c.input]
    mixed = _dims(c.args.get("dims", c.args.get("dim")), len(x))
    w.pin([x[d] for d in mixed])
    return tuple(fixed(length(axis)) if d in mixed else axis for d, axis in enumerate(x))


def _matmul(w: Walker, c: Call) -> Labels:
    a = w[c.args["mat1"] if c.name == "addmm" else c.input]
    b = w[c.args["other"] if c.name == "matmul" else c.args["mat2"]]
    if len(a) < 2 or len(b) < 2:
        raise CannotAlign("a product with a vector")
    w.same_slices((a, b))
    lead = _broadcast(w, (a[:-2], b[:-2]), shapes_of(c.node)[0][:-2])
    w.contract(a[-1], b[-2])
    if c.name == "addmm":
        w.tie(w[c.input][-1], b[-1])
    return (*lead, a[-2], b[-1])


def _attention(w: Walker, c: Call) -> Labels:
    """softmax(q k^T) v for each head: heads are independent, q is contracted with k, and v passes."""
    q, k, v = (w[c.args[name]] for name in ("query", "key", "value"))
    shape, mask = shapes_of(c.node)[0], c.args["attn_mask"]
    w.same_slices((q, k, v))
    if len(q) > 2 and length(q[-3]) != length(k[-3]):  # several heads of q for one of k and v
        if w.factors:
            raise CannotAlign("heads of q share those of k")
        w.tie(q[-3], join(w, k[-3], fixed(length(q[-3]) // length(k[-3]))))
        _broadcast(w, (k[:-2], v[:-2]), shapes_of(c.args["key"])[0][:-2])
        lead = q[:-2]
    else:
        lead = _broadcast(w, (q[:-2], k[:-2], v[:-2]), shape[:-2])
    w.contract(q[-1], k[-1])
    w.tie(k[-2], v[-2])
    if w.factors or c.args["is_causal"]:
        w.pin((q[-2], k[-2]))
    if mask is not None:
        weights = tuple(map(length, (*lead, q[-2], k[-2])))
        if w.factors:
            w.freeze(mask)
        else:
            _broadcast(w, ((*lead, q[-2], k[-2]), w[mask]), weights)
    return (*lead, q[-2], v[-1])


def _embedding(w: Walker, c: Call) -> Labels:
    weight, (shape,) = w[c.args["weight"]], shapes_of(c.node)
    w.pin(weight[:1])
    return (*map(fixed, shape[:-1]), weight[1])


def find_rule(call: Call) -> Rule | None:
    """The rule of an operation; ``None`` if it mixes hidden units or is unknown."""
    if call.name in RULES:
        return RULES[call.name]
    if torch.Tag.pointwise in getattr(call.node.target, "tags", ()):
        return Rule(_pointwise, LINEAR if _by_number(call) else ORDER)
    return None


def _all(rules: str, label: Callable[[Walker, Call], Labels | list[Labels]], walks: frozenset[Walk]) -> dict[str, Rule]:
    return dict.fromkeys(rules.split(), Rule(label, walks))


ORDER: frozenset[Walk] = frozenset({"permutation"})
SCALE: frozenset[Walk] = ORDER | {"scale"}  # positively homogeneous
LINEAR: frozenset[Walk] = SCALE | {"linear"}

RULES = {
    **_all("linear", _linear, LINEAR),
    **_all("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", _conv, LINEAR),
    **_all("matmul mm bmm addmm", _matmul, LINEAR),
    **_all("scaled_dot_product_attention", _attention, LINEAR),
    **_all("embedding", _embedding, LINEAR),
    **_all("batch_norm instance_norm", _batch_norm, SCALE),
    **_all("layer_norm rms_norm", _layer_norm, SCALE),
    **_all("group_norm", _group_norm, SCALE),
    **_all("add sub", _add, LINEAR),
    **_all("relu leaky_relu abs", _pointwise, SCALE),
    **_all("neg", _pointwise, LINEAR),
    **_all("prelu", _prelu, SCALE),
    # not tagged as pointwise
    **_all("relu6 selu hardswish hardsigmoid mish threshold log_sigmoid rrelu", _pointwise, ORDER),
    **_all("softmax log_softmax", moves.same, ORDER),
    **_all("roll flip cumsum", _along, LINEAR),
    **_all("clone detach alias contiguous to _to_copy lift_fresh_copy type_as", moves.same, LINEAR),
    **_all("dropout feature_dropout alpha_dropout", moves.same, LINEAR),
    **_all("sum mean", _reduce, LINEAR),
    **_all("amax amin", _reduce, SCALE),
    **_all("var std logsumexp linalg_vector_norm", _reduce, ORDER),
    **_all("max_pool1d max_pool2d max_pool3d adaptive_max_pool2d", _spatial, SCALE),
    **_all("avg_pool1d avg_pool2d avg_pool3d", _spatial, LINEAR),
    **_all("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d", _spatial, LINEAR),
    **_all("pad constant_pad_nd upsample_nearest2d upsample_bilinear2d", _spatial, LINEAR),
    **_all("cat", moves.concatenate, LINEAR),
    **_all("stack", moves.stack_labels, LINEAR),
    **_all("repeat", moves.repeat, LINEAR),
    **_all("split split_with_sizes chunk", moves.pieces, LINEAR),
    **_all("getitem", moves.getitem, LINEAR),
    **_all("slice", moves.piece, LINEAR),
    **_all("select", moves.select, LINEAR),
    **_all("unbind", moves.unbind, LINEAR),
    **_all("index", moves.look_up, LINEAR),
    **_all("permute", moves.permute, LINEAR),
    **_all("transpose t", moves.transpose, LINEAR),
    **_all("expand expand_as", moves.expand, LINEAR),
    **_all("view reshape flatten unflatten squeeze unsqueeze _unsafe_view reshape_as view_as", moves.reshape, LINEAR),
}
