"""Everything that needs a GPU, in one call: RPG's steps and sampling, p-diff's steps, fits from the command line, host waits.

    python benchmarks/gpu.py --zoos checkpoints_zoo --out gpu.json
    python benchmarks/gpu.py --parts train sample --sizes Large --batch 1 --sampling partial

Parts ``train`` and ``sample``, for each size of RPG: bf16 training steps of the paper's batch on networks of the size that it is meant
for, with each kernel that is there and with the head compiled or not; then one network sampled. Weights are random: it is the cost that
is measured. FLOPs are those of the matrix products (forward and backward 3 x forward; checkpointing and everything elementwise left
out), the roofline is those FLOPs at the device's bf16 peak and the weights' bytes at its bandwidth. The other parts are in
``gpu_checks.py`` and need ``--zoos``.

A measurement that fails is reported with its error and the rest goes on; the file is written after each. Without a GPU it stops with one
line; ``--device cpu`` tries the script out, and its figures mean nothing.
"""

import argparse
import gc
import json
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import timm
import torch

from gpu_checks import collected, command_line, pdiff_step, solvers, timed, timed_training
from paramgen.backends.rpg import RPG
from paramgen.core.codec import TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.generators.batches import ParamBatch
from paramgen.generators.sampling import SampleRequest
from paramgen.nn.scan import kernels

PEAK = {
    "H100": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
    "A100": (312e12, 2.0e12),
    "4090": (165e12, 1.0e12),
}  # FLOP/s, byte/s
SIZES: dict[str, dict[str, Any]] = {
    "Trial": {"recurrence": {"d_model": [64, 64], "d_state": 16}, "head": {"channels": [1, 8, 1]}},
    "Tiny": {"recurrence": {"d_model": [256, 256], "d_state": 32}},
    "Small": {"recurrence": {"d_model": [4096, 4096], "d_state": 128}},
    "Base": {"recurrence": {"d_model": [8192, 8192], "d_state": 128}},
    "Large": {"recurrence": {"d_model": [12288, 16384], "d_state": 128}, "head": {"channels": [1, 64, 96, 64, 1]}},
}
MEANT_FOR = {
    "Trial": "cnn_small",
    "Tiny": "cnn_small",
    "Small": "convnext_atto",
    "Base": "vit_tiny_patch16_224",
    "Large": "vit_base_patch16_224",
}
BATCH = {  # networks, tokens a step
    "Trial": (4, 64),
    "Tiny": (16, 1024),
    "Small": (16, 1024),
    "Base": (16, 1024),
    "Large": (8, 512),
}
PARTS = ("peak", "pdiff", "fits", "solvers", "train", "sample")
SAMPLING = ("sequential", "partial", "full")


def codec_of(network: str, token_dim: int) -> TokenCodec:
    """The layout of a network's tokens; CNN-small's 2,864 numbers stand for the smallest."""
    with torch.device("meta"):
        model = torch.nn.Linear(2863, 1) if network == "cnn_small" else timm.create_model(network)
        spec = ParamSpec.of(model)
    codec = TokenCodec(token_dim)
    codec.lay_out(spec)
    return codec


def matmul_flops(model: RPG, networks: int, tokens: int) -> float:
    """Multiply-adds of one forward pass times two: the recurrence on all tokens of all networks, the head on some."""
    L = model.shape[0]
    flops = 0.0
    for layer in model.prototypes.recurrence.layers:
        weights = layer.in_proj.weight.numel() + layer.out_proj.weight.numel()
        T, H, P, N = min(layer.chunk_size, L), layer.nheads, layer.headdim, layer.d_state
        scan = T * N + H * T * P + 2 * H * N * P  # a token: C B^T, its product with x, states in and out
        flops += 2 * networks * L * (weights + scan)
    convs = sum(c.weight.numel() for c in model.head.convs) * model.shape[1]
    linears = model.head.condition.weight.numel() + sum(
        m.weight.numel() for m in model.head.time if hasattr(m, "weight")
    )
    return flops + 2 * tokens * (convs + linears)


def device_peak() -> tuple[str, float | None, float | None]:
    """Name of the device, its bf16 FLOP/s and byte/s by the vendor's sheet."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    flops, bandwidth = next((v for k, v in PEAK.items() if k in name), (None, None))
    return name, flops, bandwidth


def reached(device: str) -> dict[str, float]:
    """What a large bf16 product and a large copy reach on random data: the ceilings of all that follows."""
    n, size = (8192, 2**30) if device == "cuda" else (256, 2**20)
    a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16)
    source = torch.randn(size, device=device)
    target = torch.empty_like(source)
    multiply, copy = timed(lambda: a @ b, 20, device), timed(lambda: target.copy_(source), 10, device)
    return {"tflops_bf16": 2 * n**3 / multiply / 1e12, "copy_tb_per_second": 2 * source.nbytes / copy / 1e12}


def train(
    size: str, network: str, networks: int, kernel: str, compiled: bool, steps: int, device: str
) -> dict[str, Any]:
    """bf16 steps on the tokens of the paper's batch."""
    model, codec = build(size, network, kernel, compiled, device)
    tokens = BATCH[size][1]
    few = min(codec.shape[0], -(-tokens // networks))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    x = torch.randn(networks, few, codec.shape[1], device=device)
    index = torch.arange(networks)
    token = torch.randperm(codec.shape[0], device=device)[:few]
    batch = ParamBatch(x, None, index, torch.zeros_like(index), token)
    seconds, losses, waits = timed_training(lambda: model.loss(batch)["loss"], optimizer, True, steps, device)
    flops = 3 * matmul_flops(model, networks, networks * few)
    _, peak, _ = device_peak()
    return {
        "parameters": int(codec.mask.sum()),
        "sequence": codec.shape[0],
        "generator_params": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": seconds,
        "steps_per_second": 1 / seconds,
        "tokens_per_second": networks * few / seconds,
        "prototypes_per_second": networks * codec.shape[0] / seconds,
        "matmul_tflop_per_step": flops / 1e12,
        "share_of_peak": None if peak is None else flops / seconds / peak,
        "roofline_seconds_per_step": None if peak is None else flops / peak,
        "losses": [losses[0].item(), losses[-1].item()],
        "host_waits": dict(waits),
        "peak_gb": peak_gb(device),
    }


def peak_gb(device: str) -> float | None:
    """Most memory of the device in use since it was last reset."""
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None


def sample(size: str, network: str, kernel: str, sampling: str, inference: int, device: str) -> dict[str, Any]:
    """One network in bf16, after one step of the solver to warm up."""
    model, codec = build(size, network, kernel, False, device)
    model.sampling = sampling
    model.eval()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def draw(steps: int) -> None:
        with torch.autocast(device, torch.bfloat16):
            model.draw(SampleRequest(1, scheduler="DDIM", num_inference_steps=steps))

    seconds = timed(lambda: draw(inference), 1, device, warm=lambda: draw(1))
    recurrent = matmul_flops(model, 1, 0)
    head = matmul_flops(model, 1, codec.shape[0]) - recurrent
    flops = (
        recurrent + inference * head
    )  # an upper bound: the prototype's projection is computed once, not at every step
    _, peak, bandwidth = device_peak()
    weights = 4 * sum(p.numel() for p in model.parameters())
    return {
        "seconds": seconds,
        "parameters": int(codec.mask.sum()),
        "peak_gb": peak_gb(device),
        "roofline_seconds": None if peak is None or bandwidth is None else max(flops / peak, weights / bandwidth),
    }


def build(size: str, network: str, kernel: str, compiled: bool, device: str) -> tuple[RPG, TokenCodec]:
    """A model with random weights, on the device."""
    arguments = SIZES[size]
    codec = codec_of(network, arguments["recurrence"]["d_model"][-1])
    with torch.device(device):
        model = RPG(
            *codec.shape,
            num_networks=50,
            recurrence={**arguments["recurrence"], "kernel": kernel},
            head={**arguments.get("head", {}), "compile": compiled, "checkpointing": size != "Tiny"},
        )
    model.codec, model.zoo_info = codec, {"networks": range(50)}
    model.prototypes.positions.place(codec.positions.to(device))
    return model.to(device), codec


def rpg_runs(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Training with each kernel, then sampling, of every size."""
    there = [k for k in args.kernels if k == "torch" or (kernels() and args.device == "cuda")]
    steps = list(enumerate(args.inference))
    for size in args.sizes:
        for network in args.networks or [MEANT_FOR[size]]:
            batch = args.batch or BATCH[size][0]
            for kernel, compiled in product(there, (False, True)) if "train" in args.parts else ():
                name = f"{size} {network} batch {batch} train {kernel}{' compiled' if compiled else ''}"
                yield name, partial(train, size, network, batch, kernel, compiled, args.steps, args.device)
            for (i, n), mode in product(steps, args.sampling) if "sample" in args.parts else ():
                if i == 0 or mode != "sequential":  # token by token takes minutes
                    name = f"{size} {network} sample {mode} DDIM-{n}"
                    yield name, partial(sample, size, network, "auto", mode, n, args.device)


def runs(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and call of every measurement; checkpoints of fits go to `folder`."""
    zoos, device = args.zoos, args.device
    configs = ("pdiff_digits_mlp", "rpg_digits_mlp")
    if "peak" in args.parts:
        yield "reached", partial(reached, device)
    if "pdiff" in args.parts and zoos:
        for phase, precision, compiled in product(("autoencoder", "diffusion"), ("float32", "bf16"), (False, True)):
            if (phase, compiled) == ("diffusion", True):
                continue  # torch cannot trace the copy of the batch's indices from pinned memory
            name = f"pdiff_released {phase} {precision}{' compiled' if compiled else ''}"
            yield name, partial(pdiff_step, zoos, phase, precision, compiled, args.steps, device)
    for on in dict.fromkeys((device, "cpu")) if "fits" in args.parts and zoos else ():
        for config in configs:
            keep = folder / f"{config}.ckpt"
            yield f"{config} fit, sample, evaluate on {on}", partial(command_line, zoos, config, on, keep)
        yield f"digits_mlp_2410 collect on {on}", partial(collected, "digits_mlp_2410", on)
    if {"fits", "solvers"} <= set(args.parts) and zoos:
        for config in configs:
            yield f"{config} solvers beside the CPU", partial(solvers, folder / f"{config}.ckpt", 4, device)
    yield from rpg_runs(args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--zoos", type=Path, help="folder with the zoos of digits_mlp_trajectory and digits_mlp_2410")
    parser.add_argument("--sizes", nargs="+", default=["Tiny", "Small", "Base"], choices=list(SIZES))
    parser.add_argument("--networks", nargs="+", help="timm names; by default what each size is meant for")
    parser.add_argument("--batch", type=int, help="networks a step; by default the paper's")
    parser.add_argument("--kernels", nargs="+", default=["torch", "cuda"], choices=("torch", "cuda"))
    parser.add_argument("--sampling", nargs="+", default=list(SAMPLING), choices=SAMPLING)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--inference", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device; there is none here")
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    results["machine"] = {
        "device": device_peak()[0],
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "mamba_ssm": bool(kernels()),
    }
    print(results["machine"])
    with tempfile.TemporaryDirectory() as folder:
        for name, call in runs(args, Path(folder)):
            start = time.perf_counter()
            try:
                results[name] = call()
            except torch.cuda.OutOfMemoryError:
                results[name] = {"error": "out of memory"}
            except Exception as error:  # the rest is still worth the machine's time
                traceback.print_exc()
                results[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            print(f"[{time.perf_counter() - start:.1f} s]", name, json.dumps(results[name]), flush=True)
            gc.collect()
            if args.device == "cuda":
                torch.cuda.empty_cache()
            args.out.write_text(json.dumps(results, indent=1) + "\n")  # kept as it grows


if __name__ == "__main__":
    main()
