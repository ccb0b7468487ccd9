"""What a baseline is: how it makes networks, what it needs, and which evaluations show it.

K: networks in the pool. P: parameters. n: networks drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from paramgen.core.params import ParamSpec
from paramgen.evaluation.pool import Pool

Draw = Callable[[Pool, int, Generator], Tensor]
Resource = Literal["network", "data", "conditions", "classes"]
Setting = Literal["one_task", "unseen_tasks", "starts", "requested"]
_TINY = 1e-12  # below any variance that batch norm meets; its own eps is 1e-5


@dataclass(frozen=True)
class Baseline:
    """A simple method that every generator must beat. It has either `draw` or `predict`.

    Args:
        draw: Pool, n and generator to networks (n, P). The generator's seed also seeds what is random elsewhere.
        predict: Of a method that gives predictions and no weights: pool to scores (n,), one for each new task.
        needs: What it needs besides weights: the `network`, to build one; train `data`; `conditions` of tasks, seen and new; `classes` to
            predict.
        shown: In which evaluations it is a row unless others are requested: of `one_task`; of the `unseen_tasks` of a family; as one of the
            `starts` for unseen tasks, where steps of fine-tuning are counted. One that is only `requested` is never shown otherwise.
        raw: Draws raw weights, not with running_var in log space.
        noise: Of noised copies: standard deviation of the noise, in the zoo's spread.
        untrained: Its networks are fresh ones.
        by_score: Chooses among the zoo's networks by their train scores.
    """

    draw: Draw | None = None
    predict: Callable[[Pool], Tensor] | None = None
    needs: frozenset[Resource] = frozenset()
    shown: frozenset[Setting] = frozenset({"one_task"})
    raw: bool = False
    noise: float | None = None
    untrained: bool = False
    by_score: bool = False


def draw_from(baseline: Baseline, pool: Pool, spec: ParamSpec, n: int, generator: Generator) -> Tensor:
    """Draw n networks (n, P) in raw weights, running_var positive.

    Args:
        baseline: One that draws.
        pool: Raw weights to draw from.
        spec: Says which columns are variances.
        n: How many.
        generator: Source of randomness, on the CPU.
    """
    assert baseline.draw is not None
    variances = variance_columns(spec)
    if baseline.raw or not variances.any():
        return baseline.draw(pool, n, generator)
    drawn = baseline.draw(_with_log_variances(pool, variances), n, generator)
    drawn[:, variances] = drawn[:, variances].exp()
    return drawn


def variance_columns(spec: ParamSpec) -> Tensor:
    """Which of the P columns are batch-norm's running variances: (P,) bool."""
    return torch.cat([torch.full((t.numel,), t.kind == "running_var") for t in spec.tensors])


def _with_log_variances(pool: Pool, variances: Tensor) -> Pool:
    """The pool with the columns of variances in log space, everywhere that it holds weights."""

    def logged(weights: Tensor) -> Tensor:
        return torch.where(variances, weights.clamp_min(_TINY).log(), weights)  # (..., P)

    start = None if pool.start is None else logged(pool.start)
    new = pool.new
    if new is not None:
        new = new._replace(seen=new.seen._replace(weights=logged(new.seen.weights)))
    return replace(pool, weights=logged(pool.weights), start=start, new=new)
