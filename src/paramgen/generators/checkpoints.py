"""Checkpoints of a fit: also saved on a request to stop, and complete at any interruption."""

import logging
import signal
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from paramgen.core.io import replacing
from paramgen.core.locks import locked
from paramgen.core.signals import REQUESTS, StopRequested, install, raise_request
from paramgen.errors import ParamgenError, cannot_write
from paramgen.generators.divergence import far_above, kept

_log = logging.getLogger(__name__)


class StopRequests(Callback):
    """Ends a fit on SIGTERM, SIGUSR1 or Ctrl-C, after the current optimizer step.

    Lightning's own handlers go on with the fit, or end it as if it were done. Several processes stop after the same step, whichever of
    them was asked.
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the signals over; at the end of the fit Lightning puts back what it found."""
        self._asked: int | None = None
        self._wait = self._together = trainer.world_size > 1
        install(self._note, (*REQUESTS, signal.SIGINT))

    def on_train_batch_start(self, *_: object) -> None:
        """From here on a request waits."""
        self._wait = True

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Stop if a request came since the last step."""
        self._wait = self._together
        stop_requested = self._asked is not None
        if trainer.strategy.reduce_boolean_decision(stop_requested, all=False) if self._together else stop_requested:
            raise_request(self._asked or signal.SIGTERM)

    def on_exception(self, *_: object) -> None:
        """Let what is saved now be saved."""
        self._wait = True

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self._wait:
            raise_request(signum)
        self._asked = signum


class Checkpoints(ModelCheckpoint):
    """Lightning's, which also saves where a fit is stopped, so that it can go on from there; an error saves nothing.

    Nothing is saved while the loss is far above its start: the last good checkpoint is kept. While the fit lasts its folder is locked.
    """

    _lock: ExitStack | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the folder.

        Raises:
            ParamgenError: Another fit writes to it.
        """
        super().setup(trainer, pl_module, stage)
        self._lock = ExitStack()
        if stage == "fit" and trainer.is_global_zero and self.dirpath and "://" not in str(self.dirpath):
            self._lock.enter_context(locked(self.dirpath))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the folder."""
        super().teardown(trainer, pl_module, stage)
        if self._lock:
            self._lock.close()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save if it is time."""
        if not far_above(trainer):
            super().on_train_batch_end(trainer, *args)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        if not far_above(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        if not far_above(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save ``last.ckpt`` when a person or a scheduler stopped the fit, and say where it is; release the folder."""
        with self._lock or nullcontext():
            if isinstance(exception, (KeyboardInterrupt, StopRequested)) and trainer.state.fn == "fit":
                self._save_stopped(trainer)

    def _save_stopped(self, trainer: Trainer) -> None:
        path = Path(self.dirpath or ".") / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        if far_above(trainer):
            _log.info("step %d is not saved: the loss is far above its start; %s", trainer.global_step, kept(trainer))
            return
        trial: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # set as it runs
        if trainer.global_step > 0 and not (trainer.sanity_checking or trial):
            self.last_model_path = str(path)
            trainer.save_checkpoint(path, self.save_weights_only)
        if path.exists():
            _log.info("saved step %d; to resume, run the same command with --ckpt_path %s", trainer.global_step, path)


class CompleteCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that are complete or absent: to a temporary file next to the target, tensor by tensor, then renamed.

    Lightning's holds the whole file in memory, writes it to the folder for temporary files and copies it from there where that is on
    another file system.
    """

    def __init__(self) -> None:
        self._last: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; one at an address such as ``s3://…`` as Lightning does.

        Raises:
            ParamgenError: The disk is full or the folder cannot be written; the last complete checkpoint is named.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        try:
            with replacing(path) as file:
                torch.save(checkpoint, file)
        except ParamgenError as error:
            raise self._naming_last(error, path) from error
        except RuntimeError as error:  # of torch's writer, which was stopped by what came before
            if isinstance(error.__context__, OSError):
                raise self._naming_last(cannot_write(path, error.__context__), path) from error
            if error.__context__ is not None and not isinstance(error.__context__, Exception):
                raise error.__context__ from None  # a signal
            raise
        self._last = path

    def _naming_last(self, error: ParamgenError, path: Path) -> ParamgenError:
        last = next((p for p in (self._last, path) if p is not None and p.exists()), None)
        return ParamgenError(f"{error}; the last checkpoint is {last}") if last else error
