"""Batch-norm statistics of new networks, measured again on train items of the task that the zoo's networks were trained for."""

from collections.abc import Sequence

import torch

from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import task_of
from paramgen.tasks.batchnorm import calibration_inputs, has_statistics, recalibrate


def recalibrated(zoo: Zoo, networks: Sequence[StateDict], device: torch.device | str = "cpu") -> list[StateDict]:
    """Complete state dicts of new networks with statistics measured anew, everything else as given.

    Args:
        zoo: Says which task its networks are for.
        networks: Complete state dicts.
        device: Where they run.

    Raises:
        ParamgenError: The zoo's task cannot be read, it is of several tasks, or its networks have no batch norm.
    """
    task = task_of(zoo)
    if not has_statistics(task.architecture):
        raise ParamgenError(f"recalibrate: networks of zoo {zoo.name!r} have no batch-norm statistics; remove it")
    inputs = calibration_inputs(task.data("train"), device)
    return recalibrate(task.architecture.to(device), networks, inputs)
