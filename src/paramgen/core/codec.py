"""Between state dicts and the standardised token tensors that generators learn.

L tokens of D numbers each; P generated parameters; K networks. A codec is made with plain arguments, bound once to a zoo's training
networks (:meth:`ParamCodec.bind`), and then travels inside the generator's checkpoint, so that a checkpoint samples without the zoo.

``running_var`` is handled in log space, log(v + 1e-5), so that no sample has a negative variance (1e-5 is batch norm's own epsilon).
Statistics are of all training networks together: a tensor that is constant in each network but differs between them has a spread.
A constant weight has scale 0: it is encoded as 0 and decoded exactly, for any generated value.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from paramgen.core.arguments import check_arguments
from paramgen.core.blocks import Block, TokenPieces
from paramgen.core.params import ParamSpec, StateDict, TensorSpec
from paramgen.core.stored import Numbers, StoredTensors
from paramgen.core.trust import find_class
from paramgen.errors import ParamgenError, require_choice, require_positive

Normalisation = Literal["layer", "weight", "centre"]
Strategy = Literal["layer", "channel", "flatten"]
_CPU = torch.device("cpu")
_LOG_EPS = 1e-5
_ALL = slice(None)
_CONSTANT = 1e-10  # a relative spread below this is rounding


class ParamCodec(ABC):
    """State dict <-> (L, D) tokens with a mask on the padding.

    A codec is a subclass: ``blocks_of`` says where the numbers of each tensor lie among the tokens, ``arguments`` gives the values that
    rebuild the codec from a checkpoint.

    Args:
        normalisation: ``layer``: each tensor to mean 0, std 1 over all its weights and networks. ``weight``: each weight over the
            networks. ``centre``: subtract each weight's mean over the networks, then scale per tensor.
    """

    def __init__(self, normalisation: Normalisation = "layer") -> None:
        require_choice(Normalisation, normalisation=normalisation)
        self.normalisation: Normalisation = normalisation
        self.spec: ParamSpec | None = None

    @abstractmethod
    def blocks_of(self, spec: ParamSpec) -> tuple[int, list[Block]]:
        """The token size D and one block for each tensor of the spec, in order.

        Args:
            spec: What is generated.
        """

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments by name, as plain values."""

    def bind(self, spec: ParamSpec, networks: Iterable[Mapping[str, Tensor]]) -> Self:
        """Take the statistics of some networks, read once each.

        Args:
            spec: What is generated.
            networks: State dicts of the training networks, with at least the generated tensors.

        Raises:
            ParamgenError: `networks` is empty.
        """
        sizes = [t.numel for t in spec.tensors]
        ones = [1] * len(sizes)
        shift_sizes = ones if self.normalisation == "layer" else sizes
        scale_sizes = sizes if self.normalisation == "weight" else ones
        shift, scale = (torch.zeros(sum(n), dtype=torch.float64) for n in (shift_sizes, scale_sizes))
        moments = [*map(_Moments, shift.split(shift_sizes), scale.split(scale_sizes))]
        count = 0
        for count, state in enumerate(networks, 1):
            for t, of in zip(spec.tensors, moments, strict=True):
                of.add(_forward(t, t.reals(state[t.name].detach().cpu())), count)
        if count == 0:
            raise ParamgenError("no training network to take statistics of")
        for of in moments:
            of.finish(count)
        self._set(spec, shift, scale)
        return self

    def _set(self, spec: ParamSpec, shift: Tensor, scale: Tensor) -> None:
        self.shift, self.scale = shift, scale
        self._there = {_CPU: (shift, scale)}
        self.lay_out(spec)

    def lay_out(self, spec: ParamSpec) -> None:
        """Set ``shape`` and ``mask`` for a network; they need no statistics."""
        self.spec = spec
        token_dim, self.blocks = self.blocks_of(spec)
        last = self.blocks[-1]
        length = -(-(last.offset + last.rows * last.stride) // token_dim)
        self.shape = (length, token_dim)
        flat = torch.zeros(length * token_dim, dtype=torch.bool)
        for block in self.blocks:
            block.view(flat).fill_(True)
        self.mask = flat.view(self.shape)  # (L, D)
        self._pieces = TokenPieces(self.blocks, token_dim)

    @property
    def positions(self) -> Tensor:
        """For each token, the last tensor that begins in it or before it, and its place among that tensor's tokens: (L, 2) long."""
        length, token_dim = self.shape
        starts = torch.tensor([b.offset // token_dim for b in self.blocks])
        token = torch.arange(length)
        layer = torch.searchsorted(starts, token, right=True) - 1
        return torch.stack([layer, token - starts[layer]], 1)  # (L, 2)

    def encode_many(self, networks: Sequence[Mapping[str, Tensor]], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standardised tokens of some networks, zeros on the padding: (n, L, D).

        Args:
            networks: State dicts with at least the generated tensors, keys in any order.
            dtype: float64 keeps every bit of float32 weights.
        """
        flat = torch.zeros(len(networks), self.shape[0] * self.shape[1], dtype=dtype)
        for i, block in enumerate(self.blocks):
            raw = torch.stack([block.spec.reals(state[block.spec.name].detach().cpu()) for state in networks])
            values = self._standardise(i, _forward(block.spec, raw))
            block.view(flat).copy_(values.unflatten(-1, (block.rows, block.width)))
        tokens: Tensor = flat.unflatten(-1, self.shape)  # (n, L, D)
        return tokens

    def encode(self, network: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standardised tokens of one network: (L, D)."""
        return self.encode_many([network], dtype)[0]

    def encode_tokens(self, networks: Sequence[StoredTensors], token: Tensor, pinned: bool = False) -> Tensor:
        """Some tokens of networks on disk. Only their own numbers are read.

        Args:
            networks: Files of networks.
            token: (L',) long, which tokens, in ascending order.
            pinned: Return them in pinned memory, from which a GPU copies without making the host wait.

        Returns:
            (B, L', D) float32, the same numbers as ``encode_many(networks)[:, token]``.
        """
        pieces = self._pieces.of(token)
        ranges = [Numbers(self.blocks[p.block].spec.name, p.first, p.size) for p in pieces]
        once = {network.path: network for network in networks}
        numbers = {path: network.read(ranges) for path, network in once.items()}
        read = zip(*(numbers[network.path] for network in networks), strict=True)
        tokens = torch.zeros(len(networks), len(token), self.shape[1], pin_memory=pinned)
        flat = tokens.flatten(1)  # (B, L' * D), the same memory
        for (i, first, size, place), rows in zip(pieces, read, strict=True):
            raw = _forward(self.blocks[i].spec, torch.stack(rows))  # (B, size)
            flat[:, place : place + size] = self._standardise(i, raw, slice(first, first + size))
        return tokens

    def decode_many(self, tokens: Tensor) -> list[StateDict]:
        """Generated tensors of n networks, each in its own dtype and shape, tied names included.

        Args:
            tokens: (n, L, D) on any device; padding is ignored.

        Raises:
            ValueError: Another shape.
        """
        assert self.spec is not None
        columns = self.decode_stacked(tokens.detach())
        networks = []
        for n in range(len(tokens)):
            state = {name: column[n] for name, column in columns.items()}
            networks.append(state | {name: state[canonical] for name, canonical in self.spec.aliases.items()})
        return networks

    def decode_stacked(self, tokens: Tensor) -> StateDict:
        """Generated tensors of n networks, each (n, …), differentiable in the tokens; tied names not included.

        Args:
            tokens: (n, L, D) on any device; padding is ignored.

        Raises:
            ValueError: Another shape.
        """
        if tuple(tokens.shape[1:]) != self.shape:
            raise ValueError(f"expected tokens (n, {self.shape[0]}, {self.shape[1]}), got {tuple(tokens.shape)}")
        flat, columns = tokens.flatten(1), {}
        for i, block in enumerate(self.blocks):
            shift, scale = self._shift_scale(i, device=flat.device)
            values = block.view(flat).flatten(1).double() * scale + shift
            columns[block.spec.name] = block.spec.tensor(_backward(block.spec, values))  # (n, ...)
        return columns

    def decode(self, tokens: Tensor) -> StateDict:
        """Generated tensors of one network from its tokens (L, D)."""
        return self.decode_many(tokens[None])[0]

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        assert self.spec is not None
        component = {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": self.arguments()}
        return {**component, "spec": self.spec.to_dict(), "shift": self.shift, "scale": self.scale}

    @staticmethod
    def from_state_dict(saved: Mapping[str, Any]) -> "ParamCodec":
        """The inverse of :meth:`state_dict`.

        Raises:
            ParamgenError: Unknown codec, one that is not imported, or invalid arguments.
        """
        kind = find_class(saved["class_path"], ParamCodec, "codec", where="the checkpoint")  # type: ignore[type-abstract]
        check_arguments(kind, saved["init_args"], f"codec {saved['class_path']!r}")
        codec = kind(**saved["init_args"])
        spec = ParamSpec.from_dict(saved["spec"])
        codec._check_statistics(spec, saved["shift"], saved["scale"])
        codec._set(spec, saved["shift"], saved["scale"])
        return codec

    def _check_statistics(self, spec: ParamSpec, shift: Tensor, scale: Tensor) -> None:
        """Refuse statistics of a checkpoint whose shape does not suit this normalisation, or that are not finite."""
        per_tensor, per_weight = (len(spec.tensors),), (spec.numel,)
        expected = {
            "layer": (per_tensor, per_tensor),
            "weight": (per_weight, per_weight),
            "centre": (per_weight, per_tensor),
        }[self.normalisation]
        for name, tensor, shape in zip(("shift", "scale"), (shift, scale), expected, strict=True):
            if tuple(tensor.shape) != shape or tensor.dtype not in (torch.float32, torch.float64):
                given = f"{tuple(tensor.shape)} {tensor.dtype}"
                raise ParamgenError(f"codec.{name} is of shape {given}, expected float32 or float64 of shape {shape}")
            if not torch.isfinite(tensor).all():
                raise ParamgenError(f"codec.{name} holds NaN or infinite values")

    def _shift_scale(self, i: int, source: slice = _ALL, device: torch.device = _CPU) -> tuple[Tensor, Tensor]:
        """Shift and scale of some numbers of tensor i: scalars, or one per weight."""
        if device not in self._there:  # copied once: a copy makes the host wait for the device
            self._there[device] = self.shift.to(device), self.scale.to(device)
        all_shifts, all_scales = self._there[device]
        block = self.blocks[i]
        columns = slice(block.source, block.source + block.spec.numel)

        def pick(stat: Tensor) -> Tensor:
            return stat[columns][source]

        shift = all_shifts[i] if self.normalisation == "layer" else pick(all_shifts)
        scale = pick(all_scales) if self.normalisation == "weight" else all_scales[i]
        return shift, scale

    def _standardise(self, i: int, values: Tensor, source: slice = _ALL) -> Tensor:
        shift, scale = self._shift_scale(i, source)
        return torch.where(scale > 0, (values - shift) / scale.clamp_min(1e-300), 0.0)


class FlatCodec(ParamCodec):
    """The complete network as one vector, as in p-diff: L = 1, D = P.

    Args:
        normalisation: ``layer``, ``weight`` or ``centre``; see ParamCodec.
    """

    def __init__(self, normalisation: Normalisation = "layer") -> None:
        super().__init__(normalisation)

    def arguments(self) -> dict[str, Any]:
        """The normalisation."""
        return {"normalisation": self.normalisation}

    def blocks_of(self, spec: ParamSpec) -> tuple[int, list[Block]]:
        """The token size D, and one block for each tensor."""
        return spec.numel, _end_to_end(spec)


class TokenCodec(ParamCodec):
    """Tokens of equal size, as in RPG (arXiv:2501.11587, section 2.2 and figure 4).

    Args:
        token_dim: D, numbers per token.
        strategy: ``layer``: each tensor cut into tokens, the last one padded (the paper's default). ``channel``: each output channel
            of a tensor on its own, as SANE does. ``flatten``: all tensors end to end, so that a token may hold parts of several.
        normalisation: ``layer``, ``weight`` or ``centre``; see ParamCodec.

    Raises:
        ParamgenError: `token_dim` below 1, or an unknown strategy.
    """

    def __init__(
        self,
        token_dim: int = 256,
        strategy: Strategy = "layer",
        normalisation: Normalisation = "layer",
    ) -> None:
        super().__init__(normalisation)
        require_positive(token_dim=token_dim)
        require_choice(Strategy, strategy=strategy)
        self.token_dim, self.strategy = token_dim, strategy

    def arguments(self) -> dict[str, Any]:
        """The normalisation, and how tokens are cut."""
        return {"token_dim": self.token_dim, "strategy": self.strategy, "normalisation": self.normalisation}

    def blocks_of(self, spec: ParamSpec) -> tuple[int, list[Block]]:
        """The token size D, and one block for each tensor."""
        if self.strategy == "flatten":
            return self.token_dim, _end_to_end(spec)
        blocks, offset, source = [], 0, 0
        for t in spec.tensors:
            rows = t.shape[0] if self.strategy == "channel" and len(t.shape) > 1 else 1
            width = t.numel // rows
            stride = -(-width // self.token_dim) * self.token_dim
            blocks.append(Block(t, source, offset, rows, width, stride))
            offset, source = offset + rows * stride, source + t.numel
        return self.token_dim, blocks


def _end_to_end(spec: ParamSpec) -> list[Block]:
    blocks, offset = [], 0
    for t in spec.tensors:
        blocks.append(Block(t, offset, offset, 1, t.numel, t.numel))
        offset += t.numel
    return blocks


class _Moments:
    """Mean and spread of one tensor over the networks, updated network by network with one of its tensors in memory.

    Args:
        mean: Where the mean goes, zeros: one a weight (numel,), or one of them all (1,).
        spread: Where the standard deviation goes, likewise; (1,) with a mean for each weight: the root of their mean variance.
    """

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        self.mean, self.spread = mean, spread

    def add(self, x: Tensor, count: int) -> None:
        """Take in the numbers (numel,) of network `count`, float64."""
        if self.mean.numel() == 1:  # the variance of all weights is the networks' own plus that of their means
            self.spread += x.var(correction=0)
            x = x.mean()[None]
        delta = x - self.mean
        self.mean.add_(delta, alpha=1 / count)
        # Welford, so that a large mean does not drown a small spread
        square = delta.square_().mul_((count - 1) / count)
        self.spread += square if self.spread.numel() == len(square) else square.mean()

    def finish(self, count: int) -> None:
        """Turn the sums over `count` networks into a standard deviation."""
        level = self.mean if self.spread.numel() == self.mean.numel() else self.mean.abs().mean()
        self.spread.copy_(_scale(self.spread / count, level))


def _scale(variance: Tensor, level: Tensor) -> Tensor:
    """Standard deviation, 0 where the spread is only rounding error of `level`."""
    std = variance.clamp_min(0).sqrt()
    return torch.where(std > _CONSTANT * level.abs(), std, 0.0)


def _forward(spec: TensorSpec, values: Tensor) -> Tensor:
    values = values.double()
    return (values.clamp_min(0) + _LOG_EPS).log() if spec.kind == "running_var" else values


def _backward(spec: TensorSpec, values: Tensor) -> Tensor:
    if spec.kind == "running_var":
        values = (values.exp() - _LOG_EPS).clamp_min(0)
    return values
