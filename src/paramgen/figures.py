"""The report's figures as SVG.

Text and colours come from the page's style sheet, so they follow light and dark; marks hold their hover text.
Accuracy is drawn on a log axis of the error, so that 97 and 98 % stay apart while 10 % is still on the page. Distances are over tau, on a
log axis whose left end stands for everything nearer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from markupsafe import Markup, escape

Results = dict[str, Any]
RowDict = dict[str, Any]

ACCURACY_TICKS = (0.1, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
RATIO_TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
DOTS = 200  # networks drawn a strip
NEAREST_DRAWN = 0.02  # copies are at 0, which a log axis does not have


@dataclass(frozen=True)
class Axis:
    """A map from values to pixels, with its ticks.

    Args:
        place: Value to pixel.
        ticks: (value, label).
    """

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def accuracy_axis(values: Iterable[float], start: float, end: float) -> Axis:
    """Log of the error, better towards `end`."""
    kept = [v for v in values if v is not None]
    worst = min(max(1 - min(kept), 0.02), 1.0)
    best = max(min(1 - max(kept), worst / 2) * 0.85, 1e-4)

    def place(accuracy: float) -> float:
        error = min(max(1 - accuracy, best), worst)
        return start + (end - start) * log10(worst / error) / log10(worst / best)

    ticks = [(t, f"{100 * t:g}") for t in ACCURACY_TICKS if best <= 1 - t <= worst]
    return Axis(place, ticks)


def ratio_axis(values: Iterable[float], start: float, end: float) -> Axis:
    """Log of the distance over tau; 0 is drawn at the left end."""
    most = max([1.5, *(v for v in values if v is not None)]) * 1.15

    def place(ratio: float) -> float:
        return start + (end - start) * log10(max(ratio, NEAREST_DRAWN) / NEAREST_DRAWN) / log10(most / NEAREST_DRAWN)

    return Axis(place, [(0, "0"), *((t, f"{t:g}") for t in RATIO_TICKS if NEAREST_DRAWN * 2 < t <= most)])


def linear_axis(low: float, high: float, start: float, end: float, ticks: Sequence[float]) -> Axis:
    """A plain axis; values beyond it are drawn at its end."""
    return Axis(
        lambda v: start + (end - start) * (min(max(v, low), high) - low) / (high - low),
        [(t, f"{t:g}") for t in ticks if low <= t <= high],
    )


def rows_figure(results: Results) -> Markup:
    """Every row as three strips on one line: accuracy and distance of each network, and dispersion."""
    rows, height, top, label = results["rows"], 26, 30, 150
    bottom = top + height * len(rows)
    width = 1120
    accuracy = accuracy_axis([v for r in rows for v in r["points"]["accuracy"]], label + 10, 610)
    ratio = ratio_axis([v for r in rows for v in r["points"]["distance"]], 650, 930)
    dispersion = linear_axis(0, 1.5, 970, 1105, (0, 0.5, 1, 1.5))
    parts = [_band(dispersion.place(0), top, dispersion.place(0.5) - dispersion.place(0), bottom - top)]
    for axis, title in ((accuracy, "Test accuracy, %"), (ratio, "Distance to the zoo ÷ τ"), (dispersion, "Dispersion")):
        parts += [_text(axis.place(axis.ticks[0][0]), 16, title, "head start"), *_x_ticks(axis, top, bottom)]
    parts += [
        _line(axis.place(v), top, axis.place(v), bottom, "ref")
        for axis, v in _references(results, accuracy, ratio, dispersion)
    ]
    for i, row in enumerate(rows):
        y = top + height * (i + 0.5)
        parts += [
            _line(0, y + height / 2, width, y + height / 2, "rule") if _ends_kind(rows, i) else Markup(),
            _group(results, row),
            _text(label, y + 4, row["name"], "name end"),
            *_strip(row, "accuracy", accuracy, y, "accuracy", lambda v: f"{100 * v:.1f} %"),
            *_strip(row, "distance", ratio, y, "distance", lambda v: f"{v:.2f} τ"),
            _mark(
                accuracy.place(row["accuracy"]["mean"]), y, f"{row['name']}: mean {100 * row['accuracy']['mean']:.2f} %"
            ),
            _optional_mark(ratio, row["nn_ratio"], y, f"{row['name']}: nn_ratio"),
            _dot(dispersion, row["dispersion"], y, f"{row['name']}: dispersion"),
            _END,
        ]
    return _svg(width, bottom + 24, parts, "Accuracy, distance and dispersion of every row")


def plane_figure(results: Results) -> Markup:
    """Mean accuracy against nn_ratio: far and accurate is up and to the right; the noise sweep is a curve."""
    rows = [r for r in results["rows"] if r["nn_ratio"] is not None]
    axis = ratio_axis([r["nn_ratio"] for r in rows], 44, 540)
    return _accuracy_against(results, rows, "nn_ratio", axis, 1.0, "nn_ratio: distance to the zoo ÷ τ →")


def alike_figure(results: Results) -> Markup:
    """Mean accuracy against the largest IoU of wrong predictions with the zoo (p-diff Fig. 4b)."""
    rows = [r for r in results["rows"] if r["iou_wrong_max"] is not None]
    axis = linear_axis(0, 1, 44, 540, (0, 0.25, 0.5, 0.75, 1))
    return _accuracy_against(
        results, rows, "iou_wrong_max", axis, rows[0]["iou_wrong_max"], "IoU of wrong predictions with the zoo →"
    )


def _accuracy_against(results: Results, rows: list[RowDict], key: str, x: Axis, mark: float, title: str) -> Markup:
    """One spot a row, named where there is room, the noise sweep joined."""
    width, height, left, right = 560, 420, 44, 540
    y = accuracy_axis([r["accuracy"]["mean"] for r in rows], height - 40, 26)
    good = y.place(results["good_from"])
    parts = [*_x_ticks(x, 20, height - 34), *_y_ticks(y, left, right)]
    parts += [_line(x.place(mark), 20, x.place(mark), height - 34, "ref"), _line(left, good, right, good, "ref")]
    parts += [_text(right, height - 4, title, "axis end"), _text(left, 11, "↑ mean test accuracy, %", "axis start")]
    spots = [(x.place(r[key]), y.place(r["accuracy"]["mean"]), r) for r in rows]
    sweep = sorted(
        (s for s in spots if s[2]["name"].startswith("noise-")), key=lambda s: float(s[2]["name"].split("-")[1])
    )
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in sweep)
    parts.append(Markup('<polyline class="sweep" points="{}"/>').format(path))
    taken: list[tuple[float, float, float, float]] = [(a - 5, b - 5, a + 5, b + 5) for a, b, _ in spots]
    for a, b, row in sorted(spots, key=lambda s: ("generator", "reference", "baseline").index(s[2]["kind"])):
        tip = f"{row['name']}: {100 * row['accuracy']['mean']:.2f} % at {row[key]:.2f}"
        radius = 6 if row["kind"] == "generator" else 4.5
        parts += [
            _group(results, row),
            _circle("spot", a, b, radius, tip),
            *_label(a, b, row["name"], taken, width),
            _END,
        ]
    return _svg(width, height, parts, f"Accuracy against {key}")


def map_figure(results: Results) -> Markup:
    """Networks in the plane of the zoo's first two principal components: the zoo, held-out runs, generators, noise at the zoo's size."""
    width, height = 560, 420
    shown = [r for r in results["rows"] if r["kind"] != "baseline" or r["name"] in ("noise-1", "soup-16")]
    core = results["rows"][0]["points"]["xy"]
    cx, cy = (sum(p[i] for p in core) / len(core) for i in (0, 1))
    reach = 1.6 * max([1e-9, *(max(abs(p[0] - cx) / 1.33, abs(p[1] - cy)) for p in core)])
    x = linear_axis(cx - 1.33 * reach, cx + 1.33 * reach, 6, width - 6, ())
    y = linear_axis(cy - reach, cy + reach, height - 30, 6, ())
    order = {"baseline": 0, "reference": 1, "generator": 2}
    parts: list[Markup] = []
    for row in sorted(shown, key=lambda r: order[r["kind"]]):
        spots = [p for p in row["points"]["xy"] if None not in p]
        parts += [
            _group(results, row),
            *(_circle("speck", x.place(a), y.place(b), 2.6, row["name"]) for a, b in spots),
            _END,
        ]
    left, line = 8.0, height - 8
    for row in shown:
        if left + 20 + 6.6 * len(row["name"]) > width:
            left, line = 8.0, line - 16
        name = _text(left + 13, line + 4, row["name"], "name start")
        parts += [_group(results, row), _circle("speck", left + 4, line, 4, row["name"]), name, _END]
        left += 30 + 6.6 * len(row["name"])
    return _svg(width, height, parts, "Networks in the zoo's principal plane")


def novelty_figure(results: Results) -> Markup:
    """Share of networks both good and at least c·tau from the zoo, against c; held-out runs are the ceiling."""
    width, height = 560, 420
    rows = results["rows"]
    x = linear_axis(0.25, 2, 44, width - 110, (0.25, 0.5, 0.75, 1, 2))
    y = linear_axis(0, 1, height - 40, 26, (0, 0.25, 0.5, 0.75, 1))
    parts = [
        *_x_ticks(x, 20, height - 34),
        *_y_ticks(Axis(y.place, [(v, f"{100 * v:g}") for v, _ in y.ticks]), 44, width - 110),
    ]
    parts += [
        _text(44, 11, "↑ novel and good, %", "axis start"),
        _text(width - 110, height - 4, "at least c·τ from the zoo →", "axis end"),
    ]
    ends: list[float] = []
    for row in sorted(rows, key=lambda r: ("baseline", "reference", "generator").index(r["kind"])):
        curve = [(float(c), share) for c, share in row["novel_and_good"].items() if share is not None]
        if not curve:
            continue
        path = " ".join(f"{x.place(c):.1f},{y.place(s):.1f}" for c, s in curve)
        tip = f"{row['name']}: " + ", ".join(f"{100 * s:.0f} % at {c:g}" for c, s in curve)
        parts.append(
            Markup('<g class="{}"><polyline class="curve {}" points="{}" data-tip="{}"/>').format(
                colour(results["rows"], row), row["kind"], path, tip
            )
        )
        if row["kind"] != "baseline":
            at = y.place(curve[-1][1])
            while any(abs(at - e) < 13 for e in ends):
                at -= 13
            ends.append(at)
            parts.append(_text(width - 104, at + 4, row["name"], "name start"))
        parts.append(Markup(_END))
    return _svg(width, height, parts, "Novel and good networks")


_END = Markup("</g>")


def _group(results: Results, row: RowDict) -> Markup:
    return Markup('<g class="{}">').format(colour(results["rows"], row))


def _references(results: Results, accuracy: Axis, ratio: Axis, dispersion: Axis) -> list[tuple[Axis, float]]:
    return [(accuracy, results["rows"][0]["accuracy"]["mean"]), (ratio, 1.0), (dispersion, 1.0)]


def _ends_kind(rows: Sequence[RowDict], i: int) -> bool:
    return i + 1 < len(rows) and rows[i]["kind"] != rows[i + 1]["kind"]


def colour(rows: Sequence[RowDict], row: RowDict) -> str:
    """Class that gives a row its colour: generators one each, references ink, baselines grey."""
    if row["kind"] == "generator":
        names = [r["name"] for r in rows if r["kind"] == "generator"]
        return f"g{names.index(row['name']) % 6}"
    if row["kind"] == "reference":
        return "zoo" if row["name"] == "zoo" else "held"
    return "base"


def _strip(row: RowDict, key: str, axis: Axis, y: float, what: str, say: Callable[[float], str]) -> list[Markup]:
    """One dot a network, spread over the line's height by its number so that equal values show."""
    return [
        _circle("speck", axis.place(v), y + ((i * 0.618) % 1 - 0.5) * 13, 2.2, f"{row['name']} #{i}: {what} {say(v)}")
        for i, v in enumerate(row["points"][key][:DOTS])
        if v is not None
    ]


def _mark(x: float, y: float, tip: str) -> Markup:
    return Markup('<line class="mean" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}" data-tip="{3}"/>').format(
        x, y - 10, y + 10, tip
    )


def _optional_mark(axis: Axis, value: float | None, y: float, tip: str) -> Markup:
    return Markup() if value is None else _mark(axis.place(value), y, f"{tip} {value:.2f}")


def _dot(axis: Axis, value: float | None, y: float, tip: str) -> Markup:
    if value is None:
        return Markup()
    beyond = _text(axis.place(value) - 8, y + 4, f"{value:.1f} →", "tick end") if value > 1.5 else Markup()
    dot = _circle("spot", axis.place(value), y, 4, f"{tip} {value:.2f}")
    return dot + beyond


def _label(x: float, y: float, name: str, taken: list[tuple[float, float, float, float]], width: float) -> list[Markup]:
    """The name beside its spot where it covers nothing; no label where there is no room (hovering tells)."""
    w = 6.4 * len(name)
    for dx, dy, anchor in ((9, 4, "start"), (-9, 4, "end"), (0, -9, "middle"), (0, 17, "middle")):
        left = x + dx - {"start": 0, "end": w, "middle": w / 2}[anchor]
        box = (left, y + dy - 9, left + w, y + dy + 2)
        inside = box[0] > 44 and box[2] < width - 4 and box[1] > 18
        if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
            taken.append(box)
            return [_text(x + dx, y + dy, name, f"name {anchor}")]
    return []


def _x_ticks(axis: Axis, top: float, bottom: float) -> list[Markup]:
    return [
        _line(axis.place(v), top, axis.place(v), bottom, "grid") + _text(axis.place(v), bottom + 15, s, "tick middle")
        for v, s in axis.ticks
    ]


def _y_ticks(axis: Axis, left: float, right: float) -> list[Markup]:
    return [
        _line(left, axis.place(v), right, axis.place(v), "grid") + _text(left - 6, axis.place(v) + 4, s, "tick end")
        for v, s in axis.ticks
    ]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _circle(kind: str, x: float, y: float, radius: float, tip: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}" data-tip="{}"/>').format(kind, x, y, radius, tip)


def _band(x: float, y: float, w: float, h: float) -> Markup:
    return Markup('<rect class="band" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(x, y, w, h)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def _svg(width: float, height: float, parts: Iterable[Markup | str], title: str) -> Markup:
    body = Markup("").join(Markup(p) for p in parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, escape(title), body
    )
