"""docs/results.md, from the comparisons kept under docs/results/: no figure in it is typed.

python benchmarks/results_page.py                                  # write the page anew
python benchmarks/results_page.py --add runs/compare/digits_seeds   # keep what `paramgen compare` wrote there, then write it
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from paramgen.core.io import read_json
from paramgen.evaluation.compare import FIGURES, paper_columns, paper_of, show, starred
from paramgen.evaluation.registry import COLUMNS
from paramgen.report.verdicts import over_seeds

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "docs" / "results", ROOT / "docs" / "results.md"
SHOWN = (
    "mean",
    "worst",
    "seen",
    "median",
    "best",
    "selected",
    "gap",
    "run_ratio",
    "run_ratio_aligned",
    "nn_ratio",
    "nn_ratio_aligned",
    "iou",
    "dispersion",
    "structure",
    "run_match",
    "finetune_steps",
    "fit_seconds",
)
TITLES = {column.key: column.title for column in COLUMNS} | {"gap": "vs zoo"}
HEAD = """# Results

Written by `benchmarks/results_page.py` from the `comparison.json` files under [results](results), and never by hand.
Accuracies are in percent of the test images, means ± standard deviation over seeds of the whole pipeline (zoo, fit, samples, baselines);
one seed has no spread, and its small differences mean nothing. What each column is: [evaluation](evaluation.md).
Seconds are of the wall clock, on a machine that other work may have kept busy.
"""


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The comparisons in a folder, by name; other files there are left alone."""
    found = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    return {name: values for name, values in found.items() if "summary" in values and "paper" in values}


def page(comparisons: dict[str, dict[str, Any]]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(name, values) for name, values in comparisons.items())])


def section(name: str, comparison: dict[str, Any]) -> str:
    """One comparison: what it is, how to run it again, where it ran, a table a zoo."""
    seeds = comparison["seeds"]
    lines = [f"## {comparison['title']}", "", comparison["about"], ""]
    lines += ["```", comparison["command"], "```", ""]
    counted = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    lines += [f"{counted}; {comparison['machine']}; [{name}.json](results/{name}.json)", ""]
    for zoo in dict.fromkeys(row["zoo"] for row in comparison["summary"]):
        lines += [*table(zoo, comparison), ""]
        lines += [f"- {said}" for said in over_seeds(zoo, comparison)]
        lines += [""] if lines[-1] else []
    return "\n".join(lines)


def table(zoo: str, comparison: dict[str, Any]) -> list[str]:
    """A zoo's rows, with a paper's figures beside ours."""
    rows = [row for row in comparison["summary"] if row["zoo"] == zoo]
    columns = [name for name in FIGURES if name in SHOWN and any(name in row["figures"] for row in rows)]
    paper = paper_of(zoo, comparison)
    heads = [zoo, *(TITLES[name] for name in columns), *(f"paper: {name}" for name in paper_columns(paper))]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for row in rows:
        ours = [show(row["figures"].get(name), name) for name in columns]
        theirs = [paper.get(row["name"], {}).get(name) for name in paper_columns(paper)]
        cells = [starred(row), *ours, *("" if v is None else f"{100 * v:.1f}" for v in theirs)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="folders of finished comparisons")
    args = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    for folder in args.add:
        shutil.copyfile(folder / "comparison.json", KEPT / f"{folder.resolve().name}.json")
    PAGE.write_text(page(read(KEPT)))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
