"""The study of planted copies: its copies are copies, its measures are calibrated, and its page holds what it found."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import planted_copies  # noqa: E402
import planting  # noqa: E402
from candidates import coverage, precision, radii, vendi, zu_by_cell  # noqa: E402
from paramgen.collect.train import OptimSettings  # noqa: E402
from paramgen.core.seeds import generator  # noqa: E402
from paramgen.tasks import ClassificationTask  # noqa: E402
from paramgen.tasks.scoring import run_many  # noqa: E402

TASK = ClassificationTask("digits", "mlp", network_args={"hidden": [16]})
RECIPE = planting.Recipe("small", 12, 1, 4, OptimSettings("adam", lr=0.01), reference=10, honest=110)


@pytest.fixture(scope="module")
def zoo():
    return planting.make(TASK, RECIPE)


@pytest.fixture(scope="module")
def found(zoo):
    return planted_copies.study(TASK, zoo, ("raw", "permuted"), shares=(1, 100), mixes=5, nulls=50)


def outputs(zoo, weights):
    states = [zoo.spec.unflatten(w) for w in weights]
    return torch.cat([run.output for run in run_many(TASK.build(), states, TASK.data("val"))])


@pytest.mark.parametrize("disguise", [planting.permuted, planting.rescaled])
def test_disguised_copies_compute_the_same_in_other_weights(zoo, disguise):
    originals = zoo.weights[:3]
    copies = disguise(originals, zoo.symmetries, generator(0))
    assert ((copies - originals).norm(dim=1) > 0.5 * originals.norm(dim=1)).all()
    torch.testing.assert_close(outputs(zoo, copies), outputs(zoo, originals), rtol=1e-4, atol=1e-4)


def test_half_way_copies_are_as_far_from_both_originals(zoo):
    middle = planting.half_way(zoo, torch.tensor([4]))
    distances = (zoo.weights - middle).norm(dim=1).sort().values
    torch.testing.assert_close(distances[0], distances[1])
    assert distances[2] > distances[1]


def test_mixes_without_copies_are_rarely_detected(found):
    alarms = torch.tensor([measure["false_alarms"] for measure in found.values()])
    assert alarms.mean() < 0.1  # 5 % are expected
    assert alarms.max() < 0.25


def test_raw_copies_are_found_by_distance_and_permuted_ones_up_to_symmetry_alone(found):
    last = {name: {kind: power[-1] for kind, power in measure["power"].items()} for name, measure in found.items()}
    for name in ("run_ratio", "near_share", "near_share_aligned", "same_predictions", "flags of medians"):
        assert last[name]["raw"] == 1, name
    assert last["near_share"]["permuted"] == last["flags of medians"]["permuted"] == 0
    assert last["near_share_aligned"]["permuted"] == last["flags of medians, aligned"]["permuted"] == 1
    assert last["all flags"]["permuted"] == 1  # by their predictions


def test_one_copy_in_a_hundred_is_seen_by_shares_not_by_medians(found):
    first = {name: measure["power"]["raw"][0] for name, measure in found.items()}
    assert first["near_share"] == first["same_predictions"] == 1
    assert first["run_ratio"] < 0.8


def test_vendi_score_counts_different_networks():
    assert vendi(torch.eye(7)) == pytest.approx(7)
    assert vendi(torch.ones(7, 7)) == pytest.approx(1, abs=1e-6)


def test_balls_reach_to_the_kth_neighbour():
    heldout = torch.tensor([[0.0], [1.0], [10.0]])
    radius = radii(torch.cdist(heldout, heldout), 1)
    assert radius.tolist() == [1, 1, 9]
    distance = torch.cdist(torch.tensor([[0.5], [50.0]]), heldout)
    assert precision(distance, radius) == 0.5
    assert coverage(distance, radius) == pytest.approx(2 / 3)


def test_copying_in_one_cell_is_seen_there():
    distance = torch.cat([torch.full((20,), 2.0), torch.zeros(20)])
    cell = torch.tensor([0, 1]).repeat_interleave(20)
    heldout, heldout_cell = torch.ones(20), torch.tensor([0, 1]).repeat(10)
    both = zu_by_cell(distance, cell, heldout, heldout_cell)
    assert both == pytest.approx(0)  # far in one, copies in the other, of equal weight
    assert zu_by_cell(distance, cell, heldout[:15], torch.ones(15, dtype=torch.int64)) < -3


def test_page_holds_the_table_that_the_study_wrote():
    kept = json.loads((ROOT / "benchmarks" / "results" / "planted_copies.json").read_text(encoding="utf-8"))
    assert planted_copies.table(kept) in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
