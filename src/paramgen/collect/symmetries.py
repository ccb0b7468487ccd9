"""The symmetries of a zoo's network, read from its graph."""

from paramgen.core.params import ParamSpec
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
    return symmetries_of_family(family or family_of(zoo), zoo.spec, zoo.name)


def symmetries_of_family(family: TaskFamily, spec: ParamSpec, name: str) -> PermutationSpec:
    """The same of a zoo that may not exist yet.

    Args:
        family: Its tasks.
        spec: The generated tensors.
        name: Of the zoo, for messages.

    Raises:
        CannotAlign: As :func:`symmetries_of`.
        ParamgenError: The tasks have no data to trace the network with.
    """
    if not family.has_data:
        raise ParamgenError(f"zoo {name!r} has no data to trace its network with: its hidden units are unknown")
    inputs, _ = next(iter(family.task(family.names[0]).items("train").batches(2)))
    return PermutationSpec.of(family.build().eval(), inputs, spec)
