"""What a metric is: its words, what it needs, how it is computed and printed."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paramgen.core.score import ACCURACY, ScoreSpec
from paramgen.evaluation.context import Context, Need

RowDict = dict[str, Any]
Better = Literal["higher", "lower", "score", None]
ColumnPlace = Literal["shown", "more", "absent"]


@dataclass(frozen=True)
class Form:
    """How values of a metric are printed, and between which limits they lie.

    Args:
        show: Value and the zoo's score to text.
        least: Smallest value; None where there is none, or where it depends on the score.
        most: Largest value.
    """

    show: Callable[[float, ScoreSpec], str]
    least: float | None = None
    most: float | None = None


def _plain(v: float, digits: int = 2) -> str:
    return f"{v:.{digits}f}" if abs(v) < 10_000 else f"{v:.1e}"  # of a network far outside the zoo


SCORE = Form(lambda v, spec: spec.text(v) if abs(v) < 10_000 else f"{v:.1e}")
GAP = Form(lambda v, spec: spec.text(v, signed=True) if abs(v) < 10_000 else f"{v:+.1e}")
PERCENT = Form(lambda v, _: f"{100 * v:.1f}", 0, 1)
RATIO = Form(lambda v, _: _plain(v), 0)
FRACTION = Form(lambda v, _: f"{v:.2f}", 0, 1)
COSINE = Form(lambda v, _: f"{v:.3f}", -1, 1)
SIGNED = Form(lambda v, _: f"{v:+.1f}".replace("-", "−"))
COUNT = Form(lambda v, _: f"{v:,.0f}", 0)
SECONDS = Form(lambda v, _: f"{v:,.1f}", 0)
MILLISECONDS = Form(lambda v, _: f"{1000 * v:,.1f}" if v >= 1e-4 else "<0.1", 0)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        key: Its name in ``results.json``.
        title: The head of its column.
        definition: What it is, shown on demand and in the docs.
        compute: The value of a row, called only where the row has what is needed; None or nan where there is no value.
        form: How values are printed.
        needs: What a row must have.
        better: Which way is better; ``score`` follows the score's own direction, None is no question of better.
        report: Whether its column is shown in an evaluation's table, hidden until all figures are requested, or absent.
        summary: The same for the summary over seeds.
        terminal: The head of its column in the terminal; None where it is not printed there.
        behind: Key of a metric that says the same better: where that one has values, this one is hidden too.
        mark: A row's values to what is printed before this one.
    """

    key: str
    title: str
    definition: str
    compute: Callable[[Context], float | None]
    form: Form = RATIO
    needs: frozenset[Need] = frozenset()
    better: Better = None
    report: ColumnPlace = "shown"
    summary: ColumnPlace = "absent"
    terminal: str | None = None
    behind: str | None = None
    mark: Callable[[Mapping[str, float | None]], str] = lambda values: ""

    def value(self, row: RowDict) -> float | None:
        """The value in a row of ``results.json``."""
        value: float | None = row["values"].get(self.key)
        return value

    def hidden(self, shown: Collection[str], place: ColumnPlace | None = None) -> bool:
        """Whether its column is hidden until all figures are requested.

        Args:
            shown: Keys of the metrics that have values.
            place: :attr:`report` unless :attr:`summary` is given.
        """
        return (place or self.report) == "more" or self.behind in shown

    def text(self, row: RowDict, spec: ScoreSpec | None = None) -> str:
        """The printed value, a dash where there is none."""
        number = self.value(row)
        return "–" if number is None else self.mark(row["values"]) + self.form.show(number, spec or ACCURACY)

    def spread(self, std: float, spec: ScoreSpec | None = None) -> str:
        """A standard deviation of values, printed."""
        return self.form.show(std, spec or ACCURACY).lstrip("+")


def needs(*what: Need) -> frozenset[Need]:
    """What a metric needs."""
    return frozenset(what)
