import pytest
import torch
from torch.nn import functional as F

from measured import make_zoo
from paramgen.core import distances
from paramgen.core.params import ParamSpec, TensorSpec
from paramgen.core.seeds import generator, mix
from paramgen.evaluation import metrics, task_baselines
from paramgen.evaluation import weight_baselines as baselines
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.weight_baselines import FROM_WEIGHTS
from paramgen.tasks import load_task
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks

SPEC = ParamSpec(
    (
        TensorSpec("w", (8, 5)),
        TensorSpec("bn.running_mean", (8,), "running_mean"),
        TensorSpec("bn.running_var", (8,), "running_var"),
    ),
    {},
)


@pytest.fixture
def pool() -> Pool:
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(48, 48, generator=g) / 7
    gauss = torch.randn(40, 48, generator=g) @ mixing
    variances = (
        0.1 * torch.randn(40, 8, generator=g)
    ).exp() * 1e-3  # small: white noise of the zoo's size would cross 0
    return Pool(torch.cat([gauss + 3, variances], 1), torch.rand(40, generator=g), tuple(t.numel for t in SPEC.tensors))


@pytest.mark.parametrize("name", FROM_WEIGHTS)
def test_every_baseline_draws_finite_networks_with_positive_variances(name, pool):
    drawn = baselines.generate(name, pool, SPEC, n=12, seed=3)
    assert drawn.shape == (12, SPEC.numel)
    assert drawn.isfinite().all()
    assert (drawn[:, -8:] > 0).all()


@pytest.mark.parametrize("name", FROM_WEIGHTS)
def test_the_seed_alone_decides(name, pool):
    first, again, other = (baselines.generate(name, pool, SPEC, n=6, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", FROM_WEIGHTS)
def test_one_network_or_two_are_enough_to_draw_from(name, pool):
    for K in (1, 2):
        small = Pool(pool.weights[:K], pool.goodness[:K], pool.sizes)
        assert baselines.generate(name, small, SPEC, n=3, seed=0).isfinite().all()


def test_copies_are_bitwise_and_without_repeats_while_they_last(pool):
    drawn = baselines.generate("copy", pool, SPEC, n=40, seed=0)
    assert sorted(distances.nearest(drawn, pool.weights).index.tolist()) == list(range(40))
    assert all((row == pool.weights).all(1).any() for row in drawn)
    assert baselines.generate("copy", pool, SPEC, n=100, seed=0).shape == (100, SPEC.numel)


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_noise_lies_sigma_spreads_from_its_original(sigma):
    g = torch.Generator().manual_seed(0)
    W = torch.randn(50, 3000, generator=g) * torch.linspace(0.1, 5, 3000)
    moved = baselines.noise(Pool(W, torch.zeros(50), (1000, 2000)), 200, torch.Generator().manual_seed(1), sigma=sigma)
    originals = baselines.copy(Pool(W, torch.zeros(50), (3000,)), 200, torch.Generator().manual_seed(1))
    spread = W.var(0).sum().sqrt()
    assert (moved - originals).norm(dim=1).mean() == pytest.approx(sigma * spread.item(), rel=0.02)


def test_interpolations_lie_on_segments(pool):
    W = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    drawn = baselines.interpolation(Pool(W, torch.zeros(3), (2,)), 200, torch.Generator().manual_seed(0))
    x, y = drawn.T
    on_an_edge = torch.stack([x.abs(), y.abs(), (x + y - 1).abs()]).amin(0)
    assert on_an_edge.max() < 1e-6
    assert x.std() > 0.2


def test_soup_of_all_is_the_mean_and_soup_of_m_narrows_by_sqrt_m(pool):
    everything = baselines.soup(pool, 3, torch.Generator().manual_seed(0), m=1000)
    torch.testing.assert_close(everything, pool.weights.mean(0).expand(3, -1))
    big = Pool(torch.randn(400, 500, generator=torch.Generator().manual_seed(0)), torch.zeros(400), (500,))
    soups = baselines.soup(big, 300, torch.Generator().manual_seed(1), m=4)
    assert metrics.dispersion(soups, big.weights) == pytest.approx(0.5, abs=0.03)


def test_gaussian_has_the_zoos_moments_weight_by_weight(pool):
    drawn = baselines.gaussian(pool, 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), pool.weights.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(0), pool.weights.std(0), atol=0.03, rtol=0.03)


def test_pca_gaussian_has_the_zoos_covariance_and_stays_in_its_span(pool):
    drawn = baselines.pca_gaussian(pool, 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.T.cov(), pool.weights.T.cov(), atol=0.08, rtol=0)
    centred = pool.weights - pool.weights.mean(0)
    inside = (drawn - pool.weights.mean(0)) @ torch.linalg.pinv(centred) @ centred
    torch.testing.assert_close(inside, drawn - pool.weights.mean(0), atol=2e-3, rtol=0)


def test_kde_draws_about_the_best_networks_alone():
    W = torch.cat([torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), 50 + torch.zeros(70, 6)])
    accuracy = torch.cat([torch.full((30,), 0.9), torch.full((70,), 0.1)])
    drawn = baselines.kde(Pool(W, accuracy, (6,)), 500, torch.Generator().manual_seed(0))
    assert drawn.abs().max() < 10  # nothing near the 70 bad ones at 50
    torch.testing.assert_close(drawn.mean(0), W[:30].mean(0), atol=0.3, rtol=0)


def test_kde_bandwidth_is_scotts():
    W = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)
    drawn = baselines.kde(Pool(W, torch.ones(100), (1,)), 40_000, torch.Generator().manual_seed(0), share=1.0)
    bandwidth = W.std().item() * 100**-0.2
    assert drawn.var().item() == pytest.approx(1 + bandwidth**2, rel=0.03)


@pytest.fixture(scope="module", params=["mlp", "cnn_digits"])
def small_zoo(request, tmp_path_factory):
    args = {"hidden": [8]} if request.param == "mlp" else {}
    return make_zoo(tmp_path_factory.mktemp("baselines") / "zoo", runs=3, heldout=1, network=request.param, **args)


def task_pool(zoo, task) -> Pool:
    return Pool(zoo.matrix(zoo.indices("train")), None, (), zoo, task)


def test_random_init_is_the_networks_own_and_leaves_the_global_seed_alone(small_zoo):
    task = load_task(small_zoo.task_config)
    before = torch.get_rng_state()
    pool = task_pool(small_zoo, task)
    drawn = task_baselines.random_init(pool, 3, torch.Generator().manual_seed(7))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(7)
    assert torch.equal(drawn[0], small_zoo.spec.flatten(task.build().state_dict()))
    assert not torch.equal(drawn[0], drawn[1])


def test_finetuned_copy_equals_adam_on_one_network(small_zoo, monkeypatch):
    task = load_task(small_zoo.task_config)
    monkeypatch.setattr(task_baselines, "FINETUNED_AT_ONCE", 1)
    pool, draws = task_pool(small_zoo, task), torch.Generator().manual_seed(3)
    found = task_baselines.finetuned_copy(pool, 1, draws, steps=4, batch_size=16)[0]
    draws.manual_seed(3)
    model = task.build()
    model.load_state_dict(small_zoo.complete(small_zoo.spec.unflatten(baselines.copy(pool, 1, draws)[0])))
    model.eval()
    noise, M = generator(mix(3, 0), 0), len(task.data("train"))
    orders = torch.randperm(M, generator=noise)[: 4 * 16].view(4, 1, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for x, y in task.data("train").training_batches(orders, [noise]):
        optimizer.zero_grad()
        F.cross_entropy(model(x[0]), y[0]).backward()
        optimizer.step()
    torch.testing.assert_close(found, small_zoo.spec.flatten(model.state_dict()), atol=2e-5, rtol=1e-4)


def test_finetuned_copies_move_away_and_stay_good(small_zoo):
    task = load_task(small_zoo.task_config)
    W = small_zoo.matrix(small_zoo.indices("train"))
    drawn = task_baselines.finetuned_copy(task_pool(small_zoo, task), 4, torch.Generator().manual_seed(0))
    moved = distances.nearest(drawn, W).distance
    assert (moved > 0).all()
    assert moved.max() < metrics.tau(W)
    states = [small_zoo.complete(small_zoo.spec.unflatten(row)) for row in (*drawn, *W)]
    accuracy = score_networks(CLASSIFIES, task.build(), states, task.data("train")).value
    assert accuracy[:4].mean() >= accuracy[4:].mean() - 0.01
