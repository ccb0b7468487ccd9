"""What makes a zoo useless to learn from, in words: its networks guess, are worse than where they began, or have no loss."""

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

from torch import Tensor

from paramgen.zoo import Entry, Scores

SPREAD = 2.0  # standard deviations of an accuracy that is measured on so many images
WORSE = 0.02  # and this much is what fine-tuning costs where nothing is wrong


def guessing(labels: Tensor) -> float:
    """The accuracy of always naming the commonest class, and what chance adds to it on these labels (M,)."""
    share = labels.bincount().max().item() / len(labels)
    return share + SPREAD * _deviation(share, len(labels))


def doubts(
    entries: Sequence[Entry], guess: Mapping[str | None, float], images: int, start: float | None = None
) -> list[str]:
    """Sentences about a zoo's val scores; empty where nothing is wrong.

    Args:
        entries: Its networks; those without val scores are left out.
        guess: The accuracy that guessing reaches on each task, as of :func:`guessing`.
        images: Val images that a network is scored on.
        start: Val accuracy of the network that all of them were fine-tuned from.
    """
    scored = [(entry.scores["val"]["accuracy"] or 0.0, guess[entry.task]) for entry in entries if "val" in entry.scores]
    if not scored:
        return []
    found, mean = list[str](), sum(accuracy for accuracy, _ in scored) / len(scored)
    if lost := sum(_is_lost(entry.scores) for entry in entries):
        found.append(f"{lost} of {len(entries)} networks have a NaN or infinite loss: their training diverged.")
    guessers = sum(accuracy <= least for accuracy, least in scored)
    if guessers > len(scored) / 2:
        found.append(
            f"{guessers} of {len(scored)} networks are no better on val than always naming the commonest class: "
            f"{100 * mean:.1f} % on average. There is nothing to learn from them."
        )
    if start is not None and mean < start - max(WORSE, SPREAD * _deviation(start, images)):
        found.append(
            f"Fine-tuning made the networks worse: {100 * mean:.1f} % on val, "
            f"{100 * start:.1f} % where they began. Use a lower finetune.lr."
        )
    return found


def _is_lost(scores: Scores) -> bool:
    losses = [part["loss"] for part in scores.values() if "loss" in part]
    return any(loss is None or not isfinite(loss) for loss in losses)


def _deviation(accuracy: float, images: int) -> float:
    """The standard deviation of an accuracy on so many images."""
    return sqrt(accuracy * (1 - accuracy) / images)
