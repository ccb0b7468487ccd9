"""Pictures of a generator's details: the weights of a sample layer by layer, and the course of its fit."""

from collections.abc import Mapping, Sequence
from math import ceil, log10

from paramgen.report.picture import Cells, Dots, DottedLine, Line, Mark, Panel, PanelAxis, PictureData
from paramgen.report.scales import TINY, count_ticks, is_number, linear_ticks, log_ticks, reach_of
from paramgen.report.view import View

Matrix = list[list[float | None]]
Course = Sequence[tuple[float, float]]  # step and value
MOST_DRAWN = 200  # of a line
LOG_FROM = 20  # a loss that falls by more is drawn on a log axis


def layers(view: View) -> PictureData | None:
    """A first sample of each generator, the training network nearest to it, and their difference (p-diff, Fig. 3)."""
    panels = []
    for layer in view.results.get("weights") or []:
        choice = f"{layer['tensor']} {' × '.join(map(str, layer['shape']))}"
        every = [v for pair in layer["pairs"] for key in ("sample", "nearest") for line in pair[key] for v in line]
        most = max((abs(v) for v in every if is_number(v)), default=TINY)
        for pair in layer["pairs"]:
            panes: list[tuple[str, Matrix]] = [
                (f"{pair['name']}, network {pair['network']}", pair["sample"]),
                ("nearest training network", pair["nearest"]),
                ("difference", _minus(pair["sample"], pair["nearest"])),
            ]
            for title, values in panes:
                cells = Cells(pair["name"], values, most, layer["tensor"])
                across = PanelAxis(always=(0.0, float(len(values[0]))), margin=(0, 0))
                down = PanelAxis(always=(0.0, float(len(values))), margin=(0, 0))
                panels.append(Panel(across, down, [cells], title, row=pair["name"], choice=choice))
    return PictureData(panels, view.colours, columns=3, narrowest=220) if panels else None


def renders(view: View) -> PictureData | None:
    """The first networks of every row as the pictures that they are, side by side."""
    panels = []
    for row in view.rows:
        pictures = view.results.get("renders", {}).get(row["name"])
        if pictures:
            lines = [
                [cell for picture in pictures for cell in [*picture[i], 0.0]][:-1] for i in range(len(pictures[0]))
            ]
            across = PanelAxis(always=(0.0, float(len(lines[0]))), margin=(0, 0))
            down = PanelAxis(always=(0.0, float(len(lines))), margin=(0, 0))
            cells = Cells(row["name"], lines, 1.0, row["name"])
            panels.append(Panel(across, down, [cells], row["name"], row=row["name"]))
    return PictureData(panels, view.colours, columns=2, narrowest=300) if panels else None


def _minus(values: Matrix, others: Matrix) -> Matrix:
    pairs = [zip(line, other, strict=True) for line, other in zip(values, others, strict=True)]
    return [[None if a is None or b is None else float(f"{a - b:.3g}") for a, b in line] for line in pairs]


def training(view: View) -> PictureData | None:
    """What was logged while the generators were fitted: losses, and figures of a few samples."""
    names = [row["name"] for row in view.rows if row["kind"] == "generator"]
    histories = {name: view.results["generators"].get(name, {}).get("history") or {} for name in names}
    keys = dict.fromkeys(key for history in histories.values() for key in history)
    panels = [
        _course(view, key, {name: _thinned(history[key]) for name, history in histories.items() if key in history})
        for key in keys
    ]
    return PictureData(panels, view.colours, columns=4, legend=True) if panels else None


def _course(view: View, key: str, histories: Mapping[str, Course]) -> Panel:
    """One logged value against the steps of each fit."""
    spec, scored = view.scores.spec, key.startswith("sample/score")
    relative = key.endswith(("dispersion", "_ratio"))  # 1 is the zoo's, or a new run's
    values = [value for course in histories.values() for _, value in course] or [1.0]
    log = "loss" in key and min(values) > 0 and max(values) > LOG_FROM * min(values)

    def place(value: float) -> float:
        return log10(value) if log else spec.shown(value) if scored else value

    marks: list[Mark] = [DottedLine("y", 1.0)] if relative else []
    for name, course in histories.items():
        steps, places = [float(step) for step, _ in course], [place(value) for _, value in course]
        notes = [f"{name}, step {step:,.0f}\n{key} {value:.3g}" for step, value in course]
        marks.append(Line(name, steps, places, notes=notes, width=2))
        if key.startswith("sample/"):
            marks.append(Dots(name, steps, places))
    always = (0.0, 1.0) if relative else ()
    ends = [*always, *map(place, values)]
    ticks = log_ticks(min(values), max(values)) if log else linear_ticks(min(ends), max(ends))
    lines = [mark for mark in marks if isinstance(mark, Line)]
    last = max((step for line in lines for step in line.x), default=1.0)
    across = PanelAxis("optimizer steps", reach_of({str(line.row): line.x for line in lines}), ticks=count_ticks(last))
    up = PanelAxis("", reach_of({str(line.row): line.y for line in lines}), always, ticks=ticks)
    return Panel(across, up, marks, key + (f", {spec.label}" if scored else ""))


def _thinned(history: Sequence[Sequence[float]]) -> Course:
    """A course thinned to what a picture can show, its last number included."""
    numbers = [(step, value) for step, value in history if is_number(value)]
    every = ceil(len(numbers) / MOST_DRAWN) or 1
    return numbers[::-every][::-1]
