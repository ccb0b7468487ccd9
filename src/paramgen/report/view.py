"""An evaluation as its pictures need it: the rows that were measured, their colours, and where scores and distances are drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from paramgen.evaluation.metric import RowDict
from paramgen.report.picture import Band, Dots, Notes, colours_of
from paramgen.report.scales import DistanceScale, ScoreScale, is_number

ResultsDict = dict[str, Any]
DRAWING_ORDER = ("baseline", "reference", "generator")  # later ones are drawn over earlier ones


@dataclass(frozen=True)
class UnitWords:
    """What distances are divided by, in words.

    Args:
        key: Of the metric that is a row's distance.
        short: After a number.
        axis: Of distances.
        place: Of places in the zoo's plane.
    """

    key: str
    short: str
    axis: str
    place: str


UNITS = {
    "run": UnitWords("run_ratio", "of a new run's", "distance to the zoo ÷ a new run's", "÷ a new run's distance"),
    "step": UnitWords("nn_ratio", "steps", "distance to the zoo in steps", "in steps"),
}


class View:
    """An evaluation to be drawn.

    Args:
        results: As ``results.json`` holds it.
    """

    def __init__(self, results: ResultsDict) -> None:
        self.results = results
        self.zoo: RowDict = results["rows"][0]
        self.rows: list[RowDict] = [row for row in results["rows"] if row["n"]]  # not of baselines that failed
        self.colours = colours_of(results["rows"])
        self.scored = results["score"] is not None
        self.scores, self.distances = ScoreScale(results), DistanceScale()
        self.unit = UNITS[results["unit"]]
        self.split: str = results.get("measured_on", "test")

    @property
    def score_label(self) -> str:
        """``test accuracy, %``."""
        return f"{self.split} {self.scores.spec.label}"

    def having(self, *keys: str) -> list[RowDict]:
        """The rows that have a number for each of some metrics, in the order of drawing."""
        return self.ordered(row for row in self.rows if all(is_number(row["values"][key]) for key in keys))

    def ordered(self, rows: Iterable[RowDict]) -> list[RowDict]:
        """Rows in the order of drawing."""
        return sorted(rows, key=lambda row: DRAWING_ORDER.index(row["kind"]))

    def within_run(self, text: str = "") -> list[Band]:
        """The band in which networks stay within a run, where runs have several checkpoints."""
        if self.results["unit"] != "run" or self.results["checkpoints"] < 2:
            return []
        return [Band(0.0, self.distances.place(self.results["thresholds"]["within_run"]), text)]

    def notes(self) -> Notes:
        """What is said of every network."""
        numbers = {}
        for row in self.rows:
            scores = [None if score is None else self.scores.spec.text(score) for score in row["points"]["score"]]
            distances = [None if d is None else f"{d:.2f}" for d in row["points"]["distance"]]
            numbers[row["name"]] = [scores, distances]
        return Notes([f"{self.scores.spec.name} #{self.scores.spec.symbol}", f"distance # {self.unit.short}"], numbers)


def trained(row: RowDict) -> bool:
    """Whether axes reach to a row: networks that were not trained would press the others together; they are drawn at the edge."""
    return row["role"] not in ("untrained", "no_adapter")


def hollow(row: RowDict) -> bool:
    """Whether a row's dots are hollow: references other than the zoo, or than direct training."""
    return row["kind"] == "reference" and row["role"] not in ("zoo", "direct")


def numbered(values: Sequence[float | None]) -> list[tuple[int, float]]:
    """The numbers among some networks' values, with the networks' indices."""
    return [(i, value) for i, value in enumerate(values) if value is not None and is_number(value)]


def at_places(row: RowDict, **style: Any) -> Dots:
    """A row's networks in the zoo's principal plane."""
    kept = [(i, xy) for i, xy in enumerate(row["points"]["xy"]) if None not in xy]
    return Dots(row["name"], [xy[0] for _, xy in kept], [xy[1] for _, xy in kept], [i for i, _ in kept], **style)
