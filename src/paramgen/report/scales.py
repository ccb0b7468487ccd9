"""Where values are drawn: places on linear axes, and the ticks of round values at these places."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor, inf, isfinite, log1p, log10
from typing import Any

from paramgen.core.score import ScoreSpec
from paramgen.report.picture import MARGIN, PanelAxis, Tick

COARSE = (0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # errors
FINE = (
    *(0.9, 0.8, 0.6, 0.4, 0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.025, 0.02, 0.015),
    *(0.01, 0.008, 0.006, 0.005, 0.004, 0.003, 0.002, 0.001),
)
COUNTS = (5, 10, 20, 50, 100)  # steps over an axis, a level of ticks each
TINY = 1e-12
LINEAR_BELOW = 0.1  # distances are spread linearly below it and logarithmically above


def is_number(value: float | None) -> bool:
    """Whether there is a number: ``results.json`` holds None for nan and inf."""
    return value is not None and isfinite(value)


def reach_of(places: Mapping[str, Iterable[float]]) -> dict[str, tuple[float, float]]:
    """The lowest and the highest of each row's places, for :class:`PanelAxis`."""
    every = {row: [value for value in values if isfinite(value)] for row, values in places.items()}
    return {row: (min(values), max(values)) for row, values in every.items() if values}


def linear_ticks(low: float, high: float) -> list[list[Tick]]:
    """Levels of round numbers from one number to another."""
    return [[(value, f"{value:g}") for value in level] for level in _levels(low, high)]


def count_ticks(high: float) -> list[list[Tick]]:
    """Levels of round counts from 0 on, thousands as ``2k``."""
    levels = [[value for value in level if value == round(value)] for level in _levels(0, max(high, 1))]
    return [[(value, f"{value / 1000:g}k" if value >= 1000 else f"{value:g}") for value in level] for level in levels]


def _levels(low: float, high: float) -> list[list[float]]:
    levels = []
    for count in COUNTS:
        raw = (high - low or 1.0) / count
        power = floor(log10(raw))
        step = next(m for m in (1, 2, 5, 10) if m * 10**power >= raw * (1 - 1e-9)) * 10.0**power
        digits = max(0, -floor(log10(step)))
        levels.append([round(k * step, digits) + 0.0 for k in range(ceil(low / step), floor(high / step) + 1)])
    return levels


def log_ticks(low: float, high: float, place: Callable[[float], float] = log10) -> list[list[Tick]]:
    """Levels of round numbers above 0: powers of ten, then 1, 2 and 5 times these, then evenly spaced numbers."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    levels = [[m * 10.0**power for power in powers for m in digits] for digits in ((1,), (1, 2, 5))]
    levels += [[value for value in level if value > 0] for level in _levels(low, high)]
    return [[(place(value), f"{value:.4g}") for value in level] for level in levels]


class DistanceScale:
    """Distances of at least 0: linear near 0, where copies are, logarithmic beyond."""

    @staticmethod
    def place(distance: float) -> float:
        """Where a distance is drawn."""
        return log1p(distance / LINEAR_BELOW)

    def axis(self, label: str, reach: Mapping[str, Iterable[float]]) -> PanelAxis:
        """An axis over distances by row; it shows 0 and the distance of a new run in any case."""
        places = {row: [self.place(d) for d in distances] for row, distances in reach.items()}
        powers = range(10)
        coarse = [0.0, *(10.0**k for k in powers)]
        fine = sorted([*coarse, 0.1, 0.3, *(3 * 10.0**k for k in powers)])
        levels = [[(self.place(d), f"{d:g}") for d in level] for level in (coarse, fine)]
        return PanelAxis(label, reach_of(places), (0.0, self.place(1.5)), (0.015, 0.03), ticks=levels)


class ScoreScale:
    """Scores of a task, better to the right or up: the logarithm of the error, of the score, or the score itself.

    Args:
        results: As ``results.json`` holds it.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self.spec = ScoreSpec.from_dict(results["score"])
        self.least = 0.5 / max(1, results["test_items"])  # an error of half an item: a logarithm has no 0
        untrained = [row["values"]["mean"] for row in results["rows"] if row["role"] == "untrained"]
        # untrained networks would press the others together
        self.floor = min((self.place(score) for score in untrained if is_number(score)), default=-inf)

    def place(self, score: float) -> float:
        """Where a score is drawn; larger is better."""
        if self.spec.axis == "linear":
            return self.spec.sign * score
        if self.spec.axis == "error":
            return -log10(max(1 - score, self.least))
        return self.spec.sign * log10(max(score, TINY))

    def value(self, place: float) -> float:
        """The score that is drawn at a place."""
        if self.spec.axis == "linear":
            return self.spec.sign * place
        return float(1 - 10**-place if self.spec.axis == "error" else 10 ** (self.spec.sign * place))

    def axis(self, label: str, reach: Mapping[str, Iterable[float]], always: Sequence[float] = ()) -> PanelAxis:
        """An axis over places by row, which reaches no further than untrained networks.

        Args:
            label: Printed next to it.
            reach: Places that it must show, by row.
            always: Places that it shows in any case.
        """
        near = reach_of({row: [at for at in places if at >= self.floor] for row, places in reach.items()})
        ends = near or reach_of(reach)
        places = [*always, *(place for pair in ends.values() for place in pair)] or [0.0, 1.0]
        levels = self._ticks(min(places), max(places))
        return PanelAxis(label, ends, always, (MARGIN, MARGIN), 0.0 if self.spec.axis == "error" else None, levels)

    def _ticks(self, low: float, high: float) -> list[list[Tick]]:
        if self.spec.axis == "error":
            return [
                [(-log10(error), f"{self.spec.shown(1 - error):.4g}") for error in errors] for errors in (COARSE, FINE)
            ]
        margin = MARGIN * (high - low or 1.0)
        least, most = sorted((self.value(low - margin), self.value(high + margin)))
        if self.spec.axis == "log":
            return log_ticks(least, most, self.place)
        return [
            [(self.place(value), f"{self.spec.shown(value):.4g}") for value in level] for level in _levels(least, most)
        ]
