"""Every measure of `planted_copies.py`, computed on any mix of candidates from distances that are found once.

T: candidates, networks to mix from. N: networks of a mix. K: training networks. m: held-out networks. M: test images.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from candidates import authentic, cells, coverage, matched, precision, radii, vendi, zu_by_cell
from paramgen.core import distances
from paramgen.evaluation import metrics
from paramgen.evaluation.novelty import Novelty, RawBank
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.structure import Structure
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.evaluation.weight_baselines import noise
from paramgen.symmetry import AlignedZoo, balance_matrix, match
from paramgen.tasks import ClassificationTask
from paramgen.tasks.score import Scores
from paramgen.tasks.scoring import score_networks
from planting import Planted

CELLS = 5
BALL = 1  # the neighbour that a ball reaches to: any 100 networks meet all of 40 balls that reach to the fifth
NOISES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # of the zoo's own spread
NOISED = 40  # networks of each
POINTS = (0.25, 0.5, 0.75)  # of a segment


class Measure(NamedTuple):
    """A figure of a mix, from the indices (N,) of its networks; whether the report has it, or the literature alone."""

    of: Callable[[Tensor], float]
    reported: bool


class Compared(NamedTuple):
    """Distances (T,) of the candidates in one way of measuring, and the share of held-out networks that lie near in it."""

    novelty: Novelty
    distance: Tensor
    usual: float


class Bench:
    """Candidates measured once against a zoo, in weights, up to symmetry, and in what they predict.

    Args:
        task: The zoo's task.
        zoo: Training and held-out networks.
        candidates: (T, P).
    """

    def __init__(self, task: ClassificationTask, zoo: Planted, candidates: Tensor) -> None:
        self.task, self.zoo, self.candidates, self.network = task, zoo, candidates, task.build().eval()
        self.test, self.checkpoints = task.data("test"), int(zoo.runs.bincount().max())
        aligned = AlignedZoo(zoo.weights, zoo.symmetries)
        self.raw, self.aligned = (
            Novelty(bank, zoo.runs, zoo.heldout, zoo.heldout_runs) for bank in (RawBank(zoo.weights), aligned)
        )
        self.near, self.near_aligned = self.raw.bank.nearest(candidates), aligned.nearest(candidates)  # (T,) each
        self.one_each = torch.unique(zoo.heldout_runs, return_inverse=True)[1].diff(prepend=torch.tensor([-1])) > 0
        self.structure = Structure(zoo.weights, zoo.runs, zoo.heldout)
        mine, zoos, held = (self.score(W) for W in (candidates, zoo.weights, zoo.heldout[self.one_each]))
        self.accuracy, self.good_from = mine.value, self.task.score.floor(zoos.value.mean().item())
        self._predictions(mine, zoos, held)
        self._weights(aligned)
        self.barrier = self._barriers(aligned, mine, zoos)
        self.noise_distance, self.noise_accuracy = self._noises()

    def score(self, weights: Tensor) -> Scores:
        """Networks (n, P) on the test images."""
        return score_networks(self.task, self.network, [self.zoo.spec.unflatten(w) for w in weights], self.test)

    def _predictions(self, mine: Scores, zoos: Scores, held: Scores) -> None:
        assert mine.predictions is not None
        assert zoos.predictions is not None
        assert held.predictions is not None
        wrong, wrong_zoo = ~mine.items, ~zoos.items
        self.classes = mine.predictions, zoos.predictions  # (T, M), (K, M)
        self.same_held = metrics.same_predictions(held.predictions, zoos.predictions)
        self.iou = metrics.wrong_iou(wrong, wrong_zoo)  # (T, K)
        self.iou_among = metrics.wrong_iou(wrong, wrong)  # (T, T)
        self.differs = disagreements(mine.predictions, mine.predictions)  # (T, T)
        self.differs_zoo = disagreements(mine.predictions, zoos.predictions)  # (T, K)
        self.differs_held = disagreements(mine.predictions, held.predictions)  # (T, m)
        self.radius = radii(disagreements(held.predictions, held.predictions), BALL)

    def _weights(self, aligned: AlignedZoo) -> None:
        unit, unit_zoo = (torch.nn.functional.normalize(W.double()) for W in (self.candidates, self.zoo.weights))
        self.cosine, self.cosine_among = (unit @ unit_zoo.T).amax(1), unit @ unit.T
        held = self.zoo.heldout[self.one_each]
        self.placed = self._placed(aligned, self.candidates)
        held = self._placed(aligned, held)
        self.held_distance = torch.cdist(self.placed, held)  # (T, m)
        self.held_radius = radii(torch.cdist(held, held), BALL)
        self.cell = cells(self.zoo.weights, self.zoo.runs, CELLS)  # (K,)
        self.heldout_near = self.raw.bank.nearest(self.zoo.heldout[self.one_each])

    def _placed(self, aligned: AlignedZoo, W: Tensor) -> Tensor:
        """Balanced, in the zoo's common order."""
        return match(aligned.centre, balance_matrix(W, self.zoo.symmetries), self.zoo.symmetries).weights

    def _barriers(self, aligned: AlignedZoo, mine: Scores, zoos: Scores) -> Tensor:
        """By how much the test loss rises above the straight line, at most, on the way to the nearest training network: (T,)."""
        assert mine.loss is not None
        assert zoos.loss is not None
        index = self.near_aligned.index
        goal = aligned.weights[index]
        start = match(goal, self.placed, self.zoo.symmetries, keep_order=True).weights
        rises = []
        for t in POINTS:
            loss = self.score((1 - t) * start + t * goal).loss
            assert loss is not None
            rises.append(loss - (1 - t) * mine.loss - t * zoos.loss[index])
        return torch.stack(rises).amax(0).clamp_min(0)

    def _noises(self) -> tuple[Tensor, Tensor]:
        """Median distance and mean accuracy (S,) of copies with more and more noise."""
        pool = Pool(self.zoo.weights, torch.empty(0), tuple(t.numel for t in self.zoo.spec.tensors))
        found = []
        for sigma in NOISES:
            drawn = noise(pool, NOISED, Generator().manual_seed(0), sigma)
            found.append(
                (distances.median(self.raw.bank.nearest(drawn).distance), self.score(drawn).value.mean().item())
            )
        distance, accuracy = zip(*found, strict=True)
        return torch.tensor(distance), torch.tensor(accuracy)

    def measures(self) -> dict[str, Measure]:
        """Every measure by name: those of the report, then those of the literature."""
        raw, aligned, near, near_aligned = self.raw, self.aligned, self.near, self.near_aligned
        assert raw.run_scale is not None
        assert aligned.run_scale is not None
        scale, scale_aligned = raw.run_scale.value, aligned.run_scale.value
        assert raw.others is not None
        assert aligned.others is not None
        own, own_aligned = raw.others, aligned.others
        (mine, zoos), same_held = self.classes, self.same_held
        held_cell = self.cell[self.heldout_near.index]

        def mean_off(matrix: Tensor, i: Tensor) -> float:
            part = matrix[i][:, i].double()
            return ((part.sum() - part.diagonal().sum()) / (len(i) * (len(i) - 1))).item()

        def nearest_among(i: Tensor) -> float:
            return self.cosine_among[i][:, i].fill_diagonal_(-1).amax(1).mean().item()

        def good(i: Tensor) -> float:
            is_good = self.task.score.good(self.accuracy[i], self.good_from)
            found = metrics.novel_and_good(is_good, near.distance[i], scale, (0.5,))
            return found["0.5"]

        plain = Compared(raw, near.distance, raw.heldout_ratios().near or 0)
        symmetric = Compared(aligned, near_aligned.distance, aligned.heldout_ratios().near or 0)

        def by_median(i: Tensor, *compared: Compared) -> float:
            """1 where the report raises copies, within_run or nearer_than_heldout, raw or aligned."""
            ratios = [c.novelty.ratios(c.distance[i]) for c in compared]
            copies = any(ratio.step < THRESHOLDS.copies for ratio in ratios)
            within = self.checkpoints > 1 and any((ratio.run or 0) < THRESHOLDS.within_run for ratio in ratios)
            return float(copies or within or metrics.zu(near.distance[i], raw.heldout_runs) < THRESHOLDS.zu)

        def by_share(i: Tensor, *compared: Compared) -> float:
            """1 where it raises these, some_near or same_predictions."""
            above = [(c.novelty.ratios(c.distance[i]).near or 0) - c.usual for c in compared]
            above.append(metrics.same_predictions(mine[i], zoos) - same_held)
            return max(by_median(i, *compared), float(max(above) >= THRESHOLDS.some))

        reported: dict[str, Callable[[Tensor], float]] = {
            "flags of medians": lambda i: by_median(i, plain),
            "flags of medians, aligned": lambda i: by_median(i, plain, symmetric),
            "all flags": lambda i: by_share(i, plain),
            "all flags, aligned": lambda i: by_share(i, plain, symmetric),
            "run_ratio": lambda i: distances.median(near.distance[i]) / scale,
            "run_ratio_aligned": lambda i: distances.median(near_aligned.distance[i]) / scale_aligned,
            "zu": lambda i: metrics.zu(near.distance[i], raw.heldout_runs),
            "novel_and_good": good,
            "dispersion": lambda i: metrics.dispersion(self.candidates[i], self.zoo.weights),
            "structure": lambda i: self.structure.of(self.candidates[i]).structure,
            "variance_inside": lambda i: self.structure.of(self.candidates[i]).inside,
            "iou_wrong_max": lambda i: self.iou[i].amax(1).mean().item(),
            "iou_wrong.between": lambda i: self.iou[i].mean().item(),
            "iou_wrong.samples": lambda i: mean_off(self.iou_among, i),
            "disagreement_nearest": lambda i: self.differs_zoo[i, near.index[i]].mean().item(),
            "disagreement_samples": lambda i: mean_off(self.differs, i),
            "cosine_zoo": lambda i: self.cosine[i].mean().item(),
            "cosine_samples": nearest_among,
            "near_share": lambda i: metrics.near_share(near.distance[i], scale),
            "near_share_aligned": lambda i: metrics.near_share(near_aligned.distance[i], scale_aligned),
            "same_predictions": lambda i: metrics.same_predictions(mine[i], zoos),
            "accuracy": lambda i: self.accuracy[i].mean().item(),
        }
        literature: dict[str, Callable[[Tensor], float]] = {
            "AuthPct": lambda i: authentic(near.distance[i], near.index[i], own),
            "AuthPct, aligned": lambda i: authentic(near_aligned.distance[i], near_aligned.index[i], own_aligned),
            "zu, aligned": lambda i: metrics.zu(near_aligned.distance[i], aligned.heldout_runs),
            "C_T": lambda i: zu_by_cell(
                near.distance[i], self.cell[near.index[i]], self.heldout_near.distance, held_cell
            ),
            "least disagreement": lambda i: self.differs_zoo[i].amin(1).mean().item(),
            "barrier": lambda i: distances.median(self.barrier[i]),
            "novelty at matched accuracy": lambda i: matched(
                near.distance[i], self.accuracy[i], self.noise_distance, self.noise_accuracy
            ),
            "Vendi score": lambda i: vendi(1 - self.differs[i][:, i]),
            "precision, predictions": lambda i: precision(self.differs_held[i], self.radius),
            "coverage, predictions": lambda i: coverage(self.differs_held[i], self.radius),
            "precision, aligned weights": lambda i: precision(self.held_distance[i], self.held_radius),
            "coverage, aligned weights": lambda i: coverage(self.held_distance[i], self.held_radius),
        }
        return {name: Measure(of, True) for name, of in reported.items()} | {
            name: Measure(of, False) for name, of in literature.items()
        }


def disagreements(a: Tensor, b: Tensor) -> Tensor:
    """Share of images on which each pair of networks says different classes, (N, K) of predictions (N, M) and (K, M)."""
    classes = int(max(a.max(), b.max())) + 1
    same = torch.zeros(len(a), len(b))
    for c in range(classes):
        same += (a == c).float() @ (b == c).float().T
    return 1 - same / a.shape[1]
