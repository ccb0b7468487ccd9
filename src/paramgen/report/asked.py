"""Asked against reached scores of prompted generators: one picture, and one page that holds it with its figures."""

import base64
from math import log10
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from paramgen.core.io import write_atomic
from paramgen.report.picture import Dots, DottedLine, Line, Mark, Panel, PanelAxis, PictureData, Ribbon, colours_of
from paramgen.report.scales import linear_ticks, log_ticks, reach_of

Values = dict[str, Any]
LEAST_DRAWN = 1e-8  # a loss of 0 is drawn here


def asked_picture(values: Values) -> PictureData:
    """One panel per zoo, one line per generator: reached against asked scores. Dashed: both are equal. Dotted: ends of the zoo's range.

    Args:
        values: As ``prompts.json`` holds them. Losses are spread by factors.
    """
    rows = {row["name"]: {**row, "kind": "generator"} for panel in values["panels"] for row in panel["rows"]}
    loss = values["prompt"].endswith(".loss")
    panels = [_panel(panel, values["prompt"], loss) for panel in values["panels"]]
    return PictureData(
        panels, colours_of(rows.values()), columns=len(panels), legend=True, strokes=["reached", "asked"]
    )


def _panel(panel: Values, prompt: str, loss: bool) -> Panel:
    def place(value: float) -> float:
        return log10(max(value, LEAST_DRAWN)) if loss else value

    marks: list[Mark] = [DottedLine("x", place(end)) for end in panel["range"]]
    across, up = dict[str, list[float]](), dict[str, list[float]]()
    for row in panel["rows"]:
        name, each = row["name"], list(zip(row["asked"], row["mean"], row["std"], strict=True))
        asked, reached = [place(value) for value, _, _ in each], [place(mean) for _, mean, _ in each]
        low, high = [place(_below(mean, std, loss)) for _, mean, std in each], [place(m + s) for _, m, s in each]
        notes = [f"{name}: {value:.3g} asked, {mean:.3g} ± {std:.2g} reached" for value, mean, std in each]
        marks += [Ribbon(name, asked, low, high), Line(name, asked, reached), Dots(name, asked, reached, notes=notes)]
        across[name], up[name] = asked, [*reached, *low, *high]
    ends = [v for of in across.values() for v in (min(of), max(of))]
    marks.append(Line(None, [min(ends), max(ends)], [min(ends), max(ends)], width=0.8, dashed=True))
    x, y = _axis(f"{prompt} asked", across, ends, loss), _axis(f"{prompt} reached", up, ends, loss)
    return Panel(x, y, marks, panel["zoo"])


def _below(mean: float, std: float, loss: bool) -> float:
    """A standard deviation below a mean; of losses at least half the mean, because a logarithm has no 0."""
    return max(mean - std, mean / 2) if loss else mean - std


def _axis(label: str, places: dict[str, list[float]], ends: list[float], loss: bool) -> PanelAxis:
    every = [*ends, *(value for of in places.values() for value in of)]
    low, high = min(every), max(every)
    ticks = log_ticks(10**low, 10**high) if loss else linear_ticks(low, high)
    return PanelAxis(label, reach_of(places), always=(min(ends), max(ends)), ticks=ticks)


def save_asked_page(values: Values, picture: Path, file: Path) -> Path:
    """A self-contained page: the picture, then asked and reached scores as tables.

    Args:
        values: As ``prompts.json`` holds them.
        picture: The PNG of :func:`asked_picture`.
        file: The HTML file.
    """
    image = base64.b64encode(picture.read_bytes()).decode()
    body = [
        Markup("<h1>{}: asked and reached</h1>").format(values["title"]),
        Markup("<p>Mean ± standard deviation over {} seeds; each of {} networks a value.</p>").format(
            values["seeds"], values["networks"]
        ),
        Markup('<img alt="reached against asked" src="data:image/png;base64,{}">').format(image),
        *(_table(values["prompt"], panel) for panel in values["panels"]),
    ]
    head = f"<!doctype html><meta charset=utf-8><title>{escape(values['title'])}</title><style>{CSS}</style>"
    write_atomic(file, (head + "".join(body)).encode())
    return file


def _table(prompt: str, panel: Values) -> Markup:
    low, high = panel["range"]
    caption = Markup("<caption>{}: the zoo has {} from {:.3g} to {:.3g}</caption>").format(
        panel["zoo"], prompt, low, high
    )
    rows = [
        Markup("<tr><td>{}<td>{:.3g}<td>{:.3g} ± {:.2g}").format(row["name"], asked, mean, std)
        for row in panel["rows"]
        for asked, mean, std in zip(row["asked"], row["mean"], row["std"], strict=True)
    ]
    return Markup("<table>{}<tr><th>generator<th>asked<th>reached{}</table>").format(caption, Markup("").join(rows))


CSS = (
    "body{font:15px/1.5 system-ui;max-width:70rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}"
    "td,th{text-align:left;padding:.1rem 1rem .1rem 0}caption{text-align:left;font-weight:600;padding-top:1rem}"
)
