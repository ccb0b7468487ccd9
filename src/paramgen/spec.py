"""Which tensors of a network are generated, and in which order.

P: the number of generated parameters. A state dict may list its keys in any order; the spec's order is the only one that counts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from paramgen.errors import ParamgenError

StateDict = dict[str, Tensor]
Kind = Literal["weight", "running_mean", "running_var"]


@dataclass(frozen=True)
class TensorSpec:
    """One generated tensor.

    Args:
        name: Key in the network's state dict.
        shape: Its shape; ``()`` for a scalar.
        kind: ``running_mean`` and ``running_var`` are batch-norm statistics, everything else is a ``weight``.
        dtype: Its own floating dtype, for example ``float32`` or ``bfloat16``.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "weight"
    dtype: str = "float32"

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Its dtype as torch has it."""
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class ParamSpec:
    """The generated tensors of a network, in order.

    Args:
        tensors: The generated tensors.
        aliases: Names of tied tensors, each with the name it shares its storage with; they are restored, not generated twice.
    """

    tensors: tuple[TensorSpec, ...]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, network: nn.Module | Mapping[str, Tensor], names: Sequence[str] | None = None) -> Self:
        """The spec of a network's floating tensors, in the order of its state dict.

        Args:
            network: A module or a state dict. Tied tensors are recognised by their shared storage.
            names: Generate these alone; ``None`` for every floating tensor.

        Raises:
            ParamgenError: A name that the network does not have, or nothing left to generate.
        """
        state = network.state_dict() if isinstance(network, nn.Module) else network
        if unknown := [name for name in names or () if name not in state]:
            raise ParamgenError(f"no tensor {unknown[0]!r} in the network; it has: {', '.join(state)}")
        wanted = set(state if names is None else names)
        first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
        aliases: dict[str, str] = {}
        tensors = []
        for name, tensor in state.items():
            if not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            place = (tensor.data_ptr(), tensor.shape, tensor.stride())
            canonical = first.setdefault(place, name) if tensor.device.type != "meta" else name
            if name not in wanted and canonical not in wanted:
                continue
            if canonical != name and canonical in wanted:
                aliases[name] = canonical
            else:
                tensors.append(
                    TensorSpec(name, tuple(tensor.shape), _kind(name), str(tensor.dtype).removeprefix("torch."))
                )
        if not tensors:
            raise ParamgenError("nothing to generate: no floating tensor was chosen")
        return cls(tuple(tensors), aliases)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any], where: str = "spec") -> Self:
        """The inverse of :meth:`to_dict`.

        Args:
            saved: Fits ``spec`` of ``zoo.schema.json``.
            where: Names the file in messages.

        Raises:
            ParamgenError: A name that occurs twice, or an alias of a tensor that is not generated.
        """
        tensors = tuple(TensorSpec(**{**t, "shape": tuple(t["shape"])}) for t in saved["tensors"])
        names = [t.name for t in tensors]
        if twice := next((name for name, count in Counter([*names, *saved["aliases"]]).items() if count > 1), None):
            raise ParamgenError(f"{where}: spec names the tensor {twice!r} twice")
        if unknown := next((of for of in saved["aliases"].values() if of not in names), None):
            raise ParamgenError(f"{where}: spec.aliases names {unknown!r}, which is not among spec.tensors")
        return cls(tensors, dict(saved["aliases"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and integers, for JSON and for checkpoints."""
        return {"tensors": [{**asdict(t), "shape": list(t.shape)} for t in self.tensors], "aliases": dict(self.aliases)}

    @cached_property
    def names(self) -> list[str]:
        """Names of the generated tensors, in order."""
        return [t.name for t in self.tensors]

    @cached_property
    def numel(self) -> int:
        """P, the number of generated parameters."""
        return sum(t.numel for t in self.tensors)

    def check(self, state: Mapping[str, Tensor], where: str) -> None:
        """Raise ParamgenError, naming `where`, unless `state` holds every tensor of the spec, in shape and finite."""
        for spec in self.tensors:
            if spec.name not in state:
                raise ParamgenError(
                    f"{where}: no tensor {spec.name!r}; it has {', '.join(list(state)[:8]) or 'nothing'}"
                )
            tensor = state[spec.name]
            if tuple(tensor.shape) != spec.shape:
                raise ParamgenError(f"{where}: {spec.name!r} has shape {tuple(tensor.shape)}, expected {spec.shape}")
            if not torch.isfinite(tensor).all():
                bad = int((~torch.isfinite(tensor)).sum())
                raise ParamgenError(f"{where}: {spec.name!r} holds {bad} NaN or infinite values of {spec.numel}")

    def flatten(self, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """The generated tensors as one vector (P,)."""
        return torch.cat([state[t.name].detach().reshape(-1).to(dtype) for t in self.tensors])

    def flatten_many(self, states: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """One row a network: (K, P) float32."""
        out = torch.empty(len(states), self.numel)
        for row, state in zip(out, states, strict=True):
            row.copy_(self.flatten(state))
        return out  # (K, P)

    def unflatten(self, vector: Tensor) -> StateDict:
        """The inverse of :meth:`flatten`: each tensor in its own shape and dtype, tied names included.

        Args:
            vector: (P,) any floating dtype.
        """
        parts = vector.split([t.numel for t in self.tensors])
        state = {t.name: p.reshape(t.shape).to(t.torch_dtype) for t, p in zip(self.tensors, parts, strict=True)}
        return state | {name: state[canonical] for name, canonical in self.aliases.items()}


def _kind(name: str) -> Kind:
    last = name.rsplit(".", 1)[-1]
    return last if last in ("running_mean", "running_var") else "weight"  # type: ignore[return-value]
