"""Counts what operations cost while they run, also on tensors without values: bytes in memory, arithmetic, bytes moved.

Every storage is followed from its creation to its release, so the peak is that of the memory allocator, without fragmentation and without
the workspaces inside of kernels.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from paramgen.planning.devices import Device

SMALL_TENSOR = 4096  # numbers of a tensor that has values
OTHER = "activations"  # what nobody labelled
_FREE = {torch.ops.aten._unsafe_view.default, torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default}
"""Operations that run nothing, besides views."""
_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)


class Operation(NamedTuple):
    """One operation: its arithmetic, and the bytes that it reads and writes."""

    flops: int
    moved: int
    dtype: torch.dtype
    convolution: bool

    def seconds(self, device: Device) -> float:
        """Time at the device's limits: arithmetic, memory or launch, whichever is slowest."""
        arithmetic = self.flops / device.flops(self.dtype, self.convolution)
        return max(arithmetic, self.moved / device.bandwidth, device.launch)


class MemoryChange(NamedTuple):
    """A storage that is created (`size` above 0) or released (below 0)."""

    key: int
    size: int
    stage: str


class Moment(NamedTuple):
    """What is in memory at one time.

    Args:
        size: Bytes.
        parts: Bytes by label.
        stage: What runs.
        label: Of the storage created last.
    """

    size: int
    parts: Mapping[str, int]
    stage: str
    label: str


class Meter(TorchDispatchMode):
    """Counts all operations in its context.

    Operations on fake tensors give fake tensors. Small tensors that are made from nothing, such as the indices of a batch, have values, so
    that code may decide by them; large ones are fake.

    Args:
        fake: Makes fake tensors.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake, self.stage = fake, ""
        self.changes: list[MemoryChange] = []
        self.operations: list[Operation] = []
        self._labels: dict[int, str] = {}
        self._scales: dict[str, float] = {}
        self._alive: dict[int, int] = {}  # keys of storages by identity
        self._count = 0
        self._flops = FlopCounterMode(
            display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward_flops}
        ).flop_registry

    def label(self, name: str, tensors: Iterable[Tensor | None]) -> None:
        """Say what some tensors are, for :meth:`peak`."""
        for tensor in tensors:
            if tensor is not None:
                self._labels[self._key(tensor)] = name

    def scale(self, name: str, factor: float) -> None:
        """Count the bytes of a label `factor` times."""
        self._scales[name] = factor

    def label_rest(self, name: str) -> None:
        """Label everything that is in memory now and has no label."""
        for key in self._alive.values():
            self._labels.setdefault(key, name)

    def total(self, name: str) -> int:
        """Bytes of a label that are in memory now."""
        sizes = Counter[int]()
        for change in self.changes:
            sizes[change.key] += change.size
        return self._scaled(name, sum(size for key, size in sizes.items() if self._labels.get(key, OTHER) == name))

    def moments(self) -> Iterator[Moment]:
        """Every time at which something was created, in order."""
        parts, size = Counter[str](), 0
        for change in self.changes:
            label = self._labels.get(change.key, OTHER)
            added = self._scaled(label, change.size)
            parts[label] += added
            size += added
            if added > 0:
                yield Moment(size, parts, change.stage, label)

    def peak(self, stages: str = "") -> Moment:
        """The moment with most in memory, among those whose stage begins with `stages`."""
        best = Moment(0, {}, "", "")
        for moment in self.moments():
            if moment.size > best.size and moment.stage.startswith(stages):
                best = moment._replace(parts=dict(moment.parts))
        return best

    def _scaled(self, label: str, size: int) -> int:
        return round(size * self._scales.get(label, 1.0))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        out = func(*args, **kwargs) if read else self._made(func, args, kwargs)
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        for tensor in made:
            self._key(tensor)
        if func.namespace == "aten" and not func.is_view and func not in _FREE:
            self._count_operation(func, args, kwargs, out, read, made)
        return out

    def _count_operation(
        self, func: Any, args: Any, kwargs: Any, out: Any, read: list[Tensor], made: list[Tensor]
    ) -> None:
        packet = func.overloadpacket
        formula = self._flops.get(packet)
        flops = int(formula(*args, **kwargs, out_val=out)) if formula else 0
        written = made or read  # a fused optimizer returns nothing
        moved = sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in (*read, *written))
        dtype = max((t.dtype for t in read if t.is_floating_point()), key=lambda d: d.itemsize, default=torch.float32)
        self.operations.append(Operation(flops, moved, dtype, packet in _CONVOLUTIONS))

    def _made(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operation that takes no tensor: fake if it is large, or where all tensors are to be fake."""
        with self.fake:
            out = func(*args, **kwargs)
        small = isinstance(out, Tensor) and out.numel() <= SMALL_TENSOR
        return func(*args, **kwargs) if small or not isinstance(out, Tensor) else out

    def _key(self, tensor: Tensor) -> int:
        """The number of a tensor's storage, followed from now on."""
        storage = tensor.untyped_storage()
        identity = id(storage)
        if identity not in self._alive:
            self._count += 1
            self._alive[identity] = self._count
            self.changes.append(MemoryChange(self._count, storage.nbytes(), self.stage))
            weakref.finalize(storage, self._release, identity, storage.nbytes())
        return self._alive[identity]

    def _release(self, identity: int, size: int) -> None:
        self.changes.append(MemoryChange(self._alive.pop(identity), -size, self.stage))


def convolution_backward_flops(
    grad_out: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """FLOPs of the gradients of a convolution, from the shapes of ``aten.convolution_backward``: each costs what the forward pass costs.

    torch's own formula ignores groups and counts a depthwise convolution of 16,000 channels as a dense one.
    """
    forward: int = conv_flop_count([*x], [*weight], [*grad_out], transposed)
    return forward * (output_mask[0] + output_mask[1])
