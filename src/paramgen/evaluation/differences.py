"""How far each generator lies from other rows, in the way that what was measured allows.

Of one task, by a bootstrap over networks and test items, against baselines and other generators. Of a family, paired over the unseen tasks,
each of which is one observation, against every other row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from paramgen.evaluation.intervals import Against, Resampled, against, paired_interval
from paramgen.evaluation.results import Row


def with_differences(rows: Sequence[Row], resampled: Mapping[str, Resampled], sign: int) -> list[Row]:
    """The rows, generators with their differences from others.

    Args:
        rows: All rows.
        resampled: By name of the row, what the bootstrap made of it; of rows that are not there nothing is said, as of references.
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
