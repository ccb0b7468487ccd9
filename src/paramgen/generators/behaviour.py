"""The behavioural loss: predicted networks run on their tasks' data, and their loss is added to the generator's.

A generator learns weights, but two networks at the same distance from a trained one may behave differently. With this loss it also
learns the networks' behaviour: each network that it predicts in training is decoded and run on train images of the task that the network of
the batch was trained for. Only train splits of seen tasks are used, but such a generator has used task data, and its samples record this.

B: networks of a batch. m: images a network. L tokens of D numbers.
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from paramgen.core.devices import to_device
from paramgen.core.params import StateDict, state_tensors
from paramgen.errors import ParamgenError, require_positive
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.batches import ParamBatch
from paramgen.generators.data import data_of
from paramgen.nn.statistics import with_statistics_gradients
from paramgen.tasks import family_of
from paramgen.tasks.forward import call, loadable
from paramgen.tasks.stacked import can_stack, channels_innermost, stacked_forward, worth_stacking


class BehaviouralLoss(Callback):
    """Adds the cross-entropy, on train images of their tasks, of the networks that a generator predicts in training.

    Args:
        weight: Weight of this loss, relative to the generator's own.
        images_per_step: Images per network and step.
        networks_per_step: Networks of the batch to run. Default: all.
        signal_weighting: Give less weight to networks predicted from more noise. Recommended with ``prediction_type: epsilon``, whose
            predictions are inaccurate at high noise.
        from_noise: Predict the networks from pure noise, as at the start of sampling, where only the condition is known, instead of from
            networks at random noise levels. Needs ``signal_weighting: false``.
        least_signal: Only run networks predicted from inputs with at least this share of signal, 0 to 1. Predictions from more noise are
            averages of many networks; running those makes samples alike.

    Raises:
        ParamgenError: Numbers that are not above 0, least_signal outside 0 to 1, or from_noise with signal_weighting or least_signal.
    """

    def __init__(
        self,
        weight: float = 1.0,
        images_per_step: int = 64,
        networks_per_step: int | None = None,
        signal_weighting: bool = True,
        from_noise: bool = False,
        least_signal: float = 0.0,
    ) -> None:
        require_positive(
            "behavioural loss: ", weight=weight, images_per_step=images_per_step, networks_per_step=networks_per_step
        )
        if from_noise and signal_weighting:
            raise ParamgenError(
                "behavioural loss: from_noise has no effect with signal_weighting, expected signal_weighting: false"
            )
        if not 0 <= least_signal < 1:
            raise ParamgenError(f"behavioural loss: least_signal is {least_signal}, expected 0 or more and below 1")
        if from_noise and least_signal:
            raise ParamgenError("behavioural loss: pure noise has no signal, expected least_signal: 0 with from_noise")
        self.least_signal = least_signal
        self.weight, self.images_per_step, self.from_noise = weight, images_per_step, from_noise
        self.networks_per_step, self.signal_weighting = networks_per_step, signal_weighting

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Find the seen tasks' train images and tie the loss to the generator."""
        if stage != "fit":
            return
        assert isinstance(module, ParameterGenerator)
        data = data_of(trainer)
        zoo = data.zoo
        self._names = [zoo.entries[i].task for i in data.train_indices]  # of each training network
        self._family = family_of(zoo)
        if self._family.takes_targets:
            raise ParamgenError(
                f"behavioural loss: networks of {type(self._family).__name__} compute their own loss; remove it"
            )
        self._splits = {name: self._family.task(name).data("train") for name in dict.fromkeys(self._names)}
        device = trainer.strategy.root_device
        self._network = with_statistics_gradients(self._family.build()).to(device)
        self._base: StateDict = {name: tensor.to(device) for name, tensor in zoo.base().items()}
        x, _ = self._draw([0], device)  # (1, m, ...)
        complete = loadable(self._network, {**state_tensors(self._network), **self._base})
        self._stacked = worth_stacking(self._network, device) and can_stack(self._network, complete, x[0, :2])
        module.behaviour, module.uses_task_data = self, True

    def loss(self, generator: ParameterGenerator, batch: ParamBatch) -> Tensor:
        """Mean cross-entropy, on images of their tasks, of the networks that a generator predicts for a batch."""
        if self.networks_per_step is not None and self.networks_per_step < len(batch.x):
            batch = _some(batch, torch.randperm(len(batch.x))[: self.networks_per_step])
        predicted = generator.denoised(batch, self.from_noise)
        tokens, device = predicted.tokens.float(), predicted.tokens.device
        kept = (predicted.signal >= self.least_signal).nonzero().flatten()  # (B',)
        if not len(kept):
            return 0 * tokens.sum()  # a gradient for every parameter, as processes that share them expect
        if len(kept) < len(tokens):
            tokens = tokens[to_device(kept, device)]
        x, y = self._draw(batch.index[kept].tolist(), device)  # (B', m, …), (B', m)
        assert generator.codec is not None
        each = self.task_loss(generator.codec.decode_stacked(tokens), x, y)  # (B',)
        weighted = each * to_device(predicted.signal[kept], device) if self.signal_weighting else each
        return weighted.sum() / len(batch.x)

    def task_loss(self, networks: StateDict, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss (B,) of each network on its own items.

        Args:
            networks: Generated tensors, each (B, …).
            x: (B, m, ...).
            y: (B, m, ...).
        """
        state = loadable(self._network, {**self._base, **networks}, x.device)
        shared = state.keys() - networks.keys()
        if self._stacked:
            output = stacked_forward(self._network, shared=shared)(state, x)  # (B, m, ...)
        else:
            rows = [{name: t if name in shared else t[i] for name, t in state.items()} for i in range(len(x))]
            each = zip(rows, x, strict=True)
            output = torch.stack([call(self._network, row, channels_innermost(z)) for row, z in each])
        return self._family.loss(output, y).mean(1)

    def _draw(self, index: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Random train images of the tasks of some training networks: (B, m, C, H, W) and labels (B, m)."""
        drawn = []
        for split in (self._splits[self._names[i]] for i in index):
            noise = torch.Generator().manual_seed(int(torch.randint(2**62, ())))  # of augmentations
            order = torch.randint(len(split), (1, 1, self.images_per_step))
            drawn.append(next(iter(split.training_batches(order, [noise]))))
        x, y = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return to_device(x, device), to_device(y, device)


def _some(batch: ParamBatch, rows: Tensor) -> ParamBatch:
    """The networks of a batch at some places (B',), on the CPU."""

    def some(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[to_device(rows, values.device)]

    parts: dict[str, Any] = {name: some(value) for name, value in batch._asdict().items() if name != "token"}
    return batch._replace(**parts)
