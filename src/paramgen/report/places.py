"""Pictures in the plane of the zoo's first two principal components: where networks lie, and how samples came there."""

from collections.abc import Sequence

from paramgen.report.picture import Dots, Line, Mark, Panel, PanelAxis, PictureData, Size
from paramgen.report.scales import linear_ticks, reach_of
from paramgen.report.view import View, at_places, hollow, trained

WIDER = 3.0  # ticks reach this far beyond the networks: one axis is stretched so that both have one unit


def map_of(view: View) -> PictureData:
    """Networks in the plane; of the baselines, noise of the zoo's own size alone."""
    rows = view.ordered(row for row in view.rows if row["kind"] != "baseline" or row["noise"] == 1)
    marks = []
    for row in rows:
        size: Size = "small" if row["kind"] == "baseline" else "medium"
        marks.append(at_places(row, size=size, faint=not hollow(row), hollow=hollow(row)))
    near = {row["name"] for row in rows if row["kind"] != "baseline" and trained(row)}
    return PictureData([_plane(view, marks, near)], view.colours, legend=True)


def trajectories(view: View) -> PictureData | None:
    """The way of a generator's first networks from noise (p-diff, Fig. 5a)."""
    paths = view.results.get("trajectories") or {}
    marks: list[Mark] = [at_places(view.zoo, faint=True)]
    for row in view.rows:
        name = row["name"]
        for i, path in enumerate(paths.get(name, [])):
            last = len(path) - 1
            kept = [(step, x, y) for step, (x, y) in enumerate(path) if x is not None and y is not None]
            x, y = [x for _, x, _ in kept], [y for *_, y in kept]
            notes = [f"{name}, network {i}\n{_state(step, last)}" for step, *_ in kept]
            marks.append(Line(name, x, y, notes=notes))
            for end in (0, last):
                at = [(x, y) for step, x, y in kept if step == end]
                marks.append(Dots(name, [x for x, _ in at], [y for _, y in at], size="medium", hollow=end == 0))
    if not any(paths.values()):
        return None
    return PictureData([_plane(view, marks, {mark.row for mark in marks if mark.row})], view.colours, legend=True)


def _state(step: int, last: int) -> str:
    return "noise" if step == 0 else "sample" if step == last else f"state {step} of {last}"


def _plane(view: View, marks: Sequence[Mark], near: set[str]) -> Panel:
    """A panel of the plane that shows all marks of some rows; what lies beyond is cut."""
    placed = [mark for mark in marks if isinstance(mark, Dots | Line) and mark.row in near]
    reach = [reach_of(_places(placed, axis)) for axis in ("x", "y")]
    ends = [[place for pair in rows.values() for place in pair] or [-1.0, 1.0] for rows in reach]
    span = max(max(places) - min(places) for places in ends)
    labels = (f"first principal component {view.unit.place}", "second")
    x, y = (
        PanelAxis(label, rows, ticks=linear_ticks(min(places) - WIDER * span, max(places) + WIDER * span))
        for label, rows, places in zip(labels, reach, ends, strict=True)
    )
    return Panel(x, y, marks, square=True)


def _places(marks: Sequence[Dots | Line], axis: str) -> dict[str, list[float]]:
    """The places of each row's marks on an axis."""
    places: dict[str, list[float]] = {}
    for mark in marks:
        places.setdefault(str(mark.row), []).extend(getattr(mark, axis))
    return places
