"""Where rows are measured: everything that every row is measured against, computed once.

N: networks of a row. n: those without NaN or inf. P: generated parameters.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.collect.symmetries import symmetries_of
from paramgen.core.components import Components, principal_components
from paramgen.core.params import StateDict
from paramgen.core.zoo import Split, Zoo
from paramgen.evaluation import metrics
from paramgen.evaluation.context import Context, RowScores, ZooContext, ZooRenders
from paramgen.evaluation.fine_tuning import FineTuning
from paramgen.evaluation.intervals import Bootstrap
from paramgen.evaluation.network_set import HELDOUT, NetworkSet
from paramgen.evaluation.results import Points
from paramgen.evaluation.rows import MeasuredRow, make_row
from paramgen.evaluation.scoring import Scoring
from paramgen.evaluation.structure import Structure
from paramgen.evaluation.zoo_weights import ZooDistances, ZooWeights
from paramgen.symmetry import CannotAlign


class RowPictures(NamedTuple):
    """What the finite networks of a row are; None of networks that are no data.

    Args:
        pixels: (n', F).
        conditions: (n', C); None where they are not known.
    """

    pixels: Tensor | None = None
    conditions: Tensor | None = None


class Bench:
    """Measures rows.

    Args:
        zoo: What is generated.
        weights: Its networks.
        scoring: Scores rows; None for a zoo without a task.
        first: The row that the others are compared with.
        states: Completes the networks of a row.
        device: Where networks run.
        fine_tuning: Counts steps of training; None where they are not counted.
    """

    def __init__(
        self,
        zoo: Zoo,
        weights: ZooWeights,
        scoring: Scoring | None,
        first: NetworkSet,
        states: Callable[[NetworkSet], Sequence[StateDict]],
        device: torch.device,
        fine_tuning: FineTuning | None = None,
    ) -> None:
        self.zoo, self.weights, self.scoring, self.first, self.device = zoo, weights, scoring, first, device
        self.states = states
        self.distances = ZooDistances(weights)
        one_task = scoring is None or scoring.task is not None
        self.structure = Structure(weights.training, weights.runs, weights.heldout) if one_task else None
        scored = self._score(first)
        self.context = ZooContext(
            weights.training,
            self.distances.raw.heldout_runs,
            None if scoring is None else scoring.spec,
            scored,
            None if scoring is None else scoring.targets,
            self._zoo_renders(scored),
        )
        self.good_from = None if scoring is None or scored is None else scoring.spec.floor(scored.mean)
        self.bootstrap = _bootstrap(scoring, scored)
        self.fine_tuning = fine_tuning
        self.notes = list[str]()

    @cached_property
    def plane(self) -> Components:
        """The two largest principal components of the zoo, in which networks are drawn."""
        return principal_components(self.weights.training, 2)

    def align(self) -> None:
        """Also measure after alignment, where the network's symmetries can be read."""
        task = None if self.scoring is None else self.scoring.task
        if task is None or not task.has_data:
            self.notes.append("Distances are not aligned: alignment needs a task with data.")
            return
        try:
            spec = symmetries_of(self.zoo, task)
        except CannotAlign as error:
            self.notes.append(f"Distances are not aligned: this network cannot be aligned ({error}).")
            return
        self.distances.align(spec)
        if spec.stopped:
            tensors = len({place.tensor for place in spec.unplaced})
            self.notes.append(f"Aligned distances compare {tensors} tensors as they are ({'; '.join(spec.stopped)}).")

    def row(self, networks: NetworkSet) -> MeasuredRow:
        """Measure a row."""
        scored = self.context.scored if networks is self.first else self._score(networks)
        counted = networks.counted(() if self.scoring is None else self.scoring.unseen)
        weights = _rows(self._weights_of(networks), counted)  # (N, P)
        finite, N = weights.isfinite().all(1).cpu(), len(weights)  # (N,)
        kept = _rows(weights, finite)  # (n, P)
        distances = self.distances.of(networks.role, kept)
        displayed = torch.full((N,), float("nan"), dtype=torch.float64)
        displayed[finite] = distances.shown.cpu()
        scores, length = torch.empty(0) if scored is None else scored.test.value, self.distances.raw.length
        resampled = None
        if self.bootstrap is not None and scored is not None and networks.kind != "reference":
            resampled = self.bootstrap.resample(networks.name, scores, scored.test.items, displayed / length)
        id_match, run_match = self._matches(networks, distances.near.index.cpu(), finite)
        pictures = self._pictures(networks, scored)
        context = Context(
            zoo=self.context,
            n=N,
            weights=kept,
            finite=finite,
            first=networks is self.first,
            distances=distances,
            scored=scored,
            structured=None if self.structure is None else self.structure.of(kept),
            novel_and_good=self._novel_and_good(scored, displayed),
            id_match=id_match,
            run_match=run_match,
            info=networks.info,
            sample_seconds=networks.sample_seconds,
            finetune_steps=None if self.fine_tuning is None else self.fine_tuning.steps(networks),
            renders=pictures.pixels,
            conditions=pictures.conditions,
        )
        places = self.plane.place(weights) / length  # (N, 2)
        points = Points(scores.tolist(), (displayed / length).tolist(), places.tolist())
        renders = None if scored is None else scored.test.renders
        return MeasuredRow(
            make_row(networks, context, points), resampled, renders, None if scored is None else scored.failures
        )

    def paths(self, trajectory: Tensor) -> list[list[list[float]]]:
        """Where networks (S, m, P) pass through the zoo's plane from noise to sample: m lines of S places."""
        lines = trajectory.to(self.device).transpose(0, 1)  # (m, S, P)
        return [(self.plane.place(line) / self.distances.raw.length).tolist() for line in lines]

    def goodness(self) -> Tensor | None:
        """Train scores (K,) of the training networks, larger is better, -inf where there is none; None without them."""
        scored = self.context.scored
        if self.scoring is None or scored is None or scored.train is None:
            return None
        return self.scoring.goodness(scored.train)

    def works_from(self) -> float | None:
        """The score from which networks work at all; None where that is not known."""
        if self.scoring is None or self.context.scored is None:
            return None
        return self.scoring.works_from(self.zoo, self.context.scored)

    def _score(self, networks: NetworkSet) -> RowScores | None:
        return None if self.scoring is None else self.scoring.score(networks, self.states(networks))

    def _zoo_renders(self, scored: RowScores | None) -> ZooRenders | None:
        """What the zoo's networks are; None of networks that are no data, and where fewer than two are held out."""
        if scored is None or scored.test.renders is None or len(self.weights.heldout) < 2:
            return None
        heldout = self._score(NetworkSet(HELDOUT, "reference", "heldout", self.weights.heldout))
        assert heldout is not None
        assert heldout.test.renders is not None
        pixels = heldout.test.renders.flatten(1)
        training, others = _conditions(self.zoo, "train"), _conditions(self.zoo, "heldout")
        rest = None if others is None else others[1::2]
        return ZooRenders(scored.test.renders.flatten(1), pixels[::2], pixels[1::2], training, rest)

    def _pictures(self, networks: NetworkSet, scored: RowScores | None) -> RowPictures:
        """What a row's finite networks are, and their conditions; of the held-out ones, those that no set is compared with."""
        if scored is None or scored.test.renders is None:
            return RowPictures()
        known = self.context.renders
        if networks.role == "heldout" and known is not None:
            return RowPictures(known.rest, known.rest_conditions)
        pixels = scored.test.renders.flatten(1)
        finite = pixels.isfinite().all(1)
        conditions = None if known is None else known.conditions if networks is self.first else _drawn_with(networks)
        return RowPictures(pixels[finite], None if conditions is None else conditions[finite])

    def _weights_of(self, networks: NetworkSet) -> Tensor:
        """(N, P), all NaN of a method without weights."""
        if networks.weights is None:
            return torch.full((len(networks), self.zoo.spec.numel), float("nan"), device=self.device)
        return networks.weights.to(self.device)

    def _novel_and_good(self, scored: RowScores | None, distance: Tensor) -> dict[str, float] | None:
        """Shares by distance (N,), of a zoo of one task that has a run scale."""
        scale = self.distances.raw.run_scale
        if scored is None or scored.tasks is not None or scale is None or self.context.spec is None:
            return None
        assert self.good_from is not None
        good = self.context.spec.good(scored.test.value, self.good_from)
        return metrics.novel_and_good(good, distance, scale.value)

    def _matches(self, networks: NetworkSet, near: Tensor, finite: Tensor) -> tuple[float | None, float | None]:
        """Shares of the finite networks whose nearest training network (n,), or its run, conditioned them."""
        identity, run = networks.identity, networks.run
        if run is None and identity is not None:
            run = self.weights.runs[identity]
        if not self.weights.runs.any():  # one run alone
            run = None
        return (
            None if identity is None else metrics.id_match(near, identity[finite]),
            None if run is None else metrics.id_match(self.weights.runs[near], run[finite]),
        )


def _rows(weights: Tensor, kept: Tensor) -> Tensor:
    """Some rows of (N, P); weights of large networks are not copied where all are kept."""
    return weights if kept.all() else weights[kept.to(weights.device)]


def _bootstrap(scoring: Scoring | None, scored: RowScores | None) -> Bootstrap | None:
    """Resamples of networks and of test items, if the score is computed from items; None without scores and for a family."""
    if scoring is None or scoring.task is None or scored is None:
        return None
    items = scored.test.items
    return Bootstrap(0) if items is None else Bootstrap(items.shape[1], scoring.task.value)


def _conditions(zoo: Zoo, split: Split) -> Tensor | None:
    """Conditions (K, C) of the networks of a split; None where one has none."""
    recorded = [zoo.entries[i].condition for i in zoo.indices(split)]
    return None if None in recorded else torch.tensor(recorded)


def _drawn_with(networks: NetworkSet) -> Tensor | None:
    """The conditions (N, C) that a row's networks were drawn with: one for each, or one for all; None without them."""
    given = networks.info.condition
    if not given:
        return None
    conditions = torch.tensor(given)
    return conditions[: len(networks)] if conditions.ndim == 2 else conditions.expand(len(networks), -1)
