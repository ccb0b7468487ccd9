"""Metrics of sets of networks that are themselves data, such as fields: what they are, compared with what held-out networks are.

As HyperDiffusion (Erkoc et al. 2023, arXiv:2303.17015) and PointFlow (Yang et al. 2019, arXiv:1906.12320) measure shapes. Departs: the
distance of two renders is the root mean squared difference of their grey values, in place of the Chamfer distance.

n: rendered networks of a row. m: the held-out ones that sets are compared with. F: pixels.
"""

from math import sqrt

import torch
from torch import Tensor

from paramgen.core.spacing import evenly_spaced
from paramgen.evaluation.context import Context
from paramgen.evaluation.metric import FRACTION, PERCENT, RATIO, Metric, needs


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Root mean squared difference (n, m) of all pairs of (n, F) and (m, F)."""
    apart: Tensor = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return apart / sqrt(a.shape[1])


def minimum_matching_distance(drawn: Tensor, reference: Tensor) -> float:
    """MMD: mean over the reference (m, F) of the distance to the nearest drawn one (n, F)."""
    return float(distances(reference, drawn).amin(1).mean())


def coverage(drawn: Tensor, reference: Tensor) -> float:
    """COV: the share of the reference (m, F) that is the nearest to some drawn one (n, F)."""
    return len(distances(drawn, reference).argmin(1).unique()) / len(reference)


def one_nearest_neighbour_accuracy(drawn: Tensor, reference: Tensor) -> float:
    """1-NNA: how often the nearest other one of both sets together is of the same set. The sets (n, F) are of one size.

    0.5: the sets cannot be told apart. 1: they are apart, or drawn ones are all alike.
    """
    both = torch.cat([drawn, reference])
    apart = distances(both, both).fill_diagonal_(float("inf"))
    is_drawn = torch.arange(len(both)) < len(drawn)
    return float((is_drawn[apart.argmin(1)] == is_drawn).double().mean())


def _same_size(c: Context) -> tuple[Tensor, Tensor]:
    """As many of the row's renders as of the reference, evenly spaced: all three measures depend on the sizes."""
    assert c.renders is not None
    assert c.zoo.renders is not None
    drawn, reference = c.renders.cpu(), c.zoo.renders.reference.cpu()
    n = min(len(drawn), len(reference))
    return drawn[evenly_spaced(len(drawn), n)], reference[evenly_spaced(len(reference), n)]


def _render_ratio(c: Context) -> float:
    assert c.renders is not None
    assert c.zoo.renders is not None
    training, heldout = c.zoo.renders.training.cpu(), c.zoo.renders.reference.cpu()
    to_zoo = distances(c.renders.cpu(), training)
    if c.own and len(to_zoo) == len(training):
        to_zoo.fill_diagonal_(float("inf"))
    usual = distances(heldout, training).amin(1).median()
    return float(to_zoo.amin(1).median() / usual)


def _label_match(c: Context) -> float:
    assert c.renders is not None
    assert c.conditions is not None
    assert c.zoo.renders is not None
    assert c.zoo.renders.conditions is not None
    to_zoo = distances(c.renders.cpu(), c.zoo.renders.training.cpu())
    if c.own and len(to_zoo) == len(c.zoo.renders.training):
        to_zoo.fill_diagonal_(float("inf"))
    found = c.zoo.renders.conditions[to_zoo.argmin(1)]  # (n', C)
    return float((found == c.conditions).all(1).double().mean())


SET_METRICS = [
    Metric(
        "nna",
        "1-NNA",
        "For networks that are themselves data (fields): among the row's images and equally many held-out ones, the share, in "
        "percent, whose nearest neighbour is from the same set. 50: the sets cannot be told apart; 100: they differ. Copies of "
        "training networks reach 50 too: read it with picture_ratio. Rows are compared with every second held-out network; the "
        "row of held-out runs has the others and is the ceiling.",
        lambda c: one_nearest_neighbour_accuracy(*_same_size(c)),
        PERCENT,
        needs("renders"),
        summary="shown",
        terminal="1-NNA",
    ),
    Metric(
        "cov",
        "COV",
        "The share, in percent, of these held-out images that are the nearest one to some image of the row: how much of the "
        "distribution the row covers.",
        lambda c: coverage(*_same_size(c)),
        PERCENT,
        needs("renders"),
        better="higher",
        summary="shown",
        terminal="COV",
    ),
    Metric(
        "mmd",
        "MMD",
        "Mean distance from such a held-out image to the nearest image of the row: the root mean squared difference of grey "
        "values in [0, 1].",
        lambda c: minimum_matching_distance(*_same_size(c)),
        FRACTION,
        needs("renders"),
        better="lower",
        summary="shown",
        terminal="MMD",
    ),
    Metric(
        "picture_ratio",
        "picture_ratio",
        "Median distance from an image of the row to the nearest training network's image, divided by the same for held-out "
        "networks. 0: copies; about 1: as new as a held-out one.",
        _render_ratio,
        RATIO,
        needs("renders"),
        summary="shown",
        terminal="pict.",
    ),
    Metric(
        "label_match",
        "label_match",
        "For networks that are themselves data, generated with a condition such as a label: the share, in percent, whose nearest "
        "training image has that condition. The zoo's and held-out networks are judged by their own condition. Networks near "
        "training networks match more easily.",
        _label_match,
        PERCENT,
        needs("labels"),
        better="higher",
        summary="shown",
        terminal="label",
    ),
]
