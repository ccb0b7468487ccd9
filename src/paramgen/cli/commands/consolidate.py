"""``paramgen consolidate``: a checkpoint as one file, complete or with what sampling needs alone."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paramgen.errors import ParamgenError
from paramgen.generators.restore import read_checkpoint, without_optimizer

HALF_ERROR = 1e-3  # relative error up to which a tensor is stored in half precision


def main(ckpt_path: str, out: str, weights_only: bool = False, half: bool = False, overwrite: bool = False) -> Path:
    """Write a checkpoint as one file that every command reads: a folder of shards, or a file that is to become smaller.

    Args:
        ckpt_path: Folder written by ``paramgen fit --trainer.strategy fsdp2``, or a checkpoint file.
        out: The file.
        weights_only: Leave the optimizer out, and the weights of the last step where their average was fitted: enough to sample, not to go
            on with the fit.
        half: Store weights in half precision where that changes them by less than 0.1 %. Needs weights_only.
        overwrite: Replace an existing file.

    Raises:
        ParamgenError: No such checkpoint, an existing file, or half without weights_only.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise ParamgenError(f"{out} exists: choose another file, or add --overwrite true")
    if half and not weights_only:
        raise ParamgenError("half needs weights_only: a fit cannot resume from weights in half precision")
    checkpoint = read_checkpoint(ckpt_path, parts=("state_dict",) if weights_only else None)
    if weights_only:
        checkpoint = without_optimizer(checkpoint)
    if half:
        checkpoint = _halved(checkpoint)
    from paramgen.generators.checkpoints import CompleteCheckpoints  # it imports Lightning, which takes seconds

    CompleteCheckpoints().save_checkpoint(checkpoint, path)
    print(f"checkpoint: {path}")
    return path


def _halved(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with its weights in half precision, where they fit."""

    def half(tensor: Tensor) -> Tensor:
        if tensor.dtype not in (torch.float32, torch.float64):
            return tensor
        smaller = tensor.half()
        close = (smaller.double() - tensor.double()).norm() <= HALF_ERROR * tensor.double().norm()
        return smaller if close else tensor

    return {**checkpoint, "state_dict": {name: half(tensor) for name, tensor in checkpoint["state_dict"].items()}}
