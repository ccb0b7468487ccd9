"""``report.html``: one self-contained page made from ``results.json`` alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from paramgen import __version__, figures
from paramgen.columns import COLUMNS, GAP, PAPER, RowDict
from paramgen.comparison import FIGURES, WAYS, paper_columns, paper_of, show, starred, verdicts
from paramgen.evaluation import ALL_BASELINES
from paramgen.unseen import FAMILY_BASELINES

Results = dict[str, Any]
NO_BETTER = "no better than "
HELDOUT_BEYOND = (
    1.25  # nn_ratio of held-out runs from which tau is no measure of a new network: checkpoints of a run lie closer
)
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
        self.columns = [c for c in COLUMNS if any(c.value(row) is not None for row in self.rows)]
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

    def short_flags(self, row: RowDict) -> list[str]:
        """The row's flags, those of the same beginning as one."""
        return short_flags(row)


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
    by_key = {c.key: c for c in [*COLUMNS, GAP]}
    shown = [name for name in FIGURES if any(name in row["figures"] for row in rows)]
    theirs = paper_of(zoo, comparison)
    paper = paper_columns(theirs)
    layout = [  # (name, whether it is the paper's)
        *(pair for name in shown for pair in [(name, False), *([(name, True)] if name in paper else [])]),
        *((name, True) for name in paper if name not in shown),
    ]
    heads = [
        Head(f"paper: {name}", "paper") if of_paper else Head(by_key[name].title, name, name in WAITING)
        for name, of_paper in layout
    ]
    made = []
    for row in rows:
        cells = [
            _paper_cell(theirs.get(row["name"], {}).get(name)) if of_paper else _cell(row["figures"].get(name), name)
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
    said = {row["name"] for row in rows if row["kind"] != "generator"}  # by the verdicts
    apart = [pair for pair in comparison["differences"] if pair["zoo"] == zoo and pair["second"] not in said]
    between = [*verdicts(zoo, comparison), *(_difference(pair) for pair in apart)]
    return Summary(_says(comparison["seeds"], rows), between, heads, made)


def _cell(figure: dict[str, float | None] | None, name: str) -> Cell:
    text = show(figure, name).replace("-", "−")
    return Cell(None if figure is None else figure["mean"], text, name in WAITING)


def _paper_cell(value: float | None) -> Cell:
    return Cell(value, "" if value is None else f"{100 * value:.1f}")


def _says(seeds: Sequence[int], rows: Sequence[dict[str, Any]]) -> str:
    n = max((row["n"] for row in rows if row["kind"] != "reference"), default=rows[0]["n"])
    measured = f"{n} networks a row and seed, accuracies in percent of the test images."
    if len(seeds) == 1:
        return f"One seed, so no spread over seeds: small differences mean nothing. {measured}"
    return f"Mean ± standard deviation over {len(seeds)} seeds of the whole pipeline; {measured}"


def _difference(pair: dict[str, Any]) -> str:
    gap = f"{100 * pair['mean']:+.1f}".replace("-", "−")
    said = f"{pair['first']} less {pair['second']}: {gap}"
    if pair["std"] is None:
        return f"{said} points in mean accuracy, of one seed."
    judged = "told apart" if pair["told_apart"] else "not told apart"
    return f"{said} ± {100 * pair['std']:.1f} points in mean accuracy, paired over {pair['seeds']} seeds: {judged} (t-test, 5 %)."


def _render(template: str, **values: object) -> str:
    environment = Environment(
        loader=PackageLoader("paramgen"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def asset(name: str) -> Markup:
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    return environment.get_template(template).render(asset=asset, version=__version__, **values)


def verdict(row: RowDict, results: Results) -> list[str]:
    """What a generator's figures mean, in sentences.

    Args:
        row: The generator's row.
        results: All of it; the zoo's row comes first.
    """
    zoo = results["rows"][0]
    heldout = next((r for r in results["rows"] if r["name"] == "held-out runs"), None)
    if row.get("tasks"):
        return [*_on_unseen_tasks(row, results["rows"]), *_on_storage(row["name"], results)]
    sentences = [_on_accuracy(row, zoo)]
    if row["nn_ratio"] is not None:
        sentences.append(_on_distance(row, heldout))
        noisy = accuracy_of_noise(row["nn_ratio"], results["rows"])
        if noisy is not None:
            sentences.append(f"Training networks with white noise that far away average {100 * noisy:.1f} %.")
    if row["dispersion"] is not None:
        sentences.append(_on_dispersion(row["dispersion"]))
    better = [flag.removeprefix(NO_BETTER) for flag in row["flags"] if flag.startswith(NO_BETTER)]
    if better:
        verb = "is" if len(better) == 1 else "are"
        sentences.append(
            f"{_listed(better)} {verb} at least as accurate and at least as far from the zoo: here the generator shows nothing that "
            "simpler means do not."
        )
    if row["nonfinite"]:
        sentences.append(f"{row['nonfinite']} of its {row['n']} networks hold NaN or inf.")
    if row["uses_task_data"]:
        sentences.append("It saw the task's data while it was trained, which the other rows did not.")
    return sentences + _on_storage(row["name"], results)


def _on_storage(name: str, results: Results) -> list[str]:
    """What storing the generator takes, in networks."""
    stored = results["generators"].get(name, {}).get("generator_bytes")
    if stored is None:
        return []
    network = 4 * results["params"]  # float32
    return [
        f"Stored, it takes {stored / 1e6:,.3g} MB, as much as {ceil(stored / network):,} networks of {network / 1e3:,.3g} kB; "
        f"it learned from {results['networks']:,}."
    ]


def _on_unseen_tasks(row: RowDict, rows: Sequence[RowDict]) -> list[str]:
    """The same for a generator of networks for unseen tasks; direct training is the first row."""
    unseen, mean = row["tasks"]["unseen"], row["accuracy"]["mean"]
    direct = rows[0]["accuracy"]["mean"]
    worst = min(unseen, key=unseen.__getitem__)
    side = "above" if mean > direct else "below"
    sentences = [
        f"On {len(unseen)} unseen tasks its networks average {100 * mean:.1f} %, {100 * abs(mean - direct):.1f} points {side} training "
        f"on these tasks themselves; on the worst, {worst}, {100 * unseen[worst]:.1f} %."
    ]
    ways: dict[bool, list[str]] = {True: [], False: []}
    for other in rows[1:]:
        if other["kind"] != "generator" and other["n"]:
            gap = 100 * (mean - other["accuracy"]["mean"])
            ways[gap > 0].append(f"{WAYS.get(other['name'], other['name'])} ({gap:+.1f})".replace("-", "−"))
    sentences += [f"It beats {_listed(ways[True])}."] if ways[True] else []
    sentences += [f"It does not beat {_listed(ways[False])}."] if ways[False] else []
    if row["nonfinite"]:
        sentences.append(f"{row['nonfinite']} of its {row['n']} networks hold NaN or inf.")
    if row["uses_task_data"]:
        sentences.append("It was trained on the data of seen tasks, which the ways that need no generator were not.")
    return sentences


def accuracy_of_noise(ratio: float, rows: list[RowDict]) -> float | None:
    """Mean accuracy of noised copies at a distance, between the two nearest of the noise sweep; None beyond it.

    Args:
        ratio: nn_ratio to look at.
        rows: All rows.
    """
    sweep = sorted(
        (r["nn_ratio"], r["accuracy"]["mean"]) for r in rows if r["name"].startswith("noise-") and r["nn_ratio"]
    )
    for (near, there), (far, beyond) in pairwise(sweep):
        if near <= ratio <= far:
            share = log(ratio / near) / log(far / near) if far > near else 0.0
            return there + share * (beyond - there)
    return None


def short_flags(row: RowDict) -> list[str]:
    """The row's flags, those of the same beginning as one."""
    return _joined(row["flags"])


def _flags_of_seeds(row: dict[str, Any]) -> list[str]:
    """Flags of a summary's row; those that not every seed raised say how many did."""
    return _joined(
        [f if k == row["seeds"] else f"{f} ({k} of {row['seeds']} seeds)" for f, k in row.get("flags", {}).items()]
    )


def _joined(flags: Sequence[str]) -> list[str]:
    """Flags, those of the same beginning as one."""
    better = [flag.removeprefix(NO_BETTER) for flag in flags if flag.startswith(NO_BETTER)]
    others = [flag for flag in flags if not flag.startswith(NO_BETTER)]
    return others + ([NO_BETTER + ", ".join(better)] if better else [])


def _on_accuracy(row: RowDict, zoo: RowDict) -> str:
    mean, reference = row["accuracy"]["mean"], zoo["accuracy"]["mean"]
    gap = 100 * (mean - reference)
    spread = 100 * (zoo["accuracy"]["std"] or 0)
    side = "above" if gap >= 0 else "below"
    inside = ", inside the zoo's own spread" if abs(gap) <= spread else ""
    selected = row["accuracy"]["selected"]
    best = "" if selected is None else f"; the one best on train has {100 * selected:.1f} %"
    return (
        f"Its {row['n']} networks average {100 * mean:.1f} %, {abs(gap):.1f} points {side} the zoo's {100 * reference:.1f} %"
        f"{inside}{best}."
    )


def _on_distance(row: RowDict, heldout: RowDict | None) -> str:
    ratio = row["nn_ratio"]
    fresh = heldout["nn_ratio"] if heldout else None
    beside = "" if fresh is None else f", held-out runs at {fresh:.2f}"
    meaning = (
        "they are copies with small changes"
        if ratio < 0.25
        else "farther than neighbouring checkpoints of one run are from each other, nearer than held-out runs"
        if ratio > 1 and fresh is not None and fresh > HELDOUT_BEYOND and ratio < 0.8 * fresh
        else "nearer to a training network than training networks are to each other"
        if ratio < 0.8
        else "as far from the training networks as these are from each other"
        if ratio < 1.25
        else "farther from the training networks than these are from each other"
    )
    aligned = row["nn_ratio_aligned"]
    up_to = "" if aligned is None else f" Up to permutation and scale they lie at {aligned:.2f}."
    return f"They lie at {ratio:.2f} of the zoo's own nearest-neighbour distance{beside}: {meaning}.{up_to}"


def _on_dispersion(dispersion: float) -> str:
    if dispersion < 0.5:
        return f"Dispersion {dispersion:.2f}: the generator has collapsed towards one network, whatever its accuracy."
    if dispersion < 0.8:
        return f"Dispersion {dispersion:.2f}: narrower than the zoo."
    return f"Dispersion {dispersion:.2f}: as varied as the zoo, or more."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
