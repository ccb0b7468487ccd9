"""Stops a diverged fit with an error and keeps the last good checkpoint."""

from collections import deque
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from paramgen.errors import DivergedError, require_non_negative, require_positive

STEPS_BETWEEN_LOOKS = 10  # reading the loss synchronises the GPU; each of the first ten steps is read
RECENT = 5  # readings whose median is compared with the start: a single spike is not a divergence


class Divergence(Callback):
    """Stops a fit whose loss is NaN or infinite, or stays far above its initial value. Exit code 3; the last good checkpoint remains.

    Args:
        factor: Multiple of the initial loss that counts as far above it. Tokens are standardised, so a guess has loss 1; an initial loss
            below 1 counts as 1. With 0, only NaN and infinite losses stop a fit.
        patience: Optimizer steps that the loss may stay far above its initial value. A fit that ends in this state has diverged too.

    Raises:
        ParamgenError: A negative factor, a patience below 1.
    """

    def __init__(self, factor: float = 10.0, patience: int = 100) -> None:
        require_non_negative(factor=factor)
        require_positive("divergence.", patience=patience)
        self.factor, self.patience = factor, patience
        self.above = False  # whether the last reading of the loss was far above its start
        self._start: float | None = None
        self._recent = deque[float](maxlen=RECENT)
        self._since: int | None = None  # the step at which the recent losses became too large
        self._loss: Tensor | None = None
        self._looked = -1

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: object) -> None:
        """Check the loss when due."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._loss = loss.detach() if isinstance(loss, Tensor) else None
        if trainer.global_step <= STEPS_BETWEEN_LOOKS or trainer.global_step % STEPS_BETWEEN_LOOKS == 0:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Check before a checkpoint is saved."""
        self._look(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Check before a checkpoint is saved."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._look(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """A fit that ends far above its start has diverged."""
        self._look(trainer)
        if self._since is not None:
            raise self._diverged(trainer, self._recent[-1])

    def state_dict(self) -> dict[str, Any]:
        """The initial loss."""
        return {"start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self._start = state_dict["start"]

    def _look(self, trainer: Trainer) -> None:
        """Compare the loss with its start; several processes use their mean, so that all end at the same step."""
        if self._loss is None or trainer.global_step == self._looked:
            return
        self._looked = trainer.global_step
        loss = float(trainer.strategy.reduce(self._loss.clone(), reduce_op="mean"))
        if not isfinite(loss):
            raise self._diverged(trainer, loss)
        if self._start is None:
            self._start = loss
        limit = self.factor * max(abs(self._start), 1.0) if self.factor else float("inf")
        self._recent.append(loss)
        self.above = loss > limit
        if median(self._recent) <= limit:
            self._since = None
        elif self._since is None:
            self._since = trainer.global_step
        elif trainer.global_step - self._since >= self.patience:
            raise self._diverged(trainer, loss)

    def _diverged(self, trainer: Trainer, loss: float) -> DivergedError:
        rates = sorted({group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups})
        rate = f", at learning rate {' and '.join(f'{r:g}' for r in rates)}" if rates else ""
        start = "" if self._start is None else f" (its start: {self._start:.3g})"
        since = f" since step {self._since}" if self._since is not None and isfinite(loss) else ""
        advice = "try a lower learning rate"
        if isfinite(loss):
            advice += ", or raise --divergence.factor if such losses are expected"
        return DivergedError(
            f"the fit diverged: the loss is {loss:.3g}{start} at step {trainer.global_step}{since}{rate}; {kept(trainer)}; {advice}"
        )


def far_above(trainer: Trainer) -> bool:
    """Whether a :class:`Divergence` of this trainer found the loss far above its start: not a state to save."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set as it runs
    return any(callback.above for callback in callbacks if isinstance(callback, Divergence))


def kept(trainer: Trainer) -> str:
    """The last good checkpoint of a diverged fit."""
    callback = trainer.checkpoint_callback
    paths = (
        getattr(callback, "last_model_path", ""),
        getattr(callback, "best_model_path", ""),
        trainer.ckpt_path or "",
    )
    last = next((path for path in paths if path and Path(path).exists()), None)
    return f"the last good checkpoint is {last}" if last else "no checkpoint had been saved"
