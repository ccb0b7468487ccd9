"""``report.html``: one self-contained page made from ``results.json`` alone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from paramgen import __version__
from paramgen.core.counting import counted
from paramgen.core.score import ScoreSpec
from paramgen.evaluation.baselines import shown_in
from paramgen.evaluation.compare import paper_columns, paper_of, score_of, show, starred, with_figures
from paramgen.evaluation.flags import Flag, parse, say
from paramgen.evaluation.intervals import RESAMPLES
from paramgen.evaluation.metric import Metric, RowDict
from paramgen.evaluation.registry import METRICS, with_values
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.report import figures
from paramgen.report.picture import colour_of, to_plain
from paramgen.report.verdicts import LEVEL, between, over_seeds, verdict
from paramgen.report.view import ResultsDict


def page(results: ResultsDict) -> str:
    """The report of an evaluation, as HTML with no outside reference.

    Args:
        results: As ``results.json`` holds it.
    """
    evaluation = Evaluation(results)
    return _render("report.html.j2", e=evaluation, definitions=[*evaluation.columns, *evaluation.figures])


def comparison_page(comparison: dict[str, Any], results: Sequence[ResultsDict]) -> str:
    """The report of a comparison: the summary over seeds, then every evaluation's own report, as HTML with no outside reference.

    Args:
        comparison: As ``comparison.json`` holds it.
        results: Of each of its reports, in their order.
    """
    many = len(comparison["seeds"]) > 1
    evaluations = [
        Evaluation(own, f"{report['zoo']}, seed {report['seed']}" if many else report["zoo"])
        for report, own in zip(comparison["reports"], results, strict=True)
    ]
    zoos = dict.fromkeys(report["zoo"] for report in comparison["reports"])
    return _render(
        "comparison.html.j2",
        comparison=comparison,
        evaluations=evaluations,
        summaries=[(zoo, _summary(zoo, comparison)) for zoo in zoos],
        definitions=[*METRICS, PAPER, *figures.FIGURES],
    )


class Evaluation:
    """What the template shows of one evaluation.

    Args:
        results: As ``results.json`` holds it.
        title: Names it among others.
    """

    def __init__(self, results: ResultsDict, title: str = "") -> None:
        self.results, self.title, self.rows = results, title, results["rows"]
        self.spec = None if results["score"] is None else ScoreSpec.from_dict(results["score"])
        metrics = [m for m in with_values(self.rows) if m.report != "absent"]
        keys = {m.key for m in metrics}
        self.columns = [Column(m, m.hidden(keys), self.spec) for m in metrics]
        self.verdicts = [(row, verdict(row, results)) for row in self.rows if row["kind"] == "generator"]
        self.task = json.dumps(results["task"], indent=2)
        hidden = ("history", "fit_config")  # drawn, and shown apart
        info = {name: {k: v for k, v in i.items() if k not in hidden} for name, i in results["generators"].items()}
        self.generators = json.dumps(info, indent=2)
        pictures = figures.pictures_of(results)
        self.pictures = to_plain(pictures)
        self.figures = [figure for figure in figures.FIGURES if figure.key in pictures.pictures]
        self.family = bool(self.rows[0]["tasks"])
        available = shown_in("unseen_tasks" if self.family else "one_task")
        self.omitted = [name for name in available if name not in {row["name"] for row in self.rows}]

    def score(self, value: float | None) -> str:
        """A score without its unit, a dash where there is none."""
        return "–" if value is None or self.spec is None else self.spec.text(value)

    def colour(self, row: RowDict) -> str:
        """Class that gives a row its colour."""
        return colour_of(self.results["rows"], row)

    def flags_of(self, row: RowDict) -> list[str]:
        """The row's flags in words, those of one kind together."""
        return say(parse(row["flags"]))


@dataclass(frozen=True)
class Column:
    """A column of an evaluation's table: its metric, whether it is hidden until all figures are asked for, and the zoo's score."""

    metric: Metric
    more: bool
    spec: ScoreSpec | None

    @property
    def key(self) -> str:
        """The metric's."""
        return self.metric.key

    @property
    def title(self) -> str:
        """The metric's."""
        return self.metric.title

    @property
    def definition(self) -> str:
        """The metric's."""
        return self.metric.definition

    def value(self, row: RowDict) -> float | None:
        """To sort by."""
        return self.metric.value(row)

    def text(self, row: RowDict) -> str:
        """As printed."""
        return self.metric.text(row, self.spec)


@dataclass(frozen=True)
class Definition:
    """What a column of a summary is that is no metric."""

    key: str
    title: str
    definition: str


PAPER = Definition(
    "paper",
    "The paper's figure",
    "As printed in the paper, on the paper's own task: the head of this page says what smaller task was run here.",
)


@dataclass(frozen=True)
class Cell:
    """A figure of the summary: the number to sort by, its text, and whether it is hidden until all figures are asked for."""

    value: float | None
    text: str
    more: bool = False


@dataclass(frozen=True)
class Head:
    """A column's head: its text, the key of its definition, and whether it is hidden."""

    title: str
    key: str
    more: bool = False


@dataclass(frozen=True)
class Summary:
    """One zoo's rows over the seeds.

    Args:
        says: What the figures are means of.
        between: Differences between generators, in words.
        heads: Of the columns; a paper's column is next to ours of the same name.
        rows: ``{"name", "kind", "colour", "flags", "cells"}``.
    """

    says: str
    between: list[str]
    heads: list[Head]
    rows: list[dict[str, Any]]


def _summary(zoo: str, comparison: dict[str, Any]) -> Summary:
    rows = [row for row in comparison["summary"] if row["zoo"] == zoo]
    spec, metrics = score_of(zoo, comparison), with_figures(rows)
    keys = {m.key for m in metrics}
    published = paper_of(zoo, comparison)
    paper = paper_columns(published)
    heads, cells_of = list[Head](), list[Callable[[RowDict], Cell]]()
    for m in metrics:
        more = m.hidden(keys, m.summary)
        heads.append(Head(m.title, m.key, more))
        cells_of.append(partial(_cell, m, spec, more))
        if m.key in paper:
            heads.append(Head(f"paper: {m.key}", "paper"))
            cells_of.append(partial(_paper_cell, m.key, published, spec))
    for name in (name for name in paper if name not in keys):
        heads.append(Head(f"paper: {name}", "paper"))
        cells_of.append(partial(_paper_cell, name, published, spec))
    lines = [
        {
            "name": starred(row),
            "kind": row["kind"],
            "colour": colour_of(rows, row),
            "flags": _flags_of_seeds(row) if row["kind"] == "generator" or not row["figures"] else [],
            "cells": [cell(row) for cell in cells_of],
        }
        for row in rows
    ]
    generators = {row["name"] for row in rows if row["kind"] == "generator"}
    pairs = [pair for pair in comparison["differences"] if pair["zoo"] == zoo and pair["second"] in generators]
    sentences = [*over_seeds(zoo, comparison), *(between(pair, spec) for pair in pairs)]
    return Summary(_says(comparison["seeds"], rows, spec), sentences, heads, lines)


def _cell(of: Metric, spec: ScoreSpec, more: bool, row: RowDict) -> Cell:
    figure = row["figures"].get(of.key)
    return Cell(None if figure is None else figure["mean"], show(figure, of, spec), more)


def _paper_cell(name: str, published: dict[str, dict[str, float]], spec: ScoreSpec, row: RowDict) -> Cell:
    value = published.get(row["name"], {}).get(name)
    return Cell(value, "" if value is None else spec.text(value))


def _says(seeds: Sequence[int], rows: Sequence[dict[str, Any]], spec: ScoreSpec) -> str:
    n = max((row["n"] for row in rows if row["kind"] != "reference"), default=rows[0]["n"])
    unit = f" in{spec.symbol}" if spec.symbol else ""
    better = "" if spec.higher_is_better else " (lower is better)"
    measured = f"{counted(n, 'network')} per row and seed"
    scored = any("mean" in row["figures"] for row in rows)  # not of a zoo without a task
    measured += f"; the score is {spec.name}{unit}{better} on test." if scored else "."
    if len(seeds) == 1:
        return f"One seed, so no spread over seeds. {measured}"
    return f"Mean ± standard deviation over {len(seeds)} seeds of the whole pipeline; {measured}"


def _flags_of_seeds(row: dict[str, Any]) -> list[str]:
    """Flags of a summary's row; those that not every seed raised say how many did."""
    texts = []
    for seeds in sorted({flag["seeds"] for flag in row["flags"]}, reverse=True):
        words = say([Flag(f["kind"], f["detail"]) for f in row["flags"] if f["seeds"] == seeds])
        texts += words if seeds == row["seeds"] else [f"{text} ({seeds} of {row['seeds']} seeds)" for text in words]
    return texts


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
