"""Lottery tickets over three zoos: the table of docs/sparse.md.

    paramgen compare --config sparse_digits
    OMP_NUM_THREADS=1 python benchmarks/tickets.py --compared runs/compare/sparse_digits --out benchmarks/results/tickets.json

Each seed of the comparison has a zoo `own` and what its generators drew. `paramgen tickets` takes 20 masks for each row and zoo.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev

from paramgen.evaluation.compare import machine
from paramgen.studies import tickets


def main() -> None:
    """Train the networks of every row and seed, and print each row's mean and its spread over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compared", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    seeds = {}
    for seed in given.seeds:
        folder = given.compared / f"seed{seed}" / "own"
        drawn = [str(path) for path in sorted((folder / "samples").iterdir())]
        found = tickets.main(str(folder / "zoo"), drawn, n=20, seed=seed, out=str(folder / "tickets"))
        seeds[seed] = {"sparsity": found["sparsity"], "steps": found["steps"], "rows": found["rows"]}
    means = {row: [mean(of["rows"][row]) for of in seeds.values()] for row in seeds[given.seeds[0]]["rows"]}
    for row, each in means.items():
        print(f"{row:18} {100 * mean(each):.1f} ± {100 * stdev(each):.1f}")
    if given.out:
        values = {"machine": machine(), "cpu_s": round(time.process_time()), "means": means, "seeds": seeds}
        given.out.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
