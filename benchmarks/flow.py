"""Flow matching against the shipped recipes' own predictions, in 5 to 50 solver steps: the table of docs/diffusion.md.

    OMP_NUM_THREADS=1 python benchmarks/flow.py --zoos FOLDER --out benchmarks/results/flow.json

FOLDER holds the zoos digits_mlp_trajectory_0 to _2 and digits_mlp_seeds20_0 to _2: `paramgen collect --config digits_mlp_seeds20 --seed 0
--out FOLDER/digits_mlp_seeds20_0` and so on. Scores are of the test images, distances relative to the held-out runs.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitted import Bench, Solver, averaged, fitted, line

EULER, HEUN = "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"
FLOW = {"model.diffusion.prediction_type": "flow", "model.diffusion.scheduler": EULER}
CASES = [
    ("digits_mlp_trajectory", "pdiff_digits_mlp"),
    ("digits_mlp_seeds20", "pdiff_digits_mlp"),
    ("digits_mlp_seeds20", "rpg_digits_seeds"),
]
STEPS = (5, 10, 20, 50)
WAYS: dict[str, tuple[Mapping[str, Any], list[Solver]]] = {
    "own prediction": ({}, [Solver("DDIM", n) for n in STEPS]),
    "flow": (FLOW, [*(Solver(EULER, n) for n in STEPS), Solver(HEUN, 10)]),
    "flow, uniform steps": ({**FLOW, "model.diffusion.timestep_sampling": "uniform"}, [Solver(EULER, 20)]),
}


def main() -> None:
    """Fit every case in every way on three zoos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoos", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = []
    for zoo, config in CASES:
        benches = [Bench(given.zoos / f"{zoo}_{seed}", "test") for seed in given.seeds]
        for way, (settings, solvers) in WAYS.items():
            rows: list[list[dict[str, Any]]] = []
            for bench in benches:
                model, seconds = fitted(bench.zoo.path, config, settings)
                rows.append([{**bench.measure(model, solver), "fit_cpu_seconds": seconds} for solver in solvers])
            for found in zip(*rows, strict=True):
                mean = {"zoo_name": zoo, "config": config, "way": way, **averaged(found)}
                results.append({**mean, "each": found})
                print(line(mean), flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
