"""Batches of tokens, cut from one shuffled stream of a zoo's networks.

A global batch is cut from one shuffled stream of the training networks: with two processes of batch 8, rank 0 gets the first half
of what one process of batch 16 would get and rank 1 the second.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple

import psutil
import torch
from torch import Tensor

from paramgen.core import seeds
from paramgen.core.codec import ParamCodec
from paramgen.core.devices import to_device
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.generators.ahead import ahead
from paramgen.generators.prompts import training_conditions

Residency = Literal["auto", "device", "ram", "disk"]
AHEAD = 2  # batches that are ready before they are used, where they are read or copied


class ParamBatch(NamedTuple):
    """Some networks, or some tokens of them.

    Args:
        x: (B, L', D) standardised tokens.
        condition: (B, C), or None when the zoo has no conditions.
        index: (B,) long, which of the K training networks; -1 for networks of another split. Always on the CPU, as `run` and `same`: to
            read them there, the host need not wait for the device.
        run: (B,) long, which of the R training runs; -1 for networks of another split.
        token: (L',) long, which tokens `x` holds; None for all L.
        start: (B, L', D) networks to start from, where the generator learns to.
        same: (B,) long, equal for networks with equal conditions; None if that is not known.
    """

    x: Tensor
    condition: Tensor | None
    index: Tensor  # type: ignore[assignment]  # tuple.index is not missed
    run: Tensor
    token: Tensor | None
    start: Tensor | None = None
    same: Tensor | None = None

    def to(self, device: torch.device | str) -> "ParamBatch":
        """The batch for a device, copied in the background. Lightning calls this."""
        moved = {
            name: to_device(value, device)
            for name, value in self._asdict().items()
            if name in ("x", "condition", "token", "start") and value is not None
        }
        return self._replace(**moved)


class NetworkTokens:
    """Tokens of some networks of a zoo, kept in the fastest memory with enough room.

    Args:
        zoo: The zoo.
        indices: Which networks.
        codec: Bound codec.
        residency: ``device`` and ``ram`` hold all tokens, ``disk`` reads only the chosen ones from the files.
        device: Where ``device`` is, and where batches are used.
        networks: The same networks where they have been read already.
        prompt: Recorded scores that are conditions too.
    """

    def __init__(
        self,
        zoo: Zoo,
        indices: Sequence[int],
        codec: ParamCodec,
        residency: Residency,
        device: torch.device,
        networks: Iterable[StateDict] | None = None,
        prompt: Sequence[str] = (),
    ) -> None:
        self.codec = codec
        self.residency = resolve_residency(residency, 4 * len(indices) * math.prod(codec.shape), device)
        self.tokens: Tensor | None = None
        self.pinned = device.type == "cuda" and self.residency != "device"
        self.reads_ahead = self.pinned or self.residency == "disk"
        self._length = len(indices)
        if self.residency == "disk":
            self._stored = [zoo.stored(i) for i in indices]
        else:
            self.tokens = torch.empty(len(indices), *codec.shape)
            read = (zoo[i] for i in indices) if networks is None else networks
            for row, network in zip(self.tokens, read, strict=True):
                row.copy_(codec.encode(network))
            if self.residency == "device":
                self.tokens = self.tokens.to(device)
        self.conditions = training_conditions(zoo, indices, prompt)
        self.goodness = zoo.goodness(indices, "val")  # (K,), larger is better; None where a network has no score
        self.same: Tensor | None = None  # (K,) equal where conditions are
        if self.conditions is not None:
            self.same = self.conditions.unique(dim=0, return_inverse=True)[1]

    def __len__(self) -> int:
        return self._length

    def read(self, index: Tensor, token: Tensor | None) -> Tensor:
        """Tokens (B, L', D) of networks `index` (B,), in pinned memory where a GPU takes them from the host."""
        if self.tokens is not None:
            index = to_device(index, self.tokens.device)
            at = index if token is None else (index[:, None], to_device(token, index.device))
            x = self.tokens[at]
        elif token is None:
            distinct, which = index.unique(return_inverse=True)
            x = self.codec.encode_many([self._stored[i] for i in distinct.tolist()])[which]
        else:
            return self.codec.encode_tokens([self._stored[i] for i in index.tolist()], token, self.pinned)
        return x.pin_memory() if self.pinned else x

    def batches(self, size: int) -> Iterator[Tensor]:
        """Tokens (B, L, D) of all networks in order, at most `size` at once."""
        for index in torch.arange(len(self)).split(size):
            yield self.read(index, None)


class BatchStream:
    """An epoch of batches; an epoch is a unit of validation and logging, not of the data.

    Args:
        tokens: The networks.
        runs: (K,) long, the run of each.
        batch_size: Networks per batch and process.
        steps: Batches per epoch; None: one pass in order.
        tokens_per_step: Tokens per batch, drawn at random and shared by its networks; None for all.
        seed: Of the stream.
        rank: Which process this is.
        world_size: How many processes there are.
        starts: For each network the ones that it may start from; None where generators take no start weights.
    """

    def __init__(
        self,
        tokens: NetworkTokens,
        runs: Tensor,
        batch_size: int,
        steps: int | None,
        tokens_per_step: int | None,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        starts: Sequence[Tensor] | None = None,
    ) -> None:
        self.tokens, self.runs, self.batch_size, self.seed = tokens, runs, batch_size, seed
        self.shuffle, self.length = steps is not None, steps or math.ceil(len(tokens) / batch_size)
        seq_len = tokens.codec.shape[0]
        self.tokens_per_step = tokens_per_step if tokens_per_step and tokens_per_step < seq_len else None
        self.rank, self.world_size, self.epoch, self.starts = rank, world_size, 0, starts
        self._taken = self._skip = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[ParamBatch]:
        skip, self._skip = self._skip, 0
        reads = (partial(self._batch, *choice) for choice in islice(self._choices(), skip, None))
        with closing(ahead(reads, AHEAD if self.tokens.reads_ahead else 0)) as batches:
            for self._taken, batch in enumerate(batches, skip + 1):
                yield batch
        self.epoch, self._taken = self.epoch + self.shuffle, 0

    def _choices(self) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
        """Networks, tokens and networks to start from of each batch."""
        generator = seeds.generator(self.seed, self.epoch)
        remaining = torch.empty(0, dtype=torch.long)
        for step in range(self.length):
            if not self.shuffle:
                index = torch.arange(step * self.batch_size, min((step + 1) * self.batch_size, len(self.tokens)))
            else:
                count = self.batch_size * self.world_size
                while len(remaining) < count:
                    remaining = torch.cat([remaining, torch.randperm(len(self.tokens), generator=generator)])
                index, remaining = remaining[:count], remaining[count:]
                index = index[self.rank * self.batch_size :][: self.batch_size]
            yield index, self._choose_tokens(generator), self._choose_starts(index, generator)

    def state_dict(self) -> dict[str, int]:
        """Position of the stream. Lightning stores it, so a resumed fit sees the batches that it would have seen."""
        return {"epoch": self.epoch, "taken": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a :meth:`state_dict`."""
        finished, self._skip = divmod(state["taken"], self.length)
        self.epoch = state["epoch"] + finished

    def _choose_tokens(self, generator: torch.Generator) -> Tensor | None:
        if self.tokens_per_step is None:
            return None
        return torch.randperm(self.tokens.codec.shape[0], generator=generator)[: self.tokens_per_step].sort().values

    def _choose_starts(self, index: Tensor, generator: torch.Generator) -> Tensor | None:
        """Which networks (B,) those of a batch start from; the first of their runs where the order is fixed."""
        if self.starts is None:
            return None
        share = torch.rand(self.world_size * self.batch_size, generator=generator)[self.rank * self.batch_size :]
        choices = [self.starts[i] for i in index.tolist()]
        places = [int(u * len(of)) if self.shuffle else 0 for of, u in zip(choices, share.tolist(), strict=False)]
        return torch.stack([of[place] for of, place in zip(choices, places, strict=True)])

    def _batch(self, index: Tensor, token: Tensor | None, start: Tensor | None) -> ParamBatch:
        conditions = self.tokens.conditions
        x = self.tokens.read(index, token)  # (B, L', D)
        identity = index if self.shuffle else torch.full_like(index, -1)
        condition, same = (None if v is None else v[index] for v in (conditions, self.tokens.same))
        begun = None if start is None else self.tokens.read(start, token)  # (B, L', D)
        return ParamBatch(x, condition, identity, self.runs[index], token, begun, same)


def resolve_residency(residency: Residency, size: int, device: torch.device) -> Residency:
    """Where `size` bytes of tokens go: a quarter of the device's free memory at most, half of the free RAM, else the disk."""
    if residency != "auto":
        return residency
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return where_fits(size, free, psutil.virtual_memory().available)


def where_fits(size: int, on_device: float, in_ram: float) -> Residency:
    """Where `size` bytes of tokens go, of the free bytes of a device (0: none but the host) and of RAM."""
    return "device" if size < on_device / 4 else "ram" if size < in_ram / 2 else "disk"
