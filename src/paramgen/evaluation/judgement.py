"""Flags of a row: what its figures mean by the thresholds, and which simple rows it is not shown to be better than."""

from collections.abc import Sequence

from paramgen.evaluation.flags import Flag, FlagKind
from paramgen.evaluation.intervals import Interval
from paramgen.evaluation.results import Row
from paramgen.evaluation.thresholds import THRESHOLDS


def flags_of(row: Row, rows: Sequence[Row], several: bool, works: bool) -> list[Flag]:
    """What to know before believing a row of one task; nothing of references.

    Args:
        row: Any, with its differences from other rows if it is a generator's.
        rows: All rows.
        several: Whether runs of the zoo have several checkpoints.
        works: Whether the row's networks work at all: that an untrained network lies near the zoo is no copying.
    """
    if row.kind == "reference" or not row.n:
        return []
    flags = [*_broken(row), *_spread(row)]
    if works:
        flags += copying(row, several) or some_copies(row, rows)
    if row.uses_task_data:
        flags.append(Flag("task_data"))
    return flags + not_better(row, rows)


def family_flags_of(row: Row, rows: Sequence[Row], several: bool) -> list[Flag]:
    """The same of a row of networks for unseen tasks, generators alone; direct training, the first row, is no simple way."""
    if row.kind != "generator":
        return []
    seen = [Flag("seen_data")] if row.uses_task_data else []
    simple = [other for other in rows[1:] if other.kind != "generator"]
    return [*_broken(row), *copying(row, several), *seen, *_not_better_scores(row, simple)]


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
    return [
        Flag(kind, f"{round(mine * row.n)} of {row.n}")
        for kind, key in kinds.items()
        if (mine := row.values[key]) is not None and mine >= (reference.values[key] or 0) + THRESHOLDS.some
    ]


def not_better(row: Row, rows: Sequence[Row]) -> list[Flag]:
    """Baselines that a generator is not shown to beat in score or in distance; those that saw the task's data against such alone."""
    fair = [other for other in rows if other.kind == "baseline" and (row.uses_task_data or not other.uses_task_data)]
    found = {pair.name: pair for pair in row.against}
    return _not_better_scores(row, [o for o in fair if o.name in found and not _farther(found[o.name].distance)])


def _not_better_scores(row: Row, others: Sequence[Row]) -> list[Flag]:
    names = {other.name for other in others}
    pairs = [pair for pair in row.against if pair.name in names]
    worse = [Flag("worse", pair.name) for pair in pairs if pair.verdict == "worse"]
    return worse + [Flag("alike", pair.name) for pair in pairs if pair.verdict == "alike"]


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
