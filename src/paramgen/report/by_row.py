"""Pictures with one line per row or task: scores, distances and dispersions of all networks; scores on every unseen task."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from paramgen.evaluation.metric import RowDict
from paramgen.report.picture import Band, Bar, Dots, DottedLine, Mark, Panel, PanelAxis, PictureData, Size, Slot, Words
from paramgen.report.scales import is_number
from paramgen.report.view import View, hollow, numbered, trained

MOST_DISPERSION = 1.6  # drawn; more is written at the edge
JITTER = 0.56  # height of a row's dots, in lines


def strips(view: View) -> PictureData:
    """One line per row: the score, the distance and the dispersion of its networks."""
    lines = PanelAxis(slots=[Slot(row["name"], row["name"], row["kind"]) for row in view.rows], margin=(0, 0))
    shares = (0.5, 0.29, 0.21) if view.scored else (0.6, 0.4)
    columns = [*([_scores(view)] if view.scored else []), _distances(view), _dispersions(view)]
    panels = [replace(panel, y=lines, share=share) for panel, share in zip(columns, shares, strict=True)]
    return PictureData(panels, view.colours, layout="side")


def _scores(view: View) -> Panel:
    spec, place = view.scores.spec, view.scores.place
    dots = _dots(view.rows, "score", place)
    means = [
        Bar(row["name"], place(mean), i, f"{row['name']}\nmean {spec.name} {spec.full(mean)}")
        for i, row in enumerate(view.rows)
        if is_number(mean := row["values"]["mean"])
    ]
    near = {row["name"] for row in view.rows if trained(row)}
    x = view.scores.axis("", {mark.row: mark.x for mark in dots if mark.row in near})
    reference = view.zoo["values"]["mean"]
    rules = [DottedLine("x", place(reference))] if is_number(reference) else []
    return Panel(x, PanelAxis(), [*rules, *dots, *means], _capital(view.score_label))


def _distances(view: View) -> Panel:
    place, key = view.distances.place, view.unit.key
    medians = [
        Bar(row["name"], place(ratio), i, f"{row['name']}\n{key} {ratio:.3f}")
        for i, row in enumerate(view.rows)
        if is_number(ratio := row["values"][key])
    ]
    reach = {row["name"]: [d for _, d in numbered(row["points"]["distance"])] for row in view.rows if trained(row)}
    marks: list[Mark] = [
        *view.within_run(),
        DottedLine("x", place(1.0)),
        *_dots(view.rows, "distance", place),
        *medians,
    ]
    return Panel(view.distances.axis("", reach), PanelAxis(), marks, _capital(view.unit.axis))


def _dispersions(view: View) -> Panel:
    marks: list[Mark] = [Band(0.0, view.results["thresholds"]["collapsed"]), DottedLine("x", 1.0)]
    for i, row in enumerate(view.rows):
        value = row["values"]["dispersion"]
        if is_number(value):
            at = min(value, MOST_DISPERSION)
            marks.append(Dots(row["name"], [at], [i], notes=[f"{row['name']}\ndispersion {value:.2f}"], size="medium"))
            if value > at:
                marks.append(Words(row["name"], at, i, f"{value:.1f} →"))
    ticks = [[(at, f"{at:g}") for at in (0.0, 0.5, 1.0, 1.5)]]
    return Panel(
        PanelAxis(always=(0.0, MOST_DISPERSION + 0.05), margin=(0, 0), ticks=ticks),
        PanelAxis(),
        marks,
        title="Dispersion",
    )


def _dots(rows: Sequence[RowDict], key: str, place: Callable[[float], float]) -> list[Dots]:
    """A dot for each network, spread over the height of its row's line."""
    marks = []
    for line, row in enumerate(rows):
        kept = numbered(row["points"][key])
        heights = [round(line + ((i * 0.618) % 1 - 0.5) * JITTER, 2) for i, _ in kept]
        marks.append(Dots(row["name"], [place(v) for _, v in kept], heights, [i for i, _ in kept], faint=True))
    return marks


def tasks(view: View) -> PictureData | None:
    """One line per unseen task, the easiest first: every row's score on it."""
    if not view.zoo["tasks"]:
        return None
    spec, place, direct = view.scores.spec, view.scores.place, view.zoo["tasks"]["unseen"]
    names = sorted(direct, key=lambda task: place(direct[task]) if is_number(direct[task]) else -inf, reverse=True)
    marks = []
    for row in view.ordered(row for row in view.rows if row["tasks"]):
        scores = numbered([row["tasks"]["unseen"][task] for task in names])
        notes = [f"{row['name']} on {names[line]}\n{spec.name} {spec.full(score)}" for line, score in scores]
        size: Size = "small" if row["kind"] == "baseline" else "medium"
        places, lines = [place(score) for _, score in scores], [line for line, _ in scores]
        marks.append(Dots(row["name"], places, lines, notes=notes, size=size, hollow=hollow(row)))
    near = {row["name"] for row in view.rows if trained(row)}
    x = view.scores.axis("", {mark.row: mark.x for mark in marks if mark.row in near})
    panel = Panel(x, PanelAxis(slots=[Slot(task) for task in names], margin=(0, 0)), marks, _capital(view.score_label))
    return PictureData([panel], view.colours, layout="side", legend=True)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
