"""Asked against reached scores of prompted generators: one picture, and one page that holds it with its figures."""

import base64
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from paramgen.core.io import replacing, write_atomic
from paramgen.report.plots import COLOURS, GREY, INK, STYLE

Values = dict[str, Any]


def save_asked(values: Values, file: Path) -> Path:
    """Draw reached against asked scores, a panel a zoo: a line a generator, the diagonal, and the range of the zoo in grey.

    Args:
        values: As ``prompts.json`` holds them.
        file: The PNG; its folder is made if it does not exist.
    """
    panels, scale = values["panels"], "log" if values["prompt"].endswith(".loss") else "linear"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1 + 4 * len(panels), 4))
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            axes.axvspan(*panel["range"], color=GREY, alpha=0.15, linewidth=0, label="the zoo's range")
            ends = [f(r["asked"]) for r in panel["rows"] for f in (min, max)]
            axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=INK, linewidth=0.8, linestyle="--")
            for colour, row in zip(COLOURS * len(panel["rows"]), panel["rows"], strict=False):
                line = {"color": colour, "label": row["name"], "marker": "o", "markersize": 3, "capsize": 2}
                axes.errorbar(row["asked"], row["mean"], yerr=row["std"], linewidth=1.2, **line)
            axes.set(xscale=scale, yscale=scale, title=panel["zoo"], xlabel=f"{values['prompt']} asked")
            axes.set_ylabel(f"{values['prompt']} reached")
            axes.legend(frameon=False, fontsize=8)
        with replacing(file) as target:
            figure.savefig(target, format="png", dpi=160, bbox_inches="tight")
    return file


def save_asked_page(values: Values, picture: Path, file: Path) -> Path:
    """A self-contained page: the picture, then asked and reached scores as tables.

    Args:
        values: As ``prompts.json`` holds them.
        picture: The PNG of :func:`save_asked`.
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
