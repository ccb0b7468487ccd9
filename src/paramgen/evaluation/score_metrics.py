"""Metrics of what networks answer: scores, and predictions compared with those of the zoo."""

from statistics import mean

import torch
from torch import Tensor

from paramgen.evaluation import metrics
from paramgen.evaluation.context import Context
from paramgen.evaluation.metric import COUNT, FRACTION, GAP, PERCENT, SCORE, Metric, needs

ENSEMBLE = 16


def _mean(c: Context) -> float:
    return c.summary.mean if c.tasks is None else c.tasks.mean


def _gap(c: Context) -> float:
    assert c.zoo.scored is not None
    return 0.0 if c.first else _mean(c) - c.zoo.scored.mean


def _worst_task(c: Context) -> float:
    assert c.tasks is not None
    assert c.zoo.spec is not None
    sign, scores = c.zoo.spec.sign, torch.tensor([*c.tasks.unseen.values()], dtype=torch.float64)
    return sign * (sign * scores).min().item()  # nan where a task has no score


def _seen(c: Context) -> float | None:
    return mean(c.tasks.seen.values()) if c.tasks is not None and c.tasks.seen else None


def _recalibrated(c: Context) -> float | None:
    assert c.scored is not None
    return None if c.scored.recalibrated is None else c.scored.recalibrated.double().mean().item()


def _vote(c: Context) -> float:
    assert c.zoo.targets is not None
    return metrics.majority_accuracy(c.predictions[:ENSEMBLE], c.zoo.targets.cpu())


def _disagreement(c: Context) -> float:
    finite = c.finite.to(c.predictions.device)
    return metrics.disagreement(c.predictions[finite], c.zoo.predictions[c.distances.near.index.cpu()])


def _others(c: Context) -> Tensor | None:
    return None if c.own else c.zoo.predictions


SCORE_METRICS = [
    Metric(
        "n",
        "N",
        "Number of networks in the row. Best and worst depend on it, so every row except the references has the same number.",
        lambda c: float(c.n),
        COUNT,
        report="more",
    ),
    Metric(
        "mean",
        "Mean",
        "Mean test score of all N networks, without selection. Compare this figure first. For a family of tasks: each network is "
        "scored on its own unseen task, and this is the mean over these tasks.",
        _mean,
        SCORE,
        needs("score"),
        better="score",
        summary="shown",
        terminal="mean",
    ),
    Metric(
        "worst_task",
        "Worst task",
        "For a family of tasks: the mean test score on the unseen task where it is worst.",
        _worst_task,
        SCORE,
        needs("score", "tasks"),
        better="score",
        summary="shown",
        terminal="worst task",
    ),
    Metric(
        "seen",
        "Seen",
        "For a family of tasks: mean test score on seen tasks, from whose networks the generators learnt.",
        _seen,
        SCORE,
        needs("score", "tasks"),
        better="score",
        summary="shown",
        terminal="seen",
    ),
    Metric(
        "std",
        "±",
        "Standard deviation of the test score across the networks.",
        lambda c: c.summary.std,
        SCORE,
        needs("score"),
        summary="more",
        terminal="±",
    ),
    Metric(
        "median",
        "Median",
        "Median test score over all N networks.",
        lambda c: c.summary.median,
        SCORE,
        needs("score", "one_task"),
        better="score",
        report="more",
        summary="more",
    ),
    Metric(
        "worst",
        "Worst",
        "Worst test score: how bad a generated network can be.",
        lambda c: c.summary.worst,
        SCORE,
        needs("score", "one_task"),
        better="score",
        summary="more",
    ),
    Metric(
        "best",
        "Best",
        "Best test score. It is selected on the test split among N networks: an upper limit, not a result.",
        lambda c: c.summary.best,
        SCORE,
        needs("score", "one_task"),
        better="score",
        summary="shown",
        terminal="best",
    ),
    Metric(
        "selected",
        "Selected",
        "Test score of the one network with the best score on the train split: p-diff's protocol, without selection on the test "
        "split.",
        lambda c: c.summary.selected,
        SCORE,
        needs("score", "one_task"),
        better="score",
        summary="shown",
        terminal="select.",
    ),
    Metric(
        "gap",
        "vs zoo",
        "Mean test score minus the zoo's mean (for a family: minus the mean of networks trained on the unseen tasks). Over "
        "several seeds, the differences are taken seed by seed, and the spread is theirs.",
        _gap,
        GAP,
        needs("score"),
        better="score",
        report="more",
        summary="shown",
    ),
    Metric(
        "recalibrated",
        "Mean, BN recal.",
        "Mean test score after the batch-norm statistics have been measured again on train items (reset, cumulative). 'Mean' "
        "uses the generated statistics.",
        _recalibrated,
        SCORE,
        needs("score", "one_task"),
        better="score",
        summary="more",
        terminal="recal.",
    ),
    Metric(
        "ensemble",
        f"Vote of {ENSEMBLE}",
        f"Accuracy of a majority vote of the first {ENSEMBLE} networks. It shows whether their errors differ enough to correct "
        "each other.",
        _vote,
        PERCENT,
        needs("accuracy"),
        better="higher",
        report="more",
    ),
]

PREDICTION_METRICS = [
    Metric(
        "same_predictions",
        "Same answers",
        "Share of networks, in percent, whose predictions equal those of one training network on every test item. The row of "
        "held-out runs shows what is usual. It detects permuted and rescaled copies without alignment, but not noised ones.",
        lambda c: metrics.same_predictions(c.predictions, _others(c)),
        PERCENT,
        needs("predictions"),
        summary="more",
    ),
    Metric(
        "novel",
        "Novel & good",
        "Share of networks, in percent, that are good (their score is below the zoo's mean by at most the score's margin, one "
        "point of accuracy) and at least half as far from the zoo as held-out runs. The held-out runs' share is the ceiling. "
        "Noise of the right size reaches it too: read it with structure.",
        lambda c: (c.novel_and_good or {}).get("0.5"),
        PERCENT,
        needs("score", "one_task"),
        better="higher",
    ),
    Metric(
        "iou_wrong_max",
        "IoU wrong",
        "Intersection over union of the wrongly predicted test items of a network and of the training network with the largest "
        "overlap (p-diff eq. 7), averaged. It detects copies of the same function from one in ten networks, but never noised "
        "copies.",
        lambda c: c.wrong_iou.nearest,
        FRACTION,
        needs("answers"),
        report="more",
        summary="more",
    ),
    Metric(
        "iou_wrong_zoo",
        "IoU, zoo",
        "The same overlap among the zoo's networks, averaged over all pairs (p-diff's Fig. 4a).",
        lambda c: c.wrong_iou.zoo,
        FRACTION,
        needs("answers"),
        report="absent",
    ),
    Metric(
        "iou_wrong_samples",
        "IoU, row",
        "The same overlap among the row's networks.",
        lambda c: c.wrong_iou.samples,
        FRACTION,
        needs("answers"),
        report="absent",
    ),
    Metric(
        "iou_wrong_between",
        "IoU, between",
        "The same overlap between the row's networks and the zoo's.",
        lambda c: c.wrong_iou.between,
        FRACTION,
        needs("answers"),
        report="absent",
    ),
    Metric(
        "disagreement_nearest",
        "Disagree",
        "Share of test items, in percent, on which a network and its nearest training network predict differently.",
        _disagreement,
        PERCENT,
        needs("predictions"),
        report="more",
    ),
    Metric(
        "disagreement_samples",
        "Among",
        "Share of test items, in percent, on which two networks of the row predict differently.",
        lambda c: metrics.disagreement_among(c.predictions),
        PERCENT,
        needs("predictions"),
        report="more",
    ),
]
