"""The picture of ``paramgen interpolate``: the scores on two tasks of networks between their conditions."""

from typing import Any

from paramgen.core.score import ScoreSpec
from paramgen.report.picture import Line, Mark, Panel, PanelAxis, PictureData, Ribbon, colours_of
from paramgen.report.scales import linear_ticks, reach_of


def mixtures(values: dict[str, Any]) -> PictureData:
    """One panel per zoo, one colour per row: solid on the first task, dashed on the second, the spread shaded.

    Args:
        values: As ``interpolation.json`` holds them.
    """
    panels, colours = [], dict[str, str]()
    for zoo in values["zoos"]:
        spec, marks = ScoreSpec.from_dict(zoo["score"]), list[Mark]()
        colours |= colours_of(zoo["rows"])
        places = dict[str, list[float]]()
        for row in zoo["rows"]:
            for task, (mean, std) in enumerate(zip(row["mean"], row["std"], strict=True)):
                y, spread = [spec.shown(v) for v in mean], [spec.shown(v) for v in std]
                low, high = (
                    [a - s for a, s in zip(y, spread, strict=True)],
                    [a + s for a, s in zip(y, spread, strict=True)],
                )
                marks.append(Ribbon(row["name"], values["weights"], low, high))
                marks.append(Line(row["name"], values["weights"], y, dashed=task == 1))
                places.setdefault(row["name"], []).extend(y)
        reach = reach_of(places)
        ends = [place for pair in reach.values() for place in pair]
        better = "" if spec.higher_is_better else " (lower is better)"
        first, second = values["tasks"]
        across = PanelAxis(
            f"{first} at 0, {second} at 1", always=(0.0, 1.0), margin=(0.02, 0.02), ticks=linear_ticks(0, 1)
        )
        up = PanelAxis(f"{values['split']} {spec.label}{better}", reach, ticks=linear_ticks(min(ends), max(ends)))
        panels.append(Panel(across, up, marks, zoo["zoo"]))
    strokes = [f"on {task}" for task in values["tasks"]]
    return PictureData(panels, colours, columns=len(panels), legend=True, strokes=strokes)
