"""``report.html``: one self-contained page made from ``results.json`` alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from paramgen import __version__
from paramgen.evaluation.compare import FIGURES, paper_columns, paper_of, show, starred
from paramgen.evaluation.evaluate import ALL_BASELINES
from paramgen.evaluation.flags import Flag, parse, say
from paramgen.evaluation.intervals import RESAMPLES
from paramgen.evaluation.registry import BY_KEY, COLUMNS, GAP, PAPER, RowDict
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.evaluation.unseen import FAMILY_BASELINES
from paramgen.report import figures
from paramgen.report.verdicts import LEVEL, between, over_seeds, verdict

Results = dict[str, Any]
WAITING = (
    "median",
    "min",
    "std",
    "iou",
    "id_match",
    "run_match",
    "fit_seconds",
)  # of a summary, shown when all figures are asked for


def page(results: Results) -> str:
    """The report of an evaluation, as HTML with no outside reference.

    Args:
        results: As ``results.json`` holds it.
    """
    evaluation = Evaluation(results)
    return _render("report.html.j2", e=evaluation, definitions=[*evaluation.columns, *evaluation.figures])


def comparison_page(comparison: dict[str, Any], results: Sequence[Results]) -> str:
    """The report of a comparison: the summary over seeds, then every evaluation's own report, as HTML with no outside reference.

    Args:
        comparison: As ``comparison.json`` holds it.
        results: Of each of its reports, in their order.
    """
    many = len(comparison["seeds"]) > 1
    evaluations = [
        Evaluation(found, f"{report['zoo']}, seed {report['seed']}" if many else report["zoo"])
        for report, found in zip(comparison["reports"], results, strict=True)
    ]
    zoos = dict.fromkeys(report["zoo"] for report in comparison["reports"])
    return _render(
        "comparison.html.j2",
        comparison=comparison,
        evaluations=evaluations,
        summaries=[(zoo, _summary(zoo, comparison)) for zoo in zoos],
        definitions=[*COLUMNS, GAP, PAPER, *figures.FIGURES],
    )


class Evaluation:
    """What the template shows of one evaluation.

    Args:
        results: As ``results.json`` holds it.
        title: Names it among others.
    """

    def __init__(self, results: Results, title: str = "") -> None:
        self.results, self.title, self.rows = results, title, results["rows"]
        shown = [c for c in COLUMNS if any(c.value(row) is not None for row in self.rows)]
        keys = {c.key for c in shown}
        self.columns = [replace(c, more=c.waits(keys)) for c in shown]
        self.verdicts = [(row, verdict(row, results)) for row in self.rows if row["kind"] == "generator"]
        self.task = json.dumps(results["task"], indent=2)
        hidden = ("history", "fit_config")  # drawn, and shown apart
        info = {name: {k: v for k, v in i.items() if k not in hidden} for name, i in results["generators"].items()}
        self.generators = json.dumps(info, indent=2)
        self.figures = figures.shown(results)
        self.family = bool(self.rows[0].get("tasks"))
        known = FAMILY_BASELINES if self.family else ALL_BASELINES
        self.omitted = [name for name in known if name not in {row["name"] for row in self.rows}]

    def colour(self, row: RowDict) -> str:
        """Class that gives a row its colour."""
        return figures.colour(self.results["rows"], row)

    def flags_of(self, row: RowDict) -> list[str]:
        """The row's flags in words, those of one kind together."""
        return say(parse(row["flags"]))


@dataclass(frozen=True)
class Cell:
    """A figure of the summary: the number to sort by, its text, and whether it waits until all figures are asked for."""

    value: float | None
    text: str
    more: bool = False


@dataclass(frozen=True)
class Head:
    """A column's head: its text, the column that defines it, and whether it waits."""

    title: str
    key: str
    more: bool = False


@dataclass(frozen=True)
class Summary:
    """One zoo's rows over the seeds.

    Args:
        says: What the figures are means of.
        between: Differences between generators, in words.
        heads: Of the columns, a paper's beside ours of the same name.
        rows: ``{"name", "kind", "colour", "flags", "cells"}``.
    """

    says: str
    between: list[str]
    heads: list[Head]
    rows: list[dict[str, Any]]


def _summary(zoo: str, comparison: dict[str, Any]) -> Summary:
    rows = [row for row in comparison["summary"] if row["zoo"] == zoo]
    shown = [name for name in FIGURES if any(name in row["figures"] for row in rows)]
    theirs = paper_of(zoo, comparison)
    paper = paper_columns(theirs)
    layout = [  # (name, whether it is the paper's)
        *(pair for name in shown for pair in [(name, False), *([(name, True)] if name in paper else [])]),
        *((name, True) for name in paper if name not in shown),
    ]
    heads = [
        Head(f"paper: {name}", "paper") if of_paper else Head(BY_KEY[name].title, name, _waits(name, shown))
        for name, of_paper in layout
    ]
    made = []
    for row in rows:
        cells = [
            _paper_cell(theirs.get(row["name"], {}).get(name))
            if of_paper
            else _cell(row["figures"].get(name), name, _waits(name, shown))
            for name, of_paper in layout
        ]
        who = {"name": starred(row), "kind": row["kind"], "colour": figures.colour(rows, row)}
        made.append(
            {
                **who,
                "flags": _flags_of_seeds(row) if row["kind"] == "generator" or not row["figures"] else [],
                "cells": cells,
            }
        )
    generators = {row["name"] for row in rows if row["kind"] == "generator"}
    apart = [pair for pair in comparison["differences"] if pair["zoo"] == zoo and pair["second"] in generators]
    said = [*over_seeds(zoo, comparison), *(between(pair) for pair in apart)]
    return Summary(_says(comparison["seeds"], rows), said, heads, made)


def _waits(name: str, shown: Sequence[str]) -> bool:
    return name in WAITING or BY_KEY[name].behind in shown


def _cell(figure: dict[str, float | None] | None, name: str, waits: bool) -> Cell:
    text = show(figure, name).replace("-", "−")
    return Cell(None if figure is None else figure["mean"], text, waits)


def _paper_cell(value: float | None) -> Cell:
    return Cell(value, "" if value is None else f"{100 * value:.1f}")


def _says(seeds: Sequence[int], rows: Sequence[dict[str, Any]]) -> str:
    n = max((row["n"] for row in rows if row["kind"] != "reference"), default=rows[0]["n"])
    measured = f"{n} networks a row and seed, accuracies in percent of the test images."
    if len(seeds) == 1:
        return f"One seed, so no spread over seeds. {measured}"
    return f"Mean ± standard deviation over {len(seeds)} seeds of the whole pipeline; {measured}"


def _flags_of_seeds(row: dict[str, Any]) -> list[str]:
    """Flags of a summary's row; those that not every seed raised say how many did."""
    said = []
    for seeds in sorted({flag["seeds"] for flag in row["flags"]}, reverse=True):
        words = say([Flag(f["kind"], f["detail"]) for f in row["flags"] if f["seeds"] == seeds])
        said += words if seeds == row["seeds"] else [f"{text} ({seeds} of {row['seeds']} seeds)" for text in words]
    return said


def _render(template: str, **values: object) -> str:
    environment = Environment(
        loader=PackageLoader("paramgen.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def asset(name: str) -> Markup:
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    return environment.get_template(template).render(
        asset=asset, version=__version__, thresholds=THRESHOLDS, level=LEVEL, resamples=RESAMPLES, **values
    )
