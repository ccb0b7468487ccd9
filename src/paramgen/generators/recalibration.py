"""Batch-norm statistics of generated networks, measured anew on train items of the task that the zoo's networks were trained for."""

from collections.abc import Sequence

from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.generators.base import ParameterGenerator
from paramgen.tasks import task_of
from paramgen.tasks.batchnorm import calibration_inputs, has_statistics, recalibrate


def recalibrated(model: ParameterGenerator, networks: Sequence[StateDict], trust: bool = False) -> list[StateDict]:
    """Complete state dicts of generated networks with statistics measured anew, everything else as generated.

    Args:
        model: The generator. The zoo of its fit says which task its networks are for.
        networks: Complete state dicts.
        trust: Of the zoo.

    Raises:
        ParamgenError: The zoo is gone, its task cannot be read, it is of several tasks, or its networks have no batch norm.
    """
    zoo = Zoo(model.zoo_info["path"], trust)
    task = task_of(zoo)
    if not has_statistics(task.architecture):
        raise ParamgenError(f"recalibrate: networks of zoo {zoo.name!r} keep no batch-norm statistics; leave it out")
    inputs = calibration_inputs(task.data("train"), model.device)
    return recalibrate(task.architecture.to(model.device), networks, inputs)
