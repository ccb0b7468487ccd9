"""Fits every backend for a few steps on two processes; test_distributed.py starts it and compares. Usage: two_processes.py ZOO OUT"""

import json
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from every_backend import build, cases

BATCH, STEPS, SEED = 4, 6, 5


class Losses(Callback):
    """Each process's own losses, one file a process."""

    def __init__(self, path: Path) -> None:
        self.path, self.losses = path, []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())

    def on_train_end(self, trainer, module):
        weights = torch.cat([p.detach().flatten() for p in module.parameters()])
        saved = {
            "losses": self.losses,
            "weights": [weights.sum().item(), weights.norm().item()],
            "noise": torch.rand(1).item(),
        }
        self.path.with_suffix(f".{trainer.global_rank}.json").write_text(json.dumps(saved))


def fit(name: str, zoo: str, out: Path, *, wrap=lambda model: model, batch_size: int = BATCH, **trainer) -> None:
    seed_everything(SEED)
    model, data = build(cases()[name], zoo, batch_size=batch_size, steps_per_epoch=STEPS)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        callbacks=[Losses(out / name)],
        limit_val_batches=0,
        **quiet,
        **trainer,
    )
    trainer.fit(wrap(model), data)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for case in cases():
        fit(case, sys.argv[1], Path(sys.argv[2]), devices=2, strategy="ddp_find_unused_parameters_true")
    torch.distributed.destroy_process_group()  # else its threads may outlive the interpreter
