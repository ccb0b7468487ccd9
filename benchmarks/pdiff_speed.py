"""p-diff's speed beside the authors' released code: the same recipe, the same zoo, one thread.

    OMP_NUM_THREADS=1 python benchmarks/pdiff_speed.py [--zoo FOLDER] [--steps 3] [--full]

50 checkpoints of an MLP of 2,410 parameters, batch 50. Each figure comes from its own process, so that peak memory is that figure's own.
Seconds are of the CPU, of one thread. The authors' figures were measured once on this kind of machine and stand below as constants.
``--full`` also runs the released recipe to its end (500 + 1,000 steps) to compare what the networks score; without it only its cost is
known, steps times milliseconds.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
AUTHORS = {  # measured once on this kind of machine, with the authors' code as released
    "autoencoder ms a step, float32": 1404.0,
    "autoencoder ms a step, bf16": 675.0,
    "diffusion ms a step, float32": 890.0,
    "diffusion ms a step, bf16": 258.0,
    "peak memory, GB": 1.4,
    "seconds to the first batch": 5.0,
    "seconds to sample one network": 6.7,
}
AE_STEPS, DIFFUSION_STEPS = 500, 1000  # of the released recipe


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def build(config: str, zoo: str) -> tuple[Any, Any]:
    """A config's model, untrained, and its data on `zoo`."""
    import yaml

    from paramgen.backends.pdiff import PDiff
    from paramgen.core.codec import FlatCodec
    from paramgen.generators.data import ParameterDataModule

    text = yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text())
    codec = FlatCodec(**text["data"].get("codec", {}).get("init_args", {}))
    data = ParameterDataModule(zoo, codec, batch_size=50)
    data.setup()
    sizes = {"seq_len": data.seq_len, "token_dim": data.token_dim, "num_networks": data.num_networks}
    model = PDiff(**sizes, **text["model"]["init_args"])
    model.codec, model.base = data.codec, data.zoo.base()
    return model, data


def measure_first_batch(zoo: str, config: str) -> dict[str, float]:
    """Seconds from the start of the process, imports included, to a batch in hand."""
    _, data = build(config, zoo)
    next(iter(data.train_dataloader()))
    return {"cpu_s": time.process_time(), "gb": peak_gb()}


def measure_step(zoo: str, config: str, phase: str, precision: str, steps: int) -> dict[str, float]:
    """CPU milliseconds of one optimizer step: loss, backward, AdamW."""
    import torch

    from peak import bound

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model, data = build(config, zoo)
    batch = next(iter(data.train_dataloader()))
    if phase == "diffusion":
        model.learn_latents([b.x for b in data.predict_dataloader()])
    part = model.denoiser if phase == "diffusion" else model.autoencoder
    optimizer = torch.optim.AdamW(part.parameters(), lr=1e-4, fused=True)
    model.train()
    times = []
    for _ in range(steps + 1):  # the first warms up
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.process_time() - start)
    gb, ms = peak_gb(), 1000 * min(times[1:])

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(batch)["loss"]
        loss.backward()

    return {"ms": ms, "gb": gb, **bound(step, ms, torch.bfloat16 if precision == "bf16" else torch.float32)}


def measure_sampling(zoo: str, config: str, n: int, inference_steps: int) -> dict[str, float]:
    """CPU seconds to draw `n` networks at once, of an untrained model: what it has learned does not change the cost."""
    import torch

    from paramgen.generators.sampling import SampleRequest

    torch.set_num_threads(1)
    model, data = build(config, zoo)
    model.learn_latents([b.x for b in data.predict_dataloader()])
    start = time.process_time()
    model.draw(SampleRequest(n, num_inference_steps=inference_steps))
    return {"cpu_s": time.process_time() - start, "gb": peak_gb()}


def measure_fit(zoo: str, config: str) -> dict[str, float]:
    """A whole fit from the command line, then the accuracy of 100 networks drawn: CPU seconds of everything but the imports."""
    import torch

    from paramgen.cli.lightning import main
    from paramgen.core.zoo import Zoo
    from paramgen.generators.loading import load_generator
    from paramgen.tasks import load_task
    from paramgen.tasks.score import CLASSIFIES
    from paramgen.tasks.scoring import score_networks

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        arguments = [
            "--config",
            str(ROOT / "configs" / f"{config}.yaml"),
            "--data.zoo",
            zoo,
            "--trainer.accelerator",
            "cpu",
        ]
        arguments += ["--trainer.logger.init_args.save_dir", folder, "--trainer.enable_progress_bar", "false"]
        main(["fit", *arguments, "--checkpoint.dirpath", folder])
        fitted = time.process_time() - start
        networks = load_generator(Path(folder) / "last.ckpt").sample(100, generator=torch.Generator().manual_seed(0))
        sampled = time.process_time() - start - fitted
    opened = Zoo(zoo)
    task = load_task(opened.task_config)
    test = task.data("test")
    drawn = score_networks(CLASSIFIES, task.build(), networks, test).value
    trained = score_networks(CLASSIFIES, task.build(), [opened.full(i) for i in opened.indices("train")], test).value
    return {
        "fit_cpu_s": fitted,
        "sample_cpu_s": sampled,
        "mean": 100 * float(drawn.mean()),
        "best": 100 * float(drawn.max()),
        "zoo_mean": 100 * float(trained.mean()),
        "gb": peak_gb(),
    }


def alone(function: str, *arguments: object) -> dict[str, float]:
    """One measurement in a process of its own."""
    call = [sys.executable, __file__, "--call", json.dumps([function, *arguments])]
    out = subprocess.run(call, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(out.stderr)
    return json.loads(out.stdout.splitlines()[-1])


def compare(zoo: str, steps: int, full: bool) -> dict[str, Any]:
    """Every figure, ours and the authors'."""
    from paramgen.evaluation.compare import machine

    ours: dict[str, float] = {}
    memory = []
    for phase in ("autoencoder", "diffusion"):
        for precision, name in (("f32", "float32"), ("bf16", "bf16")):
            found = alone("measure_step", zoo, "pdiff_released", phase, precision, steps)
            ours[f"{phase} ms a step, {name}"] = found["ms"]
            ours[f"{phase} ms a step, {name}, at the peak of {found['peak_gflops']:.0f} GFLOP/s"] = found["least_ms"]
            memory.append(found["gb"])
    ours["peak memory, GB"] = max(memory)
    ours["seconds to the first batch"] = alone("measure_first_batch", zoo, "pdiff_released")["cpu_s"]
    ours["seconds to sample one network"] = alone("measure_sampling", zoo, "pdiff_released", 1, 1000)["cpu_s"]
    hundred = alone("measure_sampling", zoo, "pdiff_released", 100, 20)
    ours["seconds to sample 100 networks"] = 50 * hundred["cpu_s"]  # 20 of the 1,000 steps were run
    released = (
        AE_STEPS * AUTHORS["autoencoder ms a step, bf16"] + DIFFUSION_STEPS * AUTHORS["diffusion ms a step, bf16"]
    ) / 1000
    mine = (AE_STEPS * ours["autoencoder ms a step, bf16"] + DIFFUSION_STEPS * ours["diffusion ms a step, bf16"]) / 1000
    fits = {"default": alone("measure_fit", zoo, "pdiff_digits_mlp")}
    if full:
        fits["released"] = alone("measure_fit", zoo, "pdiff_released")
    return {
        "machine": machine(),
        "authors": AUTHORS,
        "released recipe": ours,
        "training, CPU seconds in bf16": {
            "authors": released,
            "released recipe": mine,
            "default": fits["default"]["fit_cpu_s"],
        },
        "fits": fits,
    }


def show(found: dict[str, Any]) -> None:
    """The figures as tables."""
    from rich.console import Console
    from rich.table import Table

    table = Table("p-diff, 2,410 parameters, K 50, one thread", "authors", "ours, their recipe")
    for name, value in found["released recipe"].items():
        theirs = found["authors"].get(name)
        table.add_row(name, "" if theirs is None else f"{theirs:,.1f}", f"{value:,.1f}")
    for name in ("authors", "released recipe", "default"):
        table.add_row(f"training in all, CPU s: {name}", "", f"{found['training, CPU seconds in bf16'][name]:,.1f}")
    for name, fit in found["fits"].items():
        table.add_row(
            f"accuracy, {name}: mean, best (zoo's mean)",
            "",
            f"{fit['mean']:.1f}, {fit['best']:.1f} ({fit['zoo_mean']:.1f})",
        )
    Console().print(table)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--zoo", default="checkpoints_zoo/digits_mlp_2410", help="made by paramgen collect --config digits_mlp_2410"
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each phase; the fastest counts")
    parser.add_argument("--full", action="store_true", help="run the released recipe to its end")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        function, *arguments = json.loads(options.call)
        print(json.dumps(globals()[function](*arguments)))
        return
    found = compare(str(Path(options.zoo).resolve()), options.steps, options.full)
    show(found)
    out = options.out or ROOT / "benchmarks" / "results" / f"{platform.machine()}_cpu_pdiff_speed.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2))
    print(f"saved {out}")


if __name__ == "__main__":
    main()
