import math

import pytest
import torch
from scipy.spatial.distance import cdist, jaccard
from sklearn.metrics.pairwise import cosine_similarity

from paramgen.core import distances
from paramgen.evaluation import metrics
from paramgen.evaluation.context import RowScores
from paramgen.tasks.score import Scores


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_selected_is_the_test_accuracy_of_the_network_best_on_train():
    summary = metrics.score_summary(torch.tensor([0.9, 0.5, 0.7, 0.6]), train=torch.tensor([0.1, 0.2, 0.9, 0.3]))
    assert summary.selected == pytest.approx(0.7)
    assert (summary.best, summary.mean, summary.worst) == pytest.approx((0.9, 0.675, 0.5))
    assert summary.median == pytest.approx(0.65)
    assert summary.std == pytest.approx((sum((a - 0.675) ** 2 for a in (0.9, 0.5, 0.7, 0.6)) / 3) ** 0.5)


def test_one_network_has_no_spread():
    summary = metrics.score_summary(torch.tensor([0.9]))
    assert math.isnan(summary.std)
    assert math.isnan(summary.selected)
    assert math.isnan(metrics.dispersion(torch.zeros(1, 3), torch.randn(4, 3)))
    assert math.isnan(metrics.disagreement_among(torch.zeros(1, 5, dtype=torch.long)))


def test_scores_that_are_not_finite_have_no_part_in_what_rows_are_compared_with():
    scores = torch.tensor([1.0, math.inf, 3.0, math.nan])
    assert RowScores(Scores(scores)).mean == metrics.finite_mean(scores) == 2
    assert math.isnan(metrics.finite_mean(scores[[1, 3]]))


def test_nearest_equals_scipy_far_from_the_origin(rng):
    zoo = 100 + 1e-3 * torch.randn(30, 400, generator=rng)  # a trajectory zoo: tiny spread about a far point
    samples = 100 + 1e-3 * torch.randn(20, 400, generator=rng)
    expected = cdist(samples.double(), zoo.double())
    found = distances.nearest(samples, zoo)
    torch.testing.assert_close(found.distance, torch.from_numpy(expected.min(1)), rtol=1e-9, atol=0)
    assert found.index.tolist() == expected.argmin(1).tolist()


def test_nearest_in_column_pieces_equals_nearest_at_once(rng, monkeypatch):
    samples, zoo = torch.randn(7, 100, generator=rng), torch.randn(9, 100, generator=rng)
    whole = distances.nearest(samples, zoo), metrics.dispersion(samples, zoo), metrics.cosine_max(samples, zoo)
    monkeypatch.setattr(distances, "COLUMNS_AT_ONCE", 13)
    pieces = distances.nearest(samples, zoo), metrics.dispersion(samples, zoo), metrics.cosine_max(samples, zoo)
    torch.testing.assert_close(whole[0].distance, pieces[0].distance)
    assert whole[1:] == pytest.approx(pieces[1:])


def test_tau_is_the_median_leave_one_out_distance(rng):
    zoo = torch.randn(25, 12, generator=rng)
    full = cdist(zoo.double(), zoo.double())
    expected = sorted(min(full[i, j] for j in range(25) if j != i) for i in range(25))[12]
    assert metrics.tau(zoo) == pytest.approx(expected)


def test_a_zoo_of_one_has_no_tau():
    with pytest.raises(ValueError, match="at least 2"):
        metrics.tau(torch.zeros(1, 3))


def test_copies_have_nn_ratio_zero_and_zu_far_below_zero(rng):
    zoo, heldout = torch.randn(60, 50, generator=rng), torch.randn(40, 50, generator=rng)
    copies = distances.nearest(zoo[:30], zoo).distance
    assert metrics.nn_ratio(copies, metrics.tau(zoo)) == 0
    assert metrics.zu(copies, distances.nearest(heldout, zoo).distance) < -7


def test_fresh_networks_have_nn_ratio_near_one_and_zu_near_zero(rng):
    zoo, heldout, fresh = torch.randn(200, 100, generator=rng).split([100, 50, 50])
    found = distances.nearest(fresh, zoo).distance
    assert metrics.nn_ratio(found, metrics.tau(zoo)) == pytest.approx(1, abs=0.05)
    assert abs(metrics.zu(found, distances.nearest(heldout, zoo).distance)) < 2.5


def test_zu_equals_counting_pairs():
    generated, heldout = torch.tensor([1.0, 4.0, 6.0]), torch.tensor([2.0, 3.0, 5.0, 7.0])
    pairs_where_generated_is_farther = 0 + 2 + 3
    expected = (pairs_where_generated_is_farther - 6) / math.sqrt(12 * 8 / 12)
    assert metrics.zu(generated, heldout) == pytest.approx(expected)


def test_id_match_counts_samples_beside_their_own_identity():
    assert metrics.id_match(torch.tensor([3, 1, 2, 2]), torch.tensor([3, 1, 0, 2])) == 0.75


def test_iou_of_known_wrong_sets():
    wrong = torch.zeros(4, 10, dtype=torch.bool)
    wrong[0, [0, 1, 2]] = True
    wrong[1, [1, 2, 3, 4]] = True  # shares {1, 2} of {0, 1, 2, 3, 4} with the first
    iou = metrics.wrong_iou(wrong[:2], wrong[1:])
    assert iou.tolist() == [pytest.approx([2 / 5, 0, 0]), pytest.approx([1, 0, 0])]
    assert metrics.wrong_iou(wrong[2:], wrong[2:]).tolist() == [[1, 1], [1, 1]]  # neither errs: the same
    assert metrics.wrong_iou_averages(wrong[:1], wrong[1:]).nearest == pytest.approx(2 / 5)
    assert metrics.wrong_iou_averages(wrong[:3]).nearest == pytest.approx((2 / 5 + 2 / 5 + 0) / 3)  # never with itself


def test_four_iou_averages_equal_scipy_jaccard(rng):
    samples, zoo = torch.rand(5, 80, generator=rng) < 0.4, torch.rand(6, 80, generator=rng) < 0.3

    def iou(a, b):
        return 1 - jaccard(a.numpy(), b.numpy())

    between = [[iou(s, z) for z in zoo] for s in samples]
    found = metrics.wrong_iou_averages(samples, zoo)
    assert found.between == pytest.approx(sum(map(sum, between)) / 30, abs=1e-6)
    assert found.nearest == pytest.approx(sum(map(max, between)) / 5, abs=1e-6)
    assert found.zoo == pytest.approx(sum(iou(zoo[i], zoo[j]) for i in range(6) for j in range(i)) / 15, abs=1e-6)
    assert found.samples == pytest.approx(
        sum(iou(samples[i], samples[j]) for i in range(5) for j in range(i)) / 10, abs=1e-6
    )


def test_disagreement_of_known_predictions():
    classes = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0], [0, 0, 0, 0]])
    assert metrics.disagreement(classes[:2], classes[1:]) == pytest.approx((1 + 2) / 8)
    assert metrics.disagreement_among(classes) == pytest.approx((1 + 3 + 2) / 12)


def test_majority_vote_beats_each_voter():
    labels = torch.tensor([0, 1, 2])
    classes = torch.tensor([[9, 1, 2], [0, 9, 2], [0, 1, 9]])
    assert metrics.majority_accuracy(classes, labels) == 1


def test_cosine_equals_sklearn(rng):
    samples, zoo = torch.randn(6, 9, generator=rng), torch.randn(7, 9, generator=rng)
    assert metrics.cosine_max(samples, zoo) == pytest.approx(cosine_similarity(samples, zoo).max(1).mean(), abs=1e-6)
    among = cosine_similarity(samples)
    among[range(6), range(6)] = -1
    assert metrics.cosine_max(samples) == pytest.approx(among.max(1).mean(), abs=1e-6)


def test_dispersion_of_a_shrunk_zoo_is_the_shrinkage(rng):
    zoo = torch.randn(40, 30, generator=rng) * torch.rand(30, generator=rng) + 5
    assert metrics.dispersion(zoo.mean(0) + 0.4 * (zoo - zoo.mean(0)), zoo) == pytest.approx(0.4, rel=1e-5)
    assert metrics.dispersion(zoo.mean(0).expand(10, -1), zoo) == pytest.approx(0, abs=1e-6)


def test_novel_and_good_needs_both():
    accuracy, distance = torch.tensor([0.9, 0.9, 0.5, 0.9]), torch.tensor([0.1, 1.0, 9.0, 2.0])
    shares = metrics.novel_and_good(accuracy >= 0.8, distance, scale=1.0)
    assert shares == {"0.25": 0.5, "0.5": 0.5, "0.75": 0.5, "1": 0.5, "2": 0.25}


def test_near_share_counts_networks_nearer_than_new_runs():
    assert metrics.near_share(torch.tensor([0.0, 1.5, 1.7, 2.0]), scale=2.0) == 0.5  # 0.8 of the scale is 1.6


def test_same_predictions_counts_networks_and_not_images():
    zoo = torch.tensor([[0, 1, 2], [2, 1, 0], [2, 1, 0]])
    assert metrics.same_predictions(torch.tensor([[0, 1, 2], [0, 1, 0], [2, 1, 1], [0, 0, 2]]), zoo) == 0.25
    assert metrics.same_predictions(zoo) == pytest.approx(2 / 3)  # no network is compared with itself
