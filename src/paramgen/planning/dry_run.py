"""A few steps of a fit on fake tensors, which have shapes but no values, under a :class:`Meter`.

The code that runs is that of the fit: the backend's loss, autograd, the optimizer, clipping, and Lightning's precision. The tensors
claim to be on the CPU, because torch makes no others without the device. docs/plan.md compares the result with an H200.
K: training networks. B: networks of a batch. L tokens of D numbers.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from paramgen.collect.shape import ZooShape
from paramgen.core.codec import ParamCodec
from paramgen.generators.base import ParameterGenerator, Phase
from paramgen.generators.batches import ParamBatch
from paramgen.planning.meter import Meter, Operation

STAND_INS = {"compile": (True, False), "kernel": ("cuda", "auto"), "name": ("adamw8bit", "adamw")}
"""Settings that cannot be built without a GPU, and what is run in their place. The cost of the 8-bit optimizer is corrected."""

STATE_8BIT = (1 + 4 / 256) / 4
"""Bytes of bitsandbytes' state in relation to float32: one byte, and a float32 for each block of 256."""


@dataclass(frozen=True)
class FitSettings:
    """What decides the cost of a fit.

    Args:
        backend: Class of the generator.
        arguments: Its arguments that do not come from the data.
        codec: Its codec.
        zoo: Shape of the zoo.
        batch_size: B, of one process.
        tokens: Tokens of each network in a batch; None for all.
        start_weights: Whether batches hold networks to start from.
        max_steps: Optimizer steps in all; -1 where the trainer does not know.
        accumulate: Batches of an optimizer step.
        precision: Of the trainer.
        clip: Maximum norm of the gradients; None for no clipping.
        float32_share: Share of the steps at each end that are in float32.
        averaged: Whether a moving average of the weights is kept.
        layout: Of the hidden units, for backends that take it.
    """

    backend: type[ParameterGenerator]
    arguments: Mapping[str, Any]
    codec: ParamCodec
    zoo: ZooShape
    batch_size: int
    tokens: int | None = None
    start_weights: bool = False
    max_steps: int = -1
    accumulate: int = 1
    precision: str = "32-true"
    clip: float | None = None
    float32_share: float = 0.0
    averaged: bool = False
    layout: Mapping[str, Any] | None = None

    @property
    def optimizer(self) -> str:
        """Name of the optimizer."""
        chosen = self.arguments.get("optimizer") or {}
        return str(chosen.get("name", "adamw"))


class PricedSteps(NamedTuple):
    """Steps of one cost.

    Args:
        name: The phase and the precision.
        steps: Their number; None if it is not known.
        operations: Of one optimizer step.
    """

    name: str
    steps: int | None
    operations: list[Operation]

    @property
    def flops(self) -> int:
        """Of one optimizer step."""
        return sum(operation.flops for operation in self.operations)


class DryRun(NamedTuple):
    """The result of a dry run.

    Args:
        meter: Memory over time; labels are weights, gradients, optimizer, batch, average, other and activations.
        segments: The parts of the fit.
        parameters: Trained numbers of the generator.
        sizes: Bytes by label at the end of a step.
        gathered: Bytes of the weights that FSDP has complete at once: of the largest block, and of all that is in none.
    """

    meter: Meter
    segments: list[PricedSteps]
    parameters: int
    sizes: dict[str, int]
    gathered: int


class FakeNetworks:
    """Tokens of the training networks without values; the same calls as :class:`paramgen.generators.batches.NetworkTokens`."""

    def __init__(self, networks: int, shape: tuple[int, int], cond_dim: int) -> None:
        self.networks, self.shape = networks, shape
        self.conditions = torch.zeros(networks, cond_dim) if cond_dim else None

    def __len__(self) -> int:
        return self.networks

    def batches(self, size: int) -> Iterator[Tensor]:
        """Tokens (B, L, D) of all networks."""
        for first in range(0, self.networks, size):
            yield torch.empty(min(size, self.networks - first), *self.shape)


def dry_run(settings: FitSettings, on_gpu: bool) -> DryRun:
    """Run two steps of each part of a fit on fake tensors.

    Args:
        settings: Of the fit.
        on_gpu: Whether optimizers run as they do on a GPU.
    """
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=settings.max_steps if settings.max_steps > 0 else 2,
        max_epochs=-1,
        precision=settings.precision,  # type: ignore[arg-type]  # checked by the command line
        gradient_clip_val=settings.clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    settings.codec.lay_out(settings.zoo.spec)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    meter = Meter(fake)
    with meter:
        return _Rehearsal(settings, trainer, meter, on_gpu).run()


class _Rehearsal:
    """One dry run."""

    def __init__(self, settings: FitSettings, trainer: Trainer, meter: Meter, on_gpu: bool) -> None:
        self.settings, self.trainer, self.meter, self.on_gpu = settings, trainer, meter, on_gpu
        meter.stage = "building the generator"
        self.codec = settings.codec
        with meter.fake:
            self.model = self._build()
        meter.label("weights", [*self.model.parameters(), *self.model.buffers()])
        meter.label("other", [self.codec.mask])
        meter.label_rest("other")
        self.average = [torch.empty_like(p) for p in self._state()] if settings.averaged else []
        meter.label("average", self.average)
        self.batch = self._batch()
        meter.label("batch", [self.batch.x, self.batch.start])

    def run(self) -> DryRun:
        """Two steps of each part."""
        settings, model = self.settings, self.model
        self.optimizer = self._optimizer()
        segments: list[PricedSteps] = []
        left = settings.max_steps if settings.max_steps > 0 else None
        for phase in self._phases():
            self.meter.label_rest("other")
            steps = left if phase.steps is None else phase.steps
            segments += self._segments(phase.name, steps)
            left = None if left is None or steps is None else left - steps
        if settings.optimizer == "adamw8bit":
            self.meter.scale("optimizer", STATE_8BIT)
        sizes = {name: self.meter.total(name) for name in ("weights", "optimizer", "average", "batch", "other")}
        sizes["gradients"] = sum(p.nbytes for p in model.parameters() if p.requires_grad)
        trained = [p for p in model.parameters() if p.requires_grad]
        blocks = [sum(p.nbytes for p in block.parameters()) for block in model.blocks()]
        gathered = sum(p.nbytes for p in model.parameters()) - sum(blocks) + max(blocks, default=0)
        return DryRun(self.meter, segments, sum(p.numel() for p in trained), sizes, gathered)

    def _phases(self) -> Iterator[Phase]:
        """The parts of the fit; what happens between them is fake."""
        settings, fake = self.settings, self.meter.fake
        with fake:
            networks = FakeNetworks(settings.zoo.networks, self.codec.shape, settings.zoo.cond_dim)
            phases = self.model.phases(networks)  # type: ignore[arg-type]  # the same calls
        while True:
            self.meter.stage = "beginning of a phase"
            with fake:
                phase = next(phases, None)
            if phase is None:
                return
            yield phase

    def _build(self) -> ParameterGenerator:
        settings, (length, width) = self.settings, self.codec.shape
        plugin = self.trainer.strategy.precision_plugin
        available = {
            "seq_len": length,
            "token_dim": width,
            "cond_dim": settings.zoo.cond_dim,
            "num_networks": settings.zoo.networks,
            "num_runs": settings.zoo.runs,
            "start_weights": settings.start_weights,
            "layout": settings.layout,
        }
        arguments = {name: _buildable(value) for name, value in settings.arguments.items()}
        takes = signature(settings.backend).parameters
        taken = {name: value for name, value in available.items() if name in takes}
        model = settings.backend(**arguments, **taken)
        model.codec, model.trainer = self.codec, self.trainer
        model.train()
        converted: ParameterGenerator = plugin.convert_module(model)  # type: ignore[assignment]
        return converted

    def _state(self) -> list[Tensor]:
        """What a moving average copies."""
        return [*self.model.parameters(), *self.model.buffers()]

    def _optimizer(self) -> torch.optim.Optimizer:
        configured: Any = self.model.configure_optimizers()
        optimizer: torch.optim.Optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        for group in optimizer.param_groups:
            if self.on_gpu and not group.get("fused") and group.get("foreach", False) is None:
                group["foreach"] = True  # torch's choice on a GPU
        return optimizer

    def _batch(self) -> ParamBatch:
        settings, (length, width) = self.settings, self.codec.shape
        B, tokens, zoo = settings.batch_size, min(settings.tokens or length, length), settings.zoo
        index = torch.randperm(zoo.networks).repeat(-(-B // zoo.networks))[:B]  # with values: losses decide by them
        run = index * zoo.runs // zoo.networks
        same = index * (zoo.conditions or zoo.networks) // zoo.networks if zoo.cond_dim else None
        token = None if tokens == length else torch.randperm(length)[:tokens].sort().values
        with self.meter.fake:
            condition = torch.zeros(B, zoo.cond_dim) if zoo.cond_dim else None
            start = torch.empty(B, tokens, width) if settings.start_weights else None
            return ParamBatch(torch.empty(B, tokens, width), condition, index, run, token, start, same)

    def _segments(self, phase: str, steps: int | None) -> Iterator[PricedSteps]:
        plugin, share = self.trainer.strategy.precision_plugin, self.settings.float32_share
        ends = None if steps is None else round(2 * share * steps)
        if share:
            yield self._segment(f"{phase}, float32", ends, Precision())
        if share < 0.5:
            rest = None if steps is None or ends is None else steps - ends
            yield self._segment(f"{phase}, {self.trainer.precision}", rest, plugin)

    def _segment(self, name: str, steps: int | None, plugin: Precision) -> PricedSteps:
        """Two steps: the first makes the optimizer's state, the second is what all others cost."""
        for _ in range(2):
            begin = len(self.meter.operations)
            for _ in range(self.settings.accumulate):
                self._forward_backward(name, plugin)
            self._update(name)
        return PricedSteps(name, steps, self.meter.operations[begin:])

    def _forward_backward(self, name: str, plugin: Precision) -> None:
        meter = self.meter
        with ExitStack() as context:
            context.enter_context(plugin.train_step_context())
            meter.stage = f"{name}: forward pass"
            loss = self.model.loss(plugin.convert_input(self.batch))["loss"]
        meter.stage = f"{name}: backward pass"
        (loss / self.settings.accumulate).backward()
        meter.label("gradients", (p.grad for p in self.model.parameters()))

    def _update(self, name: str) -> None:
        meter, parameters = self.meter, [*self.model.parameters()]
        meter.stage = f"{name}: update"
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        with meter.fake:
            self.optimizer.step()
        for state in self.optimizer.state.values():
            meter.label("optimizer", (value for value in state.values() if isinstance(value, Tensor)))
        for mean, now in zip(self.average, self._state() if self.average else [], strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 0.1)
        self.optimizer.zero_grad()


def _buildable(value: Any) -> Any:
    """An argument with what needs a GPU replaced; see :data:`STAND_INS`."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: STAND_INS[key][1] if key in STAND_INS and item == STAND_INS[key][0] else _buildable(item)
        for key, item in value.items()
    }
