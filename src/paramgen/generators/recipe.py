"""Settings that follow the zoo: each ``auto`` in a config is replaced by the value of the backend's recipe for the zoo."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from paramgen.core.counting import counted

if TYPE_CHECKING:  # it imports torch
    from paramgen.core.zoo import Zoo

AUTO = "auto"


class Facts(NamedTuple):
    """What a recipe depends on.

    Args:
        networks: K, training networks.
        runs: R, the runs that they come from.
        parameters: P, generated numbers of a network.
        conditional: Whether each network has a condition.
    """

    networks: int
    runs: int
    parameters: int
    conditional: bool = False

    @classmethod
    def of(cls, zoo: "Zoo") -> Self:
        """The facts of a zoo's train split."""
        train = [zoo.entries[i] for i in zoo.indices("train")]
        conditional = any(entry.condition is not None for entry in train)
        return cls(len(train), len({entry.run for entry in train}), zoo.spec.numel, conditional)

    def __str__(self) -> str:
        return f"{counted(self.networks, 'network')} of {counted(self.parameters, 'parameter')} in {counted(self.runs, 'run')}"


class Resolved(NamedTuple):
    """A config without ``auto``, and the values that were chosen, by dotted names."""

    config: dict[str, Any]
    chosen: dict[str, Any]


def power_of_two(number: float, low: int, high: int) -> int:
    """The power of two nearest to a number, on a logarithmic scale, within two powers of two."""
    nearest: int = 2 ** round(math.log2(number))
    return min(max(nearest, low), high)


def needs_recipe(section: Any) -> bool:
    """Whether ``auto`` is a value anywhere in a config."""
    return section == AUTO or (isinstance(section, Mapping) and any(map(needs_recipe, section.values())))


def resolve(config: Mapping[str, Any], recipe: Mapping[str, Any]) -> Resolved:
    """Replace each ``auto`` of a config for which the recipe has a value; others, as ``trainer.devices: auto``, stay.

    Args:
        config: As YAML has it.
        recipe: Values by dotted names without ``init_args``: ``model.optimizer.lr``, ``data.codec.token_dim``.
    """
    chosen: dict[str, Any] = {}

    def walk(section: Any, name: str) -> Any:
        if isinstance(section, Mapping):
            return {
                key: walk(value, name if key == "init_args" else f"{name}.{key}".strip("."))
                for key, value in section.items()
            }
        if section != AUTO or name not in recipe:
            return section
        chosen[name] = recipe[name]
        return recipe[name]

    return Resolved(walk(config, ""), chosen)
