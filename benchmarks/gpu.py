"""RPG on a GPU, everything in one call: steps and tokens a second, share of peak, memory, sampling seconds, mamba_ssm against torch.

    python benchmarks/gpu.py --out gpu.json                       # Tiny, Small, Base
    python benchmarks/gpu.py --sizes Base Large --networks vit_base

For each size: bf16 training steps of the paper's batch on networks of the size that it is meant for, with each kernel that is there and
with the head compiled or not; then one network sampled. Weights are random: it is the cost that is measured. FLOPs are those of the
matrix products (forward and backward 3 x forward; checkpointing and everything elementwise left out), the roofline is those FLOPs at the
device's bf16 peak and the weights' bytes at its bandwidth. Out of memory is reported, not fatal. Without a GPU it stops with one line.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch

from paramgen.backends.rpg import RPG
from paramgen.codec import TokenCodec
from paramgen.data import ParamBatch
from paramgen.nn.scan import kernels
from paramgen.spec import ParamSpec

PEAK = {
    "H100": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
    "A100": (312e12, 2.0e12),
    "4090": (165e12, 1.0e12),
}  # FLOP/s, byte/s
LARGE = {"channels": [1, 64, 96, 64, 1]}
SIZES: dict[str, dict[str, Any]] = {
    "Tiny": {"d_model": [256, 256], "d_state": 32},
    "Small": {"d_model": [4096, 4096], "d_state": 128},
    "Base": {"d_model": [8192, 8192], "d_state": 128},
    "Large": {"d_model": [12288, 16384], "d_state": 128, **LARGE},
}
MEANT_FOR = {
    "Tiny": "cnn_small",
    "Small": "convnext_atto",
    "Base": "vit_tiny_patch16_224",
    "Large": "vit_base_patch16_224",
}
BATCH = {"Tiny": (16, 1024), "Small": (16, 1024), "Base": (16, 1024), "Large": (8, 512)}  # networks, tokens a step


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
    name = torch.cuda.get_device_name()
    flops, bandwidth = next((v for k, v in PEAK.items() if k in name), (None, None))
    return name, flops, bandwidth


def timed(call: Any, repeat: int) -> float:
    """Seconds a call, after two to warm up."""
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeat


def train(size: str, network: str, kernel: str, compiled: bool, steps: int) -> dict[str, Any]:
    """bf16 steps of the paper's batch."""
    model, codec = build(size, network, kernel, compiled)
    networks, tokens = BATCH[size]
    few = min(codec.shape[0], -(-tokens // networks))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    x = torch.randn(networks, few, codec.shape[1], device="cuda")
    index = torch.arange(networks, device="cuda")

    def step() -> None:
        token = torch.randperm(codec.shape[0], device="cuda")[:few]
        with torch.autocast("cuda", torch.bfloat16):
            loss = model.loss(ParamBatch(x, None, index, torch.zeros_like(index), token))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.cuda.reset_peak_memory_stats()
    seconds = timed(step, steps)
    flops = 3 * matmul_flops(model, networks, networks * few)
    name, peak, _ = device_peak()
    return {
        "device": name,
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
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def sample(size: str, network: str, kernel: str, sampling: str, inference: int) -> dict[str, Any]:
    """One network in bf16."""
    model, codec = build(size, network, kernel, False)
    model.eval()
    torch.cuda.reset_peak_memory_stats()

    def draw() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            model.sample_tokens(1, scheduler="DDIM", num_inference_steps=inference, sampling=sampling)

    seconds = timed(draw, 1)
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
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "roofline_seconds": None if peak is None or bandwidth is None else max(flops / peak, weights / bandwidth),
    }


def build(size: str, network: str, kernel: str, compiled: bool) -> tuple[RPG, TokenCodec]:
    """A model with random weights, on the GPU."""
    arguments = SIZES[size]
    codec = codec_of(network, arguments["d_model"][-1])
    with torch.device("cuda"):
        model = RPG(
            *codec.shape,
            num_networks=50,
            kernel=kernel,
            compile_head=compiled,
            checkpointing=size != "Tiny",
            **arguments,
        )
    model.codec = codec
    model.prototypes.positions.place(codec.positions.cuda())
    return model.cuda(), codec


def runs(args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Name and call of every measurement."""
    there = ["torch", "cuda"] if kernels() else ["torch"]
    for size in args.sizes:
        for network in args.networks or [MEANT_FOR[size]]:
            for kernel in there:
                for compiled in (False, True):
                    name = f"{size} {network} train {kernel}{' compiled' if compiled else ''}"
                    yield name, lambda s=size, n=network, k=kernel, c=compiled: train(s, n, k, c, args.steps)
            for sampling in ("sequential", "partial", "full"):
                for inference in args.inference:
                    name = f"{size} {network} sample {sampling} DDIM-{inference}"
                    yield name, lambda s=size, n=network, m=sampling, i=inference: sample(s, n, "auto", m, i)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["Tiny", "Small", "Base"], choices=list(SIZES))
    parser.add_argument("--networks", nargs="+", help="timm names; by default what each size is meant for")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--inference", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device; there is none here")
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, mamba_ssm {'there' if kernels() else 'not there'}"
    )
    results: dict[str, Any] = {}
    for name, call in runs(args):
        try:
            results[name] = call()
        except torch.cuda.OutOfMemoryError:
            results[name] = {"error": "out of memory"}
        print(name, json.dumps(results[name]), flush=True)
        gc.collect()
        torch.cuda.empty_cache()
        args.out.write_text(json.dumps(results, indent=1) + "\n")  # kept as it grows


if __name__ == "__main__":
    main()
