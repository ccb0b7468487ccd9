"""``paramgen plan`` against what was measured, and the table of the ImageNet configs; writes the end of docs/plan.md.

    OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=65536 python benchmarks/plan_check.py --run     # about 5 CPU minutes
    python benchmarks/plan_check.py --page

Parts: ``cpu``, peak memory and FLOPs of real steps on a CPU at three sizes, each in a forked process; ``gpu``, the steps that gpu.json has;
``imagenet``, the plans and the advice for a card of 80 GB. MALLOC_MMAP_THRESHOLD_ lets glibc return freed tensors at once, as a caching
allocator reuses them; without it fragmentation adds to what is measured.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import gpu as on_gpu
from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.cli.commands.plan import machine_of, parsed, quiet, settings_of
from paramgen.collect.shape import ZooShape
from paramgen.core.codec import FlatCodec, TokenCodec
from paramgen.core.counting import size_text
from paramgen.core.io import write_json
from paramgen.core.params import ParamSpec
from paramgen.generators.batches import ParamBatch
from paramgen.planning.advice import advise
from paramgen.planning.devices import find_device
from paramgen.planning.dry_run import FitSettings, dry_run
from paramgen.planning.meter import convolution_backward_flops
from paramgen.planning.plan import Machine, assess, plan
from scaling import apart, status_mb

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results" / "plan.json"
PAGE, BEGIN = ROOT / "docs" / "plan.md", "## Checked\n"
IMAGENET = ("convnext_atto", "vit_tiny", "resnet18", "vit_small", "resnet50", "vit_base", "convnext_large")


def cases() -> dict[str, FitSettings]:
    """Three fits of different sizes and methods."""
    with torch.device("meta"):
        small, large = ParamSpec.of(torch.nn.Linear(999, 300)), ParamSpec.of(torch.nn.Linear(999, 2000))
    rpg = {"recurrence": {"d_model": [512, 512]}, "head": {"kind": "conv", "channels": [1, 16, 32, 16, 1]}}
    return {
        "RPG, conv head, 0.3 M": FitSettings(RPG, rpg | {"tokens_per_step": 256}, TokenCodec(512), shape(small), 4),
        "RPG, mlp head, 2 M": FitSettings(
            RPG, {"recurrence": {"d_model": [512, 512]}, "head": {"kind": "mlp"}}, TokenCodec(1024), shape(large), 2
        ),
        "p-diff, autoencoder, 0.3 M": FitSettings(PDiff, {}, FlatCodec(), shape(small), 4, max_steps=60_000),
    }


def shape(spec: ParamSpec) -> ZooShape:
    """A zoo of 50 networks."""
    return ZooShape("zoo", spec, networks=50, runs=1)


def real_steps(name: str) -> dict[str, float]:
    """Two real steps of a case: peak memory over the imports, FLOPs of the second."""
    settings = cases()[name]
    before = status_mb("VmRSS")
    codec, zoo = settings.codec, settings.zoo
    codec.lay_out(zoo.spec)
    model = settings.backend(*codec.shape, num_networks=zoo.networks, **settings.arguments)
    model.codec = codec
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    index = torch.randperm(zoo.networks)[: settings.batch_size]
    batch = ParamBatch(torch.randn(len(index), *codec.shape), None, index, torch.zeros_like(index), None)
    mapping = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    for _ in range(2):
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            model.loss(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"peak": (status_mb("VmHWM") - before) * 2**20, "flops": counter.get_total_flops()}


def on_cpu() -> dict[str, Any]:
    """Planned and measured, of every case."""
    rows = {name: {"measured": apart(real_steps, name)} for name in cases()}  # before this process uses autograd
    for name, settings in cases().items():
        found = dry_run(settings, on_gpu=False)
        segment = found.segments[0]
        peak = max(m.size for m in found.meter.moments() if m.stage.startswith((segment.name, "building")))
        rows[name]["planned"] = {"peak": peak, "flops": segment.flops}
    return rows


def measured_on_gpu() -> dict[str, Any]:
    """Planned and measured, of the steps in gpu.json that run without mamba_ssm and uncompiled."""
    kept = json.loads((ROOT / "benchmarks" / "results" / "gpu.json").read_text())
    rows = {}
    for size in ("Tiny", "Small", "Base", "Large"):
        networks = 1 if size == "Large" else on_gpu.BATCH[size][0]
        row = kept[f"{size} {on_gpu.MEANT_FOR[size]} batch {networks} train torch"]
        arguments = dict(on_gpu.SIZES[size])
        arguments["head"] = {**arguments.get("head", {}), "checkpointing": size != "Tiny"}
        codec = on_gpu.codec_of(on_gpu.MEANT_FOR[size], arguments["recurrence"]["d_model"][-1])
        assert codec.spec is not None
        tokens = -(-on_gpu.BATCH[size][1] // networks)
        settings = FitSettings(
            RPG, arguments, codec, shape(codec.spec), networks, tokens, max_steps=10, precision="bf16-mixed"
        )
        found = plan(settings, Machine(find_device("h200"), residency="ram"))
        rows[f"RPG {size}"] = {
            "measured": {"peak": row["peak_gb"] * 1e9, "seconds": row["seconds_per_step"]},
            "planned": {"peak": found.peak, "seconds": found.rates[0].seconds, "flops": found.rates[0].flops},
        }
    return rows


def imagenet(device: str) -> dict[str, Any]:
    """Plans of the ImageNet configs as shipped, and what to change."""
    rows = {}
    for name in IMAGENET:
        with quiet():
            config = parsed(["--config", f"rpg_{name}", "--device", device])
            settings, machine = settings_of(config), machine_of(config)
            found = assess(settings, machine, dry_run(settings, on_gpu=True))
            advice = advise(settings, machine) if found.misfit else []
        last = advice[-1].plan if advice else found
        rows[f"rpg_{name}"] = {
            "target": found.target,
            "parameters": found.parameters,
            "peak": found.peak,
            "hours": found.hours,
            "checkpoint": found.checkpoint,
            "changes": [[a.setting, a.value, a.plan.peak] for a in advice],
            "then": {"peak": last.peak, "hours": last.hours, "fits": last.misfit is None},
        }
        print(name, json.dumps(rows[f"rpg_{name}"]), flush=True)
    return rows


def page(results: dict[str, Any]) -> str:
    """The generated end of docs/plan.md."""
    lines = [
        BEGIN,
        "```bash",
        "OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=65536 python benchmarks/plan_check.py --run",
        "python benchmarks/plan_check.py --page",
        "```",
        "",
        "Generated by `benchmarks/plan_check.py` from `benchmarks/results/plan.json`; do not edit. Two real",
        "steps in a separate process, peak memory above the imports, one thread of an AMD EPYC:",
        "",
        "| fit on a CPU | peak, planned | measured | TFLOP per step, planned | counted |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += compared(results["cpu"], peak=size_text, flops=lambda flops: f"{flops / 1e12:.4g}")
    lines += [
        "",
        "bf16 steps on one NVIDIA H200, from `benchmarks/results/gpu.json`. The default efficiency comes from these seconds:",
        "",
        "| fit on a GPU | peak, planned | measured | seconds per step, planned | measured |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += compared(results["gpu"], peak=size_text, seconds=lambda seconds: f"{seconds:.3g}")
    lines += [
        "",
        "## What fits on a card of 80 GB",
        "",
        "The table shows the configs of RPG's ImageNet zoos on one H100, as shipped and after the changes that `plan` proposes. The",
        "float32 steps at both ends (`Float32Ends`) determine the peak and take most of the hours, because torch's float32",
        "products do not use tensor cores. A smaller batch with the same number of steps trains on fewer networks.",
        "",
        "| config | target | generator | peak | hours | changes | peak then | hours then |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for name, row in results["imagenet"].items():
        changes = ", ".join(f"`{setting} {value}`" for setting, value in last_of_each(row["changes"])) or "none needed"
        then = row["then"]
        fits = size_text(then["peak"]) if then["fits"] else f"{size_text(then['peak'])}, does not fit"
        lines.append(
            f"| `{name}` | {row['target'] / 1e6:.1f} M | {row['parameters'] / 1e6:,.0f} M | {size_text(row['peak'])} | {row['hours']:.0f} "
            f"| {changes} | {fits} | {then['hours']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def compared(rows: dict[str, Any], **shown: Callable[[float], str]) -> list[str]:
    """A line of a table for each fit: every figure as planned and as measured, with the difference."""
    lines = []
    for name, row in rows.items():
        planned, measured = row["planned"], row["measured"]
        cells = [
            f"{show(planned[key])} | {show(measured[key])} ({ratio(planned, measured, key)})"
            for key, show in shown.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def ratio(planned: dict[str, float], measured: dict[str, float], key: str) -> str:
    """How far a plan is off."""
    return f"{100 * (planned[key] / measured[key] - 1):+.1f} %"


def last_of_each(changes: list[list[Any]]) -> list[tuple[str, Any]]:
    """Every changed setting with its last value."""
    return list({setting: value for setting, value, _ in changes}.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--parts", nargs="+", default=["cpu", "gpu", "imagenet"], choices=["cpu", "gpu", "imagenet"])
    parser.add_argument("--page", action="store_true", help="write the end of docs/plan.md")
    parser.add_argument("--out", type=Path, default=KEPT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    calls = {"cpu": on_cpu, "gpu": measured_on_gpu, "imagenet": lambda: imagenet("h100")}
    for part in args.parts if args.run else ():
        results[part] = calls[part]()
        print(part, json.dumps(results[part]), flush=True)
        write_json(args.out, results)
    if args.page:
        text = PAGE.read_text().partition(BEGIN)[0]
        PAGE.write_text(text + page(results))


if __name__ == "__main__":
    main()
