"""Load fitted generators from checkpoints: their fields are checked, and the size of what they build is bounded by their own."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from paramgen.core.codec import ParamCodec
from paramgen.core.hub import local_checkpoint
from paramgen.core.io import regular_file
from paramgen.core.params import ParamSpec
from paramgen.core.pickles import read_pickle
from paramgen.core.schema import check
from paramgen.errors import ParamgenError, one_line
from paramgen.generators.distributed_checkpoints import PLAIN_PART, is_sharded, read_shards

Module = TypeVar("Module", bound=nn.Module)
PER_BYTE = 1000  # maximum number of generated parameters per byte of a checkpoint; known ones have less than one
_OF_A_FIT = ("optimizer_states", "lr_schedulers", "current_model_state", "averaging_state")
SLACK = 4  # maximum size of a module while it is built, relative to its weights: tied tensors are created before they are tied


def read_checkpoint(path: str | Path, parts: Collection[str] | None = None) -> dict[str, Any]:
    """The content of a fitted generator's checkpoint.

    Args:
        path: A ``.ckpt`` written by ``paramgen fit``, a file or a folder of shards; or ``hf://owner/name``.
        parts: Keys whose sharded tensors are needed; all by default.

    Raises:
        ParamgenError: No such file, no checkpoint of paramgen, or one that does not fit ``checkpoint.schema.json``; the field is named.
    """
    path = local_checkpoint(path)
    if is_sharded(path):
        checkpoint: Any = read_shards(Path(path), parts)
    elif Path(path).is_dir():
        raise ParamgenError(f"{str(path)!r} is a folder, expected a file, or a folder of shards with a {PLAIN_PART}")
    else:
        checkpoint = read_pickle(path)
    if not isinstance(checkpoint, dict) or "paramgen" not in checkpoint:
        raise ParamgenError(f"{str(path)!r} is not a paramgen checkpoint: it has no codec")
    check(checkpoint, "checkpoint", str(path))
    codec = checkpoint["paramgen"]["codec"]
    spec = ParamSpec.from_dict(codec["spec"], where=f"{path}: paramgen.core.codec")
    _check_size(path, "paramgen.codec.spec", spec.numel)
    _check_size(path, "paramgen.codec.init_args", prod(_sizes(codec["init_args"])) * len(spec.tensors))
    return checkpoint


def without_optimizer(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint without the optimizer's state: enough to sample, not to resume the fit."""
    return {key: value for key, value in checkpoint.items() if key not in _OF_A_FIT}


def build(
    make: Callable[..., Module], arguments: Mapping[str, Any], weights: Mapping[str, Tensor], where: str
) -> Module:
    """Build a module from arguments in a file, no larger than its weights.

    Args:
        make: Its class.
        arguments: Of the class.
        weights: Its state dict, loaded before it is returned.
        where: Names the file in messages.

    Raises:
        ParamgenError: The arguments make a module of other or larger tensors than the weights, or fail to make one.
    """
    name = getattr(make, "__name__", str(make))
    if small := next((key for key, w in weights.items() if w.is_floating_point() and w.itemsize == 1), None):
        raise ParamgenError(
            f"{where}: {small!r} is {weights[small].dtype}, expected floating numbers of 16 bits or more"
        )
    try:
        with _no_larger_than(weights):
            module = make(**arguments)
        module.load_state_dict(weights, strict=getattr(module, "strict_loading", True))
    except ParamgenError as error:
        raise ParamgenError(f"{where}: {error}") from error
    except Exception as error:  # a constructor may raise any error on arguments from a file
        raise ParamgenError(f"{where} does not fit its own {name}: {one_line(error)}") from error
    return module


def check_same_data(saved: ParamCodec, given: ParamCodec) -> None:
    """Refuse to resume a checkpoint on different data.

    Args:
        saved: The checkpoint's codec.
        given: The data's.

    Raises:
        ParamgenError: Other tensors, another codec, or other statistics.
    """
    if saved.spec != given.spec:
        raise ParamgenError("the checkpoint generates other tensors than the zoo holds: it was fitted on another zoo")
    old, new = (
        {k: v for k, v in codec.state_dict().items() if k in ("class_path", "init_args")} for codec in (saved, given)
    )
    if old != new:
        raise ParamgenError(f"the checkpoint was made with the codec {old}, the data now use {new}")
    if not torch.allclose(saved.shift, given.shift) or not torch.allclose(saved.scale, given.scale):
        raise ParamgenError(
            "the zoo's networks are not those that the checkpoint was fitted on (their statistics differ)"
        )


@contextmanager
def _no_larger_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While a module is built, stop as soon as it has far more tensors, numbers or submodules than weights to fill it."""
    most = {"tensors": SLACK * len(weights) + 1000, "numbers": SLACK * sum(w.numel() for w in weights.values()) + 10**6}
    most["modules"] = 10 * most["tensors"]
    counts = dict.fromkeys(most, 0)

    def count(_: nn.Module, name: str, added: Tensor | nn.Module | None) -> None:
        if isinstance(added, Tensor):
            counts["tensors"] += 1
            counts["numbers"] += added.numel()
        else:
            counts["modules"] += 1
        if exceeded := next((kind for kind in most if counts[kind] > most[kind]), None):
            raise ParamgenError(
                f"its arguments describe a module of more {exceeded} than its weights have, seen at {name!r}"
            )

    handles = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
        register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_size(path: str | Path, field: str, numbers: float) -> None:
    files = [*Path(path).iterdir()] if Path(path).is_dir() else [path]
    size = sum(map(regular_file, files))
    if numbers > PER_BYTE * size:
        raise ParamgenError(f"{path}: {field} describes {numbers:,} numbers; a file of {size:,} bytes cannot hold them")


def _sizes(value: Any) -> Iterator[float]:
    """The integers above 1 in plain arguments, as possible sizes."""
    if isinstance(value, int) and value > 1:
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _sizes(item)
