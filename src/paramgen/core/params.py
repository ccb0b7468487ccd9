"""Which tensors of a network are generated, and in which order.

P: the number of generated parameters. A state dict may list its keys in any order; the spec's order is the only one that counts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from paramgen.core.counting import some
from paramgen.core.discrete import INTEGERS, MASK, MASKED, ones_at_largest, rounded
from paramgen.errors import ParamgenError

StateDict = dict[str, Tensor]
TensorKind = Literal["weight", "running_mean", "running_var", "mask"]
REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
GENERATED = (*REAL, torch.complex64, *INTEGERS)  # dtypes that can be generated and stored
COUNTER = "num_batches_tracked"  # of batch norm; it may differ between networks without being generated
_EXTRA = "_extra_state"  # torch's key for what a module's get_extra_state returns


@dataclass(frozen=True)
class TensorSpec:
    """One generated tensor.

    Args:
        name: Key in the network's state dict.
        shape: Its shape; ``()`` for a scalar.
        kind: ``running_mean`` and ``running_var`` are batch-norm statistics, ``mask`` says which weights of a pruned layer are kept, with
            torch.nn.utils.prune's names (``weight_mask`` for ``weight_orig``); everything else is a ``weight``.
        dtype: Its own dtype, for example ``float32``, ``bfloat16``, ``complex64`` or ``int8``.
        ones: Of a mask: how many ones it has in every network.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind = "weight"
    dtype: str = "float32"
    ones: int | None = None

    @property
    def numel(self) -> int:
        """How many real numbers it holds; a complex number is two."""
        return prod(self.shape) * (2 if self.torch_dtype.is_complex else 1)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Its dtype as torch has it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def reals(self, tensor: Tensor) -> Tensor:
        """Its values as a row (numel,) of real numbers, real and imaginary parts in turn."""
        return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)

    def tensor(self, reals: Tensor) -> Tensor:
        """The inverse of :meth:`reals`, in its own dtype: (..., *shape) of (..., numel). Masks and integers are rounded."""
        if self.ones is not None:
            reals = ones_at_largest(reals, self.ones)
        if self.torch_dtype in INTEGERS:
            reals = rounded(reals, self.torch_dtype)
        if not self.torch_dtype.is_complex:
            return reals.reshape((*reals.shape[:-1], *self.shape)).to(self.torch_dtype)
        parts = reals.reshape((*reals.shape[:-1], *self.shape, 2)).to(self.torch_dtype.to_real())
        return torch.view_as_complex(parts.contiguous())


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
        """The spec of a network's floating and complex tensors, in the order of its state dict.

        Args:
            network: A module or a state dict. Tied tensors are recognised by their shared storage, and generated under their first name.
            names: Generate these alone; ``None`` for every tensor that can be generated.

        Raises:
            ParamgenError: A name that the network does not have, or nothing to generate.
        """
        state = state_tensors(network) if isinstance(network, nn.Module) else network
        if unknown := [name for name in names or () if name not in state]:
            raise ParamgenError(f"no tensor {unknown[0]!r} in the network; it has {some(state)}")
        firsts = first_names(state)
        requested = {firsts[name] for name in (state if names is None else names)}
        selected = {
            name: tensor for name, tensor in state.items() if firsts[name] in requested and can_be_generated(tensor)
        }
        if not selected:
            raise ParamgenError("nothing to generate: no floating or complex tensor was selected")
        tensors = tuple(_tensor_spec(name, tensor, state) for name, tensor in selected.items() if firsts[name] == name)
        return cls(tensors, {name: firsts[name] for name in selected if firsts[name] != name})

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
        tensors = [{k: v for k, v in asdict(t).items() if k != "ones" or v is not None} for t in self.tensors]
        return {"tensors": [{**t, "shape": list(t["shape"])} for t in tensors], "aliases": dict(self.aliases)}

    @cached_property
    def names(self) -> list[str]:
        """Names of the generated tensors, in order."""
        return [t.name for t in self.tensors]

    @cached_property
    def numel(self) -> int:
        """P, the number of generated parameters."""
        return sum(t.numel for t in self.tensors)

    def check(self, state: Mapping[str, Tensor], where: str, finite: bool = True) -> None:
        """Raise ParamgenError, naming `where`, unless `state` holds every tensor of the spec in its shape, and finite where asked."""
        for spec in self.tensors:
            if spec.name not in state:
                raise ParamgenError(f"{where}: no tensor {spec.name!r}; it has {some(state)}")
            tensor = state[spec.name]
            if tuple(tensor.shape) != spec.shape:
                raise ParamgenError(f"{where}: {spec.name!r} has shape {tuple(tensor.shape)}, expected {spec.shape}")
            if tensor.dtype not in GENERATED or _number_kind(tensor.dtype) != _number_kind(spec.torch_dtype):
                given = str(tensor.dtype).removeprefix("torch.")
                raise ParamgenError(f"{where}: {spec.name!r} is {given}, expected {spec.dtype}")
            if spec.ones is not None and int((tensor != 0).sum()) != spec.ones:
                raise ParamgenError(
                    f"{where}: {spec.name!r} keeps {int((tensor != 0).sum())} weights, expected {spec.ones}: "
                    "networks of a zoo have the same sparsity in each layer"
                )
            if finite and not torch.isfinite(tensor).all():
                bad = int((~torch.isfinite(tensor)).sum())
                raise ParamgenError(f"{where}: {spec.name!r} holds {bad} NaN or infinite values of {spec.numel}")

    def flatten(self, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """The generated tensors as one vector (P,)."""
        return torch.cat([t.reals(state[t.name].detach()).to(dtype) for t in self.tensors])

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
        state = {t.name: t.tensor(part) for t, part in zip(self.tensors, parts, strict=True)}
        return state | {name: state[canonical] for name, canonical in self.aliases.items()}


def _number_kind(dtype: torch.dtype) -> str:
    return "complex" if dtype.is_complex else "real" if dtype.is_floating_point else "integer"


def _tensor_spec(name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> TensorSpec:
    kind = _kind(name, state)
    ones = int((tensor != 0).sum()) if kind == "mask" and tensor.device.type != "meta" else None
    return TensorSpec(name, tuple(tensor.shape), kind, str(tensor.dtype).removeprefix("torch."), ones)


def _kind(name: str, state: Mapping[str, Tensor]) -> TensorKind:
    last = last_part(name)
    if last.endswith(MASK) and name.removesuffix(MASK) + MASKED in state:
        return "mask"
    return last if last in ("running_mean", "running_var") else "weight"  # type: ignore[return-value]


def can_be_generated(tensor: Tensor) -> bool:
    """Whether a tensor can be generated: floating, complex or int8, not empty."""
    return tensor.dtype in GENERATED and tensor.numel() > 0


def state_tensors(network: nn.Module) -> StateDict:
    """The state dict of a network without extra state, which is part of the architecture and is not stored."""
    return {name: value for name, value in network.state_dict().items() if not is_extra_state(name)}


def with_versions(state: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """A state dict with the versions of the network's modules, as ``network.state_dict()`` has them: MNASNet loads no other."""
    versioned = network.state_dict()
    versioned.clear()
    versioned.update(state)
    return versioned


def state_digest(state: Mapping[str, Tensor]) -> str:
    """A sha256 that is the same for the same values under the same names."""
    digest = sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_extra_state(name: str) -> bool:
    """Whether a key of a state dict holds the result of ``get_extra_state``."""
    return last_part(name) == _EXTRA


def last_part(name: str) -> str:
    """A tensor's own name, without the modules that it is in."""
    return name.rpartition(".")[2]


def tied_names(network: nn.Module) -> dict[str, str]:
    """Every name of a network's parameters and buffers, and the first name of the same tensor."""
    tensors = [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
    return first_names(dict(tensors))


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Every name and the first name of a tensor that is the same, or has the same place in memory."""
    first: dict[object, str] = {}
    return {name: first.setdefault(_place(tensor), name) for name, tensor in tensors.items()}


def _place(tensor: Tensor) -> object:
    without_memory = tensor.device.type == "meta" or tensor.layout != torch.strided or is_lazy(tensor)
    if without_memory or tensor.numel() == 0:
        return id(tensor)
    return (tensor.data_ptr(), tensor.shape, tensor.stride())
