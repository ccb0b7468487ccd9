"""Differences in score between each generator and other rows, with intervals.

For one task: from baselines and other generators, by a bootstrap over networks and test items. For a family: from every other row, paired
over the unseen tasks, each of which is one observation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from paramgen.evaluation.intervals import Against, Resampled, against, paired_interval
from paramgen.evaluation.results import Row


def with_differences(rows: Sequence[Row], resampled: Mapping[str, Resampled], sign: int) -> list[Row]:
    """The rows; generators have their differences from other rows.

    Args:
        rows: All rows.
        resampled: What the bootstrap made of each row, by name; rows that are not in it, such as references, are not compared.
        sign: 1 where a higher score is better, else -1.
    """

    def differences(row: Row) -> list[Against]:
        others = [other for other in rows if other.n and other.name != row.name]
        if row.tasks is not None:
            return [_over_tasks(row, other, sign) for other in others if other.tasks is not None]
        if row.name not in resampled:
            return []
        own = resampled[row.name]
        return [against(o.name, own, resampled[o.name], sign) for o in others if o.name in resampled]

    return [replace(row, against=differences(row)) if row.kind == "generator" else row for row in rows]


def _over_tasks(row: Row, other: Row, sign: int) -> Against:
    assert row.tasks is not None
    assert other.tasks is not None
    unseen = other.tasks.unseen
    interval = paired_interval([score - unseen[task] for task, score in row.tasks.unseen.items()])
    return Against(other.name, interval.verdict(sign), interval)
