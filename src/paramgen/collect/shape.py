"""The shape of a zoo without its networks: of one that exists, or of one that a recipe will make.

K: training networks. R: their runs. C: numbers of a condition.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from paramgen.core.params import ParamSpec, state_tensors
from paramgen.core.subsets import select_tensors
from paramgen.core.zoo import Zoo
from paramgen.tasks.base import Outline
from paramgen.tasks.lora import adapter_names


class ZooShape(NamedTuple):
    """What decides the cost of learning a zoo.

    Args:
        name: Of the zoo.
        spec: The generated tensors.
        networks: K.
        runs: R.
        cond_dim: C; 0 without conditions.
        fixed: Bytes of the tensors that are not generated.
        conditions: How many different conditions the networks have; 0 without conditions.
    """

    name: str
    spec: ParamSpec
    networks: int
    runs: int
    cond_dim: int = 0
    fixed: int = 0
    conditions: int = 0

    @property
    def network_bytes(self) -> int:
        """Bytes of one network's file, without its header."""
        return sum(t.numel * t.torch_dtype.to_real().itemsize for t in self.spec.tensors)


def shape_of_zoo(zoo: Zoo) -> ZooShape:
    """The shape of a zoo that exists."""
    train = [zoo.entries[i] for i in zoo.indices("train")]
    conditions = [entry.condition for entry in train if entry.condition is not None]
    fixed = sum(tensor.nbytes for tensor in zoo.base().values())
    width = len(conditions[0]) if conditions else 0
    runs, different = len({entry.run for entry in train}), len({tuple(condition) for condition in conditions})
    return ZooShape(zoo.name, zoo.spec, len(train), runs, width, fixed, different)


def shape_of_runs(name: str, network: nn.Module, recipe: Mapping[str, Any]) -> ZooShape:
    """The shape of the zoo that ``paramgen collect`` will make.

    Args:
        name: Of the zoo.
        network: The task's, on any device.
        recipe: The arguments of ``collect``.
    """
    names = select_tensors(network, recipe["parameters"] or ["all"])
    runs = recipe["runs"] - recipe["heldout_runs"] - recipe["val_runs"]
    return ZooShape(name, ParamSpec.of(network, names), runs * recipe["checkpoints"], runs, 0, _fixed(network, names))


def shape_of_tasks(name: str, outline: Outline, recipe: Mapping[str, Any], cond_dim: int) -> ZooShape:
    """The shape of the zoo that ``paramgen collect_tasks`` will make.

    Args:
        name: Of the zoo.
        outline: Of the family.
        recipe: The arguments of ``collect_tasks``.
        cond_dim: C.
    """
    network, seen = outline
    names = select_tensors(network, recipe["parameters"] or adapter_names(state_tensors(network)) or ["all"])
    spec, fixed = ParamSpec.of(network, names), _fixed(network, names)
    return ZooShape(name, spec, seen * recipe["networks"], seen, cond_dim, fixed, seen if cond_dim else 0)


def _fixed(network: nn.Module, names: list[str]) -> int:
    """Bytes of the tensors that are not generated."""
    return sum(tensor.nbytes for name, tensor in state_tensors(network).items() if name not in names)
