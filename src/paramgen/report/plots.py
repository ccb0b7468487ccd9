"""PNG pictures of an evaluation, made from ``results.json`` alone: scores, score against distance, the zoo's plane, dispersion."""

from collections.abc import Callable, Sequence
from math import inf, isfinite, log10
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from paramgen.core.io import replacing
from paramgen.core.score import ScoreSpec
from paramgen.evaluation.novelty import Unit
from paramgen.evaluation.thresholds import THRESHOLDS

Results = dict[str, Any]
RowDict = dict[str, Any]

COLOURS = ("#1257c9", "#c2470b", "#0b7f5b", "#7a3fd1", "#b0186a", "#7d6608")  # generators, as on the page
RATIOS = {"run": "run_ratio", "step": "nn_ratio"}  # what is drawn, by the unit of the distances
AXES = {
    "run": "run_ratio: distance to the nearest training network, over a new run's",
    "step": "nn_ratio: distance to the nearest training network, in steps between neighbouring checkpoints",
}
PLACES = {"run": "over a new run's distance", "step": "in steps"}
INK, GREY = "#17191e", "#9a9fa7"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e3e3de",
    "axes.axisbelow": True,
    "font.size": 9,
    "figure.facecolor": "white",
}


def save_plots(results: Results, folder: Path) -> list[Path]:
    """Draw every picture into a folder.

    Args:
        results: As ``results.json`` holds it.
        folder: Made if it does not exist.

    Returns:
        The files.
    """
    files = []
    results = {**results, "rows": [row for row in results["rows"] if row["n"]]}  # not of baselines that failed
    pictures: dict[str, Callable[[Results], Figure]] = {"map": principal_map, "dispersion": dispersions}
    if results["score"] is not None:
        pictures = {"score": scores, "plane": plane, **pictures}
    for name, draw in pictures.items():
        with mpl.rc_context(STYLE):
            figure = draw(results)
            files.append(folder / f"{name}.png")
            _write(figure, files[-1])
    return files


class Group(NamedTuple):
    """Networks to draw in the course of a fit, one value a network.

    Args:
        score: On the val split.
        distance: To the nearest training network, in the unit.
        xy: Place in the plane of the zoo's first two principal components, in the unit.
        dispersion: Spread over the zoo's spread.
    """

    score: Sequence[float]
    distance: Sequence[float]
    xy: Sequence[Sequence[float]]
    dispersion: float


def fit_figures(
    training: Group, samples: Group, spec: ScoreSpec, items: int, unit: Unit, checkpoints: int
) -> dict[str, Figure]:
    """The report's pictures of a fit's last samples next to training networks.

    Args:
        training: Some of the zoo's networks.
        samples: As many of the generator's.
        spec: What networks are scored by.
        items: Val items that they are scored on.
        unit: Of the distances.
        checkpoints: The most training networks of one run.
    """
    rows = [_row("zoo", "reference", "zoo", training, unit), _row("samples", "generator", "generator", samples, unit)]
    results = {"rows": rows, "score": spec.to_dict(), "test_items": items, "measured_on": "val"}
    results |= {"good_from": spec.floor(rows[0]["values"]["mean"]), "unit": unit, "checkpoints": checkpoints}
    with mpl.rc_context(STYLE):
        return {name: draw(results) for name, draw in (("score", scores), ("plane", plane), ("map", principal_map))}


def _row(name: str, kind: str, role: str, group: Group, unit: Unit) -> RowDict:
    values = {"mean": mean(group.score), RATIOS[unit]: median(group.distance), "dispersion": group.dispersion}
    points = {"score": group.score, "distance": group.distance, "xy": group.xy}
    return {"name": name, "kind": kind, "role": role, "noise": None, "points": points, "values": values}


def scores(results: Results) -> Figure:
    """A strip of dots per row: the test score of each network; the bar is the mean, the dotted line the zoo's mean."""
    rows = results["rows"][::-1]
    figure, axes = _figure(7, 0.6 + 0.28 * len(rows))
    axis = _ScoreAxis(results)
    drawn = [[axis.place(v) for v in row["points"]["score"] if _finite(v)] for row in rows]
    for y, (row, values) in enumerate(zip(rows, drawn, strict=True)):
        heights = [y + ((i * 0.618) % 1 - 0.5) * 0.5 for i in range(len(values))]
        axes.scatter(values, heights, s=7, alpha=0.4, color=_colour(results, row), linewidths=0)
        if _finite(row["values"]["mean"]):
            at = axis.place(row["values"]["mean"])
            axes.vlines(at, y - 0.35, y + 0.35, color=_colour(results, row), linewidth=2)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    if _finite(results["rows"][0]["values"]["mean"]):
        axes.axvline(axis.place(results["rows"][0]["values"]["mean"]), color=INK, linestyle=":", linewidth=1)
    axis.draw(axes, "x", [v for row, values in zip(rows, drawn, strict=True) if _trained(row) for v in values])
    return figure


def plane(results: Results) -> Figure:
    """Mean score against distance: far and good is up and to the right; the noise sweep is a line."""
    figure, axes = _figure(6.4, 4.6)
    axis, ratio = _ScoreAxis(results), RATIOS[results["unit"]]
    rows = [row for row in results["rows"] if _finite(row["values"][ratio]) and _finite(row["values"]["mean"])]
    spots = {row["name"]: (row["values"][ratio], axis.place(row["values"]["mean"])) for row in rows}
    sweep = sorted(spots[row["name"]] for row in rows if row["noise"] is not None)
    if results["unit"] == "run" and results["checkpoints"] > 1:
        axes.axvspan(-0.01, THRESHOLDS.within_run, color=COLOURS[1], alpha=0.08, linewidth=0)
        axes.text(0, 1.01, "within a run", transform=axes.get_xaxis_transform(), fontsize=8, color=INK)
    axes.plot([x for x, _ in sweep], [y for _, y in sweep], color=GREY, linewidth=1)
    for row in rows:
        face = "white" if row["role"] == "heldout" else _colour(results, row)
        size = 44 if row["kind"] == "generator" else 22
        axes.scatter(*spots[row["name"]], s=size, color=face, edgecolors=_colour(results, row), zorder=3)
    axes.axvline(1, color=INK, linestyle=":", linewidth=1)
    if _finite(results["good_from"]):
        axes.axhline(axis.place(results["good_from"]), color=INK, linestyle=":", linewidth=1)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlim(left=-0.01)
    ticks = [t for t in (0, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000) if t <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_xlabel(AXES[results["unit"]])
    axis.draw(axes, "y", [spots[row["name"]][1] for row in rows if _trained(row)])
    _name(axes, results, rows, spots)
    return figure


def principal_map(results: Results) -> Figure:
    """Networks in the plane of the zoo's first two principal components, in the unit of the distances."""
    figure, axes = _figure(6.4, 4.6)
    shown = [r for r in results["rows"] if r["kind"] != "baseline" or r["noise"] == 1]
    for row in sorted(shown, key=lambda r: ("baseline", "reference", "generator").index(r["kind"])):
        points = [p for p in row["points"]["xy"] if None not in p]
        if points:
            x, y = ([p[i] for p in points] for i in (0, 1))
            axes.scatter(x, y, s=10, alpha=0.6, color=_colour(results, row), linewidths=0, label=row["name"])
    axes.set_xlabel(f"first principal component of the zoo, {PLACES[results['unit']]}")
    axes.set_ylabel("second")
    axes.legend(frameon=False, fontsize=8)
    return figure


def dispersions(results: Results) -> Figure:
    """Spread of each row over the zoo's: in the shaded band a generator has collapsed."""
    rows = [row for row in results["rows"][::-1] if _finite(row["values"]["dispersion"])]
    figure, axes = _figure(7, 0.6 + 0.24 * len(rows))
    axes.axvspan(0, THRESHOLDS.collapsed, color=COLOURS[1], alpha=0.08, linewidth=0)
    axes.axvline(1, color=INK, linestyle=":", linewidth=1)
    axes.scatter(
        [min(row["values"]["dispersion"], 2.5) for row in rows],
        range(len(rows)),
        s=24,
        color=[_colour(results, row) for row in rows],
    )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xlim(0, 2.55)
    axes.set_xlabel("dispersion: spread over the zoo's (2.5 and more at the edge)")
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _colour(results: Results, row: RowDict) -> str:
    generators = [r["name"] for r in results["rows"] if r["kind"] == "generator"]
    if row["kind"] == "generator":
        return COLOURS[generators.index(row["name"]) % len(COLOURS)]
    return INK if row["kind"] == "reference" else GREY


def _finite(value: float | None) -> bool:
    """Whether there is a number: ``results.json`` holds None for nan and inf."""
    return value is not None and isfinite(value)


def _trained(row: RowDict) -> bool:
    """Whether the axes reach to a row: untrained networks would press the rest together."""
    return bool(row["role"] != "untrained")


class _ScoreAxis:
    """An axis of scores, better to the right or up: the logarithm of the error, of the score, or the score itself.

    Args:
        results: As ``results.json`` holds it.
    """

    def __init__(self, results: Results) -> None:
        self.spec = ScoreSpec.from_dict(results["score"])
        self.least = 0.5 / max(
            1, results["test_items"]
        )  # an error is drawn as half an item at least: a logarithm has no 0
        self.split = results.get("measured_on", "test")
        untrained = [row["values"]["mean"] for row in results["rows"] if row["role"] == "untrained"]
        self.floor = min((self.place(v) for v in untrained if _finite(v)), default=-inf)  # the axis reaches no further

    def place(self, value: float) -> float:
        """Where a score is drawn; larger is better."""
        if self.spec.axis == "linear":
            return self.spec.sign * value
        of = max(1 - value, self.least) if self.spec.axis == "error" else max(value, 1e-12)
        return (-1 if self.spec.axis == "error" else self.spec.sign) * log10(of)

    def value(self, place: float) -> float:
        """The score that is drawn at a place."""
        if self.spec.axis == "linear":
            return self.spec.sign * place
        return float(1 - 10**-place if self.spec.axis == "error" else 10 ** (self.spec.sign * place))

    def draw(self, axes: Axes, which: str, places: list[float]) -> None:
        """Limits, ticks and label of an axis over all that is drawn."""
        places = [place for place in places if place >= self.floor] or places
        low, high = min(places, default=0.0), max(places, default=1.0)  # a plane may hold no row
        edge = 0.06 * (high - low) or 0.1
        low, high = low - edge, high + edge
        if self.spec.axis == "error":
            values = [1 - t for t in (0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001)]
        else:
            values = self._between(*sorted((self.value(low), self.value(high))))
        kept = [v for v in values if low <= self.place(v) <= high]
        getattr(axes, f"set_{which}lim")(low, high)
        getattr(axes, f"set_{which}ticks")([self.place(v) for v in kept], [f"{self.spec.shown(v):g}" for v in kept])
        getattr(axes, f"set_{which}label")(f"{self.split} {self.spec.label}")

    def _between(self, low: float, high: float) -> list[float]:
        """Round scores in a range, for ticks: decades where a logarithm spans several, else evenly spaced ones."""
        wide = self.spec.axis == "log" and high > 20 * low
        locator = LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,), numticks=8) if wide else MaxNLocator(6)
        return [float(v) for v in locator.tick_values(low, high) if v > 0 or self.spec.axis == "linear"]


def _name(axes: Axes, results: Results, rows: list[RowDict], spots: dict[str, tuple[float, float]]) -> None:
    """Names next to the spots of the plane, generators first, where they cover no other name."""
    taken: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda r: ("generator", "reference", "baseline").index(r["kind"])):
        at = spots[row["name"]]
        x, y = axes.transData.transform(at)
        for side, anchor, up in ((1, "left", 3), (-1, "right", 3), (1, "left", -11), (-1, "right", -11)):
            middle, height = x + side * 35, y + 1.4 * up  # of the name, in pixels
            if all(abs(middle - a) > 60 or abs(height - b) > 11 for a, b in taken):
                taken.append((middle, height))
                style: dict[str, Any] = {"fontsize": 8, "color": _colour(results, row), "ha": anchor, "clip_on": True}
                axes.annotate(row["name"], at, xytext=(5 * side, up), textcoords="offset points", **style)
                break


def save_mixtures(values: dict[str, Any], file: Path) -> Path:
    """Draw accuracy on two tasks between their conditions, a panel a zoo: a colour a row, solid on the first task, dashed on the second.

    Args:
        values: As ``interpolation.json`` holds them.
        file: The PNG; its folder is made if it does not exist.
    """
    zoos = values["zoos"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 + 4 * len(zoos), 4))
        panels = figure.subplots(1, len(zoos), sharey=True, squeeze=False)[0]
        for axes, zoo in zip(panels, zoos, strict=True):
            for row in zoo["rows"]:
                for line, accuracy, spread in zip(("-", "--"), row["mean"], row["std"], strict=True):
                    label = row["name"] if line == "-" else None
                    colour = _colour(zoo, row)
                    _band(axes, values["weights"], accuracy, spread, linestyle=line, color=colour, label=label)
            axes.set_title(zoo["zoo"], fontsize=9)
            axes.set_xlabel(f"{values['tasks'][0]} at 0, {values['tasks'][1]} at 1")
        for line, task in zip(("-", "--"), values["tasks"], strict=True):
            panels[-1].plot([], [], line, color=INK, linewidth=0.8, label=f"on {task}")
        panels[0].set_ylabel(f"{values['split']} accuracy, %")
        panels[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        _write(figure, file)
    return file


def _write(figure: Figure, file: Path) -> None:
    """Write a picture, atomically."""
    with replacing(file) as target:
        figure.savefig(target, format="png", dpi=160, bbox_inches="tight")


def _band(axes: Axes, x: Sequence[float], accuracy: Sequence[float], spread: Sequence[float], **line: Any) -> None:
    """A line in percent with its spread."""
    axes.plot(x, [100 * a for a in accuracy], linewidth=1.5, **line)
    low = [100 * (a - s) for a, s in zip(accuracy, spread, strict=True)]
    high = [100 * (a + s) for a, s in zip(accuracy, spread, strict=True)]
    axes.fill_between(x, low, high, color=line["color"], alpha=0.1, linewidth=0)
