"""Estimate how long scoring a zoo will take, from a few items of one network."""

import torch

from paramgen.core.params import StateDict
from paramgen.core.progress import announce_scoring
from paramgen.tasks import Task

MEASURED = 256  # number of items that the time is measured on
PARTS = ("train", "val")  # splits that a zoo records scores on


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
    """
    items = MEASURED if most is None else min(MEASURED, most)
    times = networks * sum(task.count(part, most) for part in PARTS) / task.count("train", items)
    announce_scoring(lambda: task.evaluate([state], "train", items, device), times, networks)
