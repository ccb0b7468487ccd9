"""A picture as plain data: panels of marks on two axes. The page (Observable Plot) and the PNG files (matplotlib) draw the same data.

Coordinates are places on linear axes: logarithms are taken where a picture is prepared, and ticks carry the text of their value. A mark
that belongs to a row of the report is drawn in the row's colour, and only while the row is switched on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from paramgen.evaluation.metric import RowDict

Tick = tuple[float, str]  # place and text
Size = Literal["small", "medium", "large"]
MARGIN = 0.05  # of an axis at both ends, as a share of what it shows
FEW = 3  # ticks; an axis with no more of them takes the next finer level


@dataclass(frozen=True)
class Slot:
    """A line of an axis that lists names: a row of the report, or a task.

    Args:
        name: Printed next to it.
        row: The row; None for what is no row.
        kind: Of the row; None for what is no row.
    """

    name: str
    row: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class PanelAxis:
    """An axis.

    Args:
        label: Printed next to it; empty where the panel's title says it.
        reach: By row, the lowest and the highest place that the axis must show.
        always: Places that it shows in any case.
        margin: Share added at the lower and at the upper end.
        least: Lowest place shown.
        ticks: Levels of ticks from coarse to fine.
        slots: Of an axis that lists names, from top to bottom: slot i has the place i.
    """

    label: str = ""
    reach: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    always: Sequence[float] = ()
    margin: tuple[float, float] = (MARGIN, MARGIN)
    least: float | None = None
    ticks: Sequence[Sequence[Tick]] = ()
    slots: Sequence[Slot] = ()

    def limits(self) -> tuple[float, float]:
        """The lowest and the highest place, over all rows; ``limitsOf`` of ``figures.js`` is the same over the rows switched on."""
        places = [*self.always, *(place for ends in self.reach.values() for place in ends)] or [0.0, 1.0]
        low, high = min(places), max(places)
        span = high - low or 1.0
        low, high = low - self.margin[0] * span, high + self.margin[1] * span
        return low if self.least is None else max(low, self.least), high

    def ticks_between(self, low: float, high: float) -> list[Tick]:
        """The first level with more than a few ticks between two places, else the finest one."""
        inside: list[Tick] = []
        for level in self.ticks:
            inside = [tick for tick in level if low <= tick[0] <= high]
            if len(inside) > FEW:
                break
        return inside


@dataclass(frozen=True)
class Dots:
    """One dot for each point.

    Args:
        row: The row they belong to.
        x: Places.
        y: Places.
        networks: The row's networks that they are, of :class:`Notes`; empty where they are no networks.
        notes: Shown on demand, one for each point; empty where `networks` has them.
        size: Of a dot.
        hollow: Only the edge is drawn.
        faint: Transparent, for many dots.
        name: Printed next to the first dot where there is room.
    """

    row: str
    x: Sequence[float]
    y: Sequence[float]
    networks: Sequence[int] = ()
    notes: Sequence[str] = ()
    size: Size = "small"
    hollow: bool = False
    faint: bool = False
    name: str = ""
    mark: Literal["dots"] = "dots"


@dataclass(frozen=True)
class Line:
    """A line through points.

    Args:
        row: The row it belongs to; None for a line through several rows.
        x: Places.
        y: Places.
        through: The row of each point, of a line through several rows.
        notes: Shown on demand, one for each point.
        width: In pixels.
        dashed: Whether it is.
        name: Printed at its right end.
    """

    row: str | None
    x: Sequence[float]
    y: Sequence[float]
    through: Sequence[str] = ()
    notes: Sequence[str] = ()
    width: float = 1.5
    dashed: bool = False
    name: str = ""
    mark: Literal["line"] = "line"


@dataclass(frozen=True)
class Bar:
    """A short bar across a row's line, at its mean or median.

    Args:
        row: The row.
        x: Place.
        y: The row's slot.
        note: Shown on demand.
    """

    row: str
    x: float
    y: float
    note: str
    mark: Literal["bar"] = "bar"


@dataclass(frozen=True)
class DottedLine:
    """A dotted line across the panel.

    Args:
        axis: The axis on which `at` lies.
        at: Place.
    """

    axis: Literal["x", "y"]
    at: float
    row: None = None
    mark: Literal["rule"] = "rule"


@dataclass(frozen=True)
class Band:
    """A shaded range of x that is a warning.

    Args:
        low: Place.
        high: Place.
        text: Printed in it.
    """

    low: float
    high: float
    text: str = ""
    row: None = None
    mark: Literal["band"] = "band"


@dataclass(frozen=True)
class Ribbon:
    """The shaded spread around a line.

    Args:
        row: The row.
        x: Places.
        low: Places.
        high: Places.
    """

    row: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    mark: Literal["ribbon"] = "ribbon"


@dataclass(frozen=True)
class Words:
    """A text that ends at a place.

    Args:
        row: The row.
        x: Place.
        y: Place.
        text: What is printed.
    """

    row: str
    x: float
    y: float
    text: str
    mark: Literal["words"] = "words"


@dataclass(frozen=True)
class Cells:
    """A matrix as coloured cells: colour by sign, strength by size.

    Args:
        row: The row it belongs to.
        values: Rows of cells from top to bottom; None for NaN.
        most: The size that has full strength.
        name: Of the matrix, for notes.
    """

    row: str
    values: Sequence[Sequence[float | None]]
    most: float
    name: str
    mark: Literal["cells"] = "cells"


Mark = Dots | Line | Bar | DottedLine | Band | Ribbon | Words | Cells


@dataclass(frozen=True)
class Panel:
    """Marks on two axes, drawn in their order.

    Args:
        x: The axis from left to right.
        y: The axis from bottom to top; from top to bottom where it lists names.
        marks: What is drawn.
        title: Printed above.
        row: The row that the whole panel belongs to; None if it belongs to several.
        share: Share of the picture's width, in the layout ``side``.
        square: One unit has the same length on both axes.
        choice: Panels of one choice are shown together on the page, those of the others on demand; empty where there is no choice.
    """

    x: PanelAxis
    y: PanelAxis
    marks: Sequence[Mark]
    title: str = ""
    row: str | None = None
    share: float = 1.0
    square: bool = False
    choice: str = ""


@dataclass(frozen=True)
class PictureData:
    """Panels with their colours.

    Args:
        panels: In reading order.
        colours: A colour class for each row: ``g0`` to ``g5``, ``zoo``, ``held``, ``base``.
        layout: ``side``: next to each other with one list of slots. ``grid``: as many columns as fit, `columns` at most.
        columns: Of a grid.
        narrowest: Width of a grid's panel in pixels from which another column is made.
        legend: Whether the rows are named nowhere in it, so that a PNG needs a legend; the page names all rows above the pictures.
        strokes: Further entries of the legend: what plain and dashed lines are.
    """

    panels: Sequence[Panel]
    colours: Mapping[str, str]
    layout: Literal["side", "grid"] = "grid"
    columns: int = 1
    narrowest: int = 300
    legend: bool = False
    strokes: Sequence[str] = ()


@dataclass(frozen=True)
class Notes:
    """What is shown of a network on demand, in every picture.

    Args:
        lines: Its lines; ``#`` is the number.
        numbers: By row, for each line the number of every network; None where there is none, which leaves the line out.
    """

    lines: Sequence[str]
    numbers: Mapping[str, Sequence[Sequence[str | None]]]


@dataclass(frozen=True)
class Pictures:
    """All pictures of an evaluation.

    Args:
        notes: Of their networks.
        pictures: By key.
    """

    notes: Notes
    pictures: Mapping[str, PictureData]


def colour_of(rows: Sequence[RowDict], row: RowDict) -> str:
    """The class that gives a row its colour: generators one each, references ink, baselines grey."""
    if row["kind"] == "generator":
        names = [r["name"] for r in rows if r["kind"] == "generator"]
        return f"g{names.index(row['name']) % 6}"
    if row["kind"] == "reference":
        return "zoo" if row["role"] in ("zoo", "direct") else "held"
    return "base"


def colours_of(rows: Iterable[RowDict]) -> dict[str, str]:
    """The colour class of every row, by name."""
    every = list(rows)
    return {row["name"]: colour_of(every, row) for row in every}


def to_plain(value: Any) -> Any:
    """Pictures as plain values for the page: fields by name without those that are empty, floats to 4 significant digits."""
    if is_dataclass(value):
        values = {f.name: getattr(value, f.name) for f in fields(value)}
        return {name: to_plain(v) for name, v in values.items() if not _empty(v)}
    if isinstance(value, Mapping):
        return {key: to_plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str | list | tuple | dict) and not value)
