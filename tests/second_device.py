"""A pretended second device: CPU tensors behind tensors that claim to be on another device, so that a CPU finds what only a GPU would.

Within :func:`pretended`, tensors made on :data:`FAR` or moved there are :class:`FarTensor`, of values kept on the CPU. An operator that is
given tensors of both devices raises, as CUDA's do. Whatever would make the host wait for the device is written down in the list that
``pretended`` gives: numbers asked of the device (``item``, ``bool``, ``tolist``), outputs whose size depends on values (``nonzero``,
``unique``, indexing by a mask) and copies in either direction that are not ``non_blocking``.

The claimed device is ``meta``, the one that torch takes everywhere without hardware. Here its tensors have values.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

FAR = torch.device("meta")
SIZED_BY_VALUES = (
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
)
ASKED = ("_local_scalar_dense", "is_nonzero", "equal", *SIZED_BY_VALUES)
COPIES = ("_to_copy", "copy_", "copy")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")


class FarTensor(torch.Tensor):
    """A tensor that claims to be on :data:`FAR`.

    Args:
        held: Its values, on the CPU.
    """

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "FarTensor":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        far: FarTensor = torch.Tensor._make_wrapper_subclass(cls, held.shape, device=FAR, **layout)
        far.held = held
        return far

    def tolist(self) -> Any:
        """Its values; torch's own refuses subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, args, kwargs or {}, [])


class _Pretend(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, args, kwargs or {}, self.waits)


class _FromNumbers(TorchFunctionMode):
    """Makes tensors of Python's numbers on the CPU and copies them, as CUDA does: the operators below never see these numbers."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == FAR:
            return function(*args, **{**kwargs, "device": "cpu"}).to(FAR)
        return function(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[list[str]]:
    """Gives the list of the waits so far, each as the operator and the line of the package that called it."""
    with _Pretend() as mode, _FromNumbers():
        yield mode.waits


def _run(operator: Any, args: Any, kwargs: dict[str, Any], waits: list[str]) -> Any:
    """An operator on the values of its tensors; what it returns is far if its inputs are, or if it is asked for there."""
    name = operator.name().removeprefix("aten::").partition(".")[0]
    given = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    far = [x for x in given if isinstance(x, FarTensor)]
    near = [x for x in given if not isinstance(x, FarTensor)]
    if any(x.device == FAR for x in near):
        raise RuntimeError(f"{name} was given a tensor made of numbers on the device, {_caller()}: a copy that waits")
    asked_for = kwargs.get("device")
    target = bool(far) if asked_for is None else torch.device(asked_for) == FAR
    if not far and not target:
        return operator(*args, **kwargs)
    _check(name, far, near)
    if _waits(name, args, kwargs, far, near, target):
        waits.append(f"{name} {_caller()}")
    wrappers = {id(x.held): x for x in far}
    held = _map(lambda x: x.held, (args, kwargs))
    kept = {**held[1], "device": torch.device("cpu")} if asked_for is not None else held[1]
    out = operator(*held[0], **kept)
    if name == "copy_":
        return args[0]
    if not target:
        return out
    return tree_map_only(torch.Tensor, lambda x: wrappers[id(x)] if id(x) in wrappers else FarTensor(x), out)


def _map(change: Callable[[FarTensor], torch.Tensor], values: Any) -> Any:
    return tree_map_only(FarTensor, change, values)


def _check(name: str, far: list[FarTensor], near: list[torch.Tensor]) -> None:
    """Raise where CUDA would: tensors of both devices, apart from copies, indices on the CPU and single numbers there."""
    if name in COPIES:
        return
    wrong = [x for x in near if x.dim() and not (name in INDEXED and x.dtype in (torch.long, torch.bool))]
    if far and wrong:
        shapes = [tuple(x.shape) for x in far], [tuple(x.shape) for x in wrong]
        raise RuntimeError(f"{name} was given tensors {shapes[0]} of the device and {shapes[1]} of the CPU")


def _waits(name: str, args: Any, kwargs: Any, far: list[FarTensor], near: list[torch.Tensor], target: bool) -> bool:
    """Whether the host waits for the device."""
    if name in ASKED:
        return bool(far) and kwargs.get("output_size") is None
    if name in COPIES:
        to_far = isinstance(args[0], FarTensor) if name == "copy_" else target
        crosses = (bool(near) and to_far) or (bool(far) and not to_far)
        return crosses and not (kwargs.get("non_blocking") or (name == "copy_" and True in args[2:]))
    if name in INDEXED:
        indices = [x for x in tree_iter(args[1]) if isinstance(x, torch.Tensor)]
        return any(x.dtype == torch.bool or not isinstance(x, FarTensor) for x in indices)
    return False


def _caller() -> str:
    """The innermost line of the package that is running; of a backward pass, the line that began it."""
    frames = [f for f in traceback.extract_stack() if "/paramgen/" in f.filename]
    return f"at {frames[-1].filename.rpartition('/paramgen/')[2]}:{frames[-1].lineno}" if frames else "outside"


class _FarAccelerator(Accelerator):
    """What Lightning wants to know of the device."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [FAR]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "far"


def far_trainer(**arguments: Any) -> Trainer:
    """A trainer whose only device is the pretended one; it is to be used within :func:`pretended`."""
    return Trainer(accelerator=_FarAccelerator(), strategy=SingleDeviceStrategy(FAR), devices=1, **arguments)
