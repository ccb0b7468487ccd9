"""Flags of a row: what its figures mean by the thresholds, and which simple rows it is not shown to be better than."""

from collections.abc import Sequence

from paramgen.evaluation.flags import Flag, FlagKind
from paramgen.evaluation.intervals import Interval
from paramgen.evaluation.results import Row
from paramgen.evaluation.thresholds import THRESHOLDS


def flags_of(row: Row, rows: Sequence[Row], several: bool, works: bool) -> list[Flag]:
    """What to know before believing a row; nothing of references, nor of the baselines of a family.

    Args:
        row: Any, with its differences from other rows if it is a generator's.
        rows: All rows.
        several: Whether runs of the zoo have several checkpoints.
        works: Whether the row's networks work at all: that an untrained network lies near the zoo is no copying.
    """
    of_family = row.tasks is not None
    if row.kind == "reference" or not row.n or (of_family and row.kind != "generator"):
        return []
    flags = _broken(row)
    if not of_family:  # networks for other tasks spread by their tasks
        flags += _spread(row)
    if works:
        flags += copying(row, several) or some_copies(row, rows)
    if row.uses_task_data:
        flags.append(Flag("seen_data" if of_family else "task_data"))
    return flags + not_better(row, rows)


def copying(row: Row, several: bool) -> list[Flag]:
    """How near to the training networks a row lies, the plainest finding alone.

    Args:
        row: Any.
        several: Whether runs of the zoo have several checkpoints: only then is there a run to stay within.
    """
    if row.value("nn_ratio") < THRESHOLDS.copies:
        return [Flag("copies")]
    if _below(row.values["nn_ratio_aligned"], THRESHOLDS.copies):
        return [Flag("copies_aligned")]
    if several and _below(row.values["run_ratio"], THRESHOLDS.within_run):
        return [Flag("within_run")]
    if several and _below(row.values["run_ratio_aligned"], THRESHOLDS.within_run):
        return [Flag("within_run_aligned")]
    return [Flag("nearer_than_heldout")] if row.value("zu") < THRESHOLDS.zu else []


def some_copies(row: Row, rows: Sequence[Row]) -> list[Flag]:
    """What a median does not show: that some networks are copies.

    Args:
        row: Any.
        rows: All rows. The last reference, held-out runs or else the zoo, shows how often new networks look like copies.
    """
    references = [other for other in rows if other.kind == "reference"]
    if not references:
        return []
    reference = references[-1]
    kinds: dict[FlagKind, str] = {
        "some_near": "near_share",
        "some_near_aligned": "near_share_aligned",
        "same_predictions": "same_predictions",
    }
    finite = row.n - row.nonfinite
    counted = {"same_predictions": row.n, "near_share": finite, "near_share_aligned": finite}  # networks of each share
    return [
        Flag(kind, f"{round(share * counted[key])} of {counted[key]}")
        for kind, key in kinds.items()
        if (share := row.values[key]) is not None and share >= (reference.values[key] or 0) + THRESHOLDS.some
    ]


def not_better(row: Row, rows: Sequence[Row]) -> list[Flag]:
    """Simple rows that a generator is not shown to beat in score or in distance; those that saw the task's data against such alone.

    None of one network of one task, which no difference is measured for.
    """
    if row.n < 2 and row.tasks is None:
        return []
    fair = {other.name for other in rows if _simple(other) and (row.uses_task_data or not other.uses_task_data)}
    pairs = [pair for pair in row.against if pair.name in fair and not _farther(pair.distance)]
    worse = [Flag("worse", pair.name) for pair in pairs if pair.verdict == "worse"]
    return worse + [Flag("alike", pair.name) for pair in pairs if pair.verdict == "alike"]


def _simple(row: Row) -> bool:
    """Whether a generator should beat a row: no other generator, nor networks that were trained for the same task."""
    return row.kind != "generator" and row.role not in ("zoo", "heldout", "direct")


def _broken(row: Row) -> list[Flag]:
    return [Flag("nonfinite", f"{row.nonfinite} of {row.n}")] if row.nonfinite else []


def _spread(row: Row) -> list[Flag]:
    flags = []
    dispersion = row.value("dispersion")
    if dispersion < THRESHOLDS.narrow:
        flags.append(Flag("collapsed" if dispersion < THRESHOLDS.collapsed else "narrow"))
    if row.value("structure") < THRESHOLDS.mean_plus_noise:
        flags.append(Flag("mean_plus_noise"))
    return flags


def _farther(distance: Interval | None) -> bool:
    return distance is not None and distance.verdict() == "better"


def _below(ratio: float | None, threshold: float) -> bool:
    return ratio is not None and ratio < threshold
