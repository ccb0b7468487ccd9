"""The configs that follow the zoo, on zoos of several sizes and data: the table of docs/recipes.md.

    OMP_NUM_THREADS=1 python benchmarks/recipes.py --zoos ZOO ... --configs pdiff rpg --out benchmarks/results/recipes.json

Each fit is measured twice: by the val images and val runs, which the rules were chosen by, and by the test images and held-out runs.
"""

import argparse
import json
from pathlib import Path

from fitted import Bench, fitted, line
from paramgen.generators.recipe import Facts


def main() -> None:
    """Fit every config on every zoo once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoos", nargs="+", type=Path, required=True)
    parser.add_argument("--configs", nargs="+", default=["pdiff", "rpg"])
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = json.loads(given.out.read_text()) if given.out and given.out.exists() else []
    for path in given.zoos:
        benches = {split: Bench(path, split, own=given.n) for split in ("val", "test")}
        for config in given.configs:
            model, seconds = fitted(path, config)
            facts = Facts.of(benches["val"].zoo)
            row = {"zoo": path.name, "config": config, **facts._asdict(), "fit_cpu_seconds": seconds}
            row["generator_parameters"] = sum(p.numel() for p in model.parameters())
            for split, bench in benches.items():
                row[split] = bench.measure(model, n=given.n)
                print(path.name, config, split, f"fit {seconds:.1f}", line(row[split]), flush=True)
            results = [r for r in results if (r["zoo"], r["config"]) != (row["zoo"], config)] + [row]
            if given.out:
                given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
