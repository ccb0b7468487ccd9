"""Tasks: which network is trained, on what, and how it is scored."""

from collections.abc import Mapping
from typing import Any

from paramgen.core.trust import SOMEWHERE
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.factory import construct, recorded
from paramgen.tasks.family import Member, TaskFamily, load_family, score_family
from paramgen.tasks.fields import FieldTask
from paramgen.tasks.score import Measured
from paramgen.tasks.scorer import ScorerTask
from paramgen.tasks.text import TextTask
from paramgen.tasks.vision.camera_traps import CameraTrapFamily
from paramgen.tasks.vision.classification import ClassificationTask
from paramgen.tasks.vision.domains import DomainFamily
from paramgen.tasks.vision.relabel import RelabelFamily
from paramgen.tasks.vision.rotated import RotatedFamily

__all__ = [
    "ArraySplit",
    "CameraTrapFamily",
    "ClassificationTask",
    "DomainFamily",
    "FieldTask",
    "Measured",
    "Member",
    "RelabelFamily",
    "RotatedFamily",
    "ScorerTask",
    "SplitData",
    "Task",
    "TaskFamily",
    "TextTask",
    "family_of",
    "load_family",
    "load_task",
    "score_family",
    "task_of",
]


def load_task(config: Mapping[str, Any], trust: bool = False, where: str = SOMEWHERE) -> Task:
    """The task of a recorded configuration; of a family of one task, that task.

    Args:
        config: ``{"class_path": …, "init_args": {…}}``; the class may be given by its name alone where paramgen has it.
        trust: Import classes that are not part of paramgen.
        where: The file that contains it, for messages.

    Raises:
        UntrustedError: `trust` is false, and the configuration names such a class, or a file to read or fetch.
        ParamgenError: No such class, arguments that it does not take, or a family of several tasks.
    """
    path, arguments = recorded(config, "task", where)
    if path.rpartition(".")[2] in {family.__name__ for family in TaskFamily.__subclasses__()}:
        family = load_family(config, trust, where)
        if len(family.names) == 1:
            return family.task(family.names[0])
        raise ParamgenError(
            f"{path} is a family of many tasks, not one: `paramgen evaluate` scores its zoos; choose one of "
            "its tasks with the class Member"
        )
    if isinstance(arguments.get("family"), Mapping):  # of a Member
        config = {**config, "init_args": {**arguments, "family": load_family(arguments["family"], trust, where)}}
    return construct(config, Task, "task", trust, where)  # type: ignore[type-abstract]


def task_of(zoo: Zoo) -> Task:
    """What the networks of a zoo do, where they all do the same.

    Raises:
        UntrustedError: The zoo names a class that is not part of paramgen, and is not trusted.
        ParamgenError: The zoo has no task, or as :func:`load_task`.
    """
    return load_task(_task_config(zoo), zoo.trusted, f"zoo {zoo.name!r}")


def family_of(zoo: Zoo) -> TaskFamily:
    """The tasks of the networks of a zoo, where they differ.

    Raises:
        UntrustedError: The zoo names a class that is not part of paramgen, and is not trusted.
        ParamgenError: The zoo has no task, or as :func:`load_family`.
    """
    return load_family(_task_config(zoo), zoo.trusted, f"zoo {zoo.name!r}")


def _task_config(zoo: Zoo) -> dict[str, Any]:
    if zoo.task_config is None:
        raise ParamgenError(
            f"zoo {zoo.name!r} has no task, so its networks cannot be built, run or scored; import them again with --task"
        )
    return dict(zoo.task_config)
