"""Fit the three generators of digits that a release carries, and write them as small checkpoints with their figures.

    OMP_NUM_THREADS=1 python benchmarks/release_generators.py --out dist/generators      # make release-generators

Each checkpoint holds what sampling needs: weights in half precision (the average where one was fitted), the codec, no optimizer. It is
below 3 MB. ``generators.json`` has the size and checksum of each file and the scores of 100 sampled networks on test items.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramgen.api import evaluate, fit, sample
from paramgen.cli.commands.consolidate import main as consolidate
from paramgen.cli.main import main as paramgen
from paramgen.core.io import sha256, write_json

GENERATORS = {"pdiff": "pdiff_digits_mlp", "rpg": "rpg_digits_mlp", "graph": "graph_digits_mlp"}
ZOO = "checkpoints_zoo/digits_mlp_trajectory"
LIMIT = 3_000_000  # bytes
QUIET = {"trainer.enable_progress_bar": False, "trainer.logger": False, "quality.sample_every": 0}


def release(name: str, zoo: str, folder: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Fit one of :data:`GENERATORS` and write ``digits_NAME.ckpt``.

    Args:
        name: Its key.
        zoo: Folder of the zoo.
        folder: Where the file goes; the fit's own files go to a subfolder.
        settings: Further settings of the fit.

    Raises:
        ValueError: The file is not below the limit.
    """
    fitted = folder / "fits" / name
    fit(GENERATORS[name], {**QUIET, "data.zoo": zoo, "checkpoint.dirpath": str(fitted), **(settings or {})})
    path = consolidate(str(fitted / "last.ckpt"), str(folder / f"digits_{name}.ckpt"), True, True, overwrite=True)
    if path.stat().st_size >= LIMIT:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, expected fewer than {LIMIT:,}")
    return path


def figures(paths: Mapping[str, Path], zoo: str, folder: Path, n: int) -> dict[str, Any]:
    """Size, checksum and scores of released generators, and of the zoo and two baselines."""
    samples = [
        str(sample(str(path), n=n, out=str(folder / "samples" / name), overwrite=True)) for name, path in paths.items()
    ]
    results = evaluate(zoo, samples, out=str(folder / "report"), baselines=["soup-16", "gaussian"], n=n)
    assert results is not None
    rows = {row.name: {key: row.value(key) for key in ("mean", "std", "run_ratio", "nn_ratio")} for row in results.rows}
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in paths.values()}
    return {"zoo": Path(zoo).name, "networks": n, "files": files, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist/generators"))
    parser.add_argument("--zoo", default=ZOO, help="collected first where it does not exist")
    parser.add_argument("--n", type=int, default=100)
    args = parser.parse_args()
    if not (Path(args.zoo) / "zoo.json").exists():
        paramgen(["collect", "--config", "digits_mlp_trajectory", "--out", args.zoo])
    paths = {name: release(name, args.zoo, args.out) for name in GENERATORS}
    write_json(args.out / "generators.json", figures(paths, args.zoo, args.out, args.n))
    for path in paths.values():
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
