"""Rows: a set of networks with a value for each metric, or with the reason why there is none."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.errors import ParamgenError
from paramgen.evaluation.context import Context, Failures
from paramgen.evaluation.flags import Flag
from paramgen.evaluation.intervals import Resampled
from paramgen.evaluation.network_set import NetworkSet
from paramgen.evaluation.registry import blank_values, values_of
from paramgen.evaluation.results import Points, Row


class MeasuredRow(NamedTuple):
    """A row, and what comparisons with other rows and pictures take from its networks.

    Args:
        row: Its values.
        resampled: What the bootstrap made of it; None of references, without scores and for a family.
        renders: (N, H, W) what its networks are, for networks that are themselves data.
        failures: Its networks without a score.
    """

    row: Row
    resampled: Resampled | None = None
    renders: Tensor | None = None
    failures: Failures | None = None


def make_row(networks: NetworkSet, context: Context, points: Points) -> Row:
    """A row with the value of each metric.

    Args:
        networks: What the row is of.
        context: Its networks and what they are compared with.
        points: One value per network.
    """
    return Row(
        name=networks.name,
        kind=networks.kind,
        role=networks.role,
        n=context.n,
        nonfinite=0 if networks.weights is None else context.n - len(context.weights),
        values=values_of(context),
        novel_and_good=context.novel_and_good or {},
        noise=networks.noise,
        uses_task_data=context.info.uses_task_data,
        flags=[],
        points=points,
        tasks=context.tasks,
    )


def row_or_reason(name: str, measure: Callable[[], MeasuredRow]) -> MeasuredRow:
    """A baseline's row; if it fails, a row without values whose flag gives the reason, so that the other rows are still measured.

    Args:
        name: Of the baseline.
        measure: Draws its networks and measures them.
    """
    try:
        return measure()
    except Exception as error:  # no single baseline may end a report, whatever goes wrong in it
        reason = str(error).partition("\n")[0] or "no message"
        reason = reason if isinstance(error, ParamgenError) else f"{type(error).__name__}: {reason}"
        logging.getLogger(__name__).warning("baseline %s failed: %s", name, reason, exc_info=_unexpected(error))
        row = Row(
            name=name,
            kind="baseline",
            role="baseline",
            n=0,
            nonfinite=0,
            values=blank_values(),
            novel_and_good={},
            noise=None,
            uses_task_data=False,
            flags=[Flag("failed", reason)],
            points=Points([], [], []),
        )
        return MeasuredRow(row)


def _unexpected(error: Exception) -> bool:
    """Whether a traceback helps: not for a user error, nor where memory ran out."""
    return not isinstance(error, ParamgenError | MemoryError | torch.OutOfMemoryError)
