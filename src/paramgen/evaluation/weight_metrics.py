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
        "Median L2 distance from a network to its nearest training network, divided by the same for held-out runs, each run "
        "counted once (if no run is held out: for training runs, each left out in turn). 0: copies; about 1: as far away as a "
        f"new run. If runs have several checkpoints, networks below {T.within_run} stay within the runs that the generator "
        "learnt from. The zoo's own row measures each run against the others.",
        lambda c: c.distances.raw.run,
        summary="shown",
        terminal="run_ratio",
    ),
    Metric(
        "run_ratio_aligned",
        "aligned",
        "run_ratio after each network's hidden units have been brought to the order and scale in which it is nearest, so that a "
        "permuted copy is a copy. An upper bound, because matching is a search.",
        lambda c: None if c.distances.aligned is None else c.distances.aligned.run,
        summary="shown",
        terminal="aligned",
    ),
    Metric(
        "nn_ratio",
        "nn_ratio",
        "Median L2 distance from a network to its nearest training network, in steps: divided by tau, the median distance of a "
        "training network to the nearest other one. If runs have several checkpoints, tau is the step between neighbouring "
        "checkpoints: 0 is a copy, but many steps can still be within a run.",
        lambda c: c.distances.raw.step,
        summary="shown",
        terminal="nn_ratio",
        behind="run_ratio",
    ),
    Metric(
        "nn_ratio_aligned",
        "steps, aligned",
        "nn_ratio after alignment of order and scale of the hidden units.",
        lambda c: None if c.distances.aligned is None else c.distances.aligned.step,
        summary="shown",
        terminal="aligned",
        behind="run_ratio_aligned",
    ),
    Metric(
        "zu",
        "zu",
        "Mann-Whitney z of these distances against those of the held-out runs, with one value per held-out run (Meehan et al. "
        "2020). About 0: as far as held-out runs; far below 0: nearer, which is copying. ≤ marks the lowest value that the "
        "number of held-out runs permits: every network is nearer than every held-out run. Values below −3 are flagged; fewer "
        "than 4 held-out runs cannot reach them.",
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
        f"Share of networks, in percent, that are nearer to a training network than {T.nearer} of the distance of a new run. The "
        "row of held-out runs shows what is usual. It detects a few copies among new networks, which a median does not.",
        lambda c: c.distances.raw.near,
        PERCENT,
        needs("one_task"),
        summary="shown",
    ),
    Metric(
        "near_share_aligned",
        "Near, aligned",
        "The same after alignment of order and scale of the hidden units: permuted and rescaled copies are near.",
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
        "Spread of the row's weights divided by the spread of the zoo's: the norm of the standard deviation across networks. "
        f"Below {T.narrow}: narrow; below {T.collapsed}: collapsed, at any score. Independent noise has spread too: read it with "
        "structure.",
        lambda c: metrics.dispersion(c.weights, c.zoo.weights, c.zoo.spread),
        summary="shown",
        terminal="disp.",
    ),
    Metric(
        "structure",
        "Structure",
        "Whether the networks vary together as held-out networks do: the share of their variance in the subspace that holds "
        f"{SUBSPACE} of the zoo's, minus the share of independent weights, divided by the same for held-out networks. 0: a mean "
        "plus independent noise on each weight; 1: as structured as held-out networks, or more. Values below "
        f"{T.mean_plus_noise} are flagged.",
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
        "For each network, the largest cosine between its weights and those of a training network; their mean (Wild-P-Diff).",
        lambda c: c.cosine_within if c.own else metrics.cosine_max(c.weights, c.zoo.weights),
        COSINE,
        report="more",
    ),
    Metric(
        "cosine_samples",
        "Cosine, row",
        "For each network, the largest cosine between its weights and those of another network of the row; their mean.",
        lambda c: c.cosine_within,
        COSINE,
        report="absent",
    ),
]

ORIGIN_METRICS = [
    Metric(
        "id_match",
        "id match",
        "Share of networks, in percent, whose nearest training network is the one that conditioned them. High: the generator "
        "reproduces its training networks.",
        lambda c: c.id_match,
        PERCENT,
        report="more",
        summary="more",
    ),
    Metric(
        "run_match",
        "run match",
        "Share of networks, in percent, whose nearest training network belongs to the run that conditioned them, or to the run "
        "of the network that conditioned them. High: the samples reproduce the basin of their seed.",
        lambda c: c.run_match,
        PERCENT,
        report="more",
        summary="more",
    ),
    Metric(
        "sample_seconds",
        "ms / network",
        "Milliseconds to generate one network, when all networks of the row are generated together.",
        lambda c: c.sample_seconds,
        MILLISECONDS,
        better="lower",
    ),
    Metric(
        "finetune_steps",
        "Steps to zoo",
        "Training steps from the row's first 16 networks (Adam, rate 0.001, 64 train items per step) until their score on the "
        "val split reaches the zoo's mean there, minus the score's margin: the median, checked every 5 steps. Empty if half of "
        "them need more than 500 steps. For a family: from the first 16 networks for each unseen task, until they are as good as "
        "networks trained on the task, minus the margin.",
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
