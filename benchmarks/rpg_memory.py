"""Peak memory of fitting and of sampling RPG against the size of the networks: a ViT-Tiny (5.7 M) and a ViT-Base (86.6 M) zoo.

    OMP_NUM_THREADS=1 python benchmarks/rpg_memory.py --out rpg_memory.json

The zoos are real fine-tuning steps of timm's networks from random weights on real images (digits at 224x224): it is the size that is
tested. Each measurement is a process of its own; its peak is given over what the imports alone take. `--residency disk` reads only the
chosen tokens from the files. The formula these figures are held to stands in docs/rpg.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from lightning.pytorch import Trainer, seed_everything

from paramgen.backends.rpg import RPG
from paramgen.core.codec import TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.sampling import SampleRequest
from paramgen.tasks import ClassificationTask

NETWORKS = {"vit_tiny": "vit_tiny_patch16_224", "vit_base": "vit_base_patch16_224"}
MODEL = {
    "recurrence": {"d_model": [256, 256]},
    "head": {"kind": "mlp", "hidden": 128},
    "diffusion": {"prediction_type": "v_prediction", "scheduler": "DDIM"},
}
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}


def make_zoo(folder: Path, network: str, checkpoints: int) -> None:
    """Some steps of SGD from random weights, one checkpoint a step."""
    torch.manual_seed(0)
    model = timm.create_model(NETWORKS[network], num_classes=10, in_chans=1)
    x, y = next(iter(ClassificationTask("digits", image_size=224).data("train").batches(4)))
    spec = ParamSpec.of(model)
    base = {name: t for name, t in model.state_dict().items() if name not in spec.names}
    writer = ZooWriter(
        folder, spec, base, {"class_path": NETWORKS[network], "init_args": {}}, {"made": "by a benchmark"}
    )
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    for step in range(checkpoints):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        writer.add(model.state_dict(), run=0, step=step, seed=0)
    writer.close()


def status_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak since the program started); getrusage's peak would include the parent's."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def measure(zoo: Zoo, what: str, residency: str, token_dim: int) -> dict[str, Any]:
    """Fit 5 steps, or bind the codec alone, or sample one network's tokens."""
    imports = status_mb("VmRSS")
    seed_everything(0, verbose=False)
    data = ParameterDataModule(
        str(zoo.path), TokenCodec(token_dim), batch_size=2, steps_per_epoch=5, tokens_per_step=32, residency=residency
    )
    model = RPG(data.seq_len, data.token_dim, data.num_networks, **MODEL)
    start = time.process_time()
    if what == "fit":
        Trainer(max_steps=5, max_epochs=-1, **QUIET).fit(model, data)
    elif what == "bind":
        data.setup("validate")  # which holds no networks
    else:
        model.codec, model.zoo_info, model.sampling = data.codec, {"networks": range(data.num_networks)}, what
        model.draw(SampleRequest(1, num_inference_steps=5))
    parameters, peak = zoo.spec.numel, status_mb("VmHWM")
    return {
        "parameters": parameters,
        "tokens": data.seq_len,
        "generator_params": sum(p.numel() for p in model.parameters()),
        "imports_mb": imports,
        "peak_over_imports_mb": peak - imports,
        "bytes_per_parameter": (peak - imports) * 2**20 / parameters,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--checkpoints", type=int, default=3)
    parser.add_argument("--token_dim", type=int, default=8192)
    parser.add_argument("--residency", default="disk", choices=["ram", "disk"])
    parser.add_argument("--out", type=Path, default=Path("rpg_memory.json"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--zoo", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        print(json.dumps(measure(Zoo(args.zoo), args.measure, args.residency, args.token_dim)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for network in args.networks:
            zoo = Path(scratch, network)
            make_zoo(zoo, network, args.checkpoints)
            for what in ("bind", "fit", "sequential", "partial", "full"):
                options = ["--zoo", str(zoo), "--residency", args.residency, "--token_dim", str(args.token_dim)]
                command = [sys.executable, __file__, "--measure", what, *options]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row = results[f"{network} {what}"] = json.loads(done.stdout.splitlines()[-1])
                print(f"{network} {what}: {json.dumps(row)}", flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
