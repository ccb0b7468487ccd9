"""What two processes of FSDP2 hold, against ``paramgen plan``: peak memory of each over its imports, and the bytes of its states.

    OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=65536 python benchmarks/fsdp_memory.py --out benchmarks/results/fsdp_memory.json

Two gloo processes on this machine fit RPG of 30 M parameters with ``--trainer.strategy fsdp2``; one process fits it alone. Peaks are of
the resident memory, so they include gloo's own buffers, which the plan does not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from paramgen.backends.rpg import RPG
from paramgen.collect.shape import shape_of_zoo
from paramgen.core.codec import TokenCodec
from paramgen.core.io import write_json
from paramgen.core.params import ParamSpec
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation.compare import machine
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.sharding import local
from paramgen.planning.devices import find_device
from paramgen.planning.dry_run import FitSettings, dry_run
from paramgen.planning.plan import Machine, assess
from scaling import status_mb

ARGUMENTS = {"recurrence": {"d_model": [1024, 1024]}, "head": {"kind": "mlp", "hidden": 1024}, "tokens_per_step": 64}
TOKEN, NETWORKS, BATCH, STEPS = 1024, 8, 2, 3


class States(Callback):
    """The bytes of weights, gradients and optimizer state on this process, before the gradients are dropped."""

    found: dict[str, int]

    def on_before_zero_grad(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        """Note them."""
        weights = [*module.parameters(), *module.buffers()]
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        state = [v for of in optimizer.state.values() for v in of.values() if isinstance(v, torch.Tensor)]
        if gradients and state:
            parts = {"weights": weights, "gradients": gradients, "optimizer": state}
            self.found = {name: sum(local(t).nbytes for t in tensors) for name, tensors in parts.items()}


def make_zoo(folder: Path) -> None:
    """Networks of 0.5 M random numbers: what memory takes does not depend on them."""
    networks = [torch.nn.Linear(999, 500) for _ in range(NETWORKS)]
    writer = ZooWriter(folder, ParamSpec.of(networks[0]), {}, None, {})
    for run, network in enumerate(networks):
        writer.add(network.state_dict(), run=run, step=0, seed=0, split="train", scores={})
    writer.close()


def fit(zoo: str, out: Path, devices: int) -> None:
    """Some steps; each process writes what it held."""
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    data = ParameterDataModule(zoo, TokenCodec(TOKEN), batch_size=BATCH, steps_per_epoch=STEPS)
    before, states = status_mb("VmRSS"), States()
    model = RPG(data.seq_len, data.token_dim, num_networks=data.num_networks, num_runs=data.num_runs, **ARGUMENTS)
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="fsdp2" if devices > 1 else "auto", max_steps=STEPS, max_epochs=-1,
        callbacks=[states], logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, data)
    found = {"peak": (status_mb("VmHWM") - before) * 2**20, **states.found}
    out.with_suffix(f".{trainer.global_rank}.json").write_text(json.dumps(found))


def planned(zoo: str, devices: int) -> dict[str, int]:
    """The same by the plan."""
    settings = FitSettings(RPG, ARGUMENTS, TokenCodec(TOKEN), shape_of_zoo(Zoo(zoo)), BATCH)
    where = Machine(find_device("cpu"), devices, "fsdp2" if devices > 1 else "auto", residency="ram")
    plan = assess(settings, where, dry_run(settings, on_gpu=False))
    states = {name: plan.sizes[name] // where.shards for name in ("weights", "gradients", "optimizer")}
    return {"peak": plan.peak, **states, "parts": dict(plan.parts), "parameters": plan.parameters}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fit", nargs=3, metavar=("ZOO", "OUT", "DEVICES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        fit(args.fit[0], Path(args.fit[1]), int(args.fit[2]))
        return
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        zoo = Path(scratch) / "zoo"
        make_zoo(zoo)
        for devices in (1, 2):
            out = Path(scratch) / f"on_{devices}"
            command = [sys.executable, __file__, "--out", str(args.out), "--fit", str(zoo), str(out), str(devices)]
            subprocess.run(command, check=True)
            ranks = [json.loads(out.with_suffix(f".{rank}.json").read_text()) for rank in range(devices)]
            rows[f"{devices} processes"] = {"planned": planned(str(zoo), devices), "measured": ranks}
            print(json.dumps(rows[f"{devices} processes"], indent=1), flush=True)
    write_json(args.out, {"machine": machine(), "threads": 1, **rows})


if __name__ == "__main__":
    main()
