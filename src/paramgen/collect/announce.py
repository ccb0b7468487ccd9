"""How long the scores of a zoo will take, measured on a few items of one network."""

import torch

from paramgen.core.params import StateDict
from paramgen.core.progress import announce_scoring
from paramgen.tasks import Task

MEASURED = 256  # items that the time is measured on
PARTS = ("train", "val")  # splits that a zoo records scores on


def announce(
    task: Task, state: StateDict, networks: int, most: int | None = None, device: torch.device | str = "cpu"
) -> None:
    """Say how long it will take to score networks on train and val, unless it is too short to matter.

    Args:
        task: Scores them.
        state: The complete state dict of one of them.
        networks: How many there are to score.
        most: Items of each split that a network is scored on at most.
        device: Where they run.
    """
    few = MEASURED if most is None else min(MEASURED, most)
    times = networks * sum(task.count(part, most) for part in PARTS) / task.count("train", few)
    announce_scoring(lambda: task.evaluate([state], "train", few, device), times, networks)
