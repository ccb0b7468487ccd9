"""Alignment of transformers on scikit-learn's digits: soups and midpoints of pairs, raw and aligned, by what is aligned.

    paramgen collect --config digits_vit_seeds
    OMP_NUM_THREADS=1 python benchmarks/alignment_heads.py --zoo checkpoints_zoo/digits_vit_seeds --out alignment_heads.json

A midpoint is the mean of two networks, the second aligned to the first; its barrier is their mean accuracy less its own.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from paramgen.core.zoo import Zoo
from paramgen.symmetry import PermutationSpec, align_matrix, balance_matrix, match
from paramgen.tasks import task_of


def chosen(spec: PermutationSpec) -> dict[str, PermutationSpec]:
    """What may be aligned: nothing of a head; heads in their order; heads and what is in them."""
    heads = set(spec.nested)
    units = {group: places for group, places in spec.groups.items() if group not in heads}
    return {
        "units": replace(spec, groups=units, spaces={}),
        "units and heads": replace(spec, spaces={}),
        "units and spaces": replace(spec, groups=units),
        "units, heads and spaces": spec,
    }


def main() -> None:
    """Measure each zoo and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", nargs="+", default=["checkpoints_zoo/digits_vit_seeds"])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {zoo: measure(Zoo(zoo), arguments.pairs) for zoo in arguments.zoo}
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def measure(zoo: Zoo, pairs: int) -> dict[str, Mapping[str, float]]:
    """Accuracies on the test split, in percent, and distances."""
    task, W = task_of(zoo), zoo.matrix(zoo.indices("train"))  # (K, P)
    images = next(iter(task.data("train").batches(2)))[0]
    a, b = torch.triu_indices(len(W), len(W), 1)
    drawn = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))[:pairs]
    a, b = a[drawn], b[drawn]

    def accuracy(rows: Tensor) -> Tensor:
        return 100 * task.evaluate([zoo.complete(zoo.spec.unflatten(row)) for row in rows], "test").value

    own = accuracy(W)
    ends = (own[a] + own[b]).mean() / 2
    found = {"raw": {"networks": own.mean().item(), "soup": accuracy(W.mean(0, keepdim=True)).item(),
                     "barrier": (ends - accuracy((W[a] + W[b]) / 2).mean()).item(),
                     "distance": (W[a] - W[b]).norm(dim=1).mean().item()}}  # fmt: skip
    print(zoo.path, "raw", {k: round(v, 2) for k, v in found["raw"].items()}, flush=True)
    spec = PermutationSpec.of(task.build().eval(), images, zoo.spec)
    for name, part in chosen(spec).items():
        start = time.process_time()
        balanced = balance_matrix(W, part)
        aligned = align_matrix(balanced, part, balanced[0]).weights
        seconds = time.process_time() - start
        near = match(balanced[a], balanced[b], part).weights
        found[name] = {
            "networks": accuracy(aligned).mean().item(),
            "soup": accuracy(aligned.mean(0, keepdim=True)).item(),
            "barrier": (ends - accuracy((balanced[a] + near) / 2).mean()).item(),
            "distance": (balanced[a] - near).norm(dim=1).mean().item(),
            "align_cpu_s": seconds,
        }
        print(zoo.path, name, {k: round(v, 2) for k, v in found[name].items()}, flush=True)
    return found


if __name__ == "__main__":
    main()
