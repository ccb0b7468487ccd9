"""How a task's score is computed from what networks return.

N: networks. M: items of a split (images, sequences, points). B: items of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from paramgen.core.score import ACCURACY, ScoreSpec


class Measured(NamedTuple):
    """One batch, measured.

    Args:
        items: (N, B) what the score is computed from, for example whether an image is classified correctly, or its squared error.
        predictions: (N, B) discrete answers that can agree or differ; or None.
    """

    items: Tensor
    predictions: Tensor | None = None


class Scores(NamedTuple):
    """Scores of N networks on one split.

    Args:
        value: (N,) the score, float64.
        loss: (N,) the mean training loss; None where it was not computed.
        items: (N, M) as of :class:`Measured`; None for a score that is no function of single items, such as FID or mAP.
        predictions: (N, M) as of :class:`Measured`, or None.
        failed: Errors that a scoring function raised, by the places of their networks among the N; their score is NaN.
        renders: (N, H, W) what each network is, of networks that are data themselves: a field's picture. They are compared as sets.
    """

    value: Tensor
    loss: Tensor | None = None
    items: Tensor | None = None
    predictions: Tensor | None = None
    failed: Mapping[int, str] = MappingProxyType({})
    renders: Tensor | None = None


class Scored(ABC):
    """What training and scoring use of a task, in addition to its network and data."""

    score: ScoreSpec = ACCURACY
    takes_targets: bool = False
    """Whether networks in training take targets too and return losses (B,), as detectors do."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The training loss of every item, with gradients.

        Args:
            output: What networks return, (N, B, ...).
            target: (N, B, ...).

        Returns:
            (N, B).
        """

    @abstractmethod
    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """What the score is computed from, for every item of a batch.

        Args:
            output: What networks return, (N, B, ...).
            target: (B, ...), or (N, B, ...) where each network has its own.
        """

    def value(self, items: Tensor) -> Tensor:
        """Scores (N,) from all items of a split (N, M): their mean, unless a task overrides it."""
        return items.double().mean(1)

    def chance(self, targets: Tensor) -> float | None:
        """The score of a network that does not look at its input, on targets (M, ...); None where that says nothing."""
        return None


class ScoredAs(Scored):
    """What is trained and scored as something else is; a subclass calls :meth:`take_score` in its constructor."""

    _scored: Scored

    def take_score(self, of: Scored) -> None:
        """Take the score and the losses of another task or family."""
        self._scored, self.score, self.takes_targets = of, of.score, of.takes_targets

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The other's."""
        return self._scored.loss(output, target)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """The other's."""
        return self._scored.measure(output, target)

    def value(self, items: Tensor) -> Tensor:
        """The other's."""
        return self._scored.value(items)

    def chance(self, targets: Tensor) -> float | None:
        """The other's."""
        return self._scored.chance(targets)


class Classifies(Scored):
    """Classification: accuracy, by cross-entropy. Networks return logits, targets are classes."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (N, B) of logits (N, B, classes)."""
        return cross_entropy(output, target)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Which items are classified correctly, and the predicted classes."""
        classes = output.argmax(-1)  # (N, B)
        return Measured(classes == target, classes)

    def chance(self, targets: Tensor) -> float:
        """The share of the most frequent class."""
        return targets.bincount().max().item() / len(targets)


CLASSIFIES = Classifies()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every item under every network.

    Args:
        logits: (N, B, classes).
        labels: (N, B).

    Returns:
        (N, B).
    """
    # classes first: over a last dimension of ten, torch's softmax is three to five times slower
    first = at_least_float32(logits).permute(2, 0, 1).flatten(1)[None]  # (1, classes, N*B)
    return F.cross_entropy(first, labels.reshape(1, -1), reduction="none").view(labels.shape)


def at_least_float32(output: Tensor) -> Tensor:
    """The output to compute a loss of: float32 for half-precision networks, others unchanged."""
    return output.float() if output.dtype.itemsize < 4 else output


def without_score(scores: Scores) -> dict[int, str]:
    """Why networks have no score, by their places among the N: the error raised, or a score that is NaN or infinite."""
    values = enumerate(scores.value.tolist())
    return {i: scores.failed.get(i, f"the score is {value}") for i, value in values if not isfinite(value)}


def plain_scores(scores: Scores, i: int) -> dict[str, float]:
    """One network's score and loss as plain values, for zoo.json."""
    values = {"score": float(scores.value[i])}
    return values if scores.loss is None else {**values, "loss": float(scores.loss[i])}
