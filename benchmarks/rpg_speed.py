"""RPG's speed: the paper's recipe and our default, beside the authors' code as it was measured on this kind of machine.

    OMP_NUM_THREADS=1 python benchmarks/rpg_speed.py --out rpg_speed.json
    OMP_NUM_THREADS=1 python benchmarks/rpg_speed.py --only million     # the 1.05 M-parameter zoo

CPU seconds of one thread; peak memory of a process of its own for each measurement. Tiny: 50 checkpoints of a 2,410-parameter MLP on
digits, batch 8. Million: 20 checkpoints of a 1.05 M-parameter MLP on digits at 32x32.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything

from paramgen.backends.rpg import RPG
from paramgen.collect.single import main as collect
from paramgen.collect.train import OptimSettings
from paramgen.core.codec import TokenCodec
from paramgen.core.paths import find_config
from paramgen.core.zoo import Zoo
from paramgen.generators.data import ParameterDataModule
from paramgen.tasks import ClassificationTask
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks
from peak import bound

AUTHORS = {  # one thread of this kind of machine; the authors' repository as published
    "tiny float32": {
        "ms_per_step": 297,
        "peak_mb": 991,
        "sample": {"DDPM-1000": "12 to 15 s", "DDIM-60": "0.9 s, .906 of .9745"},
    },
    "tiny bf16": {"ms_per_step": 152},
    "million": {"ms_per_step": 18_600, "peak_mb": 5_500, "sample": {"DDIM-60": "412 s"}},
}
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
MILLION = {
    "recurrence": {"d_model": [256, 256]},
    "head": {"kind": "mlp", "hidden": 256},
    "tokens_per_step": 512,
}  # over rpg_digits_mlp


def make_zoo(folder: Path, kind: str) -> None:
    """The zoo of a measurement."""
    if kind == "million":
        task = ClassificationTask("digits", "mlp", {"hidden": [768, 320]}, image_size=32)
        collect(task, str(folder), checkpoints=20, save_every=2, epochs=5, finetune=OptimSettings(lr=1e-3))
    else:
        task = ClassificationTask("digits", "mlp", {"hidden": [32]})
        collect(task, str(folder), checkpoints=50, save_every=2, finetune=OptimSettings(lr=4e-3))


def make(
    zoo: Zoo, config: str, data: dict[str, Any], model: dict[str, Any]
) -> tuple[RPG, ParameterDataModule, dict[str, Any]]:
    settings = yaml.safe_load(Path(find_config(config)).read_text())
    codec = {**settings["data"].pop("codec")["init_args"], **data.pop("codec", {})}
    module = ParameterDataModule(**{**settings["data"], "zoo": str(zoo.path), "codec": TokenCodec(**codec), **data})
    sizes = (module.seq_len, module.token_dim, module.num_networks, module.num_runs)
    return RPG(*sizes, **{**settings["model"]["init_args"], **model}), module, settings["trainer"]


def status_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak since the program started); getrusage's peak would include the parent's."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


class Clock(Callback):
    """CPU seconds of the steps after the first three, which warm up: the median, so that other programs disturb less."""

    def on_train_batch_start(self, trainer: Trainer, module: RPG, batch: Any, batch_idx: int) -> None:
        """Note the time."""
        self.starts = [*getattr(self, "starts", []), time.process_time()]

    def on_train_end(self, trainer: Trainer, module: RPG) -> None:
        """From start to start."""
        times = [*self.starts, time.process_time()]
        self.ms_per_step = 1e3 * median(b - a for a, b in pairwise(times[3:]))


def measure(zoo: Zoo, setup: str, steps: int) -> dict[str, Any]:
    """Fit some steps and sample; what `setup` is stands in SETUPS."""
    config, data, model_arguments, precision, solvers = SETUPS[setup]
    imports, clock = status_mb("VmRSS"), Clock()
    seed_everything(0, verbose=False)
    model, module, settings = make(zoo, config, dict(data), model_arguments)
    settings = {**settings, "max_steps": steps, "max_epochs": -1, "precision": precision, **QUIET}
    start = time.process_time()
    Trainer(**settings, callbacks=[clock]).fit(model, module)
    seconds = time.process_time() - start
    peak_of_fit = status_mb("VmHWM")
    batch, dtype = next(iter(module.train_dataloader())), torch.bfloat16 if "bf16" in precision else torch.float32

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            loss = model.train().loss(batch)["loss"]
        loss.backward()

    arithmetic = bound(step, clock.ms_per_step, dtype)
    model.eval()
    task = ClassificationTask(**zoo.task_config["init_args"])
    trained = score_networks(
        CLASSIFIES, task.build(), [zoo.full(i) for i in module.train_indices], task.data("test")
    ).value
    row = {
        "steps": steps,
        "ms_per_step": clock.ms_per_step,
        "fit_cpu_seconds": seconds,
        "generator_params": sum(p.numel() for p in model.parameters()),
        "seq_len": module.seq_len,
        "zoo_accuracy": trained.mean().item(),
        "imports_mb": imports,
        "peak_of_fit_mb": peak_of_fit,
        "arithmetic": arithmetic,
        "sample": {},
    }
    for scheduler, inference, n in solvers:
        start = time.process_time()
        networks = model.sample(n, scheduler=scheduler, num_inference_steps=inference)
        seconds = time.process_time() - start
        accuracy = score_networks(CLASSIFIES, task.build(), networks, task.data("test")).value.mean().item()
        row["sample"][f"{scheduler}-{inference}, {n}"] = {"networks": n, "cpu_seconds": seconds, "accuracy": accuracy}
    row["peak_mb"] = status_mb("VmHWM")
    return row


SETUPS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str, list[tuple[str, int, int]]]] = {
    "tiny float32": ("rpg_tiny_paper", {}, {}, "32-true", [("DDPM", 1000, 1), ("DDIM", 60, 1)]),
    "tiny bf16": ("rpg_tiny_paper", {}, {}, "bf16-mixed", []),
    "tiny ours": ("rpg_digits_mlp", {}, {}, "32-true", [("DDIM", 10, 1), ("DDIM", 10, 100)]),
    "million": (
        "rpg_digits_mlp",
        {"codec": {"token_dim": 1024}, "batch_size": 4},
        {**MILLION, "sampling": "partial"},
        "32-true",
        [("DDIM", 10, 1), ("DDIM", 10, 12), ("DDIM", 60, 1)],
    ),
}


def alone(zoo: Path, setup: str, steps: int) -> dict[str, Any]:
    """:func:`measure` in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--measure", setup, "--zoo", str(zoo), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["tiny", "million"])
    parser.add_argument(
        "--steps", type=int, help="of each fit; by default enough to time it, or the whole recipe of ours"
    )
    parser.add_argument("--out", type=Path, default=Path("rpg_speed.json"))
    parser.add_argument("--measure", choices=SETUPS, help=argparse.SUPPRESS)
    parser.add_argument("--zoo", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if args.measure:
        print(json.dumps(measure(Zoo(args.zoo), args.measure, args.steps)))
        return
    default = {"tiny float32": 20, "tiny bf16": 20, "tiny ours": 250, "million": 300}
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for setup in SETUPS:
            kind = setup.split()[0]
            if args.only not in (None, kind):
                continue
            zoo = Path(scratch, kind)
            if not zoo.exists():
                make_zoo(zoo, kind)
            results[setup] = {"ours": alone(zoo, setup, args.steps or default[setup]), "authors": AUTHORS.get(setup)}
            print(setup, json.dumps(results[setup]), flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
