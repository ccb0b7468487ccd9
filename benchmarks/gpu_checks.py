"""The parts of ``gpu.py`` that need a zoo: p-diff's steps, the command line on a device, solvers beside the CPU, host waits.

`zoos` is a folder with digits_mlp_trajectory and digits_mlp_2410, made by ``paramgen collect`` with the configs of these names.
"""

import copy
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from lightning.pytorch import Callback

from paramgen.cli.commands.evaluate import main as evaluate
from paramgen.cli.main import main as paramgen
from paramgen.core.zoo import Zoo
from paramgen.diffusion import SCHEDULERS
from paramgen.generators.loading import load_generator
from paramgen.generators.sampling import SampleRequest
from pdiff_speed import build

WAIT = "called a synchronizing CUDA operation"


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call: Callable[[], Any], repeat: int, device: str, warm: Callable[[], Any] | None = None) -> float:
    """Seconds a call, after `warm`, or two calls to warm up."""
    for _ in range(1 if warm else 2):
        (warm or call)()
    wait(device)
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    wait(device)
    return (time.perf_counter() - start) / repeat


@contextmanager
def host_waits(found: Counter[str], device: str) -> Iterator[None]:
    """Count in `found`, by place, what makes the host wait for the GPU."""
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found.update(f"{Path(w.filename).name}:{w.lineno}" for w in caught if WAIT in str(w.message))


class HostWaits(Callback):
    """Host waits of training steps 40 to 59, everything between two of them included."""

    found: ClassVar[Counter[str]] = Counter()
    first, last = 40, 60

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Begin and end counting."""
        if module.device.type == "cuda" and trainer.global_step == self.first:
            self.found.clear()
            self.context = host_waits(self.found, "cuda")
            self.context.__enter__()
        if module.device.type == "cuda" and trainer.global_step == self.last:
            self.context.__exit__(None, None, None)

    @classmethod
    def a_step(cls) -> dict[str, float]:
        """Mean number a step, by place."""
        return {place: count / (cls.last - cls.first) for place, count in cls.found.most_common()}


class TimedTraining(NamedTuple):
    """Seconds a step, the loss of each step, and where a step waits for the device."""

    seconds: float
    losses: list[torch.Tensor]
    waits: Counter[str]


def timed_training(
    loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer, bf16: bool, steps: int, device: str
) -> TimedTraining:
    """Optimizer steps on a loss; the peak of the device's memory is counted from here."""
    losses = []

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.detach())

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(step, steps, device)
    waits: Counter[str] = Counter()
    with host_waits(waits, device):
        step()
    return TimedTraining(seconds, losses, waits)


def pdiff_step(zoos: Path, phase: str, precision: str, compiled: bool, steps: int, device: str) -> dict[str, Any]:
    """One optimizer step of the released recipe, 50 networks of 2,410 parameters; losses at both ends; host waits."""
    torch.manual_seed(0)
    model, data = build("pdiff_released", str(zoos / "digits_mlp_2410"))
    model.to(device).train()
    batch = next(iter(data.train_dataloader())).to(device)
    if phase == "diffusion":
        model.learn_latents([b.x for b in data.predict_dataloader()])
    part = model.denoiser if phase == "diffusion" else model.autoencoder
    optimizer = torch.optim.AdamW(part.parameters(), lr=1e-4, fused=True)
    loss = torch.compile(model.loss) if compiled else model.loss
    found = timed_training(lambda: loss(batch)["loss"], optimizer, precision == "bf16", steps, device)
    return {
        "ms_per_step": 1000 * found.seconds,
        "losses": [found.losses[0].item(), found.losses[-1].item()],
        "host_waits": dict(found.waits),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
    }


def command_line(zoos: Path, config: str, device: str, keep: Path | None = None) -> dict[str, Any]:
    """Fit, sample and evaluate a shipped config through the command line on a device."""
    zoo = str(zoos / "digits_mlp_trajectory")
    accelerator = "gpu" if device == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fit = ["fit", "--config", config, "--data.zoo", zoo, "--trainer.accelerator", accelerator]
        fit += ["--trainer.devices", "1", "--checkpoint.dirpath", str(folder), "--trainer.enable_progress_bar", "false"]
        fit += ["--trainer.default_root_dir", str(folder), "--trainer.callbacks+=gpu_checks.HostWaits"]
        ckpt, drawn = str(folder / "last.ckpt"), str(folder / "samples")
        seconds = {"fit": _call(fit)}
        seconds["sample"] = _call(["sample", "--ckpt_path", ckpt, "--out", drawn, "--device", device])
        start = time.perf_counter()
        found = evaluate(zoo, drawn, str(folder / "report"), baselines="none", device=device)
        seconds["evaluate"] = time.perf_counter() - start
        history = load_generator(ckpt).history or {}
        if keep is not None:
            keep.write_bytes(Path(ckpt).read_bytes())
    losses = [value for _, value in history.get("train/loss", [])]
    rows = {row.name: row for row in found.rows}
    return {
        "seconds": seconds,
        "losses": [losses[0], losses[-1]] if losses else None,
        "accuracy_mean": {name: row.values["mean"] for name, row in rows.items()},
        "accuracy_std": {name: row.values["std"] for name, row in rows.items()},
        "host_waits": HostWaits.a_step() if device == "cuda" else None,
    }


def _call(arguments: list[str]) -> float:
    start = time.perf_counter()
    if code := paramgen(arguments):
        raise RuntimeError(f"paramgen {arguments[0]} ended with {code}")
    return time.perf_counter() - start


def collected(config: str, device: str) -> dict[str, Any]:
    """A zoo made on a device: seconds, and what its networks score on val."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = _call(["collect", "--config", config, "--out", folder + "/zoo", "--device", device])
        entries = Zoo(folder + "/zoo").entries
    scores = [entry.scores["val"]["score"] for entry in entries]
    return {"seconds": seconds, "networks": len(entries), "val_accuracy": sum(scores) / len(scores)}


def solvers(ckpt: Path, n: int, device: str) -> dict[str, float]:
    """Each solver's networks beside the CPU's from the same noise: largest difference over the largest weight."""
    on_cpu = load_generator(ckpt)
    there = copy.deepcopy(on_cpu).to(device).eval()
    found = {}
    for name in SCHEDULERS:
        drawn = []
        for model in (on_cpu, there):
            torch.manual_seed(0)
            noise = torch.Generator().manual_seed(0)
            request = SampleRequest(n, scheduler=name, num_inference_steps=10, generator=noise)
            drawn.append(model.draw(request).tokens)
        found[name] = float((drawn[0] - drawn[1]).abs().max() / drawn[0].abs().max())
    return found
