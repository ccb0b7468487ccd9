"""Fit a config on zoos, draw networks with one or several solvers, and measure them: accuracy, dispersion, run_ratio, structure.

    OMP_NUM_THREADS=1 python benchmarks/fitted.py --zoos ZOO ... --config pdiff_digits_mlp --set model.optimizer.lr=3e-4 --split val

Choices are made with ``--split val``: scores are of the val images, distances and structure are relative to the val runs. Only final
figures come from ``--split test``: the test images and the held-out runs. CPU seconds are those of one thread.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paramgen import fit
from paramgen.core.zoo import Zoo
from paramgen.evaluation import metrics
from paramgen.evaluation.novelty import Novelty, RawBank
from paramgen.evaluation.structure import Structure
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.sampling import SampleRequest
from paramgen.tasks import task_of
from paramgen.tasks.scoring import score_networks

QUIET = {"trainer.enable_progress_bar": False, "trainer.logger": False, "quality.sample_every": 0}


class Solver(NamedTuple):
    """A solver and its steps; None leaves it to the generator."""

    scheduler: str | None = None
    steps: int | None = None


OWN = Solver()


class Bench:
    """A zoo's training networks, and what new networks are measured by.

    Args:
        path: The zoo.
        split: The images and the runs to measure by.
        own: Networks of the zoo to score for comparison, evenly spaced.
    """

    def __init__(self, path: str | Path, split: str = "val", own: int = 100) -> None:
        self.zoo = zoo = Zoo(path)
        train, unseen = zoo.indices("train"), zoo.indices("val" if split == "val" else "heldout")
        self.task = task_of(zoo)
        self.network, self.data = self.task.build().eval(), self.task.data(split)
        self.weights = zoo.matrix(train)  # (K, P)
        runs, unseen_runs = (torch.tensor([zoo.entries[i].run for i in of]) for of in (train, unseen))
        held = zoo.matrix(unseen)
        self.novelty = Novelty(RawBank(self.weights), runs, held, unseen_runs)
        self.structure = Structure(self.weights, runs, held)
        shown = train[:: max(1, len(train) // own)]
        self.zoo_accuracy = self.accuracy([zoo.full(i) for i in shown]).mean().item()

    def accuracy(self, networks: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Of each of n networks, percent: (n,)."""
        return 100 * score_networks(self.task, self.network, networks, self.data).value

    def measure(self, model: ParameterGenerator, solver: Solver = OWN, n: int = 100) -> dict[str, Any]:
        """Draw n networks and measure them."""
        torch.manual_seed(0)
        start = time.process_time()
        drawn = model.draw(SampleRequest(n, scheduler=solver.scheduler, num_inference_steps=solver.steps))
        networks = model.decode(drawn.tokens)
        seconds = time.process_time() - start
        samples = self.zoo.spec.flatten_many(networks)  # (n, P)
        found = self.accuracy(networks)
        near = self.novelty.bank.nearest(samples)
        ratios, structured = self.novelty.ratios(near.distance), self.structure.of(samples)
        row = {
            "solver": drawn.scheduler,
            "steps": drawn.num_inference_steps,
            "accuracy": found.mean().item(),
            "worst": found.min().item(),
            "zoo": self.zoo_accuracy,
            "dispersion": metrics.dispersion(samples, self.weights),
            "run_ratio": ratios.run,
            "nn_ratio": ratios.step,
            "structure": structured.structure,
            "inside": structured.inside,
            "sample_cpu_seconds": seconds,
        }
        if drawn.identity is not None:
            row["id_match"] = metrics.id_match(near.index, torch.tensor(drawn.identity))
        return row


def fitted(zoo: str | Path, config: str, settings: Mapping[str, Any] | None = None) -> tuple[ParameterGenerator, float]:
    """A generator fitted on a zoo by a config, and the CPU seconds that it took."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        where = {"data.zoo": str(zoo), "trainer.default_root_dir": folder, "checkpoint.dirpath": folder}
        model = fit(config, {**QUIET, **where, **(settings or {})})
    return model, time.process_time() - start


def line(row: Mapping[str, Any]) -> str:
    """A row for the terminal."""
    return "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())


def averaged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of the numbers of rows of several zoos, and the spread of the gap to the zoo."""
    out = {
        k: v if isinstance(v, str | int | None) else statistics.fmean(r[k] for r in rows) for k, v in rows[0].items()
    }
    gaps = [r["accuracy"] - r["zoo"] for r in rows]
    return {**out, "gap": statistics.fmean(gaps), "gap_std": statistics.stdev(gaps) if len(gaps) > 1 else 0.0}


def main() -> None:
    """Fit one config on every zoo and print each figure and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoos", nargs="+", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", nargs="*", default=[], help="settings as NAME=VALUE")
    parser.add_argument("--solver", default=None)
    parser.add_argument("--steps", nargs="*", type=int, default=[None])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in given.set)
    rows: dict[Any, list[dict[str, Any]]] = {}
    for zoo in given.zoos:
        bench = Bench(zoo, given.split)
        model, seconds = fitted(zoo, given.config, settings)
        for steps in given.steps:
            row = {**bench.measure(model, Solver(given.solver, steps), given.n), "fit_cpu_seconds": seconds}
            rows.setdefault(steps, []).append(row)
            print(Path(zoo).name, line(row), flush=True)
    for found in rows.values():
        print("MEAN", " ".join([given.config, *given.set]), line(averaged(found)), flush=True)
    if given.out:
        given.out.write_text(json.dumps({str(k): v for k, v in rows.items()}, indent=1))


if __name__ == "__main__":
    main()
