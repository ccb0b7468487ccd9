"""The shape of a zoo by its name: of the zoo where it exists, else of the one that the recipe of this name will make."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jsonargparse import Namespace

from paramgen.cli.dispatch import parser_of
from paramgen.collect import multi, single
from paramgen.collect.shape import ZooShape, shape_of_runs, shape_of_tasks, shape_of_zoo
from paramgen.collect.symmetries import symmetries_of, symmetries_of_family
from paramgen.core.paths import ZooRecipe, find_zoo_or_recipe
from paramgen.core.trust import import_class
from paramgen.core.zoo import Zoo
from paramgen.symmetry import PermutationSpec
from paramgen.tasks import TaskFamily
from paramgen.tasks.conditions import ConditionEncoder
from paramgen.tasks.factory import FETCHING


class PlannedZoo(NamedTuple):
    """A zoo that may not exist yet.

    Args:
        shape: Its shape.
        symmetries: Reads which hidden units of its network may change places; takes a second.
    """

    shape: ZooShape
    symmetries: Callable[[], PermutationSpec]


def planned_zoo(name: str) -> PlannedZoo:
    """A zoo by its name or folder.

    Raises:
        ParamgenError: There is neither such a zoo nor such a recipe, or the recipe's network cannot be built.
    """
    found = find_zoo_or_recipe(name)
    if isinstance(found, ZooRecipe):
        return _of_recipe(name, found)
    zoo = Zoo(found)
    return PlannedZoo(shape_of_zoo(zoo), lambda: symmetries_of(zoo))


def _of_recipe(name: str, recipe: ZooRecipe) -> PlannedZoo:
    of_tasks = recipe.of_tasks
    function, prog = (multi.main, "paramgen collect_tasks") if of_tasks else (single.main, "paramgen collect")
    given = parser_of(function, prog, "zoo").parse_args(["--config", recipe.name, "--out", recipe.name])
    task = given["family" if of_tasks else "task"]
    kind = import_class(task.class_path, TaskFamily, "task")  # type: ignore[type-abstract]
    arguments = _plain(task)
    arguments |= {name: False for name in FETCHING if name in arguments}
    with torch.device("meta"):
        outline = kind.outline(**arguments)
    shape = (
        shape_of_tasks(name, outline, given, _width(given["condition"]))
        if of_tasks
        else shape_of_runs(name, outline.network, given)
    )
    return PlannedZoo(shape, lambda: symmetries_of_family(kind(**arguments), shape.spec, name))


def _width(condition: Namespace | None) -> int:
    """Numbers of a condition."""
    if condition is None:
        return 0
    kind = import_class(condition.class_path, ConditionEncoder, "condition")  # type: ignore[type-abstract]
    return kind(**_plain(condition)).dim


def _plain(component: Namespace) -> dict[str, Any]:
    """Arguments of a class path as plain values."""
    arguments = component.get("init_args")
    return {} if arguments is None else arguments.as_dict()
