"""What the metrics of a row are computed from. N: networks of a row, n: those without NaN or inf, K: training networks, M: test items."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from paramgen.core.distances import Nearest
from paramgen.core.samples import SampleInfo
from paramgen.core.score import ScoreSpec
from paramgen.evaluation.metrics import ScoreSummary, WrongIoU, score_summary, wrong_iou_averages
from paramgen.evaluation.novelty import Ratios
from paramgen.evaluation.results import TaskScores
from paramgen.evaluation.structure import Measured
from paramgen.tasks.score import Scores

Need = Literal["score", "predictions", "answers", "accuracy", "one_task", "tasks"]
"""What a metric needs: scores; discrete predictions; predictions that are right or wrong; accuracy as the score; a zoo of one task;
a family of tasks."""


@dataclass(frozen=True)
class Scored:
    """Scores of a row's networks.

    Args:
        test: On the test split.
        train: (N,) on train; None where nothing is chosen by them.
        recalibrated: (N,) on test with batch-norm statistics measured anew; None for networks without them.
    """

    test: Scores
    train: Tensor | None = None
    recalibrated: Tensor | None = None

    def right(self, targets: Tensor) -> Tensor | None:
        """Whether each prediction (N, M) is right; None where predictions cannot be compared with the targets (M, ...)."""
        predictions = self.test.predictions
        if predictions is None or predictions.shape[1:] != targets.shape or targets.is_floating_point():
            return None
        return predictions == targets


class Distances(NamedTuple):
    """How far the n finite networks of a row lie from the training networks.

    Args:
        near: The nearest training network of each.
        distance: (n,) as the pictures show it.
        raw: Median ratios.
        aligned: The same up to permutation and scale.
        zu: What is compared with held-out runs.
    """

    near: Nearest
    distance: Tensor
    raw: Ratios
    aligned: Ratios | None
    zu: Tensor


@dataclass(frozen=True)
class Context:
    """One row's networks and what they are compared with.

    Args:
        n: N.
        weights: (n, P) the finite networks.
        finite: (N,) which they are.
        zoo: (K, P) the training networks.
        own: Whether the row is the zoo itself, whose networks are compared with each other.
        near: The nearest training network of each finite one.
        raw: Ratios of distances.
        aligned: The same up to permutation and scale; None where it is not measured.
        zu_of: Distances that `zu` compares, (n,) or fewer.
        heldout_runs: One distance per held-out run.
        spec: What the score is; None for a zoo without a task.
        scored: The row's scores; None without a task.
        zoo_scored: The zoo's.
        targets: (M, ...) of the test split.
        reference: Mean score of the first row; None while that one is measured.
        structured: How the networks vary together; None where it is not measured.
        novel_and_good: Shares by distance.
        id_match: Share nearest to the network that conditioned them.
        run_match: Share nearest to a network of the run that conditioned them.
        info: Where the networks come from.
        sample_seconds: Seconds to draw one.
        finetune_steps: Median steps of fine-tuning; None where they are not counted.
        tasks: Scores by task, of a family.
    """

    n: int
    weights: Tensor
    finite: Tensor
    zoo: Tensor
    own: bool
    near: Nearest
    raw: Ratios
    spec: ScoreSpec | None
    aligned: Ratios | None = None
    zu_of: Tensor | None = None
    heldout_runs: Tensor | None = None
    scored: Scored | None = None
    zoo_scored: Scored | None = None
    targets: Tensor | None = None
    reference: float | None = None
    structured: Measured | None = None
    novel_and_good: Mapping[str, float] | None = None
    id_match: float | None = None
    run_match: float | None = None
    info: SampleInfo = field(default_factory=SampleInfo)
    sample_seconds: float | None = None
    finetune_steps: float | None = None
    tasks: TaskScores | None = None

    @cached_property
    def has(self) -> frozenset[Need]:
        """What metrics can rely on."""
        found: set[Need] = {"one_task" if self.tasks is None else "tasks"}
        if self.scored is not None:
            found.add("score")
        if self.scored is not None and self.tasks is None and self.scored.test.predictions is not None:
            found.add("predictions")
        if self.right is not None:
            found.add("answers")
            items = self.scored.test.items if self.scored is not None else None
            found |= {"accuracy"} if items is not None and items.dtype == torch.bool else set()
        return frozenset(found)

    @cached_property
    def summary(self) -> ScoreSummary:
        """Of the scores; needs ``score``."""
        assert self.scored is not None
        assert self.spec is not None
        return score_summary(self.scored.test.value, self.scored.train, self.spec.sign)

    @cached_property
    def right(self) -> Tensor | None:
        """Which predictions are right, (N, M); None where there is nothing to compare."""
        return None if self.scored is None or self.targets is None else self.scored.right(self.targets)

    @cached_property
    def wrong_iou(self) -> WrongIoU:
        """Overlap of wrong answers; needs ``answers``."""
        assert self.right is not None
        zoo = None
        if not self.own:
            assert self.zoo_scored is not None
            assert self.targets is not None
            right = self.zoo_scored.right(self.targets)
            assert right is not None
            zoo = ~right
        return wrong_iou_averages(~self.right, zoo)

    @cached_property
    def predictions(self) -> Tensor:
        """(N, M); needs ``predictions``."""
        assert self.scored is not None
        assert self.scored.test.predictions is not None
        return self.scored.test.predictions

    @cached_property
    def zoo_predictions(self) -> Tensor:
        """(K, M); needs ``predictions``."""
        assert self.zoo_scored is not None
        assert self.zoo_scored.test.predictions is not None
        return self.zoo_scored.test.predictions
