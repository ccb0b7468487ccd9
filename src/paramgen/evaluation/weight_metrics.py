"""Metrics of weights: distances to the zoo, spread and structure; where networks come from, and what they cost."""

from collections.abc import Mapping

from paramgen.evaluation import metrics
from paramgen.evaluation.context import Context
from paramgen.evaluation.metric import COSINE, COUNT, FRACTION, MILLISECONDS, PERCENT, SECONDS, SIGNED, Metric, needs
from paramgen.evaluation.thresholds import THRESHOLDS as T

SUBSPACE = f"{100 * T.subspace:.0f} %"


def _zu(c: Context) -> float:
    return metrics.zu(c.distances.compared, c.zoo.heldout_runs)


def _zu_limit(c: Context) -> float:
    return metrics.zu_limit(len(c.distances.compared), len(c.zoo.heldout_runs))


def _saturated(values: Mapping[str, float | None]) -> str:
    zu, limit = values["zu"], values["zu_limit"]
    return "" if zu is None or limit is None or abs(zu) < 0.9999 * limit else "≤ " if zu < 0 else "≥ "


DISTANCE_METRICS = [
    Metric(
        "run_ratio",
        "run_ratio",
        "Median L2 distance from a network to its nearest training network, over the same for held-out runs, each run counted once (for "
        f"training runs left out in turn where none is held out). 0: copies; about 1: as far away as a new run. Below {T.within_run}, "
        "where runs have several checkpoints, networks stay within the runs that were learnt from. The zoo's own: each run against the "
        "others.",
        lambda c: c.distances.raw.run,
        summary="shown",
        terminal="run_ratio",
    ),
    Metric(
        "run_ratio_aligned",
        "aligned",
        "run_ratio after bringing each network's hidden units to the order and the scale in which it is nearest: a permuted copy is a "
        "copy. An upper bound: matching is a search.",
        lambda c: None if c.distances.aligned is None else c.distances.aligned.run,
        summary="shown",
        terminal="aligned",
    ),
    Metric(
        "nn_ratio",
        "nn_ratio",
        "Median L2 distance from a network to its nearest training network in steps: over tau, the median distance of a training network "
        "to the nearest other one. Where runs have several checkpoints that is the step between neighbouring checkpoints: 0 is a copy, but "
        "many steps can still be within a run.",
        lambda c: c.distances.raw.step,
        summary="shown",
        terminal="nn_ratio",
        behind="run_ratio",
    ),
    Metric(
        "nn_ratio_aligned",
        "steps, aligned",
        "nn_ratio up to the order and the scale of hidden units.",
        lambda c: None if c.distances.aligned is None else c.distances.aligned.step,
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
        lambda c: c.distances.raw.near,
        PERCENT,
        needs("one_task"),
        summary="shown",
    ),
    Metric(
        "near_share_aligned",
        "Near, aligned",
        "The same up to the order and the scale of hidden units: permuted and rescaled copies are near.",
        lambda c: None if c.distances.aligned is None else c.distances.aligned.near,
        PERCENT,
        needs("one_task"),
        summary="shown",
    ),
]

SPREAD_METRICS = [
    Metric(
        "dispersion",
        "Dispersion",
        "Spread of the row's weights over the spread of the zoo's: norm of the standard deviation across networks. Below "
        f"{T.narrow} narrow, below {T.collapsed} collapsed, at any score. Independent noise has spread too: read it with structure.",
        lambda c: metrics.dispersion(c.weights, c.zoo.weights, c.zoo.spread),
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
        PERCENT,
        report="more",
    ),
    Metric(
        "cosine_zoo",
        "Cosine",
        "Mean of the largest cosine between a network's weights and a training network's (Wild-P-Diff).",
        lambda c: metrics.cosine_max(c.weights, None if c.own else c.zoo.weights),
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
]

ORIGIN_METRICS = [
    Metric(
        "id_match",
        "id match",
        "Share of networks, in percent, whose nearest training network is the one whose identity conditioned them. High: the generator "
        "recalls.",
        lambda c: c.id_match,
        PERCENT,
        report="more",
        summary="more",
    ),
    Metric(
        "run_match",
        "run match",
        "Share of networks, in percent, whose nearest training network is of the run that conditioned them, or that their identity is of. "
        "High: they reproduce the basin of their seed.",
        lambda c: c.run_match,
        PERCENT,
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
        "there in 500. Of a family: from the first 16 networks for each unseen task, until they are as good as networks trained on the "
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
