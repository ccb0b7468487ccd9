"""A checkpoint as a folder, to which each process of a fit writes its part of the sharded tensors (torch.distributed.checkpoint).

``meta.pt`` holds what every process has, and the name, shape and file of all that is sharded. The sharded tensors are in safetensors files,
one or more per process, named by the JSON list of keys that leads to them in the checkpoint. No file can run code when it is read;
torch's own format has an index that can. A folder is read by any number of processes, also by one.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import empty as empty_shard

from paramgen.core.io import read_header, replace_folder, replacing
from paramgen.core.locks import TEMPORARY
from paramgen.core.pickles import read_pickle
from paramgen.errors import ParamgenError, cannot_write

PLAIN_PART = "meta.pt"
SHARDS = "sharded"  # key in it


def is_sharded(path: str | Path) -> bool:
    """Whether a path is a checkpoint in a folder."""
    return (Path(path) / PLAIN_PART).is_file()


def write_shards(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint as a folder; called by all processes. The folder is complete or absent, as files are.

    Args:
        checkpoint: The same on all processes, except for their parts of its DTensors.
        path: The folder, on a disk that all processes share.

    Raises:
        ParamgenError: The disk is full, or the folder cannot be written.
    """
    sharded: dict[str, Tensor] = {}
    plain = _without_shards(checkpoint, [], sharded)
    temporary = path.with_name(f".{path.name}{TEMPORARY}")

    def make_folder() -> None:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        temporary.mkdir(parents=True)

    def complete_folder() -> None:
        files = sorted(file.name for file in temporary.glob("*.safetensors"))
        shapes = {name: list(tensor.shape) for name, tensor in sharded.items()}
        with replacing(temporary / PLAIN_PART) as file:
            torch.save({**plain, SHARDS: {"files": files, "shapes": shapes}}, file)
        replace_folder(temporary, path)

    try:
        _by_first(make_folder)
        save(sharded, storage_writer=HuggingFaceStorageWriter(str(temporary), save_distributed=True))
        _by_first(complete_folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    except CheckpointException as error:  # on all processes; it is no Exception
        reason = next((wrapped[0] for wrapped in error.failures.values()), error)
        if isinstance(reason, OSError):
            raise cannot_write(path, reason) from reason
        raise RuntimeError(f"cannot write {path}: {reason}") from error


def _by_first(action: Callable[[], None]) -> None:
    """Run something on the first process while the others wait for it; its error is raised on all of them, so that none waits forever."""
    raised: list[Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            action()
        except (OSError, ParamgenError) as error:
            raised = [error]
    dist.broadcast_object_list(raised)
    if raised[0] is not None:
        raise raised[0]


def read_shards(path: Path, parts: Collection[str] | None = None, mesh: DeviceMesh | None = None) -> dict[str, Any]:
    """The content of a checkpoint in a folder.

    Args:
        path: The folder.
        parts: Keys of the checkpoint whose sharded tensors are read; all by default.
        mesh: Give each process its part of the sharded tensors. By default they are complete, and read by this process alone.

    Raises:
        ParamgenError: A file is missing, damaged, or of another checkpoint.
    """
    checkpoint: dict[str, Any] = read_pickle(path / PLAIN_PART)
    listed = checkpoint.pop(SHARDS, None) if isinstance(checkpoint, dict) else None
    if listed is None:
        raise ParamgenError(f"{path} is not a checkpoint of paramgen: {PLAIN_PART} lists no shards")
    for name in listed["files"]:
        if not (path / name).is_file():
            raise ParamgenError(
                f"cannot read {path}: {name} is missing, one of {len(listed['files'])} files with the parts of the processes"
            )
        read_header(path / name)  # checks that it fits the file
    wanted = [name for name in listed["shapes"] if parts is None or json.loads(name)[0] in parts]
    if not wanted:
        return checkpoint
    reader = HuggingFaceStorageReader(str(path))
    stored = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for name in wanted:
        shape, found = listed["shapes"][name], stored.get(name)
        if not isinstance(found, TensorStorageMetadata) or list(found.size) != shape or _held(found) != prod(shape):
            raise ParamgenError(f"cannot read {path}: the files do not hold all of tensor {name} of shape {shape}")
        dtype = found.properties.dtype
        tensors[name] = (
            torch.empty(shape, dtype=dtype)
            if mesh is None
            else empty_shard(shape, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # by one process, as intended
        load(tensors, storage_reader=reader, no_dist=mesh is None)
    for name, tensor in tensors.items():
        _put(checkpoint, json.loads(name), tensor)
    return checkpoint


def _held(tensor: TensorStorageMetadata) -> int:
    """How many numbers of a tensor the files hold."""
    return sum(chunk.sizes.numel() for chunk in tensor.chunks)


def _without_shards(value: Any, keys: list[str | int], sharded: dict[str, Tensor]) -> Any:
    """Plain containers without the DTensors in them, which are collected by the keys that lead to them."""
    if isinstance(value, Mapping):
        kept = {}
        for key, item in value.items():
            if isinstance(item, DTensor):
                sharded[json.dumps([*keys, key])] = item.detach()
            else:
                kept[key] = _without_shards(item, [*keys, key], sharded)
        return kept
    if isinstance(value, list | tuple):
        return [_without_shards(item, [*keys, i], sharded) for i, item in enumerate(value)]
    return value


def _put(checkpoint: dict[str, Any], keys: list[str | int], tensor: Tensor) -> None:
    place: Any = checkpoint
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = tensor
