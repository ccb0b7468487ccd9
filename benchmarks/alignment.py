"""Alignment on scikit-learn's digits: soups raw and aligned, CPU seconds, and what screening costs in distance.

    OMP_NUM_THREADS=1 python benchmarks/alignment.py --zoos 3 --networks 100 --out alignment.json

Each zoo is networks trained from their own seeds (64-128-10, AdamW with decoupled weight decay), all at once as stacked tensors: an
optimizer that works number by number trains each as if it were alone, but for the shared order of images.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from paramgen.core.params import ParamSpec
from paramgen.evaluation import metrics
from paramgen.symmetry import AlignedZoo, PermutationSpec, align_matrix, aligned_distances, balance_matrix
from paramgen.tasks.vision.datasets import find_source, load_pool
from paramgen.tasks.vision.networks import MLP


def images(train: bool) -> tuple[Tensor, Tensor]:
    """Digits as (M, 64), normalised as the task does, and labels."""
    pool = load_pool("digits", None, train)
    assert pool.raw is not None
    source = find_source("digits")
    return (pool.raw.flatten(1) / source.white - source.mean[0]) / source.std[0], pool.labels


def forward(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """K networks on their own images: (K, B, 64) to (K, B, 10)."""
    for i, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias[:, None], x.relu() if i else x, weight.mT)
    return x


def layers_of(W: Tensor, spec: ParamSpec) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases, stacked, of (K, P)."""
    parts = [
        p.reshape(len(W), *t.shape)
        for p, t in zip(W.split([t.numel for t in spec.tensors], 1), spec.tensors, strict=True)
    ]
    return list(zip(parts[::2], parts[1::2], strict=True))


def train(
    hidden: Sequence[int], K: int, seed: int, steps: int, lr: float, decay: float, batch: int = 64
) -> tuple[Tensor, ParamSpec]:
    """K networks from their own seeds: (K, P)."""
    x, y = images(train=True)
    starts = []
    for k in range(K):
        torch.manual_seed(1000 * seed + k)
        starts.append(MLP(10, (1, 8, 8), hidden).state_dict())
    spec = ParamSpec.of(starts[0])
    layers = [
        (w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in layers_of(spec.flatten_many(starts), spec)
    ]
    optimizer = torch.optim.AdamW([p for pair in layers for p in pair], lr=lr, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (K, batch), generator=generator)
        loss = F.cross_entropy(forward(layers, x[rows]).flatten(0, 1), y[rows].flatten()) * K
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return torch.cat([p.detach().flatten(1) for pair in layers for p in pair], 1), spec


def accuracy(W: Tensor, spec: ParamSpec) -> Tensor:
    """Test accuracy of (K, P) in percent: (K,)."""
    x, y = images(train=False)
    return (forward(layers_of(W, spec), x.expand(len(W), *x.shape)).argmax(2) == y).double().mean(1) * 100


def soup(W: Tensor, spec: ParamSpec) -> float:
    """Test accuracy of the mean network in percent."""
    return accuracy(W.mean(0, keepdim=True), spec).item()


def cpu(start: float) -> float:
    return round(time.process_time() - start, 3)


def measure(args: argparse.Namespace, seed: int) -> dict[str, float]:
    start = time.process_time()
    W, params = train(args.hidden, args.networks, seed, args.steps, args.lr, args.decay)
    figures = {"train_cpu_s": cpu(start)}
    start = time.process_time()
    symmetries = PermutationSpec.of(MLP(10, (1, 8, 8), args.hidden), torch.zeros(2, 1, 8, 8), params)
    figures["trace_cpu_s"] = cpu(start)
    start = time.process_time()
    balanced = balance_matrix(W, symmetries)
    figures["balance_cpu_s"] = cpu(start)
    start = time.process_time()
    aligned = align_matrix(balanced, symmetries, balanced[0], rounds=4).weights
    figures["align_cpu_s"] = cpu(start)
    unscaled = align_matrix(W, symmetries, W[0], rounds=4).weights
    one = align_matrix(balanced, symmetries, balanced[0], rounds=0).weights
    figures |= {
        "networks_mean": accuracy(W, params).mean().item(),
        "aligned_networks_mean": accuracy(aligned, params).mean().item(),
        "soup_raw": soup(W, params),
        "soup_aligned": soup(aligned, params),
        "soup_aligned_not_balanced": soup(unscaled, params),
        "soup_aligned_no_mean_rounds": soup(one, params),
    }
    start = time.process_time()
    zoo = AlignedZoo(W, symmetries)
    near = zoo.nearest_other()
    figures |= {
        "tau_aligned_cpu_s": cpu(start),
        "tau_raw": metrics.tau(W),
        "tau_aligned": near.distance.median().item(),
    }
    start = time.process_time()
    exact = aligned_distances(W[: args.pairs], W, symmetries)
    exact[torch.arange(args.pairs), torch.arange(args.pairs)] = float("inf")
    screened = near.distance[: args.pairs] / exact.amin(1)
    figures |= {
        "all_pairs": exact.numel(),
        "all_pairs_cpu_s": cpu(start),
        "screened_over_all_pairs_mean": screened.mean().item(),
        "screened_over_all_pairs_max": screened.max().item(),
    }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128])
    parser.add_argument("--zoos", type=int, default=3)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--decay", type=float, default=0.5)
    parser.add_argument(
        "--pairs", type=int, default=10, help="networks whose distance to all others is found pair by pair"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results = []
    for seed in range(args.zoos):
        results.append(measure(args, seed))
        print(f"zoo {seed}:", ", ".join(f"{name} {value:.4g}" for name, value in results[-1].items()), flush=True)
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name != "out"}
        args.out.write_text(json.dumps({"settings": settings, "zoos": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
