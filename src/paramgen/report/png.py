"""Pictures as PNG files and for TensorBoard, drawn with matplotlib from the data that the page draws too."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from paramgen.core.io import replacing
from paramgen.report.figures import FIGURES, pictures_of
from paramgen.report.picture import Band, Bar, Cells, Dots, DottedLine, Line, Mark, Panel, PictureData, Ribbon, Words
from paramgen.report.view import ResultsDict

COLOURS = ("#1257c9", "#c2470b", "#0b7f5b", "#7a3fd1", "#b0186a", "#7d6608")  # as on the page
INK, GREY, DARK_GREY, WARNING = "#17191e", "#9a9fa7", "#686d76", "#a63d14"
OF_CLASS = {**{f"g{i}": colour for i, colour in enumerate(COLOURS)}, "zoo": INK, "held": INK, "base": GREY}
AREAS = {"small": 7, "medium": 24, "large": 48}  # of dots, in square points
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e3e3de",
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.titlesize": 9,
    "font.size": 9,
    "figure.facecolor": "white",
}
TITLE = 0.3  # height of a panel's title in inches
WIDTHS = {1: 6.4, 2: 4.4, 3: 3.7}  # of a panel in inches, by the columns; narrower with more
PLACES = (  # of a name around its dot, in points
    *((7, 0, "left"), (-7, 0, "right"), (0, 9, "center"), (0, -9, "center")),
    *((5, 8, "left"), (5, -8, "left"), (-5, 8, "right"), (-5, -8, "right")),
)
CLEARANCE = 4  # pixels that a name keeps from other marks
COVERED = 4  # points of other marks that a baseline's name may cover


def save_plots(results: ResultsDict, folder: Path) -> list[Path]:
    """Draw the pictures of an evaluation that are files into a folder.

    Args:
        results: As ``results.json`` holds it.
        folder: Made if it does not exist.

    Returns:
        The files.
    """
    pictures = pictures_of(results).pictures
    keys = [figure.key for figure in FIGURES if figure.file and figure.key in pictures]
    return [save_picture(pictures[key], folder / f"{key}.png") for key in keys]


def save_picture(picture: PictureData, file: Path) -> Path:
    """Write a picture, atomically.

    Args:
        picture: What is drawn.
        file: The PNG; its folder is made if it does not exist.
    """
    figure = draw_picture(picture)
    with mpl.rc_context(STYLE), replacing(file) as target:
        figure.savefig(target, format="png", dpi=160, bbox_inches="tight")
    return file


def draw_picture(picture: PictureData) -> Figure:
    """A picture as a figure of matplotlib."""
    with mpl.rc_context(STYLE):
        figure, axes = _side(picture.panels) if picture.layout == "side" else _grid(picture)
        for place, panel in zip(axes, picture.panels, strict=True):
            _draw(place, panel, picture.colours, named=place is axes[0])
        if picture.legend:
            _legend(axes[min(picture.columns, len(axes)) - 1], picture)
    return figure


def _side(panels: Sequence[Panel]) -> tuple[Figure, list[Axes]]:
    """Panels next to each other; only the first one names the lines."""
    shares = [panel.share for panel in panels]
    width = 7 if len(panels) == 1 else 11.5
    figure = Figure(figsize=(width, 0.7 + 0.25 * len(panels[0].y.slots)))
    row = figure.subplots(1, len(panels), squeeze=False, gridspec_kw={"width_ratios": shares, "wspace": 0.06})[0]
    return figure, list(row)


def _grid(picture: PictureData) -> tuple[Figure, list[Axes]]:
    """Panels in rows of equal columns."""
    columns = min(picture.columns, len(picture.panels))
    rows = ceil(len(picture.panels) / columns)
    width = WIDTHS.get(columns, 3.4)
    cells = [len(m.values) / len(m.values[0]) for p in picture.panels for m in p.marks if isinstance(m, Cells)]
    height = (
        width * min(0.62, max(cells)) + TITLE if cells else width * 0.74
    )  # cells are square where they are not too many
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained" if rows * columns > 1 else None)
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in every[len(picture.panels) :]:
        empty.remove()
    return figure, every[: len(picture.panels)]


def _draw(axes: Axes, panel: Panel, colours: Mapping[str, str], named: bool) -> None:
    """A panel; its slots are named only where it is the first."""
    (left, right), (bottom, top) = panel.x.limits(), panel.y.limits()
    axes.set_xlim(left, right)
    axes.set_ylim(*((len(panel.y.slots) - 0.5, -0.5) if panel.y.slots else (bottom, top)))
    if panel.square:
        _square(axes)
    _ticks(axes, panel, colours, named)
    axes.set_xlabel(panel.x.label)
    axes.set_ylabel(panel.y.label)
    title = "\n".join(filter(None, (panel.choice, panel.title)))
    axes.set_title(title, loc="left", fontweight="normal" if panel.choice else "bold")
    for layer, mark in enumerate(panel.marks):
        _mark(axes, mark, OF_CLASS[colours[mark.row]] if mark.row is not None else GREY, panel.square, 2 + 0.01 * layer)
    _name_dots(axes, panel, colours)
    _name_lines(axes, panel, colours)


def _square(axes: Axes) -> None:
    """Widen the limits of one axis so that one unit has the same length on both."""
    frame, (left, right), (low, high) = axes.get_window_extent(), axes.get_xlim(), axes.get_ylim()
    unit = max((right - left) / frame.width, (high - low) / frame.height)  # of a pixel
    across, up = unit * frame.width, unit * frame.height
    axes.set_xlim((left + right - across) / 2, (left + right + across) / 2)
    axes.set_ylim((low + high - up) / 2, (low + high + up) / 2)


def _ticks(axes: Axes, panel: Panel, colours: Mapping[str, str], named: bool) -> None:
    if any(isinstance(mark, Cells) for mark in panel.marks):
        axes.set(xticks=[], yticks=[])
        axes.invert_yaxis()
        return
    ticks = panel.x.ticks_between(*axes.get_xlim())
    axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
    if not panel.y.slots:
        ticks = panel.y.ticks_between(*axes.get_ylim())
        axes.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
        return
    axes.set_yticks(range(len(panel.y.slots)), [slot.name if named else "" for slot in panel.y.slots])
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    for label, slot in zip(axes.get_yticklabels(), panel.y.slots, strict=True):
        baseline = slot.kind == "baseline"
        label.set_color(DARK_GREY if baseline else INK if slot.row is None else OF_CLASS[colours[slot.row]])
        label.set_fontweight("bold" if slot.kind == "generator" else "normal")


def _mark(axes: Axes, mark: Mark, colour: str, square: bool, z: float) -> None:
    """One mark; what lies beyond the axes is drawn at their edge, or cut where the panel is a map."""
    match mark:
        case Dots():
            x, y = (mark.x, mark.y) if square else _clamped(axes, mark.x, mark.y)
            face = "white" if mark.hollow else colour
            style: dict[str, Any] = {"alpha": 0.45} if mark.faint else {}
            width = 1.2 if mark.hollow else 0
            axes.scatter(
                x, y, AREAS[mark.size], face, edgecolors=colour, linewidths=width, zorder=z, clip_on=square, **style
            )
        case Line():
            x, y = (mark.x, mark.y) if square else _clamped(axes, mark.x, mark.y)
            axes.plot(x, y, "--" if mark.dashed else "-", color=colour, linewidth=0.8 * mark.width, zorder=z)
        case Bar():
            (x,), _ = _clamped(axes, [mark.x], [mark.y])
            colour = DARK_GREY if colour == GREY else colour
            axes.vlines(x, mark.y - 0.4, mark.y + 0.4, color=colour, linewidth=2, zorder=z)
        case DottedLine():
            line = axes.axvline if mark.axis == "x" else axes.axhline
            line(mark.at, color=INK, linestyle=":", linewidth=1, zorder=1.9)
        case Band():
            axes.axvspan(max(mark.low, axes.get_xlim()[0]), mark.high, color=WARNING, alpha=0.08, linewidth=0, zorder=1)
            axes.annotate(
                mark.text,
                (mark.low, 1),
                (3, -10),
                axes.get_xaxis_transform(),
                "offset points",
                color=WARNING,
                fontsize=8,
            )
        case Ribbon():
            axes.fill_between(mark.x, mark.low, mark.high, color=colour, alpha=0.1, linewidth=0, zorder=z)
        case Words():
            axes.annotate(
                mark.text,
                (mark.x, mark.y),
                (-5, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
                color=DARK_GREY,
            )
        case Cells():
            _cells(axes, mark)


def _clamped(axes: Axes, x: Sequence[float], y: Sequence[float]) -> tuple[Any, Any]:
    """Places with those beyond the axes moved to their edge."""
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    return np.clip(np.asarray(x), left, right), np.clip(np.asarray(y), low, high)


def _cells(axes: Axes, mark: Cells) -> None:
    values = np.array(mark.values, dtype=float)
    strength = np.minimum(np.abs(np.nan_to_num(values)) / mark.most, 1)
    signed = np.where((values >= 0)[..., None], to_rgb(COLOURS[0]), to_rgb(COLOURS[1]))  # (rows, columns, 3)
    axes.imshow(
        np.concatenate([signed, strength[..., None]], -1),
        aspect="auto",
        extent=(0, values.shape[1], values.shape[0], 0),
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)


def _name_dots(axes: Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    """Names next to their dots where they cover no other name and no dot of a generator or reference, and as few other marks as can be."""
    named = [mark for mark in panel.marks if isinstance(mark, Dots) and mark.name]
    if not named:
        return
    spots, frame = _spots(axes, panel), axes.get_window_extent()
    ends = {mark.row: np.stack(_clamped(axes, mark.x[:1], mark.y[:1]), 1)[0] for mark in named}  # (2,) each
    around = np.array([[-5], [5]])  # pixels
    occupied = {
        row: Bbox(axes.transData.transform([at]) + around) for row, at in ends.items() if colours[row] != "base"
    }
    for mark in reversed(named):
        below, beyond = mark.y[0] < min(axes.get_ylim()), mark.x[0] > max(axes.get_xlim())
        text = mark.name + (" ↓" if below else "") + (" →" if beyond else "")
        at, others = ends[mark.row], [box for row, box in occupied.items() if row != mark.row]
        best, covers = None, COVERED if colours[mark.row] == "base" else len(spots)
        label = _name(axes, text, at, PLACES[0], colours[mark.row])
        size = label.get_window_extent()  # measured once: it is what takes time
        label.remove()
        for place in PLACES:
            box = _box(axes, at, place, size)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            count = int(((spots > np.subtract(box.min, CLEARANCE)) & (spots < np.add(box.max, CLEARANCE))).all(1).sum())
            if inside and count <= covers - (best is not None) and not any(box.overlaps(other) for other in others):
                best, covers, occupied[f"name of {mark.row}"] = place, count, box
        if best is not None:
            _name(axes, text, at, best, colours[mark.row])


def _spots(axes: Axes, panel: Panel) -> Any:
    """Points (n, 2) in pixels that names should not cover: dots, and points along lines and rules."""
    points = [np.empty((0, 2))]
    for mark in panel.marks:
        if isinstance(mark, Dots):
            points.append(np.stack(_clamped(axes, mark.x, mark.y), 1))
        elif isinstance(mark, Line) and len(mark.x) > 1:
            along = np.linspace(0, len(mark.x) - 1, 50 * len(mark.x))
            index = np.arange(len(mark.x))
            points.append(np.stack([np.interp(along, index, mark.x), np.interp(along, index, mark.y)], 1))
        elif isinstance(mark, DottedLine):
            other = np.linspace(*(axes.get_ylim() if mark.axis == "x" else axes.get_xlim()), 100)
            fixed = np.full_like(other, mark.at)
            points.append(np.stack([fixed, other] if mark.axis == "x" else [other, fixed], 1))
    return axes.transData.transform(np.concatenate(points))


def _name(axes: Axes, text: str, at: Any, place: tuple[float, float, str], of: str) -> Annotation:
    """A name at a place next to its dot."""
    colour = DARK_GREY if of == "base" else OF_CLASS[of]
    weight = "bold" if of.startswith("g") else "normal"
    style: dict[str, Any] = {"fontsize": 8, "color": colour, "fontweight": weight, "zorder": 4, "va": "center"}
    return axes.annotate(text, at, place[:2], textcoords="offset points", ha=place[2], **style)


def _box(axes: Axes, at: Any, place: tuple[float, float, str], size: Bbox) -> Bbox:
    """Pixels that a name of some size covers at a place next to its dot."""
    x, y = axes.transData.transform(at) + np.array(place[:2]) * axes.figure.dpi / 72
    shift = {"left": 0.0, "center": 0.5, "right": 1.0}[place[2]]
    return Bbox.from_bounds(x - shift * size.width, y - size.height / 2, size.width, size.height)


def _name_lines(axes: Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    """Names at the right ends of lines, moved apart where they would meet."""
    ends = [
        (mark.y[-1], mark.x[-1], mark.name, colours[str(mark.row)])
        for mark in panel.marks
        if isinstance(mark, Line) and mark.name
    ]
    last = -np.inf
    for y, x, name, of in sorted(ends):
        height = axes.transData.transform((x, y))[1]  # in pixels
        last = max(height, last + 12)
        _name(axes, name, (x, y), (5, (last - height) * 72 / axes.figure.dpi, "left"), of)


def _legend(axes: Axes, picture: PictureData) -> None:
    drawn = {mark.row: mark for panel in picture.panels for mark in panel.marks if mark.row is not None}
    handles = []
    for row, mark in ((row, drawn[row]) for row in picture.colours if row in drawn):
        handle = Line2D([], [], color=OF_CLASS[picture.colours[row]], label=row)
        if isinstance(mark, Dots):
            handle.set(
                linestyle="", marker="o", markersize=4, markerfacecolor="white" if mark.hollow else handle.get_color()
            )
        handles.append(handle)
    for text, dashed in zip(picture.strokes, (False, True), strict=False):
        handles.append(Line2D([], [], color=INK, linewidth=0.8, label=text, linestyle="--" if dashed else "-"))
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
