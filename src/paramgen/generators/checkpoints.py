"""Checkpoints of a fit: also saved on a request to stop, and complete at any interruption."""

import logging
import signal
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from paramgen.core.io import link, replace_folder, replacing
from paramgen.core.locks import locked, temporary_name
from paramgen.core.signals import REQUESTS, StopRequested, install, raise_request
from paramgen.errors import ParamgenError, cannot_write
from paramgen.generators.distributed_checkpoints import is_sharded, read_shards
from paramgen.generators.divergence import far_above, kept

_log = logging.getLogger(__name__)


class StopRequests(Callback):
    """Ends a fit on SIGTERM, SIGUSR1 or Ctrl-C, after the current optimizer step.

    Lightning's own handlers continue the fit, or end it as if it were done. Several processes stop after the same step, whichever of
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
    """Lightning's, which also saves where a fit is stopped, so that it can resume there; an error saves nothing.

    Nothing is saved while the loss is far above its start: the last good checkpoint is kept. While the fit lasts its folder is locked.
    With ``save_last: link`` (the default of ``paramgen fit``) ``last.ckpt`` is another name of the checkpoint that was just written, not
    a copy. Lightning's own link is absent for a moment, and leads nowhere for another.
    """

    _lock: ExitStack | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the folder.

        Raises:
            ParamgenError: Another fit writes to it.
        """
        if self.save_last == "link":
            self.save_last = True
            if isinstance(trainer.strategy.checkpoint_io, CompleteCheckpoints):
                trainer.strategy.checkpoint_io.links = True
        super().setup(trainer, pl_module, stage)
        self._lock = ExitStack()
        if stage == "fit" and self.dirpath and "://" not in str(self.dirpath):
            self._take(trainer, self.dirpath, self._lock)

    @staticmethod
    def _take(trainer: Trainer, folder: str | Path, lock: ExitStack) -> None:
        """Lock the folder in the first process; if it is refused, all processes end, and none takes another for lost."""
        refusal = ""
        try:
            if trainer.is_global_zero:
                lock.enter_context(locked(folder))
        except ParamgenError as error:
            refusal = str(error)
        if refusal := trainer.strategy.broadcast(refusal):
            # the others end in silence and with 0, or their launcher would kill the first before it has said why
            raise ParamgenError(refusal) if trainer.is_global_zero else SystemExit(0)

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


class _Content(NamedTuple):
    """What tells whether two checkpoints of a fit hold the same."""

    step: int
    epoch: int
    parts: frozenset[str]

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Self:
        return cls(checkpoint.get("global_step", -1), checkpoint.get("epoch", -1), frozenset(checkpoint))


class CompleteCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that are complete or absent: to a temporary file next to the target, tensor by tensor, then renamed.

    Lightning's holds the whole file in memory, writes it to the folder for temporary files and copies it from there where that is on
    another file system.

    Attributes:
        links: Where a checkpoint is written twice into a folder, as the best and as the last one, the second is a link to the first.
    """

    def __init__(self) -> None:
        self.links = False
        self._last: Path | None = None
        self._written: _Content | None = None  # of the last one

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; one at an address such as ``s3://…`` as Lightning does.

        Raises:
            ParamgenError: The disk is full or the folder cannot be written; the last complete checkpoint is named.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        if self.link_to_same(checkpoint, path):
            return
        in_place = path.is_symlink() or not is_sharded(path)
        written = path if in_place else temporary_name(path)
        try:
            with replacing(written) as file:
                torch.save(checkpoint, file)
            if not in_place:
                replace_folder(written, path)
        except ParamgenError as error:
            raise self._naming_last(error, path) from error
        except RuntimeError as error:  # of torch's writer, which was stopped by what came before
            if isinstance(error.__context__, OSError):
                raise self._naming_last(cannot_write(path, error.__context__), path) from error
            if error.__context__ is not None and not isinstance(error.__context__, Exception):
                raise error.__context__ from None  # a signal
            raise
        self.remember(checkpoint, path)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Read a file, or a folder of shards."""
        return read_shards(Path(path)) if is_sharded(path) else super().load_checkpoint(path, *args, **kwargs)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint; symbolic links to it are first led to the last one that was written."""
        removed, last = Path(path).resolve(), self._last
        if last is not None and last.exists():
            for name in removed.parent.glob("*.ckpt"):
                if name.is_symlink() and name.resolve() == removed:
                    link(name, last)
        super().remove_checkpoint(path)

    def link_to_same(self, checkpoint: Mapping[str, Any], path: Path) -> bool:
        """Make `path` a link to the last checkpoint, if that is of the same content and folder; whether it is one now."""
        last = self._last
        if not self.links or last is None or last == path or last.parent != path.parent or not last.exists():
            return False
        if _Content.of(checkpoint) != self._written:
            return False
        link(path, last)
        return True

    def remember(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Take note of a checkpoint that has been written."""
        self._last, self._written = path, _Content.of(checkpoint)

    def _naming_last(self, error: ParamgenError, path: Path) -> ParamgenError:
        last = next((p for p in (self._last, path) if p is not None and p.exists()), None)
        return ParamgenError(f"{error}; the last checkpoint is {last}") if last else error
