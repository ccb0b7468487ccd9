"""What saving a checkpoint of RPG takes: memory over the fit's own, bytes on the disk, seconds.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint_cost.py --out checkpoint_cost.json

A checkpoint is saved as a fit does it, as the best and as the last one, with the weights and AdamW's state (``--weights``: the weights
alone), all zeros. Three ways: Lightning's
own writer, this project's with two copies (``save_last: true``), and with one (``save_last: link``). Each is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.plugins.io import TorchCheckpointIO

from paramgen.backends.rpg import RPG
from paramgen.core.paths import find_config
from paramgen.generators.checkpoints import CompleteCheckpoints
from rpg_memory import status_mb

SIZES = {"small": ("rpg_convnext_atto", 3_700_000), "base": ("rpg_vit_tiny", 5_720_000)}
WAYS = ("lightning", "true", "link")


def checkpoint_of(size: str, weights: bool) -> dict[str, Any]:
    """Weights, and AdamW's state unless it is the weights alone, as zeros."""
    name, parameters = SIZES[size]
    config = yaml.safe_load(Path(find_config(name)).read_text())
    token_dim = config["data"]["codec"]["init_args"]["token_dim"]
    arguments = {k: v for k, v in config["model"]["init_args"].items() if k != "optimizer"}
    with torch.device("meta"):
        model = RPG(-(-parameters // token_dim), token_dim, 50, **arguments)
    state = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in model.state_dict().items()}
    moments = {
        i: {"step": torch.ones(()), "exp_avg": torch.zeros(p.shape), "exp_avg_sq": torch.zeros(p.shape)}
        for i, p in enumerate(() if weights else model.parameters())
    }
    return {"global_step": 1, "epoch": 0, "state_dict": state, "optimizer_states": [{"state": moments}]}


def measure(size: str, way: str, weights: bool, folder: Path) -> dict[str, float]:
    """Save twice, and say what that took."""
    checkpoint = checkpoint_of(size, weights)
    for tensor in checkpoint["state_dict"].values():
        tensor.fill_(0)  # zeros take no memory until they are written
    for moments in checkpoint["optimizer_states"][0]["state"].values():
        for tensor in moments.values():
            tensor.fill_(0)
    writer: TorchCheckpointIO = TorchCheckpointIO() if way == "lightning" else CompleteCheckpoints()
    if isinstance(writer, CompleteCheckpoints):
        writer.links = way == "link"
    before, start = status_mb("VmRSS"), time.process_time()
    for name in ("best.ckpt", "last.ckpt"):
        writer.save_checkpoint(checkpoint, folder / name)
    files = {path.stat().st_ino: path.stat().st_size for path in folder.iterdir()}
    return {
        "parameters": sum(t.numel() for t in checkpoint["state_dict"].values()),
        "fit_mb": before,
        "peak_over_fit_mb": status_mb("VmHWM") - before,
        "disk_mb": sum(files.values()) / 2**20,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("checkpoint_cost.json"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        with tempfile.TemporaryDirectory(dir=args.out.parent) as folder:
            print(json.dumps(measure(*args.measure, args.weights, Path(folder))))
        return
    results = {}
    for size in args.sizes:
        for way in args.ways:
            command = [sys.executable, __file__, "--measure", size, way, "--out", str(args.out)]
            command += ["--weights"] if args.weights else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = results[f"{size} {way}"] = json.loads(done.stdout.splitlines()[-1])
            print(f"{size} {way}: {json.dumps(row)}", flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
