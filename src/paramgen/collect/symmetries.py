"""The symmetries of a zoo's network, read from its graph."""

from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.symmetry import PermutationSpec
from paramgen.tasks import task_of


def symmetries_of(zoo: Zoo) -> PermutationSpec:
    """Which hidden units of a zoo's network may change places, and which may be rescaled.

    Raises:
        CannotAlign: The network cannot be traced, or mixes its hidden units.
        ParamgenError: The zoo has no task, or one without data to trace the network with.
    """
    task = task_of(zoo)
    if not task.has_data:
        raise ParamgenError(f"zoo {zoo.name!r} has no data to trace its network with: its hidden units are unknown")
    inputs, _ = next(iter(task.data("train").batches(2)))
    return PermutationSpec.of(task.build().eval(), inputs, zoo.spec)
