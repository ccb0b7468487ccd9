"""Fit the three generators of digits that a release carries, and write them as small checkpoints with their figures.

    OMP_NUM_THREADS=1 python benchmarks/release_generators.py --out dist/generators      # make release-generators

Each checkpoint holds what sampling needs: weights in half precision (the average where one was fitted), the codec, no optimizer. It is
below 3 MB. ``generators.json`` has the size and checksum of each file and the scores of 100 sampled networks on test items.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from paramgen.cli.commands.consolidate import main as consolidate
from paramgen.cli.main import main as paramgen
from paramgen.core.command_line import words
from paramgen.core.io import read_json, sha256, write_json

LIMIT = 3_000_000  # bytes
QUIET = {"trainer.enable_progress_bar": False, "trainer.logger": False, "quality.sample_every": 0}


class Released(NamedTuple):
    """A generator of a release: the config of its fit, and the recipe of its zoo."""

    config: str
    zoo: str


GENERATORS = {
    "pdiff": Released("pdiff_digits_mlp", "digits_mlp_trajectory"),
    "rpg": Released("rpg_digits_mlp", "digits_mlp_trajectory"),
    "graph": Released("graph_digits_seeds", "digits_mlp_seeds"),
}


def release(name: str, zoo: str, folder: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Fit one of :data:`GENERATORS` and write ``digits_NAME.ckpt``.

    Args:
        name: Its key.
        zoo: Folder or name of the zoo.
        folder: Where the file goes; the fit's own files go to a subfolder.
        settings: Further settings of the fit.
    """
    fitted = folder / "fits" / name
    given = {**QUIET, "data.zoo": zoo, "checkpoint.dirpath": str(fitted), **(settings or {})}
    run("fit", "--config", GENERATORS[name].config, *words(given))
    return slim(fitted / "last.ckpt", folder / f"digits_{name}.ckpt")


def slim(fitted: Path, path: Path) -> Path:
    """Write what sampling needs of a checkpoint, in half precision.

    Raises:
        ValueError: The file is not below the limit.
    """
    consolidate(str(fitted), str(path), weights_only=True, half=True, overwrite=True)
    if path.stat().st_size >= LIMIT:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, expected fewer than {LIMIT:,}")
    return path


def figures(path: Path, zoo: str, folder: Path, n: int) -> dict[str, Any]:
    """Size and checksum of a released generator, its scores, and those of its zoo and of two baselines."""
    samples, report = folder / "samples" / path.stem, folder / "reports" / path.stem
    run("sample", *words({"ckpt_path": str(path), "n": n, "out": str(samples), "overwrite": True}))
    given = {"zoo": zoo, "samples": str(samples), "out": str(report), "baselines": ["soup-16", "gaussian"], "n": n}
    run("evaluate", *words(given))
    measured = read_json(report / "results.json")["rows"]
    rows = {row["name"]: {key: row["values"][key] for key in ("mean", "std", "run_ratio")} for row in measured}
    return {"bytes": path.stat().st_size, "sha256": sha256(path), "zoo": Path(zoo).name, "networks": n, "rows": rows}


def run(*command: str) -> None:
    """Run a command of paramgen; end this process with its exit code if it fails."""
    if code := paramgen([*command]):
        raise SystemExit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist/generators"))
    parser.add_argument("--zoos", type=Path, default=Path("checkpoints_zoo"), help="zoos that it lacks are collected")
    parser.add_argument("--n", type=int, default=100)
    args = parser.parse_args()
    made = {}
    for name, (_, recipe) in GENERATORS.items():
        zoo = args.zoos / recipe
        if not (zoo / "zoo.json").exists():
            run("collect", "--config", recipe, "--out", str(zoo))
        path = release(name, str(zoo), args.out)
        made[path.name] = figures(path, str(zoo), args.out, args.n)
        write_json(args.out / "generators.json", made)
    for name, of in made.items():
        print(f"{name}: {of['bytes']:,} bytes, mean score {of['rows'][Path(name).stem]['mean']:.3f}")


if __name__ == "__main__":
    main()
