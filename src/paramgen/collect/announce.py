"""Run one network on a few items before others follow: refuse one that cannot be run, and estimate how long scoring a zoo will take."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from paramgen.core.params import StateDict
from paramgen.core.progress import announce_scoring
from paramgen.core.zoo import PARTS
from paramgen.errors import ParamgenError, one_line
from paramgen.tasks import Task

MEASURED = 256  # number of items that the time is measured on


def announce(
    task: Task, state: StateDict, networks: int, most: int | None = None, device: torch.device | str = "cpu"
) -> None:
    """Announce how long it will take to score networks on train and val, unless it is short.

    Args:
        task: Scores them.
        state: The complete state dict of one of them.
        networks: Number of networks to score.
        most: Maximum number of items of each split that a network is scored on.
        device: Where they run.

    Raises:
        ParamgenError: As :func:`first_run`.
    """
    items = MEASURED if most is None else min(MEASURED, most)
    times = networks * sum(task.count(part, most) for part in PARTS) / task.count("train", items)
    with first_run():
        announce_scoring(lambda: task.evaluate([state], "train", items, device), times, networks)


@contextmanager
def first_run() -> Iterator[None]:
    """Report what a network raises in the block, its first run on a task's data.

    Raises:
        ParamgenError: The network cannot be run on the task's data.
    """
    try:
        yield
    except ParamgenError:
        raise
    except Exception as error:  # the network's own code may raise anything
        raise ParamgenError(f"the network cannot be run on the task's data: {one_line(error)}") from error
