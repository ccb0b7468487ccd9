"""Learning rates, two training phases under one optimiser, and the running average of the weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from paramgen.errors import ParamgenError, require_positive
from paramgen.generators.settings import OptimizerName, OptimizerSettings, Schedule
from paramgen.generators.sharding import FSDP2, local

SHARDED_8BIT = "optimizer 'adamw8bit' cannot update sharded weights: use --model.optimizer.name adamw with --trainer.strategy fsdp2"


def lr_factor(schedule: Schedule, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """The learning rate at a step, as a share of the peak; `cosine` and `linear` fall to 0 at the last step.

    Args:
        schedule: ``constant``, ``cosine`` or ``linear``.
        steps: Total number of optimizer steps.
        warmup: Steps of linear rise at the start.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        if schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1 - done if schedule == "linear" else 1.0

    return factor


def scheduled(optimizer: Optimizer, *factors: Callable[[int], float]) -> OptimizerLRSchedulerConfig:
    """What ``configure_optimizers`` returns: the optimizer, with one factor for each of its parameter groups, stepped every step."""
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, list(factors)), "interval": "step"},
    }


def decay_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices, which are decayed, then norms, biases and parameters marked ``_no_weight_decay``, which are not.

    Args:
        module: Its parameters make the groups; an empty group is left out.
        lr: Learning rate of both.
        weight_decay: Of the first.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for p in module.parameters():
        (kept if p.dim() < 2 or getattr(p, "_no_weight_decay", False) else decayed).append(p)
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "lr": lr},
        {"params": kept, "weight_decay": 0.0, "lr": lr},
    ]
    return [group for group in groups if group["params"]]


def adamw(groups: list[dict[str, Any]], name: OptimizerName = "adamw", fused: bool | None = None) -> Optimizer:
    """AdamW of some parameter groups.

    Args:
        groups: As of :func:`decay_groups`.
        name: ``adamw``, or ``adamw8bit`` (bitsandbytes; 2 bytes of state a parameter instead of 8).
        fused: Of :class:`torch.optim.AdamW`; see :func:`fused_kernel`.

    Raises:
        ParamgenError: bitsandbytes is requested and cannot be used.
    """
    if name == "adamw8bit" and any(isinstance(p, DTensor) for group in groups for p in group["params"]):
        raise ParamgenError(SHARDED_8BIT)
    return adamw8bit()(groups) if name == "adamw8bit" else AdamW(groups, fused=fused)


def check_optimizer(module: LightningModule, name: OptimizerName) -> None:
    """Refuse an optimizer that the fit cannot have, before anything is computed.

    Args:
        module: Attached to a trainer.
        name: Of the optimizer.

    Raises:
        ParamgenError: ``adamw8bit`` with sharded weights, or where bitsandbytes cannot be used.
    """
    if name == "adamw8bit" and isinstance(module.trainer.strategy, FSDP2):
        raise ParamgenError(SHARDED_8BIT)
    if name == "adamw8bit":
        adamw8bit()


def fused_kernel(module: LightningModule) -> bool | None:
    """Whether AdamW runs as one kernel: seven times faster on a CPU.

    Lightning cannot clip the gradients of a fused optimizer in mixed precision; there, and on devices that have no such kernel, torch
    chooses (None).

    Args:
        module: Attached to a trainer; its parameters are where they will be trained.
    """
    clipped = module.trainer.gradient_clip_val and "mixed" in str(module.trainer.precision)
    devices = {p.device.type for p in module.parameters()}
    return True if devices <= {"cpu", "cuda"} and not clipped else None


def adamw8bit() -> Any:
    """The class of the 8-bit AdamW.

    Raises:
        ParamgenError: bitsandbytes cannot be used here.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except Exception as error:  # without CUDA it raises various errors
        raise ParamgenError(
            f"optimizer 'adamw8bit' needs bitsandbytes, which cannot be imported here ({error}); "
            "pip install 'paramgen[adamw8bit]', or use optimizer: adamw"
        ) from error
    return AdamW8bit


def one_phase(
    module: LightningModule, settings: OptimizerSettings, learned: nn.Module | None = None
) -> OptimizerLRSchedulerConfig:
    """One AdamW over the whole fit.

    Args:
        module: Attached to a trainer.
        settings: Learning rate and the rest.
        learned: The part that is trained. Default: all of it.
    """
    groups = decay_groups(module if learned is None else learned, settings.lr, settings.weight_decay)
    factor = lr_factor(settings.schedule, int(module.trainer.estimated_stepping_batches), settings.warmup_steps)
    return scheduled(adamw(groups, settings.name, fused_kernel(module)), *[factor] * len(groups))


def two_phases(
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
    settings: OptimizerSettings,
    *,
    first_steps: int,
    steps: int,
    fused: bool | None = None,
) -> OptimizerLRSchedulerConfig:
    """One AdamW whose first groups learn for `first_steps` steps and whose second learn from then on.

    With two optimizers, Lightning would need manual optimisation. In each phase the other groups have no gradients and no learning
    rate, so AdamW neither steps nor decays them.

    Args:
        first: Parameter groups of the first phase, as of :func:`decay_groups`.
        second: Of the second.
        settings: Each phase has its own schedule and its own warm-up.
        first_steps: Length of the first phase.
        steps: Length of both.
        fused: Of AdamW; see :func:`fused_kernel`.
    """
    early = lr_factor(settings.schedule, first_steps, settings.warmup_steps)
    late = lr_factor(settings.schedule, steps - first_steps, settings.warmup_steps)

    def of_first(step: int) -> float:
        return early(step) if step < first_steps else 0.0

    def of_second(step: int) -> float:
        return late(step - first_steps) if step >= first_steps else 0.0

    factors = [of_first] * len(first) + [of_second] * len(second)
    return scheduled(adamw([*first, *second], settings.name, fused), *factors)


class EMA(Callback):
    """Exponential moving average of the weights, used for validation, checkpoints and sampling.

    The decay grows as (1 + n) / (10 + n) to its value, so that a short run is not an average of its random start, and the average
    follows the weights exactly until `start`: an autoencoder trained first, whose latents the second phase has learned, must not lag
    behind. Checkpoints have the layout of Lightning's WeightAveraging, which cannot average a sharded module.

    Args:
        decay: Share of the average kept at each step, at most.
        start: Optimizer step at which averaging begins.
        every: Optimizer steps from one average to the next. Each reads and writes all weights.

    Raises:
        ParamgenError: `every` below 1.
    """

    def __init__(self, decay: float = 0.9999, start: int = 0, every: int = 1) -> None:
        require_positive(every=every)
        self.decay, self.start, self.every = decay, start, every
        self._average: dict[str, Tensor] = {}  # parameters and buffers; empty outside of a fit
        self._averaged, self._step = 0, 0  # updates, and the optimizer step of the last one

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin with the weights, or with the average of the checkpoint."""
        for name, tensor in _tensors(module).items():
            known = self._average.get(name)
            self._average[name] = tensor.detach().clone() if known is None else known.to(tensor.device)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        """Average when due."""
        if trainer.global_step <= self._step or trainer.global_step % self.every:
            return
        self._step, n = trainer.global_step, max(0, self._averaged * self.every - self.start)
        kept = min(self.decay, (1 + n) / (10 + n)) ** self.every if n else 0.0
        for name, tensor in _tensors(module).items():
            mean, now = local(self._average[name]), local(tensor)
            if mean.is_floating_point() and kept:
                mean.lerp_(now, 1 - kept)
            else:
                mean.copy_(now)
        self._averaged += 1

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Validate the average."""
        self._swap(module)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Train the weights."""
        self._swap(module)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """The average is what was fitted."""
        for name, tensor in _tensors(module).items():
            local(tensor).copy_(local(self._average[name]))

    def state_dict(self) -> dict[str, Any]:
        """The last step that was averaged."""
        return {"latest_update_step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self._step = state_dict["latest_update_step"]

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the average as the weights, and the weights next to it."""
        if self._average:
            names = _names(module)
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._averaged)}
            checkpoint["state_dict"] = {
                name: self._average[names[name]] if name in names else value
                for name, value in checkpoint["state_dict"].items()
            }

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both; a checkpoint without an average gives its weights for it."""
        if trainer.state.fn != "fit":
            return
        self._average |= {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        if "current_model_state" in checkpoint:
            self._averaged = int(checkpoint["averaging_state"]["n_averaged"])
            module.load_state_dict(checkpoint["current_model_state"])

    @torch.no_grad()
    def _swap(self, module: LightningModule) -> None:
        for name, tensor in _tensors(module).items() if self._average else ():
            mean, now = local(self._average[name]), local(tensor)
            before = mean.clone()
            mean.copy_(now)
            now.copy_(before)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _names(module: nn.Module) -> dict[str, str]:
    """All names of parameters and buffers, each with the one of :func:`_tensors`; tied ones have several."""
    first: dict[int, str] = {}
    named = (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    )
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}
