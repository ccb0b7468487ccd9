"""How the cost of fitting and sampling grows with the networks' parameters and with the zoo; writes docs/performance.md.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py --run     # about 4 CPU minutes; benchmarks/results/scaling.json
    python benchmarks/scaling.py --run --device cuda         # about a minute; benchmarks/results/scaling_gpu.json
    python benchmarks/scaling.py --page                      # docs/performance.md and its plots, from these files

The generators are the same at every size: RPG with two Mamba layers of width 256, tokens of 1,024 numbers and the mlp head, and p-diff
with 16 principal components and the mlp denoiser. The zoos are real training steps of MLPs on digits. On a CPU, seconds are CPU seconds
of one thread, every measurement is a process of its own, forked after the imports, and its peak memory is counted over what the imports
take. On a GPU, seconds pass on the clock until the device is done, and memory is the peak of torch's allocator.
"""

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from scipy.optimize import least_squares

from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.core.codec import FlatCodec, TokenCodec
from paramgen.core.io import write_json
from paramgen.core.params import ParamSpec
from paramgen.core.zoo_writer import ZooWriter
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.sampling import SampleRequest
from paramgen.tasks import ClassificationTask

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = {"cpu": RESULTS / "scaling.json", "cuda": RESULTS / "scaling_gpu.json"}
PAGE, IMAGES = ROOT / "docs" / "performance.md", ROOT / "docs" / "images"
WIDTHS = {
    "3 k": [34],
    "10 k": [64, 64],
    "100 k": [270, 270],
    "1 M": [960, 960],
    "10 M": [3120, 3120],
    "86 M": [9235, 9235],
}
NETWORKS = 4  # of a zoo whose networks grow
ZOOS = (10, 32, 100, 316, 1000)  # networks of 5,018 parameters
SAMPLED = 4
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
FIGURES = {
    "step_seconds": "s per step",
    "setup_seconds": "s before the first step",
    "sample_seconds": "s for 4 networks",
    "fit_peak_mb": "peak of the fit, MB",
}


def clock(device: str) -> float:
    """CPU seconds of this process; with a GPU, seconds on the clock once the GPU is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_mb(device: str) -> float:
    """Most memory that this process has had, or that torch has had on the GPU."""
    return status_mb("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20


class StepTimes(Callback):
    """Seconds of every step."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds = device, list[float]()

    def on_train_batch_start(self, *_: object) -> None:
        """Start the clock."""
        self._start = clock(self.device)

    def on_train_batch_end(self, *_: object) -> None:
        """Read it."""
        self.seconds.append(clock(self.device) - self._start)


def make_zoo(folder: Path, hidden: list[int] | None, networks: int) -> None:
    """Consecutive steps of SGD of an MLP on digits, from its random start."""
    task = ClassificationTask("digits", network_args={} if hidden is None else {"hidden": hidden})
    torch.manual_seed(0)
    model, (x, y) = task.build(), next(iter(task.data("train").batches(64)))
    spec = ParamSpec.of(model)
    writer = ZooWriter(folder, spec, {}, task.config(), {"made": "by benchmarks/scaling.py"})
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    for step in range(networks):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        writer.add(model.state_dict(), run=0, step=step, seed=0)
    writer.sync()
    writer.close()


def generator(kind: str, data: ParameterDataModule) -> RPG | PDiff:
    """The generator, of the same size for every zoo."""
    if kind == "RPG":
        return RPG(
            data.seq_len,
            data.token_dim,
            data.num_networks,
            data.num_runs,
            recurrence={"d_model": [256, 256]},
            state={"kind": "checkpoint", "embedding": "normal"},
            head={"kind": "mlp"},
            tokens_per_step=256,
            states_per_step=1,
            diffusion={"prediction_type": "sample", "scheduler": "DDIM", "num_inference_steps": 10},
        )
    return PDiff(
        data.seq_len,
        data.token_dim,
        data.num_networks,
        autoencoder={"kind": "pca", "latent_dim": 16},
        denoiser={"kind": "mlp", "width": 256, "depth": 3},
        diffusion={"prediction_type": "sample", "scheduler": "DDIM", "num_inference_steps": 10},
    )


def measure(kind: str, zoo: Path, steps: int, device: str) -> dict[str, Any]:
    """Fit some steps and sample; on a CPU, called in a process of its own."""
    before = status_mb("VmRSS") if device == "cpu" else 0.0
    if device == "cuda":
        gc.collect()  # the generator before
        torch.cuda.reset_peak_memory_stats()
    seed_everything(0, verbose=False)
    start = clock(device)
    rpg = kind == "RPG"
    data = ParameterDataModule(
        str(zoo),
        TokenCodec(1024) if rpg else FlatCodec(),
        batch_size=4,
        steps_per_epoch=steps,
        tokens_per_step=64 if rpg else None,
        residency="disk" if rpg else "ram",
    )
    model, times = generator(kind, data), StepTimes(device)
    trainer = Trainer(max_steps=steps, max_epochs=-1, accelerator=device, devices=1, callbacks=[times], **QUIET)
    trainer.fit(model, data)
    setup = clock(device) - start - sum(times.seconds)
    peak = peak_mb(device) - before
    model.to(device).eval()
    start = clock(device)
    model.draw(SampleRequest(SAMPLED))
    return {
        "generator": kind,
        "parameters": data.zoo.spec.numel,
        "networks": data.num_networks,
        "generator_parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "step_seconds": statistics.median(times.seconds[1:]),  # the first warms up
        "setup_seconds": setup,
        "sample_seconds": clock(device) - start,
        "fit_peak_mb": peak,
        "peak_mb": peak_mb(device) - before,
    }


def status_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak since the process began)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def apart(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a forked process."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(call, arguments)


def directly(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in this process."""
    return call(*arguments)


def run(out: Path, device: str) -> None:
    """All measurements; the file grows as they are made, and those that it has are not repeated."""
    if device == "cuda":  # its first use takes seconds
        torch.zeros(1, device="cuda")
    results: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    done = {(row["axis"], row["generator"], row["at"]) for row in results}
    todo = [("parameters", name, hidden, NETWORKS) for name, hidden in WIDTHS.items()]
    todo += [("networks", f"{count:,}", None, count) for count in ZOOS]
    todo.sort(key=lambda of: of[1] == "86 M")  # it takes longer than all others
    for axis, at, hidden, networks in todo:
        kinds = [kind for kind in ("RPG", "p-diff") if (axis, kind, at) not in done]
        if device == "cpu":  # p-diff's batches are whole networks
            kinds = [kind for kind in kinds if (kind, at) != ("p-diff", "86 M")]
        if not kinds:
            continue
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            zoo = Path(folder, "zoo")
            called = apart if device == "cpu" else directly  # a forked process cannot use the GPU
            called(make_zoo, zoo, hidden, networks)
            for kind in kinds:
                steps = 21 if device == "cuda" else {"10 M": 6, "86 M": 4}.get(at, 21)
                row = {"axis": axis, "at": at, **called(measure, kind, zoo, steps, device)}
                print(row, flush=True)
                results.append(row)
                write_json(out, results)


class Fitted(NamedTuple):
    """A fixed cost and a power law through all points, fixed + grown * (x / largest x) ** exponent, by least squares of the logarithms."""

    exponent: float
    fixed: float
    residual: float  # the largest deviation of a point from the curve, relative to the curve

    def text(self, y: list[float]) -> str:
        """The exponent and its residual, or that there is none."""
        if max(y) < FLAT * min(y):
            return f"none: grows by {100 * (max(y) / min(y) - 1):.0f} % at most"
        if self.exponent > STEEPEST:
            return "none: only the last is higher"
        if self.residual > WITHIN:
            return f"none: the nearest curve, {self.exponent:.2f}, is off by up to {100 * self.residual:.0f} %"
        return f"{self.exponent:.2f} above {short(self.fixed)} (within {100 * self.residual:.0f} %)"


FLAT = 1.25  # ratio of the largest to the smallest figure below which a cost does not grow: what single runs differ by
STEEPEST = 2.0  # exponent above which a curve is flat but for its last point
WITHIN = 0.15  # largest deviation of a point at which a curve counts as a fit


def fitted(x: list[float], y: list[float]) -> Fitted:
    """The curve nearest to some points."""
    shares, log_y = np.array(x) / max(x), np.log(y)

    def deviations(p: np.ndarray) -> np.ndarray:
        return np.log(np.exp(p[0]) + np.exp(p[1]) * shares ** p[2]) - log_y

    starts = ([log_y.min(), log_y.max(), slope] for slope in (0.3, 0.6, 1.0, 1.3))
    best = min((least_squares(deviations, start) for start in starts), key=lambda found: found.cost)
    return Fitted(float(best.x[2]), float(np.exp(best.x[0])), float(np.exp(np.abs(best.fun).max()) - 1))


def page(results: dict[str, list[dict[str, Any]]], gpu: dict[str, Any]) -> str:
    """docs/performance.md, from the results on each device."""
    lines = [HEAD]
    for axis, title, what in (
        ("parameters", "Against the parameters of a network", f"Zoos of {NETWORKS} networks, batches of 4."),
        ("networks", "Against the networks of a zoo", "Networks of 5,018 parameters, batches of 4."),
    ):
        lines += [f"## {title}", "", f"{what} ![{title}](images/scaling_{axis}.png)", ""]
        lines += tables(axis, results["cpu"], "CPU ")
        lines += [f"### The same on a GPU: {axis}", "", *tables(axis, results["cuda"])]
    return "\n".join([*lines, *on_gpu(gpu)]) + "\n"


def tables(axis: str, results: list[dict[str, Any]], time: str = "") -> list[str]:
    """The tables of both generators along one axis; `time` says which seconds they have."""
    lines = []
    for kind in ("RPG", "p-diff"):
        rows = [row for row in results if row["axis"] == axis and row["generator"] == kind]
        lines += [*table(kind, axis, rows, time), ""]
    return lines


def table(kind: str, axis: str, rows: list[dict[str, Any]], time: str) -> list[str]:
    """The table of one generator along one axis, and its exponents."""
    heads = [f"{kind}: {axis}", *(heading(title, time) for title in FIGURES.values())]
    lines = [f"| {' | '.join(heads)} |", f"| ---: |{' ---: |' * len(FIGURES)}"]
    lines += [f"| {row[axis]:,} | {' | '.join(short(row[key]) for key in FIGURES)} |" for row in rows]
    columns = [[r[key] for r in rows] for key in FIGURES]
    cells = " | ".join(fitted([r[axis] for r in rows], column).text(column) for column in columns)
    return [*lines, f"| exponent | {cells} |"]


def heading(title: str, time: str) -> str:
    """The title of a figure; `time` says which seconds it counts, if it counts any."""
    return f"{time}{title}" if title.startswith("s ") else title


def short(number: float) -> str:
    """Three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def on_gpu(gpu: dict[str, Any]) -> list[str]:
    """What was measured on a GPU."""
    rows = [(name, row) for name, row in gpu.items() if isinstance(row, dict) and " train " in name]
    lines = [
        "## The paper's sizes on a GPU",
        "",
        f"In bf16, measured on one {gpu['machine']['device']} (`benchmarks/results/gpu.json`). [GPU](gpu.md) explains the table, and",
        "[plan](plan.md) predicts other cards.",
        "",
        "| parameters of a network | generator | s per step | peak, GB | run |",
        "| ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {row['parameters']:,} | {row['generator_params']:,} | {row['seconds_per_step']:.3g} | {row['peak_gb']:.3g} | {name} |"
        for name, row in rows
    ]
    return lines


HEAD = """# Cost as work grows

```bash
OMP_NUM_THREADS=1 python benchmarks/scaling.py --run
python benchmarks/scaling.py --run --device cuda
python benchmarks/scaling.py --page
```

This page shows how the time and memory of a fit grow with the size of the networks and with their number. `benchmarks/scaling.py`
generates it from `benchmarks/results/scaling.json` and `scaling_gpu.json`; do not edit it.

- **Machines.** One run each. CPU: CPU seconds of one thread, on two cores of an AMD EPYC that ran other programs; memory excludes what
  the imports take. GPU: one NVIDIA H200, float32, seconds on the clock until the GPU is done, and the peak of torch's memory on it.
- **Generators.** They have the same size in all rows. RPG has two Mamba layers of width 256, tokens of 1,024 numbers and one state per
  step, and reads 64 tokens of each network from disk per step (`residency: disk`). p-diff has 16 principal components and holds whole
  networks in RAM.
- **Exponents.** The fitted curve is a fixed cost plus a power law, by least squares of the logarithms over all points. The table gives
  its exponent and the largest deviation of a point. It gives none if the cost grows by less than a quarter (single runs differ by as
  much), if only its last figure is higher, or if a point deviates by more than 15 %.
- **Before the first step** the fit computes the codec's statistics from all networks. p-diff also computes their latents. On the GPU, the
  first fit of the process, RPG's of 2,560 parameters, also loads what Lightning and torch need there.
"""


def plot(results: list[dict[str, Any]], axis: str, path: Path) -> None:
    """The four figures of both generators, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(FIGURES), figsize=(13, 3.2), layout="constrained")
    for panel, (key, title) in zip(panels, FIGURES.items(), strict=True):
        for kind, marker in (("RPG", "o"), ("p-diff", "s")):
            rows = [row for row in results if row["axis"] == axis and row["generator"] == kind]
            x, y = [row[axis] for row in rows], [row[key] for row in rows]
            exponent = fitted(x, y).text(y).partition(" above")[0].partition(":")[0]
            panel.loglog(x, y, marker=marker, label=f"{kind}, exponent {exponent}")
        panel.set_title(heading(title, "CPU "), fontsize=10)
        panel.set_xlabel("parameters of a network" if axis == "parameters" else "networks of the zoo")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="measure what the file lacks")
    parser.add_argument("--page", action="store_true", help="write the page and its plots")
    parser.add_argument("--device", default="cpu", choices=list(KEPT))
    parser.add_argument("--out", type=Path, help="where --run writes; by default the kept file of the device")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/scaling.py --device cuda needs a CUDA device; there is none here")
    if args.device == "cpu":
        torch.set_num_threads(1)
    if args.run:
        run(args.out or KEPT[args.device], args.device)
    if args.page:
        results = {device: json.loads(path.read_text()) for device, path in KEPT.items()}
        for axis in ("parameters", "networks"):
            plot(results["cpu"], axis, IMAGES / f"scaling_{axis}.png")
        PAGE.write_text(page(results, json.loads((RESULTS / "gpu.json").read_text())))


if __name__ == "__main__":
    main()
