"""Every metric of the report: rows, columns, summaries of comparisons, the JSON schema and the docs' table are made from it.

A metric is one entry in one of the lists: of scores and predictions, of sets, or of weights and costs.
"""

from collections.abc import Collection

from paramgen.evaluation.context import Context
from paramgen.evaluation.metric import Metric, RowDict
from paramgen.evaluation.score_metrics import PREDICTION_METRICS, SCORE_METRICS
from paramgen.evaluation.set_metrics import SET_METRICS
from paramgen.evaluation.weight_metrics import DISTANCE_METRICS, ORIGIN_METRICS, SPREAD_METRICS

METRICS: list[Metric] = [
    *SCORE_METRICS,
    *SET_METRICS,
    *DISTANCE_METRICS,
    *PREDICTION_METRICS,
    *SPREAD_METRICS,
    *ORIGIN_METRICS,
]


def values_of(context: Context) -> dict[str, float | None]:
    """A value for each metric, None where the row lacks what it needs."""
    return {m.key: m.compute(context) if m.needs <= context.has else None for m in METRICS}


def blank_values() -> dict[str, float | None]:
    """The values of a row that could not be measured."""
    return {m.key: None for m in METRICS}


def metric(key: str) -> Metric:
    """A metric by its key."""
    return next(m for m in METRICS if m.key == key)


def with_values(rows: Collection[RowDict]) -> list[Metric]:
    """The metrics that have a value in any of some rows of ``results.json``."""
    return [m for m in METRICS if any(m.value(row) is not None for row in rows)]


def in_terminal(rows: Collection[RowDict]) -> list[Metric]:
    """The metrics with a column in tables of plain text: those that have values, unless another one says the same better."""
    available = with_values(rows)
    keys = {m.key for m in available}
    return [m for m in available if m.terminal is not None and m.behind not in keys]
