"""Trained networks of a zoo as training data for Lightning."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from paramgen.collect.symmetries import symmetries_of
from paramgen.core.codec import FlatCodec, ParamCodec
from paramgen.core.counting import counted
from paramgen.core.params import StateDict
from paramgen.core.spacing import evenly_spaced
from paramgen.core.zoo import Split, Zoo
from paramgen.errors import ParamgenError, require_choice, require_non_negative, require_positive
from paramgen.generators.batches import BatchStream, NetworkTokens, ParamBatch, Residency, resolve_residency
from paramgen.generators.prompts import training_conditions
from paramgen.symmetry import PermutationSpec, balance_matrix
from paramgen.symmetry.layout import UnitLayout

DECODED_AT_ONCE = 32  # training networks
_SPLITS: Mapping[str, Split] = MappingProxyType(
    {"fit": "val", "validate": "val", "test": "heldout"}
)  # what each stage measures losses on


class ParameterDataModule(LightningDataModule):
    """Batches of trained networks from a zoo.

    Args:
        zoo: Folder of a zoo, or its name under $PARAMGEN_ZOO or ./checkpoints_zoo, or the shipped digits_small.
        codec: Codec between networks and tokens. Default: FlatCodec.
        batch_size: Networks per batch and process. May exceed the zoo.
        steps_per_epoch: Batches per epoch, the unit of validation and logging.
        tokens_per_step: Tokens per batch, drawn at random. Default: all.
        max_networks: Maximum number of training networks, spread over the runs.
        residency: Where to keep the tokens: device, ram, or disk (the tokens of a batch are read ahead of its step).
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
        ParamgenError: No such zoo, an unknown choice, sizes below 1, fewer than two training networks, a damaged file, balance with
            residency disk.
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
        require_choice(Residency, "data.", residency=residency)
        require_choice(Literal["earlier", None], "data.", start=start)
        if balance and residency == "disk":
            raise ParamgenError(
                "data.balance needs all networks in memory, expected data.residency auto, device or ram"
            )
        require_positive(
            "data.",
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            tokens_per_step=tokens_per_step,
            max_networks=max_networks,
        )
        require_non_negative(**{"data.seed": seed})
        self.zoo = Zoo(zoo, trust)
        self.codec = codec or FlatCodec()
        self.codec.lay_out(self.zoo.spec)
        self.batch_size, self.steps_per_epoch, self.tokens_per_step = batch_size, steps_per_epoch, tokens_per_step
        self.residency: Residency = residency
        self.prompt, self.start_weights = tuple(prompt or ()), start is not None
        self.seed, self.balance = seed, balance
        train = self.zoo.indices("train")
        self.train_indices = _some(train, max_networks)
        if len(self.train_indices) < 2:
            raise ParamgenError(
                f"zoo {self.zoo.name!r} gives {counted(len(self.train_indices), 'training network')}; a distribution needs 2 or more"
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
        """Take the codec's statistics of the training networks, and hold these for a fit where there is room: they are read once.

        Raises:
            ParamgenError: Losses are asked for on a split without networks.
        """
        self._without_empty_splits(stage)
        if self._bound:
            return
        place = self._place(self.num_networks)
        if stage in ("fit", None) and place != "disk":
            networks = self.networks(self.train_indices)
            self.codec.bind(self.zoo.spec, networks)
            self._training = self._tokens(self.train_indices, _taken(networks), place)
        elif self.balance:
            self.codec.bind(self.zoo.spec, self.networks(self.train_indices))
        else:
            self.codec.bind(self.zoo.spec, (self.zoo.stored(i) for i in self.train_indices))
        self._bound = True

    def _without_empty_splits(self, stage: str | None) -> None:
        """A fit goes without validation where the zoo has no networks for it; other stages are refused."""
        split = _SPLITS.get(stage or "")
        if split is None or self.zoo.indices(split):
            return
        if stage != "fit":
            raise ParamgenError(f"zoo {self.zoo.name!r} has no {split} networks to compute losses on")
        if self.trainer is not None:
            self.trainer.limit_val_batches = 0

    def networks(self, indices: Sequence[int]) -> list[StateDict]:
        """Generated tensors of some of the zoo's networks, balanced if that was asked for."""
        if not self.balance:
            return [self.zoo[i] for i in indices]
        rows = balance_matrix(self.zoo.matrix(list(indices)), self.symmetries)  # (n, P)
        return [self.zoo.spec.unflatten(row) for row in rows]

    @property
    def on_disk(self) -> bool:
        """Whether the training networks stay on disk."""
        return self.training_networks().residency == "disk"

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

    def _tokens(
        self, indices: Sequence[int], networks: Iterable[StateDict] | None = None, place: Residency | None = None
    ) -> NetworkTokens:
        if networks is None and self.balance:
            networks = self.networks(indices)
        place = place or self._place(len(indices))
        return NetworkTokens(self.zoo, indices, self.codec, place, self._device(), networks, self.prompt)

    def _place(self, networks: int) -> Residency:
        """Where the tokens of some networks go; balanced networks are on no disk."""
        place = resolve_residency(self.residency, 4 * networks * math.prod(self.codec.shape), self._device())
        return "ram" if self.balance and place == "disk" else place

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


def places(zoo: Zoo, used: Sequence[int]) -> dict[str, list[int]]:
    """Which networks and runs of the train split a generator learns, by their places there; not all with ``data.max_networks``."""
    train = zoo.indices("train")
    runs = sorted({zoo.entries[i].run for i in train})
    place = {index: k for k, index in enumerate(train)}
    return {
        "networks": [place[i] for i in used],
        "runs": [runs.index(run) for run in sorted({zoo.entries[i].run for i in used})],
    }


def _taken(networks: list[StateDict]) -> Iterator[StateDict]:
    """One after another; each is released when taken."""
    networks.reverse()
    while networks:
        yield networks.pop()


def _some(indices: list[int], most: int | None) -> list[int]:
    """`most` of the indices, evenly spaced; all of them for None."""
    if most is None or most >= len(indices):
        return indices
    return [indices[i] for i in evenly_spaced(len(indices), most)]
