"""The symmetries of a zoo's network, read from its graph."""

from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.symmetry import PermutationSpec
from paramgen.tasks import TaskFamily, family_of


def symmetries_of(zoo: Zoo, family: TaskFamily | None = None) -> PermutationSpec:
    """Which hidden units of a zoo's network may change places, and which may be rescaled.

    Args:
        zoo: Of one task or of a family.
        family: Its tasks, if they are loaded already: their data are then read once.

    Raises:
        CannotAlign: The network cannot be traced, or mixes its hidden units.
        ParamgenError: The zoo has no task, or one without data to trace the network with.
    """
    family = family or family_of(zoo)
    if not family.has_data:
        raise ParamgenError(f"zoo {zoo.name!r} has no data to trace its network with: its hidden units are unknown")
    inputs, _ = next(iter(family.task(family.names[0]).data("train").batches(2)))
    return PermutationSpec.of(family.build().eval(), inputs, zoo.spec)
