"""Warnings about zoos that are unsuitable for learning: networks that guess, that are worse than their start, or without a loss."""

import logging
from collections.abc import Mapping, Sequence
from math import isfinite, sqrt

from torch import Tensor

from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import SplitScores, ZooEntry
from paramgen.tasks import TaskFamily
from paramgen.tasks.score import Scored

_log = logging.getLogger(__name__)

SPREAD = 2.0  # standard deviations of a share of n items
WORSE = 2.0  # margins of a good network that normal fine-tuning may cost


def guessing(task: Scored, targets: Tensor) -> float | None:
    """The score of a constant answer, and the spread of chance on these targets (M, ...)."""
    share = task.chance(targets)
    return None if share is None else share + task.score.sign * SPREAD * _deviation(task.score, share, len(targets))


def doubts(
    entries: Sequence[ZooEntry],
    score: ScoreSpec,
    guess: Mapping[str | None, float | None],
    items: int,
    start: float | None = None,
) -> list[str]:
    """Sentences about a zoo's val scores; empty where nothing is wrong.

    Args:
        entries: Its networks; those without val scores are left out.
        score: What the scores are.
        guess: The score that guessing reaches on each task, as of :func:`guessing`; empty where there are no data to guess on.
        items: Val items that a network is scored on.
        start: Val score of the network that all of them were fine-tuned from.
    """
    scored = [
        (value, guess.get(e.task)) for e in entries if (value := e.scores.get("val", {}).get("score")) is not None
    ]
    sentences = list[str]()
    if lost := sum(_is_lost(entry.scores) for entry in entries):
        sentences.append(f"{lost} of {len(entries)} networks have a NaN or infinite loss: their training diverged.")
    if not scored:
        return sentences
    mean = sum(value for value, _ in scored) / len(scored)
    guessers = sum(least is not None and score.sign * value <= score.sign * least for value, least in scored)
    if guessers > len(scored) / 2:
        sentences.append(
            f"{guessers} of {len(scored)} networks are no better on val than a constant prediction: "
            f"{score.full(mean)} on average. There is nothing to learn from them."
        )
    lost_to_start = 0.0 if start is None else score.sign * (start - mean)
    if start is not None and lost_to_start > max(WORSE * score.margin, SPREAD * _deviation(score, start, items)):
        sentences.append(
            f"Fine-tuning made the networks worse: {score.full(mean)} on val, {score.full(start)} at its start. "
            "Use a lower finetune.lr."
        )
    return sentences


def zoo_doubts(
    entries: Sequence[ZooEntry], family: TaskFamily, most: int | None, start: float | None = None
) -> list[str]:
    """Sentences about the networks of a zoo whose tasks are at hand; they are logged too.

    Args:
        entries: Its networks, scored on val.
        family: Their tasks.
        most: Maximum number of val items that a network was scored on.
        start: Val score of the network that all of them were fine-tuned from.
    """
    tasks = {e.task for e in entries} if family.has_data else set()
    targets = {task: family.task(task).items("val", most).targets for task in tasks}
    guesses = {task: guessing(family, values) for task, values in targets.items()}
    items = min((len(values) for values in targets.values()), default=1)
    sentences = doubts(entries, family.score, guesses, items, start)
    sentences += unscored(entries)
    for sentence in sentences:
        _log.warning("warning: %s", sentence)
    return sentences


def unscored(entries: Sequence[ZooEntry]) -> list[str]:
    """A sentence about networks that were scored but have no score on val; empty if none."""
    scored = [e.scores["val"] for e in entries if "score" in e.scores.get("val", {})]
    missing = sum(scores["score"] is None for scores in scored)
    return (
        [f"{missing} of {len(scored)} networks have no score on val: it could not be computed, or is NaN or infinite."]
        if missing
        else []
    )


def _is_lost(scores: SplitScores) -> bool:
    losses = [part["loss"] for part in scores.values() if "loss" in part]
    return any(loss is None or not isfinite(loss) for loss in losses)


def _deviation(score: ScoreSpec, value: float, items: int) -> float:
    """The standard deviation of a share of n items; 0 for other scores, also those that are shown in percent."""
    return sqrt(value * (1 - value) / items) if score.unit == "percent" and 0 <= value <= 1 else 0.0
