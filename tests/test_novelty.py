"""Distances in run scales, on synthetic zoos whose answers are known."""

import pytest
import torch
from torch import Tensor

from paramgen.evaluation import metrics
from paramgen.evaluation.notes import notes_of
from paramgen.evaluation.novelty import Novelty, RawBank
from paramgen.evaluation.structure import Structure

P = 300


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def runs_of(count: int, checkpoints: int, rng: torch.Generator, step: float = 0.01) -> tuple[Tensor, Tensor]:
    """Runs about 1 apart in every weight, each of which wanders by small steps: (count * checkpoints, P), and the run of each."""
    starts = torch.randn(count, 1, P, generator=rng)
    walk = step * torch.randn(count, checkpoints, P, generator=rng).cumsum(1)
    return (starts + walk).flatten(0, 1), torch.arange(count).repeat_interleave(checkpoints)


def measured(samples: Tensor, novelty: Novelty) -> Tensor:
    return novelty.bank.nearest(samples).distance


@pytest.mark.parametrize("heldout", [0, 3])
def test_copies_jittered_copies_new_runs_and_noise_lie_where_they_must(heldout, rng):
    weights, runs = runs_of(12 + heldout, 10, rng)
    out = runs >= 12
    novelty = Novelty(RawBank(weights[~out]), runs[~out], weights[out], runs[out])
    train, new = weights[~out], runs_of(20, 1, rng)[0]
    jitter = 0.05 * torch.randn(train.shape, generator=rng)
    far = train + 3 * torch.randn(train.shape, generator=rng)
    ratios = [novelty.ratios(measured(samples, novelty)) for samples in (train, train + jitter, new, far)]
    copies, jittered, fresh, noise = (found.run for found in ratios)
    assert copies == 0
    assert jittered == pytest.approx(0.05 / 2**0.5, rel=0.1)  # two runs are √2 apart in each weight
    assert ratios[1].step > 3  # many steps away, and yet within its run
    assert fresh == pytest.approx(1, abs=0.05)
    assert noise > 2
    assert novelty.own_ratios().run == pytest.approx(1, abs=0.05)
    scale = novelty.run_scale
    assert (scale.basis, scale.runs) == (("held-out runs", 3) if heldout else ("training runs left out", 12))


def test_with_one_checkpoint_a_run_both_scales_agree(rng):
    weights, runs = runs_of(30, 1, rng)
    left_out = Novelty(RawBank(weights), runs, weights[:0], runs[:0])
    assert left_out.run_scale.value == pytest.approx(left_out.tau) == metrics.tau(weights)
    new, new_runs = runs_of(10, 1, rng)
    beside = Novelty(RawBank(weights), runs, new, new_runs)
    ratios = beside.ratios(measured(runs_of(20, 1, rng)[0], beside))
    assert ratios.run == pytest.approx(ratios.step, rel=0.05)


def test_a_run_counts_once_however_many_checkpoints_it_has(rng):
    weights, runs = runs_of(5, 10, rng)
    far, near = 4 * torch.randn(1, P, generator=rng), torch.randn(2, P, generator=rng)
    many = torch.cat([far.expand(50, -1), near])  # one run of 50 checkpoints far away, two of one
    novelty = Novelty(RawBank(weights), runs, many, torch.tensor([9] * 50 + [10, 11]))
    assert len(novelty.heldout_runs) == 3
    assert novelty.run_scale.value < 2 * P**0.5 < float(novelty.heldout_runs[0])


def test_one_run_alone_has_steps_and_no_run_scale(rng):
    weights, runs = runs_of(1, 20, rng)
    novelty = Novelty(RawBank(weights), runs, weights[:0], runs[:0])
    found = novelty.ratios(measured(weights + 0.1, novelty))
    assert (novelty.run_scale, novelty.unit, found.run) == (None, "step", None)
    assert novelty.length == novelty.tau > 0
    assert torch.equal(novelty.own, novelty.near.distance)


def test_one_run_with_a_held_out_branch_is_measured_by_the_branch(rng):
    weights, runs = runs_of(1, 20, rng)
    branch = weights[:1] + 0.2 * torch.randn(5, P, generator=rng)
    novelty = Novelty(RawBank(weights), runs, branch, torch.ones(5, dtype=torch.int64))
    assert novelty.heldout_ratios().run == pytest.approx(1)
    assert novelty.own_ratios().run < 0.2  # its own networks are within their run


def test_exact_twins_leave_no_scale(rng):
    weights = torch.ones(4, P)
    novelty = Novelty(RawBank(weights), torch.arange(4), weights[:0], torch.empty(0, dtype=torch.int64))
    assert (novelty.run_scale, novelty.length) == (None, 1.0)


def test_zu_has_a_limit_that_few_held_out_runs_set(rng):
    near, far = torch.zeros(100), torch.ones(2)
    assert metrics.zu(near, far) == pytest.approx(-metrics.zu_limit(100, 2))
    assert metrics.zu_limit(100, 3) < 3 < metrics.zu_limit(100, 4)


def test_notes_say_what_distances_are_measured_by(rng):
    def notes(count: int, checkpoints: int) -> str:
        weights, runs = runs_of(count, checkpoints, rng)
        novelty, structure = (
            Novelty(RawBank(weights), runs, weights[:0], runs[:0]),
            Structure(weights, runs, weights[:0]),
        )
        return " ".join(notes_of(weights, novelty, structure.reference, [3, 9], n=9))

    assert "one training run, and none is held out: there is no held-out row" in notes(1, 12)
    assert "5 training runs, and none is held out" in notes(5, 2)
    assert "structure is given only for rows that lie in the subspace" in notes(5, 2)
    assert "Every row has 3 networks" in notes(5, 2)
    assert "nan" not in notes(1, 2)  # two networks: nothing to leave out


def test_a_held_out_run_needs_no_notes_on_distances(rng):
    weights, runs = runs_of(3, 30, rng)
    out = runs == 2
    novelty = Novelty(RawBank(weights[~out]), runs[~out], weights[out], runs[out])
    reference = Structure(weights[~out], runs[~out], weights[~out][::2]).reference
    assert notes_of(weights[~out], novelty, reference, [], n=9) == []
