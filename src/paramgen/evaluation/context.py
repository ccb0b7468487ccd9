"""What the metrics of a row are computed from. N: networks of a row, n: those without NaN or inf, K: training networks, M: test items."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from paramgen.core.samples import SampleInfo
from paramgen.core.score import ScoreSpec
from paramgen.evaluation import metrics
from paramgen.evaluation.metrics import ScoreSummary, WrongIoU
from paramgen.evaluation.results import TaskScores
from paramgen.evaluation.structure import RowStructure
from paramgen.evaluation.zoo_weights import Distances
from paramgen.tasks.score import Scores

Need = Literal["score", "predictions", "answers", "accuracy", "one_task", "tasks", "renders", "labels"]
"""What a metric needs: scores; discrete predictions; predictions that are right or wrong; accuracy as the score; a zoo of one task;
a family of tasks; networks that are themselves data, some of them held out; such networks with conditions."""


class Failures(NamedTuple):
    """Networks of a row without a score, in words.

    Args:
        note: How many there are, and why the first of them has no score.
        error: Whether a scoring function raised an error.
    """

    note: str
    error: bool


@dataclass(frozen=True)
class RowScores:
    """Scores of a row's networks.

    Args:
        test: On the test split; for a family, each network on its own unseen task.
        train: (N,) on train; None where nothing is chosen by them.
        recalibrated: (N,) on test with batch-norm statistics measured again; None for networks without them.
        tasks: For a family: means by task.
        failures: How many networks have no score, and why; None where all have one.
    """

    test: Scores
    train: Tensor | None = None
    recalibrated: Tensor | None = None
    tasks: TaskScores | None = None
    failures: Failures | None = None

    @cached_property
    def mean(self) -> float:
        """Mean test score of the networks that have one; for a family, the mean over its unseen tasks."""
        return metrics.finite_mean(self.test.value) if self.tasks is None else self.tasks.mean

    def right(self, targets: Tensor) -> Tensor | None:
        """Whether each prediction (N, M) is right; None where predictions cannot be compared with the targets (M, ...)."""
        predictions = self.test.predictions
        if predictions is None or predictions.shape[1:] != targets.shape or targets.is_floating_point():
            return None
        return predictions == targets


class ZooRenders(NamedTuple):
    """What the networks of a zoo are, as pixels.

    Args:
        training: (K, F).
        reference: (m, F) every second held-out network, from the first: what sets are compared with.
        rest: (m', F) the other held-out networks, the row that shows what is possible.
        conditions: (K, C) of the training networks; None of networks without conditions.
        rest_conditions: (m', C).
    """

    training: Tensor
    reference: Tensor
    rest: Tensor
    conditions: Tensor | None = None
    rest_conditions: Tensor | None = None


@dataclass(frozen=True)
class ZooContext:
    """What all rows are compared with.

    Args:
        weights: (K, P) the training networks.
        heldout_runs: One distance per held-out run.
        spec: What the score is; None for a zoo without a task.
        scored: Scores of the first row: of the zoo's own networks, or of networks trained on the unseen tasks; None without a task.
        targets: (M, ...) of the test split; None for a family.
        renders: What the training networks and the held-out ones are, for networks that are themselves data.
    """

    weights: Tensor
    heldout_runs: Tensor
    spec: ScoreSpec | None = None
    scored: RowScores | None = None
    targets: Tensor | None = None
    renders: "ZooRenders | None" = None

    @cached_property
    def spread(self) -> float:
        """Norm of the standard deviation per weight across the training networks."""
        return metrics.total_spread(self.weights)

    @cached_property
    def predictions(self) -> Tensor:
        """(K, M); needs ``predictions``."""
        assert self.scored is not None
        assert self.scored.test.predictions is not None
        return self.scored.test.predictions

    @cached_property
    def wrong(self) -> Tensor:
        """Which predictions are wrong (K, M); needs ``answers``."""
        assert self.scored is not None
        assert self.targets is not None
        right = self.scored.right(self.targets)
        assert right is not None
        return ~right


@dataclass(frozen=True)
class Context:
    """One row's networks and what they are compared with.

    Args:
        zoo: What they are compared with.
        n: N.
        weights: (n, P) the finite networks.
        finite: (N,) which they are.
        first: Whether the row is the one that the others are compared with.
        distances: To the training networks.
        scored: The row's scores; None without a task.
        structured: How the networks vary together; None where it is not measured.
        novel_and_good: Shares by distance; None where they are not counted.
        id_match: Share nearest to the network that conditioned them.
        run_match: Share nearest to a network of the run that conditioned them.
        info: Where the networks come from.
        sample_seconds: Seconds to draw one.
        finetune_steps: Median steps of fine-tuning; None where they are not counted.
        renders: (n', F) what the row's networks are, without those with NaN; None of networks that are no data.
        conditions: (n', C) what these networks were drawn with, or have; None where that is not known.
    """

    zoo: ZooContext
    n: int
    weights: Tensor
    finite: Tensor
    first: bool
    distances: Distances
    scored: RowScores | None = None
    structured: RowStructure | None = None
    novel_and_good: Mapping[str, float] | None = None
    id_match: float | None = None
    run_match: float | None = None
    info: SampleInfo = field(default_factory=SampleInfo)
    sample_seconds: float | None = None
    finetune_steps: float | None = None
    renders: Tensor | None = None
    conditions: Tensor | None = None

    @cached_property
    def tasks(self) -> TaskScores | None:
        """Scores by task, for a family."""
        return None if self.scored is None else self.scored.tasks

    @cached_property
    def own(self) -> bool:
        """Whether the row is the zoo itself, whose networks are compared with each other."""
        return self.first and self.tasks is None

    @cached_property
    def has(self) -> frozenset[Need]:
        """What metrics can rely on."""
        available: set[Need] = {"one_task" if self.tasks is None else "tasks"}
        if self.scored is not None:
            available.add("score")
        if self.renders is not None and len(self.renders) and self.zoo.renders is not None:
            available.add("renders")
            available |= (
                {"labels"} if self.conditions is not None and self.zoo.renders.conditions is not None else set()
            )
        if self.scored is not None and self.tasks is None and self.scored.test.predictions is not None:
            available.add("predictions")
        if self.right is not None:
            available.add("answers")
            items = self.scored.test.items if self.scored is not None else None
            available |= {"accuracy"} if items is not None and items.dtype == torch.bool else set()
        return frozenset(available)

    @cached_property
    def cosine_within(self) -> float:
        """Mean over the row of the largest cosine with another of its networks."""
        return metrics.cosine_max(self.weights)

    @cached_property
    def summary(self) -> ScoreSummary:
        """Of the scores; needs ``score``."""
        assert self.scored is not None
        assert self.zoo.spec is not None
        return metrics.score_summary(self.scored.test.value, self.scored.train, self.zoo.spec.sign)

    @cached_property
    def right(self) -> Tensor | None:
        """Which predictions are right, (N, M); None where there is nothing to compare."""
        return None if self.scored is None or self.zoo.targets is None else self.scored.right(self.zoo.targets)

    @cached_property
    def wrong_iou(self) -> WrongIoU:
        """Overlap of wrong answers; needs ``answers``."""
        assert self.right is not None
        return metrics.wrong_iou_averages(~self.right, None if self.own else self.zoo.wrong)

    @cached_property
    def predictions(self) -> Tensor:
        """(N, M); needs ``predictions``."""
        assert self.scored is not None
        assert self.scored.test.predictions is not None
        return self.scored.test.predictions
