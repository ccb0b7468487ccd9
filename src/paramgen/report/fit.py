"""Pictures at the end of a fit, for its log: its last samples next to training networks, scored on the val split."""

from collections.abc import Sequence
from statistics import mean, median
from typing import NamedTuple

from matplotlib.figure import Figure

from paramgen.core.score import ScoreSpec
from paramgen.evaluation.metric import RowDict
from paramgen.evaluation.novelty import DistanceUnit
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.report.against import plane
from paramgen.report.by_row import strips
from paramgen.report.places import map_of
from paramgen.report.png import draw_picture
from paramgen.report.view import UNITS, ResultsDict, View


class Group(NamedTuple):
    """Networks to draw, one value per network.

    Args:
        score: On the val split.
        distance: To the nearest training network, in the unit.
        xy: Place in the plane of the zoo's first two principal components, in the unit.
        dispersion: Spread over the zoo's spread.
    """

    score: Sequence[float]
    distance: Sequence[float]
    xy: Sequence[Sequence[float]]
    dispersion: float


def fit_figures(
    training: Group, samples: Group, spec: ScoreSpec, items: int, unit: DistanceUnit, checkpoints: int
) -> dict[str, Figure]:
    """The report's pictures of a fit's last samples next to training networks.

    Args:
        training: Some of the zoo's networks.
        samples: As many of the generator's.
        spec: What networks are scored by.
        items: Val items that they are scored on.
        unit: Of the distances.
        checkpoints: The most training networks of one run.
    """
    rows = [_row("zoo", "reference", "zoo", training, unit), _row("samples", "generator", "generator", samples, unit)]
    results: ResultsDict = {"rows": rows, "score": spec.to_dict(), "test_items": items, "measured_on": "val"}
    results |= {"good_from": spec.floor(rows[0]["values"]["mean"]), "unit": unit, "checkpoints": checkpoints}
    view = View({**results, "thresholds": THRESHOLDS._asdict()})
    pictures = {"strips": strips(view), "plane": plane(view), "map": map_of(view)}
    return {name: draw_picture(picture) for name, picture in pictures.items() if picture is not None}


def _row(name: str, kind: str, role: str, group: Group, unit: DistanceUnit) -> RowDict:
    distance = median(group.distance)
    values = {
        "mean": mean(group.score),
        "nn_ratio": distance,
        UNITS[unit].key: distance,
        "dispersion": group.dispersion,
    }
    points = {"score": group.score, "distance": group.distance, "xy": group.xy}
    row = {"name": name, "kind": kind, "role": role, "n": len(group.score), "noise": None}
    return {**row, "points": points, "values": values}
