"""Trained networks as training data: batches of tokens from a zoo.

A global batch is cut from one shuffled stream of the training networks: with two processes of batch 8, rank 0 gets the first half
of what one process of batch 16 would get and rank 1 the second.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import psutil
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from paramgen.collect.symmetries import symmetries_of
from paramgen.core import seeds
from paramgen.core.codec import FlatCodec, ParamCodec
from paramgen.core.io import map_tensors
from paramgen.core.params import StateDict
from paramgen.core.zoo import Split, Zoo
from paramgen.errors import ParamgenError, require_non_negative, require_positive
from paramgen.generators.prompts import training_conditions
from paramgen.symmetry import PermutationSpec, balance_matrix
from paramgen.symmetry.layout import UnitLayout

Residency = Literal["auto", "device", "ram", "disk"]
DECODED_AT_ONCE = 32  # training networks


class ParamBatch(NamedTuple):
    """Some networks, or some tokens of them.

    Args:
        x: (B, L', D) standardised tokens.
        condition: (B, C), or None when the zoo has no conditions.
        index: (B,) long, which of the K training networks; -1 for networks of another split.
        run: (B,) long, which of the R training runs; -1 for networks of another split.
        token: (L',) long, which tokens `x` holds; None for all L.
        start: (B, L', D) networks to start from, where the generator learns to.
    """

    x: Tensor
    condition: Tensor | None
    index: Tensor  # type: ignore[assignment]  # tuple.index is not missed
    run: Tensor
    token: Tensor | None
    start: Tensor | None = None


class NetworkTokens:
    """Tokens of some networks of a zoo, kept in the fastest memory with enough room.

    Args:
        zoo: The zoo.
        indices: Which networks.
        codec: Bound codec.
        residency: ``device`` and ``ram`` hold all tokens, ``disk`` reads only the chosen ones from memory-mapped files.
        device: Where ``device`` is.
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
        self.residency = _resolve(residency, 4 * len(indices) * math.prod(codec.shape), device)
        self.files = [zoo.file(i) for i in indices]
        self.tokens: Tensor | None = None
        self._maps: dict[int, StateDict] = {}
        if self.residency != "disk":
            self.tokens = torch.empty(len(indices), *codec.shape)
            read = (zoo[i] for i in indices) if networks is None else networks
            for row, network in zip(self.tokens, read, strict=True):
                row.copy_(codec.encode(network))
            if self.residency == "device":
                self.tokens = self.tokens.to(device)
        self.conditions = training_conditions(zoo, indices, prompt)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: Tensor, token: Tensor | None) -> Tensor:
        """Tokens (B, L', D) of networks `index` (B,)."""
        if self.tokens is not None:
            index = index.to(self.tokens.device, non_blocking=True)
            return self.tokens[index] if token is None else self.tokens[index[:, None], token.to(index.device)]
        wanted = torch.arange(self.codec.shape[0]) if token is None else token
        return torch.stack([self.codec.encode_tokens(self._mapped(i), wanted) for i in index.tolist()])

    def batches(self, size: int) -> Iterator[Tensor]:
        """Tokens (B, L, D) of all networks in order, at most `size` at once."""
        for index in torch.arange(len(self)).split(size):
            yield self.read(index, None)

    def _mapped(self, i: int) -> StateDict:
        if i not in self._maps:
            self._maps[i] = map_tensors(self.files[i])
        return self._maps[i]


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
        generator = seeds.generator(self.seed, self.epoch)
        left = torch.empty(0, dtype=torch.long)
        skip, self._skip = self._skip, 0
        for step in range(self.length):
            if not self.shuffle:
                index = torch.arange(step * self.batch_size, min((step + 1) * self.batch_size, len(self.tokens)))
            else:
                wanted = self.batch_size * self.world_size
                while len(left) < wanted:
                    left = torch.cat([left, torch.randperm(len(self.tokens), generator=generator)])
                index, left = left[:wanted], left[wanted:]
                index = index[self.rank * self.batch_size :][: self.batch_size]
            token, start = self._choose_tokens(generator), self._choose_starts(index, generator)
            if step >= skip:
                self._taken = step + 1
                yield self._batch(index, token, start)
        self.epoch, self._taken = self.epoch + self.shuffle, 0

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
        known = [self.starts[i] for i in index.tolist()]
        places = [int(u * len(of)) if self.shuffle else 0 for of, u in zip(known, share.tolist(), strict=False)]
        return torch.stack([of[place] for of, place in zip(known, places, strict=True)])

    def _batch(self, index: Tensor, token: Tensor | None, start: Tensor | None) -> ParamBatch:
        conditions = self.tokens.conditions
        x = self.tokens.read(index, token)  # (B, L', D)
        known = index if self.shuffle else torch.full_like(index, -1)
        condition = None if conditions is None else conditions[index]
        begun = None if start is None else self.tokens.read(start, token)  # (B, L', D)
        return ParamBatch(x, condition, known, self.runs[index], token, begun)


class ParameterDataModule(LightningDataModule):
    """Batches of trained networks from a zoo.

    Args:
        zoo: Folder of a zoo, or its name under $PARAMGEN_ZOO or ./checkpoints_zoo.
        codec: Codec between networks and tokens. Default: FlatCodec.
        batch_size: Networks per batch and process. May exceed the zoo.
        steps_per_epoch: Batches per epoch, the unit of validation and logging.
        tokens_per_step: Tokens per batch, drawn at random. Default: all.
        max_networks: Maximum number of training networks, spread over the runs.
        residency: Where to keep the tokens: device, ram, or disk (memory-mapped, read in part).
        seed: Seed of the order of the networks.
        prompt: Recorded scores that the generator is conditioned on, such as val.loss or train.accuracy: ``paramgen sample --prompt`` then
            asks for others.
        start: ``earlier``: the generator also learns from earlier checkpoints of the same run, the weights to start from
            (``paramgen sample --start``).
        balance: First rescale hidden units whose activation permits it so that their input and output norms are equal. What the
            networks compute does not change. Needs a zoo with a task, and memory for its networks.
        trust: Run code of classes that the zoo names and that are not part of paramgen, to monitor sample quality and for a behavioural
            loss. Use only for zoos from people you trust.

    Raises:
        ParamgenError: No such zoo, sizes below 1, fewer than two training networks, a damaged file, balance with residency disk.
    """

    def __init__(
        self,
        zoo: str,
        codec: ParamCodec | None = None,
        batch_size: int = 50,
        steps_per_epoch: int = 200,
        tokens_per_step: int | None = None,
        max_networks: int | None = None,
        residency: Residency = "auto",
        seed: int = 0,
        prompt: list[str] | None = None,
        start: Literal["earlier"] | None = None,
        balance: bool = False,
        trust: bool = False,
    ) -> None:
        super().__init__()
        if balance and residency == "disk":
            raise ParamgenError(
                "data.balance needs all networks in memory, expected data.residency auto, device or ram"
            )
        require_positive(
            "data.", batch_size=batch_size, steps_per_epoch=steps_per_epoch, tokens_per_step=tokens_per_step
        )
        require_non_negative(**{"data.seed": seed})
        self.zoo = Zoo(zoo, trust)
        self.codec = codec or FlatCodec()
        self.codec.lay_out(self.zoo.spec)
        self.batch_size, self.steps_per_epoch, self.tokens_per_step = batch_size, steps_per_epoch, tokens_per_step
        self.residency: Residency = residency
        self.seed = seed
        if start not in (None, "earlier"):
            raise ParamgenError(f"data.start is {start!r}, expected earlier or nothing")
        self.prompt, self.start_weights = tuple(prompt or ()), start is not None
        self.seed, self.balance = seed, balance
        train = self.zoo.indices("train")
        self.train_indices = train if max_networks is None else _spread(train, max_networks)
        if len(self.train_indices) < 2:
            raise ParamgenError(
                f"zoo {self.zoo.name!r} gives {len(self.train_indices)} training network(s); a distribution needs 2 or more"
            )
        self._conditions = training_conditions(self.zoo, self.train_indices, self.prompt)
        self._bound = False
        self._training: NetworkTokens | None = None

    @property
    def seq_len(self) -> int:
        """L, tokens per network."""
        return self.codec.shape[0]

    @property
    def token_dim(self) -> int:
        """D, numbers per token."""
        return self.codec.shape[1]

    @property
    def cond_dim(self) -> int:
        """C, numbers per condition, prompts counted; 0 without conditions."""
        return 0 if self._conditions is None else self._conditions.shape[1]

    @property
    def conditions(self) -> Tensor:
        """Conditions of the training networks (K, C), not standardised."""
        return torch.empty(self.num_networks, 0) if self._conditions is None else self._conditions

    @property
    def num_networks(self) -> int:
        """K, training networks."""
        return len(self.train_indices)

    @property
    def num_runs(self) -> int:
        """R, training runs."""
        return len({self.zoo.entries[i].run for i in self.train_indices})

    @cached_property
    def symmetries(self) -> PermutationSpec:
        """Which hidden units of the zoo's network may change places.

        Raises:
            ParamgenError: The zoo has no task with data, or the symmetries cannot be read from the network's graph.
        """
        return symmetries_of(self.zoo)

    @property
    def layout(self) -> dict[str, Any]:
        """Where the hidden units of the zoo's network are, as plain values; see :class:`paramgen.symmetry.layout.UnitLayout`.

        Raises:
            ParamgenError: As :attr:`symmetries`.
        """
        return UnitLayout.of(self.symmetries).to_dict()

    def setup(self, stage: str | None = None) -> None:
        """Take the codec's statistics of the training networks, and hold these for a fit where there is room: they are read once."""
        if self._bound:
            return
        size, device = 4 * self.num_networks * math.prod(self.codec.shape), self._device()
        if stage in ("fit", None) and _resolve(self.residency, size, device) != "disk":
            networks = self.networks(self.train_indices)
            self.codec.bind(self.zoo.spec, networks)
            self._training = self._tokens(self.train_indices, _taken(networks))
        else:
            read = self.networks(self.train_indices) if self.balance else (self.zoo[i] for i in self.train_indices)
            self.codec.bind(self.zoo.spec, read)
        self._bound = True

    def networks(self, indices: Sequence[int]) -> list[StateDict]:
        """Generated tensors of some of the zoo's networks, balanced if that was asked for."""
        if not self.balance:
            return [self.zoo[i] for i in indices]
        rows = balance_matrix(self.zoo.matrix(list(indices)), self.symmetries)  # (n, P)
        return [self.zoo.spec.unflatten(row) for row in rows]

    def training_networks(self) -> NetworkTokens:
        """The training networks as tokens, in order; read and encoded once."""
        if self._training is None:
            self._training = self._tokens(self.train_indices)
        return self._training

    def training_weights(self) -> Tensor:
        """Raw weights (K, P) of the training networks, from their tokens."""
        pieces = (self.codec.decode_many(x.cpu()) for x in self.training_networks().batches(DECODED_AT_ONCE))
        return torch.cat([self.zoo.spec.flatten_many(networks) for networks in pieces])

    def train_dataloader(self) -> BatchStream:
        """Shuffled batches of the train split."""
        runs = [self.zoo.entries[i].run for i in self.train_indices]
        order = {run: r for r, run in enumerate(sorted(set(runs)))}
        order_of_runs = torch.tensor([order[r] for r in runs])
        return self._stream(self.training_networks(), self.train_indices, order_of_runs, self.steps_per_epoch)

    def val_dataloader(self) -> BatchStream | list[ParamBatch]:
        """The val split in order; empty if the zoo has no validation run."""
        return self._unseen("val")

    def test_dataloader(self) -> BatchStream | list[ParamBatch]:
        """The held-out runs in order; empty if the zoo has none."""
        return self._unseen("heldout")

    def predict_dataloader(self) -> BatchStream:
        """The train split in order, one sample is drawn for each of its networks."""
        unknown = torch.full((self.num_networks,), -1)
        return self._stream(self.training_networks(), self.train_indices, unknown, None)

    def _unseen(self, split: Split) -> BatchStream | list[ParamBatch]:
        indices = self.zoo.indices(split)
        unknown = torch.full((len(indices),), -1)
        return self._stream(self._tokens(indices), indices, unknown, None) if indices else []

    def _tokens(self, indices: Sequence[int], networks: Iterable[StateDict] | None = None) -> NetworkTokens:
        return NetworkTokens(self.zoo, indices, self.codec, self.residency, self._device(), networks, self.prompt)
        if networks is None and self.balance:
            networks = self.networks(indices)
        residency: Residency = "ram" if self.balance and self.residency == "auto" else self.residency
        return NetworkTokens(self.zoo, indices, self.codec, residency, self._device(), networks)

    def _stream(self, tokens: NetworkTokens, indices: Sequence[int], runs: Tensor, steps: int | None) -> BatchStream:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        starts = _earlier(self.zoo, indices) if self.start_weights else None
        return BatchStream(tokens, runs, self.batch_size, steps, self.tokens_per_step, self.seed, rank, world, starts)

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")


def data_of(trainer: Trainer) -> ParameterDataModule:
    """The data module of a trainer.

    Raises:
        ParamgenError: It has none, or one of another kind.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ParameterDataModule):
        raise ParamgenError("generators are fitted on a ParameterDataModule: trainer.fit(model, datamodule=data)")
    return data


def _earlier(zoo: Zoo, indices: Sequence[int]) -> list[Tensor]:
    """For each of some networks the places among them of its run's earlier checkpoints, in order; its own for a run's first."""
    places: dict[int, list[int]] = {}
    for place in sorted(range(len(indices)), key=lambda place: zoo.entries[indices[place]].step):
        places.setdefault(zoo.entries[indices[place]].run, []).append(place)
    before = {mine: of[:k] or [mine] for of in places.values() for k, mine in enumerate(of)}
    return [torch.tensor(before[place]) for place in range(len(indices))]


def _taken(networks: list[StateDict]) -> Iterator[StateDict]:
    """One after the other; each is released when taken."""
    networks.reverse()
    while networks:
        yield networks.pop()


def _spread(indices: list[int], most: int) -> list[int]:
    """`most` of the indices, evenly spaced."""
    if most >= len(indices):
        return indices
    return [indices[i * len(indices) // most] for i in range(most)]


def _resolve(residency: Residency, size: int, device: torch.device) -> Residency:
    """Where `size` bytes of tokens go: a quarter of the device's free memory at most, half of the free RAM, else the disk."""
    if residency != "auto":
        return residency
    if device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 4:
        return "device"
    return "ram" if size < psutil.virtual_memory().available / 2 else "disk"
