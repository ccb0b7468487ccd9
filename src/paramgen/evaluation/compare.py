"""Several evaluations in one comparison: means over seeds with their spread, a paper's figures next to ours.

The spread is the standard deviation over seeds of each seed's figure; differences to the zoo are paired by seed.
"""

import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.table import Table

from paramgen.core.counting import counted
from paramgen.core.io import read_json
from paramgen.core.score import ScoreSpec
from paramgen.evaluation.flags import PER_SEED, Flag, parse
from paramgen.evaluation.intervals import Interval, Verdict, holm, paired_interval, paired_p
from paramgen.evaluation.metric import Metric
from paramgen.evaluation.registry import METRICS, metric
from paramgen.evaluation.thresholds import THRESHOLDS


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
        results: dict[str, Any] = read_json(self.path, "results")
        return results


def summarise(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """One row for each zoo and name: every metric's mean and spread over the seeds.

    Args:
        reports: Of every zoo and seed.

    Returns:
        ``{"zoo", "name", "kind", "role", "n", "seeds", "figures": {key: {"mean", "std", "mark"}}, "flags": [{"kind", "detail",
        "seeds"}]}``, n networks per seed; std is None with fewer than two seeds; the mark is printed before the figure where every seed has
        it; each flag with the number of seeds that raised it.
    """
    summary = []
    for zoo in dict.fromkeys(r.zoo for r in reports):
        results = [r.results["rows"] for r in reports if r.zoo == zoo]
        for name in dict.fromkeys(row["name"] for rows in results for row in rows):
            rows = [row for rows in results for row in rows if row["name"] == name]
            values = {m.key: [v for row in rows if (v := m.value(row)) is not None] for m in in_summary()}
            figures = {
                key: {**_spread(by_seed), "mark": _mark(metric(key), rows)}
                for key, by_seed in values.items()
                if len(by_seed) == len(rows)
            }
            who = {key: rows[0][key] for key in ("name", "kind", "role")} | {"n": max(row["n"] for row in rows)}
            summary.append({"zoo": zoo, **who, "seeds": len(rows), "figures": figures, "flags": _flags(rows)})
    return summary


def in_summary() -> list[Metric]:
    """The metrics that a summary over seeds shows."""
    return [m for m in METRICS if m.summary != "absent"]


def score_of(zoo: str, comparison: dict[str, Any]) -> ScoreSpec:
    """What the networks of a zoo are scored by.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    return ScoreSpec.from_dict(comparison["scores"][zoo])


def differences(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """How far each generator of a zoo lies from the other generators and from the baselines in mean score, seed by seed.

    For a family of tasks the references are among the baselines: what direct training and the start reach.

    Args:
        reports: Of every zoo and seed.

    Returns:
        One for each zoo and pair: ``{"zoo", "first", "second", "seeds", "mean", "std", "low", "high", "p", "verdict"}``: the first's mean
        score less the second's over the seeds that have both, its 95 % interval, the p-value of a paired t-test after Holm's correction
        over the comparisons of the generator (over all pairs of generators), and ``better``, ``alike`` or ``worse``. With one seed the
        interval is that evaluation's own, over networks and test items, and p is None.
    """
    compared = []
    for zoo in dict.fromkeys(r.zoo for r in reports):
        seeds = [{row["name"]: row for row in r.results["rows"] if row["n"]} for r in reports if r.zoo == zoo]
        seeds = [{name: row for name, row in rows.items() if _mean(row) is not None} for rows in seeds]
        spec = ScoreSpec.from_dict(next(r.results["score"] for r in reports if r.zoo == zoo))
        kinds = {name: row["kind"] for rows in seeds for name, row in rows.items()}
        generators = [name for name, kind in kinds.items() if kind == "generator"]
        family = any(row.get("tasks") for rows in seeds for row in rows.values())
        others = [name for name, kind in kinds.items() if kind == "baseline" or (family and kind == "reference")]
        for pairs in (list(combinations(generators, 2)), *([(g, o) for o in others] for g in generators)):
            compared += [{"zoo": zoo, **pair} for pair in _compared(pairs, seeds, spec.sign)]
    return compared


def _compared(
    pairs: Sequence[tuple[str, str]], seeds: Sequence[dict[str, dict[str, Any]]], sign: int
) -> list[dict[str, Any]]:
    """Differences of pairs of rows, corrected together."""
    both = {(a, b): [(rows[a], rows[b]) for rows in seeds if a in rows and b in rows] for a, b in pairs}
    both = {pair: rows for pair, rows in both.items() if rows}
    gaps = {pair: [_mean(a) - _mean(b) for a, b in rows] for pair, rows in both.items()}
    corrected = holm([paired_p(values) for values in gaps.values()])
    compared = []
    for (pair, values), p in zip(gaps.items(), corrected, strict=True):
        tested = len(values) > 1
        interval = paired_interval(values) if tested else _within_seed(*both[pair][0])
        verdict: Verdict = interval.verdict(sign)
        if tested:
            verdict = "alike" if p >= 1 - THRESHOLDS.level else "better" if sign * interval.difference > 0 else "worse"
        low, high = (None if isnan(end) else end for end in (interval.low, interval.high))
        judged = {"low": low, "high": high, "p": p if tested else None, "verdict": verdict}
        compared.append({"first": pair[0], "second": pair[1], "seeds": len(values), **_spread(values), **judged})
    return compared


def _within_seed(row: dict[str, Any], other: dict[str, Any]) -> Interval:
    """The interval of one evaluation."""
    for pair in row["against"]:
        if pair["name"] == other["name"]:
            ends = (pair["score"]["low"], pair["score"]["high"])
            return Interval(pair["score"]["difference"], *(nan if end is None else end for end in ends))
    return Interval(_mean(row) - _mean(other), nan, nan)


def summary_table(zoo: str, comparison: dict[str, Any]) -> Table:
    """One zoo's rows for the terminal: mean ± spread over seeds.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    rows = [row for row in comparison["summary"] if row["zoo"] == zoo]
    spec, available = score_of(zoo, comparison), with_figures(rows)
    keys = {m.key for m in available}
    columns = [m for m in available if not m.hidden(keys, m.summary)]
    seeds = len(comparison["seeds"])
    scored = f"{spec.name}, " if "mean" in keys else ""
    title = f"{zoo}, {scored}{counted(seeds, 'seed')}"
    table = Table(title=title, box=None, header_style="dim", title_justify="left")
    table.add_column("networks", no_wrap=True)
    paper = paper_of(zoo, comparison)
    for m in columns:
        table.add_column(m.key.replace("_", " "), justify="right", overflow="fold")  # never cut
    for column in paper_columns(paper):
        table.add_column(f"paper: {column}", justify="right", overflow="fold")
    for row in rows:
        papers = [paper.get(row["name"], {}).get(column) for column in paper_columns(paper)]
        cells = [
            *(show(row["figures"].get(m.key), m, spec) for m in columns),
            *("" if p is None else spec.text(p) for p in papers),
        ]
        table.add_row(starred(row), *cells, style="bold" if row["kind"] == "generator" else None)
    return table


def with_figures(rows: Sequence[dict[str, Any]]) -> list[Metric]:
    """The metrics that some rows of a summary have a figure of."""
    return [m for m in in_summary() if any(m.key in row["figures"] for row in rows)]


def show(figure: dict[str, Any] | None, of: Metric, spec: ScoreSpec) -> str:
    """A figure as text, ``96.8 ± 0.2``.

    Args:
        figure: Mean and std over seeds; None where there is none.
        of: The metric.
        spec: What networks are scored by.
    """
    if figure is None or figure["mean"] is None:
        return "–"
    text = figure.get("mark", "") + of.form.show(figure["mean"], spec)
    return text if figure["std"] is None else f"{text} ± {of.spread(figure['std'], spec)}"


def starred(row: dict[str, Any]) -> str:
    """A summary row's name, with a star where the generator saw seen tasks' data.

    Args:
        row: As :func:`summarise` makes it.
    """
    name: str = row["name"]
    return name + "*" * any(flag["kind"] == "seen_data" for flag in row["flags"])


def _mark(of: Metric, rows: Sequence[dict[str, Any]]) -> str:
    marks = {of.mark(row["values"]) for row in rows}
    return marks.pop() if len(marks) == 1 else ""


def _flags(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each flag with the number of seeds that raised it; counts of one seed's networks are left out."""
    raised: Counter[Flag] = Counter()
    for row in rows:
        flags = [flag._replace(detail=None) if flag.kind in PER_SEED else flag for flag in parse(row["flags"])]
        raised.update(dict.fromkeys(flags, 1))  # once a seed, in the order of the row
    return [{**flag._asdict(), "seeds": seeds} for flag, seeds in raised.items()]


def _mean(row: dict[str, Any]) -> Any:
    return row["values"]["mean"]


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}


def paper_of(zoo: str, comparison: dict[str, Any]) -> dict[str, dict[str, float]]:
    """A paper's figures for the rows of one zoo, ``{row: {column: fraction}}``: those given for ``zoo/row``, or for ``row`` everywhere.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    by_row: dict[str, dict[str, float]] = {}
    for key, figures in comparison["paper"].items():
        where, _, name = key.rpartition("/")
        if where in ("", zoo):
            by_row.setdefault(name, {}).update(figures)
    return by_row


def machine() -> str:
    """What this runs on, in a line: cores, processor, GPU, torch."""
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = match[1] if match else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = counted(torch.get_num_threads(), "thread")
    return f"{os.cpu_count()} cores of {processor}, {threads}, {gpu}, torch {torch.__version__}"


def paper_columns(paper: dict[str, dict[str, float]]) -> list[str]:
    """Columns of a paper's figures, in order of appearance."""
    return list(dict.fromkeys(column for row in paper.values() for column in row))
