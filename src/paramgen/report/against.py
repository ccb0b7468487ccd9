"""Pictures of one figure against another: the score against distance, the score against similarity of errors, novel and good networks."""

from collections.abc import Mapping, Sequence

from paramgen.evaluation.metric import RowDict
from paramgen.report.picture import Dots, DottedLine, Line, Mark, Panel, PanelAxis, PictureData
from paramgen.report.scales import is_number, linear_ticks
from paramgen.report.view import View, hollow, numbered, trained


def plane(view: View) -> PictureData | None:
    """Mean score against distance, with single networks of generators and held-out runs behind."""
    if not view.scored or not view.having("nn_ratio"):
        return None
    key, place = view.unit.key, view.distances.place
    rows = view.having(key, "mean")
    single = [_networks(view, row) for row in rows if row["kind"] == "generator" or row["role"] == "heldout"]
    reach = {row["name"]: [row["values"][key]] for row in rows if trained(row)}
    for row in rows:
        if row["kind"] == "generator" or row["role"] == "heldout":
            reach.setdefault(row["name"], []).extend(d for _, d in numbered(row["points"]["distance"]))
    spots = {row["name"]: (place(row["values"][key]), f"{key} {row['values'][key]:.2f}") for row in rows}
    x = view.distances.axis(view.unit.axis, reach)
    band = view.within_run("within a run")
    return PictureData(
        [_scores_against(view, x, rows, spots, single, [*band, DottedLine("x", place(1.0))])], view.colours
    )


def alike(view: View) -> PictureData | None:
    """Mean score against the similarity of errors (p-diff, Fig. 4b)."""
    rows = view.having("iou_wrong_max", "mean")
    if not rows:
        return None
    iou = {row["name"]: row["values"]["iou_wrong_max"] for row in rows}
    spots = {name: (value, f"IoU {value:.2f}") for name, value in iou.items()}
    x = PanelAxis(
        "IoU of wrong predictions with the zoo", always=(0.0, 1.0), margin=(0.02, 0.02), ticks=linear_ticks(0, 1)
    )
    mark = view.zoo["values"]["iou_wrong_max"]
    return PictureData(
        [_scores_against(view, x, rows, spots, [], [DottedLine("x", mark)] if is_number(mark) else [])], view.colours
    )


def _scores_against(
    view: View,
    x: PanelAxis,
    rows: Sequence[RowDict],
    spots: Mapping[str, tuple[float, str]],
    single: Sequence[Dots],
    behind: Sequence[Mark],
) -> Panel:
    """One named spot per row at its mean score, the noise sweep as a line, single networks behind.

    Args:
        view: The evaluation.
        x: What the score is drawn against.
        rows: Those to draw, in the order of drawing.
        spots: By row, its place on x and what it is there.
        single: Dots of single networks.
        behind: Further marks, drawn first.
    """
    spec, place = view.scores.spec, view.scores.place
    means = {row["name"]: place(row["values"]["mean"]) for row in rows}
    noise = [row["name"] for row in sorted((r for r in rows if r["noise"] is not None), key=lambda r: r["noise"])]
    sweep = Line(None, [spots[name][0] for name in noise], [means[name] for name in noise], through=noise)
    named = [
        Dots(
            row["name"],
            [spots[row["name"]][0]],
            [means[row["name"]]],
            notes=[f"{row['name']}\nmean {spec.name} {spec.full(row['values']['mean'])}\n{spots[row['name']][1]}"],
            size="large" if row["kind"] == "generator" else "medium",
            hollow=hollow(row),
            name=row["name"],
        )
        for row in rows
    ]
    reach = {row["name"]: [means[row["name"]]] for row in rows if trained(row)}
    for dots in single:
        reach.setdefault(dots.row, []).extend(dots.y)
    good = view.results["good_from"]
    rules = [DottedLine("y", place(good))] if is_number(good) else []
    y = view.scores.axis(f"mean {view.score_label}", reach, [rule.at for rule in rules])
    return Panel(x, y, [*behind, *rules, sweep, *single, *named])


def _networks(view: View, row: RowDict) -> Dots:
    """A row's networks by distance and score."""
    scores = dict(numbered(row["points"]["score"]))
    kept = [(i, d, scores[i]) for i, d in numbered(row["points"]["distance"]) if i in scores]
    x, y = [view.distances.place(d) for _, d, _ in kept], [view.scores.place(score) for *_, score in kept]
    return Dots(row["name"], x, y, [i for i, *_ in kept], faint=True)


def novelty(view: View) -> PictureData | None:
    """The share of networks that are good and at least a multiple of a new run's distance away, against the multiple."""
    rows = view.ordered(row for row in view.rows if any(map(is_number, row["novel_and_good"].values())))
    if not rows:
        return None
    curve = view.results["thresholds"]["curve"]
    marks: list[Mark] = []
    for row in rows:
        points = sorted((float(c), share) for c, share in row["novel_and_good"].items() if is_number(share))
        x, y = [c for c, _ in points], [100 * share for _, share in points]
        notes = [
            f"{row['name']}\n{share:.0f} % good and ≥ {c:g} of a new run's distance away"
            for c, share in zip(x, y, strict=True)
        ]
        if row["kind"] == "baseline":
            marks.append(Line(row["name"], x, y, notes=notes, width=1))
            continue
        width = 2.6 if row["kind"] == "generator" else 2
        marks.append(Line(row["name"], x, y, notes=notes, width=width, dashed=hollow(row), name=row["name"]))
        marks.append(Dots(row["name"], x, y, size="small"))
    ends, ticks = (float(min(curve)), float(max(curve))), [[(float(c), f"{c:g}") for c in curve]]
    across = PanelAxis("at least c × a new run's distance", always=ends, margin=(0, 0), ticks=ticks)
    up = PanelAxis(
        "novel and good, % of networks", always=(0.0, 100.0), margin=(0.02, 0.02), ticks=linear_ticks(0, 100)
    )
    return PictureData([Panel(across, up, marks)], view.colours)
