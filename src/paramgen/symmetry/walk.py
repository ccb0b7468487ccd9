"""Which axis of which tensor carries which hidden units, read from a network's graph.

The network is exported once (`torch.export`) and its graph walked, every value labelled with what its axes are made of
(:mod:`paramgen.symmetry.axes`). Every operation either keeps hidden units apart (pointwise, pooling, normalisation), joins two axes
(a weight with its input, the two sides of a residual addition), or makes the network one that cannot be aligned
(:mod:`paramgen.symmetry.rules`).

Two walks read two symmetries. ``permutation``: units change places. ``scale``: a unit's input weights times s and its output
weights over s, s > 0, through positively homogeneous operations alone; everything else pins s to 1. There an axis carries a
*gauge* (a factor a unit) rather than an order, and a tensor's axis carries it upright (a bias, the rows of a weight) or inverted
(the columns of a weight).
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node

from paramgen.symmetry.axes import Axis, CannotAlign, Groups, fixed, is_fixed

Labels = tuple[Axis, ...]
Walk = Literal["permutation", "scale"]


@dataclass(frozen=True)
class Rule:
    """What an operation makes of its operands' labels.

    Args:
        label: Labels of the result, or of each result.
        gauges: Whether it looks after gauges itself; otherwise its operands' are pinned to 1 first.
    """

    label: "Callable[[Walker, Call], Labels | list[Labels]]"
    gauges: bool = False


@dataclass
class Graph:
    """What a walk found.

    Args:
        axes: For each tensor of the state dict (a tied one under its first name) what its axes carry.
        inverted: For each tensor the axes that carry a gauge inverted.
    """

    axes: dict[str, Labels]
    inverted: dict[str, set[int]]


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
        self.groups, self.scale = Groups(), walk == "scale"
        self.roots, self.free, self.find_rule = roots, free, find_rule
        self.tensors: dict[str, Labels] = {}
        self.names: dict[Node, str] = {}
        self.values: dict[Node, Labels | list[Labels]] = {}
        self.upright: dict[str, set[int]] = {}
        self.inverted: dict[str, set[int]] = {}

    def run(self, program: torch.export.ExportedProgram) -> Graph:
        """Walk the graph.

        Raises:
            CannotAlign: An operation does not keep hidden units apart.
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
        for name, upright in self.upright.items():
            for axis in upright & self.inverted[name]:  # used as rows here and as columns there
                if self.scale:
                    self.groups.freeze(self.tensors[name][axis])
        axes = {name: tuple(map(self.groups.resolve, labels)) for name, labels in self.tensors.items()}
        return Graph(axes, self.inverted)

    def _place(self, node: Node, stored: str | None) -> None:
        shape = shapes_of(node)[0] if shapes_of(node) else ()
        root = self.roots.get(stored) if stored else None
        if root is None or root not in self.free:
            self.values[node] = tuple(map(fixed, shape))
            return
        self.names[node] = root
        self.values[node] = self.tensors.setdefault(root, tuple(map(self.groups.fresh, shape)))

    def _call(self, call: Call) -> None:
        shapes, rule, operands = shapes_of(call.node), self.find_rule(call), call.node.all_input_nodes
        if self.scale and not (rule and rule.gauges):
            for operand in operands:
                self.freeze(operand)
        if not shapes:  # a number
            self.values[call.node] = ()
        elif rule is None:
            if not all(is_fixed(self.groups.resolve(a)) for n in operands for a in self.flat(n)):
                raise CannotAlign(f"the operation {call.name} does not keep hidden units apart")
            self._fix_result(call.node, shapes)
        else:
            try:
                self.values[call.node] = rule.label(self, call)
            except CannotAlign as error:
                if not self.scale:
                    raise CannotAlign(f"{call.name}: {error}") from None
                for operand in operands:  # gauges that do not meet are all 1
                    self.freeze(operand)
                self._fix_result(call.node, shapes)

    def _fix_result(self, node: Node, shapes: list[tuple[int, ...]]) -> None:
        labels = [tuple(map(fixed, shape)) for shape in shapes]
        self.values[node] = labels if isinstance(node.meta["val"], (list, tuple)) else labels[0]

    def flat(self, node: Node) -> list[Axis]:
        """Axes of a value, or of all of a list's."""
        value = self.values[node]
        return [a for labels in value for a in labels] if isinstance(value, list) else list(value)

    def freeze(self, node: Node) -> None:
        """Fix all axes of a value."""
        for axis in self.flat(node):
            self.groups.freeze(axis)

    def __getitem__(self, node: Node) -> Labels:
        """Labels of a value that is used upright."""
        return self.use(node)

    def use(self, node: Node, inverted: Sequence[int] = ()) -> Labels:
        """Labels of a value, some of whose axes are used inverted if it is a tensor of the state dict."""
        labels = self.values[node]
        if isinstance(labels, list):
            raise CannotAlign("a list of tensors where one is expected")
        name = self.names.get(node)
        if name is not None:
            self.inverted.setdefault(name, set()).update(inverted)
            self.upright.setdefault(name, set()).update(set(range(len(labels))) - set(inverted))
        elif self.scale and inverted:  # a computed weight has no axis to divide
            self.freeze(node)
        return labels

    def tie(self, a: Axis, b: Axis) -> Axis:
        """Unify two axes."""
        return self.groups.unify(a, b)

    def pin(self, axes: Sequence[Axis]) -> None:
        """Fix some axes."""
        for axis in axes:
            self.groups.freeze(axis)
