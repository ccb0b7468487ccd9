"""Which axis of which tensor carries which hidden units, read from a network's graph.

The network is exported once (`torch.export`) and its graph walked, every value labelled with the structure of its axes
(:mod:`paramgen.symmetry.axes`). Every operation either keeps hidden units apart (pointwise, pooling, normalisation), joins two axes
(a weight with its input, the two sides of a residual addition), or fixes the units that it meets, and is named as the reason
(:mod:`paramgen.symmetry.rules`).

Three walks read three symmetries. ``permutation``: units change places. ``scale``: a unit's input weights times s and its output
weights over s, s > 0, through positively homogeneous operations alone. ``linear``: a group's input weights times an invertible matrix
and its output weights times the inverse, through linear operations alone: the rank of an adapter, q with k and v with the
projection inside an attention head. Everything else pins the factors to 1. In the last two walks an axis carries factors rather than an
order, and a tensor's axis carries them upright (a bias, the rows of a weight) or inverted (the columns of a weight).
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node

from paramgen.symmetry.axes import FIXED, Axis, CannotAlign, Groups, fixed, is_fixed

Labels = tuple[Axis, ...]
Walk = Literal["permutation", "scale", "linear"]
WALKS: tuple[Walk, ...] = ("permutation", "scale", "linear")


@dataclass(frozen=True)
class Rule:
    """The effect of an operation on its operands' labels.

    Args:
        label: Labels of the result, or of each result.
        walks: The walks that it supports; in the others, its operands are fixed.
    """

    label: "Callable[[Walker, Call], Labels | list[Labels]]"
    walks: frozenset[Walk] = frozenset({"permutation"})


@dataclass
class Graph:
    """The result of a walk.

    Args:
        axes: For each tensor of the state dict (a tied one under its first name) what its axes carry.
        stopped: For each tensor the reasons why positions of an axis are fixed: unsupported operations.
    """

    axes: dict[str, Labels]
    stopped: dict[str, dict[int, list[str]]]


@dataclass
class Call:
    """One operation of the graph: its name without the in-place underscore and its arguments by name, defaults included."""

    node: Node
    name: str
    args: dict[str, Any]

    @classmethod
    def of(cls, node: Node) -> "Call":
        """Read a node."""
        if node.target is operator.getitem:
            return cls(node, "getitem", {"self": node.args[0], "index": node.args[1]})
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return cls(node, getattr(node.target, "__name__", str(node.target)), {})
        args = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        args |= dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
        return cls(node, schema.name.split("::")[-1].removesuffix("_"), args)

    @property
    def input(self) -> Node:
        """The first operand."""
        node: Node = self.args["input"] if "input" in self.args else self.args["self"]
        return node


def shapes_of(node: Node) -> list[tuple[int, ...]]:
    """Shapes of what a node returns: of one tensor, of each of several, of none."""
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return [tuple(map(int, v.shape)) for v in values if isinstance(v, Tensor)]


class Walker:
    """Labels every value of an exported graph.

    Args:
        roots: First name of every tensor of the state dict.
        free: First names of the tensors that may be changed; the others are fixed.
        walk: Which symmetry to read.
        find_rule: The rule of an operation, if it has one.
    """

    def __init__(
        self, roots: Mapping[str, str], free: set[str], walk: Walk, find_rule: Callable[[Call], Rule | None]
    ) -> None:
        self.walk, self.factors = walk, walk != "permutation"
        self.groups = Groups(self.factors)
        self.roots, self.free, self.find_rule = roots, free, find_rule
        self.tensors: dict[str, Labels] = {}
        self.values: dict[Node, Labels | list[Labels]] = {}

    def run(self, program: torch.export.ExportedProgram) -> Graph:
        """Walk the graph.

        Raises:
            CannotAlign: The graph holds control flow.
        """
        signature = program.graph_signature
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._place(node, stored.get(node.name))
            elif node.op == "call_function":
                self._call(Call.of(node))
            elif node.op == "output":
                for result in node.all_input_nodes:
                    self.freeze(result)
            else:
                raise CannotAlign(f"the network's graph holds {node.op} {node.target}")
        axes = {name: tuple(map(self.groups.resolve, labels)) for name, labels in self.tensors.items()}
        stopped = {
            name: {i: why for i, a in enumerate(labels) if (why := self.groups.why(a))} for name, labels in axes.items()
        }
        return Graph(axes, stopped)

    def _place(self, node: Node, stored: str | None) -> None:
        shape = shapes_of(node)[0] if shapes_of(node) else ()
        root = self.roots.get(stored) if stored else None
        if root is None or root not in self.free:
            self.values[node] = tuple(map(fixed, shape))
            return
        self.values[node] = self.tensors.setdefault(root, tuple(map(self.groups.fresh, shape)))

    def _call(self, call: Call) -> None:
        rule = self.find_rule(call)
        if not shapes_of(call.node):  # a number
            self.values[call.node] = ()
        elif rule is None or self.walk not in rule.walks:
            moving = any(self._moves(a) for n in call.node.all_input_nodes for a in self.flat(n))
            self._stop(call, f"{call.name}: not understood" if moving else None)
        else:
            try:
                self.values[call.node] = rule.label(self, call)
            except CannotAlign as error:
                self._stop(call, f"{call.name}: {error}")
            self._check_slices(call.node)

    def _moves(self, axis: Axis) -> bool:
        return not is_fixed(self.groups.resolve(axis)) or bool(self.groups.why(axis))

    def _stop(self, call: Call, why: str | None = None) -> None:
        """Fix all operands and results of an operation; in a walk for orders the reason is kept."""
        number = FIXED if why is None or self.factors else self.groups.reason(why)
        for operand in call.node.all_input_nodes:
            self.freeze(operand, number)
        labels = [tuple(fixed(size, number) for size in shape) for shape in shapes_of(call.node)]
        self.values[call.node] = labels if isinstance(call.node.meta["val"], (list, tuple)) else labels[0]

    def _check_slices(self, node: Node) -> None:
        """Fix axes that vary along an index that the value does not have."""
        value = self.values[node]
        for labels in value if isinstance(value, list) else [value]:
            indices = {self.groups.index_of(axis) for axis in labels}
            for axis in labels:
                if not self.groups.varies_along(axis) <= indices:
                    self.groups.freeze(axis)

    def flat(self, node: Node) -> list[Axis]:
        """Axes of a value, or of all of a list's."""
        value = self.values[node]
        return [a for labels in value for a in labels] if isinstance(value, list) else list(value)

    def freeze(self, node: Node, why: int = FIXED) -> None:
        """Fix all axes of a value."""
        for axis in self.flat(node):
            self.groups.freeze(axis, why)

    def __getitem__(self, node: Node) -> Labels:
        """Labels of a value."""
        labels = self.values[node]
        if isinstance(labels, list):
            raise CannotAlign("a list of tensors where one is expected")
        return labels

    def tie(self, a: Axis, b: Axis) -> Axis:
        """Unify two axes that are aligned elementwise: units of one order, and of the same factors."""
        return self.groups.unify(a, b)

    def contract(self, a: Axis, b: Axis) -> None:
        """Unify two axes that are summed over together: the factors of one undo those of the other."""
        self.groups.unify(a, self.groups.dual(b))

    def pin(self, axes: Sequence[Axis]) -> None:
        """Fix some axes."""
        for axis in axes:
            self.groups.freeze(axis)

    def same_slices(self, operands: Sequence[Labels]) -> None:
        """Fix what varies along an index that operands of one operation do not have at the same place, counted from the end."""
        places = [
            {number: i - len(labels) for i, a in enumerate(labels) if (number := self.groups.index_of(a)) is not None}
            for labels in operands
        ]
        for number in {n for place in places for n in place}:
            if len({place[number] for place in places if number in place}) > 1:
                for axis in (a for labels in operands for a in labels):
                    if number in self.groups.varies_along(axis):
                        self.groups.freeze(axis)
