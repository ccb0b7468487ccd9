"""Devices by name, copies to a device that do not make the host wait for it, and random numbers that leave no trace."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from paramgen.errors import ParamgenError, first_line


def usable_device(name: str) -> torch.device:
    """A device that can be used.

    Args:
        name: As torch has it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        ParamgenError: No such device, or it is not there.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ParamgenError(f"device {name!r} cannot be used: {first_line(error)}") from error


def forked_random(device: torch.device) -> AbstractContextManager[None]:
    """A context after which torch's random state on the CPU and on one device is as before; other devices are not looked at."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`, copied in the background.

    CUDA copies in the background only from pinned memory; from other memory the host waits until the device has done its work so far.
    """
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "cpu")
