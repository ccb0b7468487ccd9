"""What a network must be to enter a zoo: one check of state dicts from files, from training and from generators.

Every tensor of every network is generated, or equal in all networks of a zoo, or refused by name. Batch norm's counters
(``num_batches_tracked``) are the one exception: the first network's are kept. Extra state (``get_extra_state``) belongs to the
architecture: it is compared with the network's own and not stored.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from paramgen.core.counting import some
from paramgen.core.params import (
    COUNTER,
    REAL,
    ParamSpec,
    StateDict,
    can_be_generated,
    first_names,
    is_extra_state,
    last_part,
    tied_names,
)
from paramgen.core.stored import LazyTensors, outline_of
from paramgen.errors import ParamgenError


class Architecture:
    """What the state dicts of a network look like.

    Args:
        network: Built, or the state dict of one network whose class is not known. Values are not kept, save for counters and extra state.
        name: What to call it in messages: a file for a state dict.

    Raises:
        ParamgenError: It has a tensor that a zoo cannot hold: lazily shaped, sparse, nested, quantized or complex128.
    """

    def __init__(self, network: nn.Module | Mapping[str, Any], name: str = "the network") -> None:
        built = isinstance(network, nn.Module)
        state = network.state_dict() if isinstance(network, nn.Module) else network
        self.name = name
        self._of, self._as_in = ("", "") if built else (f" of {name}", f", as in {name}")
        known = {
            key: state[key] if is_extra_state(key) or last_part(key) == COUNTER else outline_of(state, key)
            for key in state
        }
        self.tensors: StateDict = {
            key: value for key, value in known.items() if isinstance(value, Tensor) and not is_extra_state(key)
        }
        self.extra = {key: value for key, value in known.items() if is_extra_state(key)}
        self.firsts = tied_names(network) if isinstance(network, nn.Module) else first_names(self.tensors)
        for key, tensor in self.tensors.items():
            outlined = isinstance(state, LazyTensors) and tensor.is_meta  # its values are in a file
            if not outlined and (problem := _problem(tensor)):
                raise ParamgenError(f"tensor {key!r} of {name} {problem}")
            if key not in self.firsts:
                raise ParamgenError(
                    f"{key!r} is in the network's state dict, but is neither a parameter nor a buffer; register it as one"
                )
        self.tensors = {
            key: tensor.detach().to("cpu" if last_part(key) == COUNTER else "meta")
            for key, tensor in self.tensors.items()
        }

    def fit(self, state: Mapping[str, Any], where: str) -> StateDict:
        """A state dict completed and in the network's order and dtypes: tied tensors under all names, counters filled in.

        Args:
            state: It may lack counters, extra state, and all names of a tied tensor but one.
            where: What to call it in messages.

        Raises:
            ParamgenError: A tensor is missing or unknown, has another shape or kind, would lose digits, or differs from the one that it
                is tied to; or the extra state is not the network's own.
        """
        return {name: tensor.clone() for name, tensor in self.fitted(state, where).items()}

    def fitted(self, state: Mapping[str, Any], where: str) -> LazyTensors:
        """As :meth:`fit`, but each tensor is taken from `state` and checked when it is asked for; names are checked at once."""
        self._check_names(state, where)
        self._check_extra(state, where)
        given: dict[str, list[str]] = {}  # by first name
        for name in self.tensors:
            if name in state:
                given.setdefault(self.firsts[name], []).append(name)

        def value(name: str) -> Tensor:
            first = self.firsts[name]
            if first not in given:
                return self.tensors[name].clone()  # a counter
            fitted, *others = (self._value(state, of, where) for of in given[first])
            for other, of in zip(others, given[first][1:], strict=True):
                if not same_values(other, fitted):
                    raise ParamgenError(
                        f"{where}: {of!r} and {first!r} are one tensor in the network (tied weights), but differ here; "
                        "build the network with two tensors, or save it with one"
                    )
            return fitted

        return LazyTensors(self.tensors, value)

    def _value(self, state: Mapping[str, Any], name: str, where: str) -> Tensor:
        return _fitted(state[name], self.tensors[name], f"{where}: {name!r}", self._as_in)

    def missing(self, state: Mapping[str, Any]) -> list[str]:
        """Tensors that a state dict has under none of their names; counters are no loss."""
        given = {self.firsts[name] for name in state if name in self.firsts}
        return [name for name in self.tensors if self.firsts[name] not in given and last_part(name) != COUNTER]

    def _check_names(self, state: Mapping[str, Any], where: str) -> None:
        if missing := self.missing(state):
            tensors = [name for name, value in state.items() if isinstance(value, Tensor)]
            prefixed = next((name for name in tensors if name.endswith(f".{missing[0]}")), None)
            hint = "" if prefixed is None else f"; cut off the prefix {prefixed.removesuffix(missing[0])!r}"
            raise ParamgenError(
                f"{where}: no tensor {missing[0]!r}{self._of} ({len(missing)} missing); it has {some(tensors)}{hint}"
            )
        unknown = [name for name in state if name not in self.tensors and name not in self.extra]
        refused = [name for name in unknown if isinstance(state[name], Tensor) or is_extra_state(name)]
        if refused:
            raise ParamgenError(f"{where}: {refused[0]!r} is not in {self.name} ({len(refused)} unknown)")

    def _check_extra(self, state: Mapping[str, Any], where: str) -> None:
        for name, own in self.extra.items():
            if name in state and not _equal(state[name], own):
                raise ParamgenError(
                    f"{where}: extra state {name!r} is {state[name]!r:.80}, expected the network's own, {own!r:.80}; "
                    "extra state is not stored in a zoo, so get_extra_state() must return it from a fresh network"
                )


def check_network(
    state: Mapping[str, Tensor], spec: ParamSpec, base: Mapping[str, Tensor], where: str, rtol: float = 0.0
) -> None:
    """Refuse a network that generated tensors and the base do not make up.

    Args:
        state: Generated tensors, and any of the others.
        spec: What is generated.
        base: What is not, and must be equal in all networks.
        where: What to call the network in messages.
        rtol: Relative difference that floating tensors of the base may have.

    Raises:
        ParamgenError: A tensor that is neither generated nor in the base, that differs from the base's, or from the one that it is tied to.
    """
    expected = {*spec.names, *spec.aliases, *base}
    for name, tensor in state.items():
        if last_part(name) == COUNTER or is_extra_state(name):
            continue
        if name not in expected:
            raise ParamgenError(
                f"{where}: {name!r} is neither generated nor kept fixed in this zoo; its networks have {some(expected)}"
            )
        if name in spec.aliases and not same_values(tensor, state[spec.aliases[name]]):
            raise ParamgenError(f"{where}: {name!r} is tied to {spec.aliases[name]!r}, but differs from it")
        if name in base and not same_values(tensor, base[name], rtol):
            raise ParamgenError(f"{where}: {_differs(name, base[name])}")


def same_values(a: Tensor, b: Tensor, rtol: float = 0.0) -> bool:
    """Whether two tensors have one shape, one kind of dtype, and the same values; NaN equals NaN."""
    if a.shape != b.shape or _kind(a.dtype) != _kind(b.dtype):
        return False
    a, b = a.detach().cpu(), b.detach().cpu()
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a.long(), b.long())
    dtype = torch.promote_types(a.dtype, b.dtype) if a.dtype.itemsize > 1 else torch.float32
    return torch.allclose(a.to(dtype), b.to(dtype), rtol=rtol, atol=1e-8 if rtol else 0.0, equal_nan=True)


def first_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str | None:
    """The first tensor, by name, that one lacks or that differs; None if there is none. Batch norm's counters may differ."""
    for name in sorted(a.keys() | b.keys()):
        same = name in a and name in b and same_values(a[name], b[name])
        if not same and last_part(name) != COUNTER:
            return name
    return None


def _fitted(value: Any, own: Tensor, what: str, as_in: str = "") -> Tensor:
    """A tensor in the dtype of the network's own; refused where that is not the same tensor. `as_in` says where the latter comes from."""
    if not isinstance(value, Tensor):
        raise ParamgenError(f"{what} is a {type(value).__name__}, expected a tensor")
    if problem := _problem(value):
        raise ParamgenError(f"{what} {problem}")
    if value.shape != own.shape:
        raise ParamgenError(f"{what} has shape {tuple(value.shape)}, expected {tuple(own.shape)}{as_in}")
    if value.dtype == own.dtype:
        return value.detach()
    given, expected = _dtype_name(value.dtype), _dtype_name(own.dtype)
    if _kind(value.dtype) != _kind(own.dtype):
        quantized = _kind(own.dtype) == "real" and _kind(value.dtype) != "complex"
        advice = "; convert quantized weights back first" if quantized else ""
        raise ParamgenError(f"{what} is {given}, expected {expected}{as_in}{advice}")
    fitted = value.detach().to(own.dtype)
    if not same_values(fitted.to(value.dtype), value):
        raise ParamgenError(
            f"{what} is {given} and has digits that the network's {expected} cannot hold; "
            f"build the network in {given}, or convert the file to {expected}{as_in}"
        )
    return fitted


def _problem(tensor: Tensor) -> str | None:
    """Why a zoo cannot hold a tensor."""
    if is_lazy(tensor):
        return "has no shape yet; run one batch through the network at the end of its constructor"
    if tensor.is_nested:
        return "is nested; use one plain tensor for each part"
    if tensor.layout != torch.strided:
        return "is sparse; convert it with to_dense()"
    if tensor.is_quantized:
        return "is quantized; convert it with dequantize()"
    if tensor.device.type == "meta":
        return "has no values (it is on the meta device)"
    if tensor.is_complex() and not can_be_generated(tensor.new_zeros(1)):
        return f"is {_dtype_name(tensor.dtype)}, which safetensors cannot store; use complex64"
    return None


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "real" if dtype in REAL else _dtype_name(dtype)
    return "bool" if dtype == torch.bool else "integer"


def _differs(name: str, constant: Tensor) -> str:
    if can_be_generated(constant):
        return (
            f"{name!r} is not generated, but differs from the other networks'; generate it too, or make it equal in all"
        )
    return (
        f"{name!r} ({_dtype_name(constant.dtype)}) differs between networks, and only floating and complex tensors are generated; "
        "set it from a fixed seed in the network's constructor, or keep it out of the state dict (persistent=False)"
    )


def _equal(a: Any, b: Any) -> bool:
    """Equality of extra state, which may hold anything."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and same_values(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
