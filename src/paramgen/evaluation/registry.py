"""The metrics of the report, one entry each: what it is called, what it means and needs, how it is computed and shown.

Rows, columns, summaries of comparisons, the JSON schema and the table in docs/evaluation.md are made from :data:`METRICS`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from paramgen.core.score import ACCURACY, ScoreSpec
from paramgen.evaluation import metrics
from paramgen.evaluation.context import Context, Need
from paramgen.evaluation.thresholds import THRESHOLDS

RowDict = dict[str, Any]
Better = Literal["higher", "lower", "score", None]
Place = Literal["shown", "more", "absent"]
T = THRESHOLDS
SUBSPACE = f"{100 * T.subspace:.0f} %"
VOTERS = 16


@dataclass(frozen=True)
class Form:
    """How values of a metric are printed, and between which limits they lie.

    Args:
        show: Value and the zoo's score to text.
        least: Smallest value; None where there is none, or where it depends on the score.
        most: Largest value.
    """

    show: Callable[[float, ScoreSpec], str]
    least: float | None = None
    most: float | None = None


def _plain(v: float, digits: int = 2) -> str:
    return f"{v:.{digits}f}" if abs(v) < 10_000 else f"{v:.1e}"  # of a network far outside the zoo


SCORE = Form(lambda v, spec: spec.text(v) if abs(v) < 10_000 else f"{v:.1e}")
GAP = Form(lambda v, spec: spec.text(v, signed=True) if abs(v) < 10_000 else f"{v:+.1e}")
SHARE = Form(lambda v, _: f"{100 * v:.1f}", 0, 1)
RATIO = Form(lambda v, _: _plain(v), 0)
FRACTION = Form(lambda v, _: f"{v:.2f}", 0, 1)
COSINE = Form(lambda v, _: f"{v:.3f}", -1, 1)
SIGNED = Form(lambda v, _: f"{v:+.1f}".replace("-", "−"))
COUNT = Form(lambda v, _: f"{v:,.0f}", 0)
SECONDS = Form(lambda v, _: f"{v:,.1f}", 0)
MILLISECONDS = Form(lambda v, _: f"{1000 * v:,.1f}" if v >= 1e-4 else "<0.1", 0)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        key: Its name in ``results.json``.
        title: The head of its column.
        definition: What it is, shown on demand and in the docs.
        compute: The value of a row, called only where the row has what is needed; None or nan where there is no value.
        form: How values are printed.
        needs: What a row must have.
        better: Which way is better; ``score`` follows the score's own direction, None is no question of better.
        report: Whether its column is shown in an evaluation's table, hidden until all figures are asked for, or absent.
        summary: The same for the summary over seeds.
        terminal: The head of its column in the terminal; None where it is not printed there.
        behind: Key of a metric that says the same better: where that one has values, this one is hidden too.
        mark: A row's values to what is printed before this one.
    """

    key: str
    title: str
    definition: str
    compute: Callable[[Context], float | None]
    form: Form = RATIO
    needs: frozenset[Need] = frozenset()
    better: Better = None
    report: Place = "shown"
    summary: Place = "absent"
    terminal: str | None = None
    behind: str | None = None
    mark: Callable[[Mapping[str, float | None]], str] = lambda values: ""

    def value(self, row: RowDict) -> float | None:
        """The value in a row of ``results.json``."""
        found: float | None = row["values"].get(self.key)
        return found

    def hidden(self, shown: Collection[str], place: Place | None = None) -> bool:
        """Whether its column is hidden until all figures are asked for.

        Args:
            shown: Keys of the metrics that have values.
            place: :attr:`report` unless :attr:`summary` is given.
        """
        return (place or self.report) == "more" or self.behind in shown

    def text(self, row: RowDict, spec: ScoreSpec | None = None) -> str:
        """The printed value, a dash where there is none."""
        number = self.value(row)
        return "–" if number is None else self.mark(row["values"]) + self.form.show(number, spec or ACCURACY)

    def spread(self, std: float, spec: ScoreSpec | None = None) -> str:
        """A standard deviation of values, printed."""
        return self.form.show(std, spec or ACCURACY).lstrip("+")


def needs(*what: Need) -> frozenset[Need]:
    """What a metric needs."""
    return frozenset(what)


def values_of(context: Context) -> dict[str, float | None]:
    """A value for each metric, None where the row lacks what it needs."""
    return {m.key: m.compute(context) if m.needs <= context.has else None for m in METRICS}


def blank_values() -> dict[str, float | None]:
    """The values of a row that could not be measured."""
    return {m.key: None for m in METRICS}


def metric(key: str) -> Metric:
    """A metric by its key."""
    return next(m for m in METRICS if m.key == key)


def with_values(rows: Collection[RowDict]) -> list[Metric]:
    """The metrics that have a value in any of some rows of ``results.json``."""
    return [m for m in METRICS if any(m.value(row) is not None for row in rows)]


def _mean(c: Context) -> float:
    return c.summary.mean if c.tasks is None else _average(c.tasks.unseen)


def _average(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def _worst_task(c: Context) -> float:
    assert c.tasks is not None
    assert c.spec is not None
    sign = c.spec.sign
    return sign * min(sign * score for score in c.tasks.unseen.values())


def _seen(c: Context) -> float | None:
    return _average(c.tasks.seen) if c.tasks is not None and c.tasks.seen else None


def _recalibrated(c: Context) -> float | None:
    assert c.scored is not None
    return None if c.scored.recalibrated is None else c.scored.recalibrated.double().mean().item()


def _vote(c: Context) -> float:
    assert c.targets is not None
    return metrics.majority_accuracy(c.predictions[:VOTERS], c.targets.cpu())


def _zu(c: Context) -> float | None:
    return None if c.zu_of is None or c.heldout_runs is None else metrics.zu(c.zu_of, c.heldout_runs)


def _zu_limit(c: Context) -> float | None:
    return None if c.zu_of is None or c.heldout_runs is None else metrics.zu_limit(len(c.zu_of), len(c.heldout_runs))


def _saturated(values: Mapping[str, float | None]) -> str:
    zu, limit = values["zu"], values["zu_limit"]
    return "" if zu is None or limit is None or abs(zu) < 0.9999 * limit else "≤ " if zu < 0 else "≥ "


def _disagreement(c: Context) -> float:
    finite = c.finite.to(c.predictions.device)
    return metrics.disagreement(c.predictions[finite], c.zoo_predictions[c.near.index.cpu()])


def _others(c: Context) -> Tensor | None:
    return None if c.own else c.zoo_predictions


METRICS: list[Metric] = [
    Metric(
        "n",
        "N",
        "How many networks the row has. Best and worst depend on it, so every row but the references has the same.",
        lambda c: float(c.n),
        COUNT,
        report="more",
    ),
    Metric(
        "mean",
        "Mean",
        "Mean test score over all N networks, none selected. The figure to compare first. Of a family of tasks: each network on its own "
        "unseen task, the mean over these tasks.",
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
        "Of a family of tasks: the unseen task with the worst mean test score.",
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
        "Of a family of tasks: mean test score on seen tasks, whose networks the generators learnt from.",
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
        "Best test score. It is chosen on test among N: an upper end, not a result.",
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
        "Test score of the one network that is best on the train split: p-diff's protocol, free of choosing on test.",
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
        "Mean test score less the zoo's own mean (of a family: less that of networks trained on the unseen tasks). Over seeds: seed by "
        "seed; the spread is that of the differences.",
        lambda c: 0.0 if c.reference is None else _mean(c) - c.reference,
        GAP,
        needs("score"),
        better="score",
        report="more",
        summary="shown",
    ),
    Metric(
        "recalibrated",
        "Mean, BN recal.",
        "Mean test score after measuring batch-norm statistics anew on train items (reset, cumulative). 'Mean' has the statistics as "
        "generated.",
        _recalibrated,
        SCORE,
        needs("score", "one_task"),
        better="score",
        terminal="recal.",
    ),
    Metric(
        "ensemble",
        f"Vote of {VOTERS}",
        f"Accuracy of a majority vote of the first {VOTERS} networks: whether they err differently enough to help each other.",
        _vote,
        SHARE,
        needs("accuracy"),
        better="higher",
        report="more",
    ),
    Metric(
        "run_ratio",
        "run_ratio",
        "Median L2 distance from a network to its nearest training network, over the same for held-out runs, each run counted once (for "
        f"training runs left out in turn where none is held out). 0: copies; about 1: as far away as a new run. Below {T.within_run}, "
        "where runs have several checkpoints, networks stay within the runs that were learnt from. The zoo's own: each run against the "
        "others.",
        lambda c: c.raw.run,
        summary="shown",
        terminal="run_ratio",
    ),
    Metric(
        "run_ratio_aligned",
        "aligned",
        "run_ratio after bringing each network's hidden units to the order and the scale in which it is nearest: a permuted copy is a "
        "copy. An upper bound: matching is a search.",
        lambda c: None if c.aligned is None else c.aligned.run,
        summary="shown",
        terminal="aligned",
    ),
    Metric(
        "nn_ratio",
        "nn_ratio",
        "Median L2 distance from a network to its nearest training network in steps: over tau, the median distance of a training network "
        "to the nearest other one. Where runs have several checkpoints that is the step between neighbouring checkpoints: 0 is a copy, but "
        "many steps can still be within a run.",
        lambda c: c.raw.step,
        summary="shown",
        terminal="nn_ratio",
        behind="run_ratio",
    ),
    Metric(
        "nn_ratio_aligned",
        "steps, aligned",
        "nn_ratio up to the order and the scale of hidden units.",
        lambda c: None if c.aligned is None else c.aligned.step,
        summary="shown",
        terminal="aligned",
        behind="run_ratio_aligned",
    ),
    Metric(
        "zu",
        "zu",
        "Mann-Whitney z of those distances against the held-out runs', one value for each held-out run (Meehan et al. 2020). About 0: as "
        "far as held-out runs; far below 0: nearer, copying. ≤ marks the lowest value that the number of held-out runs allows: every "
        "network is nearer than every held-out run. Fewer than 4 held-out runs cannot reach −3, below which it is flagged.",
        _zu,
        SIGNED,
        needs("one_task"),
        summary="shown",
        terminal="zu",
        mark=_saturated,
    ),
    Metric(
        "zu_limit",
        "zu limit",
        "√(3mn/(m+n+1)): the largest |zu| of n networks and m held-out runs.",
        _zu_limit,
        needs=needs("one_task"),
        report="absent",
    ),
    Metric(
        "near_share",
        "Near",
        f"Share of networks, in percent, that are nearer to a training network than {T.nearer} of the distance of a new run. The row of "
        "held-out runs shows what is usual. It sees a few copies among new networks, which a median does not.",
        lambda c: c.raw.near,
        SHARE,
        needs("one_task"),
        summary="shown",
    ),
    Metric(
        "near_share_aligned",
        "Near, aligned",
        "The same up to the order and the scale of hidden units: permuted and rescaled copies are near.",
        lambda c: None if c.aligned is None else c.aligned.near,
        SHARE,
        needs("one_task"),
        summary="shown",
    ),
    Metric(
        "same_predictions",
        "Same answers",
        "Share of networks, in percent, that predict the same as one training network on every test item. The row of held-out runs shows "
        "what is usual. It sees permuted and rescaled copies without alignment; noise hides from it.",
        lambda c: metrics.same_predictions(c.predictions, _others(c)),
        SHARE,
        needs("predictions"),
        summary="shown",
    ),
    Metric(
        "novel",
        "Novel & good",
        "Share of networks, in percent, that are good (a score not worse than the zoo's mean by more than the score's margin, one point of "
        "accuracy) and at least half as far from the zoo as held-out runs. The held-out runs' share is the ceiling. Noise of the right "
        "size reaches it too: read it with structure.",
        lambda c: (c.novel_and_good or {}).get("0.5"),
        SHARE,
        needs("score", "one_task"),
        better="higher",
    ),
    Metric(
        "iou_wrong_max",
        "IoU wrong",
        "Intersection over union of the wrongly predicted test items with the training network where it is largest (p-diff eq. 7), "
        "averaged. It sees copies of the same function from one in ten networks, noised ones never.",
        lambda c: c.wrong_iou.nearest,
        FRACTION,
        needs("answers"),
        report="more",
        summary="more",
    ),
    Metric(
        "iou_wrong_zoo",
        "IoU, zoo",
        "The same overlap among the zoo's networks, all pairs averaged (p-diff's Fig. 4a).",
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
        "dispersion",
        "Dispersion",
        "Spread of the row's weights over the spread of the zoo's: norm of the standard deviation across networks. Below "
        f"{T.narrow} narrow, below {T.collapsed} collapsed, at any score. Independent noise has spread too: read it with structure.",
        lambda c: metrics.dispersion(c.weights, c.zoo),
        summary="shown",
        terminal="disp.",
    ),
    Metric(
        "structure",
        "Structure",
        "Whether the networks vary together as held-out networks do: the share of their variance in the subspace that holds "
        f"{SUBSPACE} of the zoo's, less the share of independent weights, over the same of held-out networks. 0: a mean plus independent "
        "noise on each weight; 1: as structured as held-out networks, or more. "
        f"Below {T.mean_plus_noise} it is flagged.",
        lambda c: None if c.structured is None else c.structured.structure,
        FRACTION,
        better="higher",
        summary="shown",
        terminal="struct.",
    ),
    Metric(
        "variance_inside",
        "In subspace",
        f"Share of the row's variance, in percent, in the subspace that holds {SUBSPACE} of the zoo's.",
        lambda c: None if c.structured is None else c.structured.inside,
        SHARE,
        report="more",
    ),
    Metric(
        "disagreement_nearest",
        "Disagree",
        "Share of test items, in percent, on which a network and its nearest training network predict differently.",
        _disagreement,
        SHARE,
        needs("predictions"),
        report="more",
    ),
    Metric(
        "disagreement_samples",
        "Among",
        "Share of test items, in percent, on which two networks of the row predict differently.",
        lambda c: metrics.disagreement_among(c.predictions),
        SHARE,
        needs("predictions"),
        report="more",
    ),
    Metric(
        "cosine_zoo",
        "Cosine",
        "Mean of the largest cosine between a network's weights and a training network's (Wild-P-Diff).",
        lambda c: metrics.cosine_max(c.weights, None if c.own else c.zoo),
        COSINE,
        report="more",
    ),
    Metric(
        "cosine_samples",
        "Cosine, row",
        "Mean of the largest cosine between a network's weights and another's of the row.",
        lambda c: metrics.cosine_max(c.weights),
        COSINE,
        report="absent",
    ),
    Metric(
        "id_match",
        "id match",
        "Share of networks, in percent, whose nearest training network is the one whose identity conditioned them. High: the generator "
        "recalls.",
        lambda c: c.id_match,
        SHARE,
        report="more",
        summary="more",
    ),
    Metric(
        "run_match",
        "run match",
        "Share of networks, in percent, whose nearest training network is of the run that conditioned them, or that their identity is of. "
        "High: they reproduce the basin of their seed.",
        lambda c: c.run_match,
        SHARE,
        report="more",
        summary="more",
    ),
    Metric(
        "sample_seconds",
        "ms / network",
        "Milliseconds to draw one network, all of the row drawn together.",
        lambda c: c.sample_seconds,
        MILLISECONDS,
        better="lower",
    ),
    Metric(
        "finetune_steps",
        "Steps to zoo",
        "Steps of training from the row's first 16 networks (Adam, rate 0.001, 64 train items a step) until their score on the val split "
        "is as good as the zoo's mean there, less the score's margin; the median, looked at every 5 steps. None where half do not get "
        "there in 500. Of a family: from all of the row's networks for unseen tasks, until they are as good as networks trained on the "
        "task, less the margin.",
        lambda c: c.finetune_steps,
        COUNT,
        better="lower",
        summary="shown",
        terminal="steps",
    ),
    Metric(
        "fit_seconds",
        "s to fit",
        "Seconds to train the generator; for the zoo, seconds to build it.",
        lambda c: c.info.fit_seconds,
        SECONDS,
        better="lower",
        report="more",
        summary="more",
    ),
    Metric(
        "params",
        "Parameters",
        "Parameters of the generator.",
        lambda c: c.info.generator_params,
        COUNT,
        report="more",
    ),
]
