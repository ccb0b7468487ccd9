"""What an evaluation costs: CPU seconds on small networks with every baseline, and how much of a large network's is forward passes.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py --out evaluation_speed.json

Small: 100 digits networks (64-48-32-10, 5,018 parameters) trained here, the zoo's row and every baseline at N = 100. Large: ResNet-18 on
digits at 32x32, its 11.2 M numbers varied at random, because it is the cost that is measured and not the accuracy. Seconds are of the CPU,
of one thread, so that a busy machine does not change them. What is not forward passes does not depend on the number of images, and
digits have few: the share with 10,000 test and 10,000 train images, as CIFAR-10 has them, follows from the seconds of an image.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings, fresh_states
from paramgen.core.params import ParamSpec, StateDict
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation.baselines import shown_in
from paramgen.evaluation.compare import machine
from paramgen.evaluation.evaluate import evaluate
from paramgen.tasks import ClassificationTask

CIFAR_IMAGES = 20_000  # 10,000 test, and the first 10,000 of train


def write_zoo(path: Path, task: ClassificationTask, states: Sequence[Mapping[str, Tensor]], heldout: int) -> Zoo:
    """A zoo of networks that are a run each, the last ones held out."""
    spec = ParamSpec.of(task.build())
    base = {name: t for name, t in states[0].items() if name not in spec.names}
    writer = ZooWriter(path, spec, base, task.config(), {"made": "by a benchmark"})
    for run, state in enumerate(states):
        writer.add(state, run=run, step=0, seed=run, split="heldout" if run >= len(states) - heldout else "train")
    return writer.close()


def trained(task: ClassificationTask, networks: int, steps: int) -> list[StateDict]:
    """Networks from their own seeds, trained at once."""
    seeds = range(networks)
    group = NetworkGroup(task.build(), fresh_states(task.build, seeds), ParamSpec.of(task.build()).names)
    for _ in GroupTrainer(group, task.data("train"), OptimSettings(), seeds, steps).run():
        pass
    return group.states()


def varied(task: ClassificationTask, networks: int) -> list[StateDict]:
    """One random network, its floating numbers varied by 1 %."""
    torch.manual_seed(0)
    state = task.build().state_dict()
    return [
        {n: t * (1 + 0.01 * torch.randn_like(t)) if t.is_floating_point() else t for n, t in state.items()}
        for _ in range(networks)
    ]


def on_cpu_time() -> AbstractContextManager[Any]:
    """Lets an evaluation's own clock count CPU seconds."""
    return mock.patch("time.perf_counter", time.process_time)


def small(networks: int, folder: Path) -> dict[str, Any]:
    """The whole evaluation of 100 small networks."""
    task = ClassificationTask("digits", "mlp")
    zoo = write_zoo(folder / "small", task, trained(task, networks + 10, steps=300), heldout=10)
    figures: dict[str, Any] = {
        "networks": networks,
        "parameters": zoo.spec.numel,
        "rows": 2 + len(shown_in("one_task")),
    }
    for name, aligned in (("raw", False), ("aligned", True)):
        start = time.process_time()
        with on_cpu_time():
            results = evaluate(zoo, task, n=networks, aligned=aligned)
        figures[f"{name}_cpu_s"] = round(time.process_time() - start, 2)
        figures[f"{name}_forward_share"] = round(results.forward_seconds / results.seconds, 3)
    return figures


def large(networks: int, folder: Path) -> dict[str, float]:
    """A row of large networks, and its share of forward passes."""
    task = ClassificationTask("digits", "timm:resnet18", image_size=32)
    zoo = write_zoo(folder / "large", task, varied(task, networks), heldout=0)
    with on_cpu_time():
        results = evaluate(zoo, task, n=networks, baselines=["noise-0.5"])
    images = results.test_items + results.train_items
    recalibration = min(results.train_items, 20 * 128) + results.test_items  # batch norm anew, and test once more
    scored = 2 * networks  # the zoo's row and the baseline's
    per_image = results.forward_seconds / (scored * (images + recalibration))
    rest = (results.seconds - results.forward_seconds) / scored
    forward = per_image * (CIFAR_IMAGES + 20 * 128 + 10_000)
    return {
        "networks": networks,
        "parameters": zoo.spec.numel,
        "cpu_s": round(results.seconds, 1),
        "images": images,
        "forward_share": round(results.forward_seconds / results.seconds, 4),
        "ms_per_image_and_network": round(1000 * per_image, 3),
        "rest_s_per_network": round(rest, 3),
        "forward_share_with_10000_test_images": round(forward / (forward + rest), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=100, help="small ones")
    parser.add_argument(
        "--large", type=int, default=8, help="large ones; 100 hold 4.5 GB, and twice that while they are measured"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"machine": machine(), "small": small(args.networks, Path(folder))}
        print(json.dumps(found, indent=1), flush=True)
        found["large"] = large(args.large, Path(folder))
    print(json.dumps(found["large"], indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
