"""Tasks: which network is trained, on what, and how it is scored."""

from collections.abc import Mapping
from typing import Any

from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.camera_traps import CameraTrapFamily
from paramgen.tasks.classification import ClassificationTask
from paramgen.tasks.construct import construct
from paramgen.tasks.domains import DomainFamily
from paramgen.tasks.family import Member, TaskFamily, load_family, score_family
from paramgen.tasks.relabel import RelabelFamily
from paramgen.tasks.rotated import RotatedFamily

__all__ = [
    "CameraTrapFamily",
    "ClassificationTask",
    "DomainFamily",
    "Member",
    "RelabelFamily",
    "RotatedFamily",
    "SplitData",
    "Task",
    "TaskFamily",
    "load_family",
    "load_task",
    "score_family",
]


def load_task(config: Mapping[str, Any]) -> Task:
    """The task of a recorded configuration.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``; the class may be given by its name alone where paramgen has it.

    Raises:
        ParamgenError: No such class, or arguments that it does not take.
    """
    return construct(config, Task, "task")  # type: ignore[type-abstract]
