"""Tasks: which network is trained, on what, and how it is scored."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import Member, SplitData, Task, TaskFamily
from paramgen.tasks.factory import load_family, load_task
from paramgen.tasks.field_family import FieldFamily, FieldsTask, ShapeFamily, ShapesTask
from paramgen.tasks.fields import FieldTask
from paramgen.tasks.language.family import LanguageFamily
from paramgen.tasks.language.instructions import InstructionTask
from paramgen.tasks.pruned import PrunedTask
from paramgen.tasks.quantised import QuantisedTask
from paramgen.tasks.score import Classifies, Measured
from paramgen.tasks.scorer import ScorerTask
from paramgen.tasks.tabular import RegressionTask, TabularClassificationTask
from paramgen.tasks.text import TextTask
from paramgen.tasks.vision.camera_traps import CameraTrapFamily
from paramgen.tasks.vision.classification import ClassificationTask
from paramgen.tasks.vision.detection import DetectionTask
from paramgen.tasks.vision.domains import DomainFamily
from paramgen.tasks.vision.image_generation import ImageGenerationTask
from paramgen.tasks.vision.relabel import RelabelFamily
from paramgen.tasks.vision.rotated import RotatedFamily
from paramgen.tasks.vision.segmentation import SegmentationTask

__all__ = [
    "ArraySplit",
    "CameraTrapFamily",
    "ClassificationTask",
    "Classifies",
    "DetectionTask",
    "DomainFamily",
    "FieldFamily",
    "FieldTask",
    "FieldsTask",
    "ImageGenerationTask",
    "InstructionTask",
    "LanguageFamily",
    "Measured",
    "Member",
    "PrunedTask",
    "QuantisedTask",
    "RegressionTask",
    "RelabelFamily",
    "RotatedFamily",
    "ScorerTask",
    "SegmentationTask",
    "ShapeFamily",
    "ShapesTask",
    "SplitData",
    "TabularClassificationTask",
    "Task",
    "TaskFamily",
    "TextTask",
    "family_of",
    "load_family",
    "load_task",
    "score_family",
    "task_of",
]


def family_of(zoo: Zoo) -> TaskFamily:
    """The tasks of the networks of a zoo; a single task is a family of one.

    Raises:
        UntrustedError: The zoo names a class that is not part of paramgen, and is not trusted.
        ParamgenError: The zoo has no task, or as :func:`load_family`.
    """
    return load_family(_task_config(zoo), zoo.trusted, f"zoo {zoo.name!r}")


def task_of(zoo: Zoo) -> Task:
    """The task of the networks of a zoo, where they all have the same.

    Raises:
        UntrustedError: As :func:`family_of`.
        ParamgenError: As :func:`family_of`, or the zoo is of a family of several tasks.
    """
    return load_task(_task_config(zoo), zoo.trusted, f"zoo {zoo.name!r}")


def score_family(
    zoo: Zoo,
    weights: Sequence[Mapping[str, Tensor]],
    names: Sequence[str | None],
    split: str,
    family: TaskFamily | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Scores of N networks of a zoo, each on its own task; see :meth:`TaskFamily.evaluate_each`.

    Args:
        zoo: Completes the weights, and says which family it is.
        weights: N generated state dicts.
        names: N names of tasks; None where the zoo is of a single task.
        split: ``train``, ``val`` or ``test``.
        family: The zoo's family, if it is loaded already: its data are then read once. Required for a zoo that names its own classes.
        device: Where to compute.

    Returns:
        (N,) scores, float64.

    Raises:
        ValueError: Not as many names as weights.
        ParamgenError: No such task or split.
    """
    family = family or family_of(zoo)
    return family.evaluate_each([zoo.complete(state) for state in weights], names, split, device=device).value


def _task_config(zoo: Zoo) -> dict[str, Any]:
    if zoo.task_config is None:
        raise ParamgenError(
            f"zoo {zoo.name!r} has no task, so its networks cannot be built, run or scored; import them again with --task"
        )
    return dict(zoo.task_config)
