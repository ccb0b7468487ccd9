"""Fits on two processes; test_distributed.py starts it and compares. Usage: two_processes.py ZOO OUT"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.distributed.tensor import DTensor

import gaussian_backend
from every_backend import build, cases
from paramgen.cli.main import main
from paramgen.errors import ParamgenError
from paramgen.generators.checkpoints import CompleteCheckpoints
from paramgen.generators.optim import EMA

BATCH, STEPS, SEED = 4, 6, 5
SHARDED = ("rpg_digits_mlp", "pdiff_two_phases", "dit_digits_mlp")  # Mamba layers, two phases, transformer blocks
RICH = "rpg_conv"  # fitted with everything that a fit can have
CLIPPED, ACCUMULATED = 0.02, 2


class Losses(Callback):
    """Each process's own losses, one file a process; a checkpoint before the averaged weights replace the others."""

    def __init__(self, path: Path, save: Path | None) -> None:
        self.path, self.save, self.losses = path, save, []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())

    def on_train_end(self, trainer, module):
        if self.save:
            trainer.save_checkpoint(self.save)
        parts = [p.detach() for p in module.parameters()]
        weights = torch.cat([(p.full_tensor() if isinstance(p, DTensor) else p).flatten() for p in parts])
        saved = {
            "losses": self.losses,
            "weights": [weights.sum().item(), weights.norm().item()],
            "held": sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parts) / len(weights),
            "val": [v.item() for n, v in trainer.callback_metrics.items() if n == "val/loss"],
            "noise": torch.rand(1).item(),
        }
        self.path.with_suffix(f".{trainer.global_rank}.json").write_text(json.dumps(saved))


class RefusedSave(Callback):
    """A checkpoint at a place that no folder can have; each process keeps the error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer, module):
        try:
            trainer.save_checkpoint(self.path)
        except ParamgenError as error:
            self.path.parent.with_suffix(f".{trainer.global_rank}.error").write_text(str(error))


def fit(
    name: str,
    zoo: str,
    out: Path,
    *,
    wrap=lambda model: model,
    batch_size: int = BATCH,
    steps: int = STEPS,
    steps_per_epoch: int = STEPS,
    callbacks=(),
    ckpt_path=None,
    save=None,
    **trainer,
) -> None:
    """Fit a case of every_backend.py; the losses go to OUT with the process's number."""
    seed_everything(SEED)
    model, data = build(cases()[name], zoo, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        callbacks=[Losses(out, save), *callbacks],
        num_sanity_val_steps=0,
        plugins=[CompleteCheckpoints()],
        **quiet,
        **{"limit_val_batches": 0, **trainer},
    )
    trainer.fit(wrap(model), data, ckpt_path=ckpt_path)


def fit_rich(zoo: str, out: Path, *, steps: int = STEPS, **arguments) -> None:
    """Averaged weights, accumulated and clipped gradients, and at the end a validation whose last batch is smaller than the others."""
    fit(
        RICH,
        zoo,
        out,
        steps=steps,
        steps_per_epoch=ACCUMULATED * STEPS,
        callbacks=[EMA(0.9)],
        accumulate_grad_batches=ACCUMULATED,
        gradient_clip_val=CLIPPED,
        limit_val_batches=1.0,
        **arguments,
    )


def sharded(zoo: str, out: Path) -> None:
    """The fits of one process again, each weight in two parts; they go on from a file of one process."""
    two = {"devices": 2, "strategy": "fsdp2"}
    for case in SHARDED:
        fit(case, zoo, out / f"sharded_{case}", callbacks=[RefusedSave(out / "rich.ckpt" / "no.ckpt")], **two)
    fit(RICH, zoo, out / "sharded_bf16", precision="bf16-mixed", **two)
    fit_rich(zoo, out / "sharded_rich", save=out / "sharded_rich.ckpt", **two)
    fit_rich(zoo, out / "sharded_resumed", steps=2 * STEPS, ckpt_path=out / "rich.ckpt", **two)


def lose_a_process(zoo: str, out: Path) -> int:
    """The second process of a fit that samples and saves is killed; the exit code of the first one."""
    usual = gaussian_backend.GaussianBackend.on_train_epoch_start

    def on_train_epoch_start(self):
        if self.global_rank == 1 and self.global_step == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        usual(self)

    gaussian_backend.GaussianBackend.on_train_epoch_start = on_train_epoch_start
    logged = ["--quality.sample_every=5", "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={out / 'logs'}"]
    devices = ["--config", "trainer/fsdp", "--trainer.devices=2", "--trainer.accelerator=cpu"]
    return main(["fit", "--config", str(out / "config.yaml"), *devices, *logged])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    zoo, out = sys.argv[1], Path(sys.argv[2])
    for case in cases():
        fit(case, zoo, out / case, devices=2, strategy="ddp_find_unused_parameters_true")
    sharded(zoo, out)
    code = lose_a_process(zoo, out)
    os._exit(code)  # before Lightning's watch over the other process kills this one
