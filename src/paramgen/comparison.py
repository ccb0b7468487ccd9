"""Several evaluations beside each other: means over seeds with their spread, a paper's figures beside ours.

The spread is the standard deviation over seeds of each seed's figure; differences to the zoo are paired by seed.
"""

import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.table import Table
from scipy.stats import t as student_t

from paramgen.columns import COLUMNS
from paramgen.files import read_json
from paramgen.results import SAW_SEEN

FIGURES = (  # columns of a report's table, and the difference to the zoo
    "mean",
    "worst",
    "seen",
    "median",
    "min",
    "best",
    "selected",
    "std",
    "gap",
    "nn_ratio",
    "nn_ratio_aligned",
    "iou",
    "dispersion",
    "zu",
    "id_match",
    "run_match",
    "finetune_steps",
    "fit_seconds",
)
ON_PAGE_ALONE = ("min", "std", "iou")  # what a terminal has no room for
_PERCENT = ("mean", "worst", "seen", "median", "min", "best", "selected", "std", "gap")
_VALUES = {column.key: column.value for column in COLUMNS}


@dataclass(frozen=True)
class Report:
    """One evaluation.

    Args:
        zoo: Name of the zoo within the comparison.
        seed: Of everything in it.
        path: Its ``results.json``.
    """

    zoo: str
    seed: int
    path: Path

    @cached_property
    def results(self) -> dict[str, Any]:
        """What ``results.json`` holds.

        Raises:
            ParamgenError: It cannot be read, or does not fit ``results.schema.json``; file and field are named.
        """
        return read_json(self.path, "results")


def summarise(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """One row for each zoo and name: every figure's mean and spread over the seeds.

    Args:
        reports: Of every zoo and seed.

    Returns:
        ``{"zoo", "name", "kind", "n", "seeds", "figures": {figure: {"mean", "std"}}, "flags": {flag: seeds}}``, n networks a seed; std is
        None with fewer than two seeds; each flag with the number of seeds that raised it.
    """
    summary = []
    for zoo in dict.fromkeys(r.zoo for r in reports):
        mine = [r.results["rows"] for r in reports if r.zoo == zoo]
        for first in mine[0]:
            rows = [(row, rows[0]) for rows in mine for row in rows if row["name"] == first["name"]]
            values = {name: [v for row, of in rows if (v := _figure(row, of, name)) is not None] for name in FIGURES}
            figures = {name: _spread(found) for name, found in values.items() if len(found) == len(rows)}
            who = {"zoo": zoo, "name": first["name"], "kind": first["kind"], "n": first["n"]}
            summary.append({**who, "seeds": len(rows), "figures": figures, "flags": _flags([row for row, _ in rows])})
    return summary


def differences(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """How far the generators of a zoo lie apart in mean accuracy, seed by seed; of a family of tasks, from all other rows too.

    Args:
        reports: Of every zoo and seed.

    Returns:
        One for each zoo and pair: ``{"zoo", "first", "second", "seeds", "mean", "std", "told_apart"}``: the first's mean accuracy less
        the second's, over the seeds that have both; ``told_apart``, whether a paired t-test rejects 0 at 5 %, is None with one seed.
    """
    found = []
    for zoo in dict.fromkeys(r.zoo for r in reports):
        mine = [r.results["rows"] for r in reports if r.zoo == zoo]
        seeds = [{row["name"]: row["accuracy"]["mean"] for row in rows if row["n"]} for rows in mine]
        listed = dict.fromkeys(row["name"] for rows in mine for row in rows if row["kind"] == "generator")
        others = [row["name"] for row in mine[0] if row["kind"] != "generator"] if mine[0][0].get("tasks") else []
        for first, second in [*combinations(listed, 2), *product(listed, others)]:
            gaps = [rows[first] - rows[second] for rows in seeds if first in rows and second in rows]
            if gaps:
                pair = {"zoo": zoo, "first": first, "second": second, "seeds": len(gaps)}
                found.append({**pair, **_spread(gaps), "told_apart": _told_apart(gaps)})
    return found


def summary_table(zoo: str, comparison: dict[str, Any]) -> Table:
    """One zoo's rows for the terminal: mean ± spread over seeds.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    rows = [row for row in comparison["summary"] if row["zoo"] == zoo]
    found = [name for name in FIGURES if any(name in row["figures"] for row in rows)]
    shown = [name for name in found if name not in ON_PAGE_ALONE]
    seeds = len(comparison["seeds"])
    table = Table(
        title=f"{zoo}, {seeds} seed{'s' if seeds > 1 else ''}", box=None, header_style="dim", title_justify="left"
    )
    table.add_column("networks", no_wrap=True)
    paper = paper_of(zoo, comparison)
    for name in [*shown, *(f"paper: {column}" for column in paper_columns(paper))]:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=name in shown)
    for row in rows:
        papers = [paper.get(row["name"], {}).get(column) for column in paper_columns(paper)]
        cells = [
            *(show(row["figures"].get(name), name) for name in shown),
            *("" if p is None else f"{100 * p:.1f}" for p in papers),
        ]
        table.add_row(starred(row), *cells, style="bold" if row["kind"] == "generator" else None)
    return table


def show(figure: dict[str, float | None] | None, name: str) -> str:
    """A figure as text, ``96.8 ± 0.2``; accuracies in percent.

    Args:
        figure: Mean and std over seeds; None where there is none.
        name: Of :data:`FIGURES`.
    """
    if figure is None or figure["mean"] is None:
        return "–"
    factor, digits = (100, 1) if name in _PERCENT else (1, 2)
    sign = "+" if name == "gap" else ""
    text = f"{factor * figure['mean']:{sign}.{digits}f}"
    return text if figure["std"] is None else f"{text} ± {factor * figure['std']:.{digits}f}"


def starred(row: dict[str, Any]) -> str:
    """A summary row's name, with a star where the generator saw seen tasks' data.

    Args:
        row: As :func:`summarise` makes it.
    """
    return row["name"] + "*" * (SAW_SEEN in row.get("flags", {}))


def verdicts(zoo: str, comparison: dict[str, Any]) -> list[str]:
    """What the generators of a family's zoo do beside every way that needs none: a sentence each; none for other zoos.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    generators = {row["name"]: row for row in comparison["summary"] if (row["zoo"], row["kind"]) == (zoo, "generator")}
    said = []
    for name, row in generators.items():
        found = comparison.get("differences", [])  # files written before they were measured have none
        pairs = [p for p in found if (p["zoo"], p["first"]) == (zoo, name)]
        judged: dict[str, list[str]] = {verb: [] for verb in JUDGEMENTS}
        for pair in pairs:
            if pair["second"] not in generators:
                spread = "" if pair["std"] is None else f" ± {100 * pair['std']:.1f}"
                gap = f"{100 * pair['mean']:+.1f}{spread}".replace("-", "−")
                other = f"{WAYS.get(pair['second'], pair['second'])} ({gap})"
                judged[_judgement(pair)].append(other)
        if any(judged.values()):
            clauses = "; ".join(f"{verb} {', '.join(others)}" for verb, others in judged.items() if others)
            of = f"paired over {row['seeds']} seeds, t-test at 5 %" if row["seeds"] > 1 else "one seed"
            said.append(f"{starred(row)} {clauses}. Points of unseen accuracy, {of}.")
    return said


WAYS = {  # rows in words
    "direct": "training on the unseen tasks themselves",
    "pooled": "one adapter for all tasks",
    "start": "the start of all adapters",
    "no adapter": "the network without an adapter",
    "nearest": "copying the nearest task",
    "average-2": "averaging two neighbours",
    "average-all": "averaging all tasks",
    "ridge": "ridge regression",
    "vote-5": "a vote of five neighbours",
    "random-init": "fresh weights",
    "nearest-noised": "a noised copy of the nearest task",
}


JUDGEMENTS = ("beats", "does not beat", "cannot be told from")


def _judgement(pair: dict[str, Any]) -> str:
    better, worse, alike = JUDGEMENTS
    return alike if pair["told_apart"] is False else better if pair["mean"] > 0 else worse


def _flags(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Each flag with the number of seeds that raised it, those of broken networks as one."""
    raised: Counter[str] = Counter()
    for row in rows:
        raised.update("networks hold NaN or inf" if flag.endswith("hold NaN or inf") else flag for flag in row["flags"])
    return dict(raised)


def _figure(row: dict[str, Any], zoo: dict[str, Any], name: str) -> float | None:
    if name == "gap":
        mean_accuracy = row["accuracy"]["mean"]
        return None if mean_accuracy is None else mean_accuracy - zoo["accuracy"]["mean"]
    return _VALUES[name](row)


def _told_apart(gaps: Sequence[float]) -> bool | None:
    """Whether a paired t-test rejects 0 at 5 %; equal gaps other than 0 do."""
    if len(gaps) < 2:
        return None
    error = stdev(gaps) / sqrt(len(gaps))
    return abs(mean(gaps)) > float(student_t.ppf(0.975, len(gaps) - 1)) * error


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}


def paper_of(zoo: str, comparison: dict[str, Any]) -> dict[str, dict[str, float]]:
    """A paper's figures for the rows of one zoo, ``{row: {column: fraction}}``: those given for ``zoo/row``, or for ``row`` everywhere.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    found: dict[str, dict[str, float]] = {}
    for key, figures in comparison["paper"].items():
        where, _, name = key.rpartition("/")
        if where in ("", zoo):
            found.setdefault(name, {}).update(figures)
    return found


def machine() -> str:
    """What this runs on, in a line: cores, processor, GPU, torch."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = found[1] if found else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    return f"{os.cpu_count()} cores of {processor}, {threads}, {gpu}, torch {torch.__version__}"


def paper_columns(paper: dict[str, dict[str, float]]) -> list[str]:
    """Columns of a paper's figures, in order of appearance."""
    return list(dict.fromkeys(column for row in paper.values() for column in row))
