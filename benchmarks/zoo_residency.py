"""What zoos on disk cost: memory, bytes read and waiting, with ViT-Base (86 M parameters).

    OMP_NUM_THREADS=1 python benchmarks/zoo_residency.py --scratch FOLDER --out zoo_residency.json

Ten networks are real steps of optimisation from random weights on CIFAR-10 at 224x224. RPG with the recurrence of Small learns them with
`residency: ram` and `disk`; the losses must be equal bit for bit. The waiting is measured with copies of their files, 50 networks, and
a generator whose steps are short. Every measurement is a process of its own. `used` counts the numbers in the batches, `asked` what the
process asked the system for (rchar of /proc/self/io), `device` what came from the disk, whose cache is emptied before the first step.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from paramgen.backends.rpg import RPG
from paramgen.core.codec import TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.core.stored import StoredTensors
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.generators.batches import ParamBatch
from paramgen.generators.data import ParameterDataModule
from paramgen.tasks import ClassificationTask

DIFFUSION = {"prediction_type": "v_prediction", "scheduler": "DDIM", "num_inference_steps": 5}
SMALL = {
    "recurrence": {"d_model": [4096, 4096], "d_state": 128},
    "head": {"kind": "mlp", "hidden": 128},
    "state": {"kind": "none"},  # one sequence a step: the recurrence takes almost all of it
}
QUICK = {"recurrence": {"kind": "none", "d_model": [64, 64]}, "head": {"kind": "mlp", "hidden": 64}}
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
COMMAND = (
    "import sys; from paramgen.cli.main import main; code = main(sys.argv[1:]); "
    "print(open('/proc/self/status').read()); sys.exit(code)"
)


def make_zoo(folder: Path, networks: int) -> None:
    """Steps of SGD from random weights, one network a step."""
    torch.manual_seed(0)
    task = ClassificationTask("cifar10", network="timm:vit_base_patch16_224", image_size=224)
    model = task.build()
    writer = ZooWriter(folder, ParamSpec.of(model), {}, task.config(), {"made": "by benchmarks/zoo_residency.py"})
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9)
    for step, (x, y) in zip(range(networks), task.data("train").batches(2), strict=False):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        writer.add(model.state_dict(), run=0, step=step, seed=0)
    writer.close()


def enlarge(zoo: Zoo, folder: Path, networks: int) -> None:
    """A zoo of copies of a zoo's files: for reading, the numbers do not matter."""
    folder.mkdir(parents=True)
    entries = []
    for i in range(networks):
        entry = zoo.meta["entries"][i % len(zoo)]
        shutil.copyfile(zoo.path / entry["file"], folder / f"{i}.safetensors")
        entries.append({**entry, "file": f"{i}.safetensors", "step": i})
    (folder / "zoo.json").write_text(json.dumps({**zoo.meta, "entries": entries}))


def status_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak since the program started), in MB of 10^6 bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


class Watch(Callback):
    """Losses, waiting between steps, and bytes used and read."""

    def __init__(self, zoo: Zoo) -> None:
        self.zoo = zoo
        self.losses: list[str] = []
        self.waited = self.stepped = self.last = 0.0
        self.used = 0
        self.read: dict[str, int] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Empty the disk's cache, so that the first step finds nothing in it."""
        forget(self.zoo)
        self.before, self.last = _io(), time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: ParamBatch, batch_idx: int
    ) -> None:
        """The time since the last step was spent waiting for data, all but a little."""
        now = time.perf_counter()
        if batch_idx:  # nothing can be read ahead of the first
            self.waited += now - self.last
        self.last = now

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: ParamBatch, batch_idx: int
    ) -> None:
        """Count what the step has used."""
        mask = trainer.datamodule.codec.mask  # type: ignore[attr-defined]
        numbers = mask if batch.token is None else mask[batch.token]
        self.used += 4 * int(numbers.sum()) * len(batch.index.unique())
        self.losses.append(float(outputs["loss"]).hex())
        now = time.perf_counter()
        self.stepped, self.last = self.stepped + now - self.last, now

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Bytes since the start."""
        self.read = {name: value - self.before[name] for name, value in _io().items()}


def _io() -> dict[str, int]:
    lines = [line.split(": ") for line in Path("/proc/self/io").read_text().splitlines()]
    return {name: int(value) for name, value in lines}


def fit(
    zoo: Zoo, residency: str, model: dict[str, Any], token_dim: int, batch: int, tokens: int, steps: int, ckpt: str
) -> dict[str, Any]:
    """Some steps of RPG."""
    imports, start = status_mb("VmRSS"), time.process_time()
    seed_everything(0, verbose=False)
    data = ParameterDataModule(
        str(zoo.path), TokenCodec(token_dim), batch, steps_per_epoch=steps, tokens_per_step=tokens, residency=residency
    )
    generator = RPG(
        data.seq_len, token_dim, data.num_networks, **model, diffusion=DIFFUSION, tokens_per_step=batch * tokens
    )
    watch = Watch(zoo)
    trainer = Trainer(max_steps=steps, max_epochs=-1, callbacks=[watch], accelerator="cpu", **QUIET)
    trainer.fit(generator, data)
    peak, spent = status_mb("VmHWM"), time.process_time() - start
    read, token, index = (
        data.training_networks().read,
        torch.arange(0, data.seq_len, data.seq_len // tokens)[:tokens],
        torch.arange(batch),
    )
    start = time.process_time()
    for _ in range(3):
        read(index, token)
    reading = (time.process_time() - start) / 3
    if ckpt:
        trainer.save_checkpoint(ckpt, weights_only=True)
    return {
        "tokens": data.seq_len,
        "generator_params": sum(p.numel() for p in generator.parameters()),
        "steps": steps,
        "losses": watch.losses,
        "imports_mb": imports,
        "peak_mb": peak,
        "used_bytes": watch.used,
        "asked_bytes": watch.read["rchar"],
        "device_bytes": watch.read["read_bytes"],
        "step_seconds": watch.stepped / steps,
        "waiting_share": watch.waited / (watch.waited + watch.stepped),
        "reading_cpu_seconds": reading,  # of one batch
        "cpu_seconds": spent,
    }


def bind(zoo: Zoo) -> dict[str, Any]:
    """The codec's statistics."""
    imports, start = status_mb("VmRSS"), time.process_time()
    data = ParameterDataModule(str(zoo.path), TokenCodec(16384), residency="disk")
    data.setup("fit")
    return {"imports_mb": imports, "peak_mb": status_mb("VmHWM"), "cpu_seconds": time.process_time() - start}


def reading(zoo: Zoo) -> dict[str, Any]:
    """Batches as the thread reads them: 8 of 50 networks, which are the ten files five times, 64 tokens of each."""
    codec = TokenCodec(16384).bind(zoo.spec, [StoredTensors(zoo.file(i)) for i in range(2)])
    networks = [StoredTensors(zoo.file(i % len(zoo))) for i in range(50)]
    forget(zoo)
    draw, used, seconds = torch.Generator().manual_seed(0), 0, time.process_time()
    before = _io()
    for _ in range(10):
        token = torch.randperm(codec.shape[0], generator=draw)[:64].sort().values
        index = torch.randperm(len(networks), generator=draw)[:8] % len(zoo)
        used += 4 * int(codec.mask[token].sum()) * len(index.unique())
        read = codec.encode_tokens([networks[i] for i in index.tolist()], token)
    seconds, after = time.process_time() - seconds, _io()
    whole = codec.encode(zoo[int(index[-1])])[token]
    return {
        "used_bytes": used,
        "asked_bytes": after["rchar"] - before["rchar"],
        "device_bytes": after["read_bytes"] - before["read_bytes"],
        "cpu_seconds_a_batch": seconds / 10,
        "equal_to_ram": torch.equal(read[-1], whole),
    }


def forget(zoo: Zoo) -> None:
    """Empty the disk's cache of a zoo's files."""
    for entry in zoo.entries:
        with (zoo.path / entry.file).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(what: str, zoo: Zoo, ckpt: str) -> dict[str, Any]:
    """One measurement, in this process."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    kind, _, residency = what.partition("_")
    if kind == "small":
        return fit(zoo, residency, SMALL, token_dim=262144, batch=4, tokens=8, steps=2, ckpt=ckpt)
    if kind == "quick":
        return fit(zoo, residency, QUICK, token_dim=16384, batch=8, tokens=64, steps=8, ckpt="")
    return reading(zoo) if kind == "reading" else bind(zoo)


def child(*arguments: str) -> dict[str, Any]:
    """A measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"exit status {done.returncode}: {done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def command(*arguments: str) -> dict[str, Any]:
    """Peak memory and time of a command of paramgen, imports counted."""
    start = os.times()
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    peak = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    spent = os.times()
    cpu = spent.children_user + spent.children_system - start.children_user - start.children_system
    return {"peak_mb": int(peak.split()[1]) * 1024 / 1e6, "cpu_seconds": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the zoos; needs 22 GB")
    parser.add_argument("--out", type=Path, default=Path("zoo_residency.json"))
    parser.add_argument("--only", nargs="+", default=list(MEASUREMENTS), choices=list(MEASUREMENTS))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--zoo", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ckpt", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, Zoo(args.zoo), args.ckpt)))
        return
    ten = args.scratch / "ten"
    if not (ten / "zoo.json").exists():
        make_zoo(ten, 10)
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    results["network_mb"] = 4 * Zoo(ten).spec.numel / 1e6
    for name in args.only:
        results[name] = MEASUREMENTS[name](args.scratch)
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n")
    if {"small_ram", "small_disk"} <= results.keys():
        results["losses_equal"] = results["small_ram"]["losses"] == results["small_disk"]["losses"]
        args.out.write_text(json.dumps(results, indent=1) + "\n")


def _fit(what: str) -> Any:
    return lambda scratch: child(
        "--measure", what, "--scratch", str(scratch), "--zoo", str(scratch / "ten"), "--ckpt", str(scratch / "x.ckpt")
    )


def _sample(scratch: Path) -> dict[str, Any]:
    shutil.rmtree(scratch / "samples", ignore_errors=True)
    return command("sample", "--ckpt_path", str(scratch / "x.ckpt"), "--n", "1", "--out", str(scratch / "samples"))


def _import(scratch: Path) -> dict[str, Any]:
    result = command("zoo", "import", "--source", str(scratch / "ten"), "--out", str(scratch / "imported"))
    shutil.rmtree(scratch / "imported")
    return result


def _import_pickles(archive: bool) -> Any:
    """Two networks with the momentum of their optimizer, as training programs save them."""

    def measure(scratch: Path) -> dict[str, Any]:
        folder = scratch / "pickles"
        folder.mkdir()
        for i in range(2):
            state = Zoo(scratch / "ten")[i]
            momentum = {"state": {j: {"momentum_buffer": t} for j, t in enumerate(map(torch.clone, state.values()))}}
            checkpoint = {"state_dict": state, "optimizer": momentum}
            torch.save(checkpoint, folder / f"{i}.pth", _use_new_zipfile_serialization=archive)
        try:
            return command("zoo", "import", "--source", str(folder), "--out", str(scratch / "imported"))
        finally:
            shutil.rmtree(folder)
            shutil.rmtree(scratch / "imported", ignore_errors=True)

    return measure


def _fifty(scratch: Path) -> dict[str, Any]:
    enlarge(Zoo(scratch / "ten"), scratch / "fifty", 50)
    try:
        return child("--measure", "quick_disk", "--scratch", str(scratch), "--zoo", str(scratch / "fifty"))
    finally:
        shutil.rmtree(scratch / "fifty")


MEASUREMENTS = {
    "verify": lambda scratch: command("zoo", "verify", "--zoo", str(scratch / "ten")),
    "bind": _fit("bind"),
    "reading": _fit("reading"),
    "import": _import,
    "import_pickles": _import_pickles(archive=True),
    "import_old_pickles": _import_pickles(archive=False),
    "small_ram": _fit("small_ram"),
    "small_disk": _fit("small_disk"),
    "sample": _sample,
    "fifty": _fifty,
}


if __name__ == "__main__":
    main()
