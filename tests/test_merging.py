"""Merging networks: each formula against an independent one, and `paramgen merge` on real zoos of digits."""

import json
import math

import pytest
import torch

from conftest import TinyNet
from measured import make_zoo
from paramgen.cli.commands.compare_steps import GeneratorSource, draw
from paramgen.cli.main import main
from paramgen.collect.multi import main as collect_tasks
from paramgen.core.io import read_tensors, write_tensors
from paramgen.core.params import ParamSpec, TensorSpec
from paramgen.core.samples import read_samples
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation import merging
from paramgen.evaluation.baseline import draw_from
from paramgen.evaluation.baselines import BASELINES, all_baselines
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.weight_baselines import generate, soup
from paramgen.symmetry import PermutationSpec
from paramgen.tasks import RelabelFamily, family_of, load_task
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks

SPEC = ParamSpec((TensorSpec("w", (30,)), TensorSpec("b", (6,)), TensorSpec("bn.running_var", (4,), "running_var")), {})
SIZES = tuple(t.numel for t in SPEC.tensors)


@pytest.fixture
def networks():
    g = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(5, 36, generator=g), torch.rand(5, 4, generator=g) * 0.01], 1)


@pytest.fixture
def start():
    return torch.cat([torch.randn(36, generator=torch.Generator().manual_seed(1)), torch.full((4,), 0.005)])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_task_arithmetic_at_one_over_m_is_the_mean_whatever_the_start(networks, start):
    torch.testing.assert_close(merging.task_arithmetic(networks, start, 1 / 5), networks.mean(0))
    doubled = merging.task_arithmetic(networks, start, 2.0)
    torch.testing.assert_close(doubled, start + 2 * sum(network - start for network in networks))


def test_ties_equals_its_three_steps_parameter_by_parameter(networks, start):
    vectors = [(network - start).tolist() for network in networks]
    kept = [sorted(vector, key=abs)[-10:] for vector in vectors]  # a quarter of 40
    expected = []
    for p in range(40):
        column = [vector[p] if vector[p] in top else 0.0 for vector, top in zip(vectors, kept, strict=True)]
        elected = math.copysign(1, sum(column)) if sum(column) else 0
        agreeing = [v for v in column if v * elected > 0]
        expected.append(start[p].item() + 0.5 * (sum(agreeing) / len(agreeing) if agreeing else 0.0))
    torch.testing.assert_close(merging.ties(networks, start, density=0.25, scale=0.5), torch.tensor(expected))


def test_dare_keeps_task_vectors_in_expectation_and_a_share_of_their_entries(networks, start):
    vectors = networks - start
    drawn = torch.stack([merging.dropped(vectors, 0.25, seeded(i)) for i in range(4000)])
    torch.testing.assert_close(drawn.mean(0), vectors, atol=0.25, rtol=0.1)
    assert (drawn != 0).float().mean().item() == pytest.approx(0.25, abs=0.005)
    everything = merging.dare(networks, start, seeded(), density=1.0, scale=0.3)
    torch.testing.assert_close(everything, merging.task_arithmetic(networks, start, 0.3))
    elected = merging.dare_ties(networks, start, seeded(), density=1.0)
    torch.testing.assert_close(elected, merging.ties(networks, start, density=1.0))


def test_model_stock_goes_from_the_start_to_the_mean_as_task_vectors_agree():
    w0, axes = torch.zeros(3), torch.eye(3)
    torch.testing.assert_close(merging.model_stock(axes[:2], w0, (3,)), w0)  # orthogonal
    torch.testing.assert_close(merging.model_stock(torch.stack([axes[0], axes[0]]), w0, (3,)), axes[0])
    pair = torch.tensor([[1.0, 0.0, 0.0], [0.5, math.sqrt(0.75), 0.0]])  # 60 degrees: t = 2 cos / (1 + cos) = 2/3
    torch.testing.assert_close(merging.model_stock(pair, w0, (3,)), pair.mean(0) * 2 / 3)
    apart = torch.tensor([[1.0, 0.0, 0.0], [-0.9, 0.1, 0.0]])
    torch.testing.assert_close(merging.model_stock(apart, w0, (3,)), w0)
    each = merging.model_stock(torch.cat([pair, axes[:2]], 1), torch.zeros(6), (3, 3))  # tensor by tensor
    torch.testing.assert_close(each, torch.cat([pair.mean(0) * 2 / 3, w0]))


def test_the_karcher_mean_of_a_circle_is_the_mean_angle_with_the_mean_norm():
    angles, norms = torch.tensor([0.1, 0.3, 1.4], dtype=torch.float64), torch.tensor([1.0, 2.0, 6.0])
    points = norms[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
    expected = 3 * torch.tensor([math.cos(0.6), math.sin(0.6)], dtype=torch.float64)
    torch.testing.assert_close(merging.karcher_mean(points, (2,)), expected, atol=1e-6, rtol=0)


def test_the_karcher_mean_has_the_least_squared_angles():
    units = torch.nn.functional.normalize(torch.randn(6, 9, generator=seeded(2), dtype=torch.float64) + 1, dim=1)
    cost = lambda c: (units @ c).clamp(-1, 1).acos().square().sum()  # noqa: E731
    centre = merging.sphere_mean(units)
    for direction in torch.randn(20, 9, generator=seeded(3), dtype=torch.float64):
        assert cost(torch.nn.functional.normalize(centre + 1e-2 * direction, dim=0)) > cost(centre)
    zeros = torch.zeros(3, 4)
    assert torch.equal(merging.karcher_mean(zeros, (4,)), zeros[0])


@pytest.mark.parametrize("method", merging.METHODS)
def test_every_method_keeps_variances_positive_and_follows_its_seed(method, networks, start):
    pool = Pool(networks, None, SIZES, start=start)
    first, again = (draw_from(merging.merging(method, 3), pool, SPEC, 4, seeded()) for _ in range(2))
    assert torch.equal(first, again)
    assert first.isfinite().all()
    assert (first[:, -4:] > 0).all()
    alone = draw_from(merging.merging(method, 16), Pool(networks[:1], None, SIZES), SPEC, 2, seeded())
    torch.testing.assert_close(alone, networks[:1].expand(2, -1))  # its own start: nothing to add


def test_soup_merges_what_the_baseline_of_the_same_name_does(networks):
    pool = Pool(networks, None, SIZES)
    torch.testing.assert_close(
        draw_from(merging.merging("soup", 3), pool, SPEC, 4, seeded()), soup(pool, 4, seeded(), 3)
    )


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    return make_zoo(tmp_path_factory.mktemp("merging") / "zoo", runs=6, heldout=2, hidden=[16])


@pytest.fixture(scope="module")
def disguised(zoo, tmp_path_factory) -> Zoo:
    """One network, its hidden units in six orders."""
    task = load_task(zoo.task_config)
    spec = PermutationSpec.of(task.build(), torch.randn(2, 1, 8, 8), zoo.spec)
    writer = ZooWriter(
        tmp_path_factory.mktemp("disguised") / "zoo", zoo.spec, {}, zoo.task_config, {"made": "by a test"}
    )
    for run in range(6):
        perms = {name: torch.randperm(len(p[0]), generator=seeded(run)) for name, p in spec.identity(1).items()}
        writer.add(spec.apply(zoo[0], perms), run=run, step=0, seed=run)
    return writer.close()


def merge(*words, code=0):
    assert main(["merge", *map(str, words)]) == code


def accuracy(zoo: Zoo, folder) -> torch.Tensor:
    task = load_task(zoo.task_config)
    samples = read_samples(folder, zoo)
    states = [zoo.complete(zoo.spec.unflatten(row)) for row in samples.weights]
    return score_networks(CLASSIFIES, task.build(), states, task.data("train")).value


def test_the_methods_are_rows_only_where_they_are_requested_by_name(zoo):
    family = family_of(zoo)
    assert not merging.FROM_MERGING.keys() & set(all_baselines(family))
    assert merging.FROM_MERGING.keys() <= BASELINES.keys()
    rows = evaluate(zoo, family, baselines=["copy", "ties-16"], n=3).rows
    assert [row.name for row in rows][-2:] == ["copy", "ties-16"]
    assert generate("ties-2", Pool(zoo.matrix(), None, ()), zoo.spec, 3, 0).shape == (3, zoo.spec.numel)


def test_merging_all_networks_of_a_zoo_is_one_command_that_evaluate_reads(zoo, tmp_path, capsys):
    merge("--zoo", zoo.path, "--method", "task-arithmetic", "--scale", 0.25, "--out", tmp_path / "merged")
    assert f"next: paramgen evaluate --zoo {zoo.path} --samples {tmp_path / 'merged'}" in capsys.readouterr().err
    samples = read_samples(tmp_path / "merged", zoo)
    torch.testing.assert_close(samples.weights, zoo.matrix(zoo.indices("train")).mean(0, keepdim=True))
    assert samples.info.generator == "task-arithmetic"
    assert samples.info.command.startswith("paramgen merge")
    assert evaluate(zoo, family_of(zoo), [samples], []).rows[-1].n == 1


def test_networks_are_chosen_by_index_and_a_start_by_index_or_file(zoo, tmp_path):
    write_tensors(tmp_path / "start.safetensors", zoo[1])
    for start in ("1", tmp_path / "start.safetensors"):
        chosen = ("--networks", "[0, 2]", "--start", start, "--scale", 1)
        merge("--zoo", zoo.path, "--method", "task-arithmetic", *chosen, "--out", tmp_path / "m", "--overwrite", "true")
        W = zoo.matrix()
        torch.testing.assert_close(read_samples(tmp_path / "m", zoo).weights[0], W[0] + W[2] - W[1])


def test_listed_networks_without_a_start_deviate_from_the_mean_of_all_train_networks(zoo, tmp_path):
    chosen = ("--networks", "[0, 2]", "--scale", 1)
    merge("--zoo", zoo.path, "--method", "task-arithmetic", *chosen, "--out", tmp_path / "m")
    W, mean = zoo.matrix(), zoo.matrix(zoo.indices("train")).mean(0)
    torch.testing.assert_close(read_samples(tmp_path / "m", zoo).weights[0], W[0] + W[2] - mean)


def test_a_merged_network_of_any_zoo_loads_strictly_with_its_ties_and_buffers(tiny_zoo, tmp_path):
    merge("--zoo", tiny_zoo.path, "--method", "dare-ties", "--scale", 3, "--out", tmp_path / "m")
    state = read_tensors(tmp_path / "m" / "network_0000.safetensors")
    TinyNet().load_state_dict(state, strict=True)
    assert torch.equal(state["out.weight"], state["linear.weight"])
    assert state["steps"] == 7
    assert (state["norm.running_var"] > 0).all()


def test_alignment_makes_one_network_of_its_copies_in_disguise(disguised, zoo, tmp_path):
    expected = score_networks(
        CLASSIFIES, load_task(zoo.task_config).build(), [zoo.full(0)], load_task(zoo.task_config).data("train")
    )
    for align in ("false", "true"):
        merge("--zoo", disguised.path, "--method", "karcher", "--align", align, "--out", tmp_path / align)
    assert accuracy(disguised, tmp_path / "true").item() == pytest.approx(expected.value.item(), abs=2e-3)
    assert accuracy(disguised, tmp_path / "false").item() < expected.value.item() - 0.1
    merge("--zoo", disguised.path, "--method", "ties", "--align", "true", "--start", 3, "--out", tmp_path / "from")
    assert accuracy(disguised, tmp_path / "from").item() == pytest.approx(expected.value.item(), abs=2e-3)


def test_batch_norm_is_measured_anew_on_request_and_the_networks_are_marked(tmp_path):
    zoo = make_zoo(tmp_path / "zoo", runs=3, heldout=0, network="cnn_digits")
    for again in ("false", "true"):
        merge("--zoo", zoo.path, "--method", "soup", "--recalibrate", again, "--out", tmp_path / again)
    assert accuracy(zoo, tmp_path / "true") > accuracy(zoo, tmp_path / "false")
    assert [read_samples(tmp_path / f, zoo).info.uses_task_data for f in ("true", "false")] == [True, False]


def test_task_vectors_of_a_family_begin_at_its_start_and_every_unseen_task_gets_a_network(tmp_path):
    family = RelabelFamily(network_args={"hidden": [4]}, seen=6, unseen=2)
    collect_tasks(family, str(tmp_path / "zoo"), CodeCondition(dim=10), steps=5, start="same", score=False)
    zoo = Zoo(tmp_path / "zoo")
    common = zoo.spec.unflatten(zoo.matrix().mean(0) + 0.1)
    write_tensors(zoo.path / "start.safetensors", common)
    merge("--zoo", zoo.path, "--method", "task-arithmetic", "--scale", 1, "--out", tmp_path / "m")
    samples = read_samples(tmp_path / "m", zoo)
    assert samples.task == list(family_of(zoo).unseen)
    start, seen = zoo.spec.flatten(common), zoo.matrix(zoo.indices("train"))
    torch.testing.assert_close(samples.weights[0], start + (seen - start).sum(0))
    rows = evaluate(zoo, family_of(zoo), [samples], ["average-all", "task-arithmetic-16"]).rows
    assert rows[-1].value("mean") is not None


def test_scale_val_takes_the_factor_that_is_best_on_val_and_marks_the_networks(zoo, tmp_path, capsys):
    task = load_task(zoo.task_config)

    def on_val(folder):
        states = [zoo.complete(zoo.spec.unflatten(row)) for row in read_samples(folder, zoo).weights]
        return score_networks(CLASSIFIES, task.build(), states, task.data("val")).value.mean().item()

    reached = {}
    for scale in ("val", "0.25", "0.4", "1"):
        merge("--zoo", zoo.path, "--method", "ties", "--scale", scale, "--out", tmp_path / scale)
        reached[scale] = on_val(tmp_path / scale)
    assert reached["val"] == max(reached.values())
    assert "best on val of 0.05, 0.1" in capsys.readouterr().out
    assert read_samples(tmp_path / "val", zoo).info.uses_task_data


def test_a_comparison_merges_networks_as_it_fits_generators(zoo, tmp_path):
    source = {"stock": GeneratorSource(merge="model-stock", arguments={"networks": 2})}
    folder = draw(tmp_path, zoo, "stock", source, {"n": 3}, seed=4)
    samples = read_samples(folder, zoo)
    assert samples.weights.shape == (3, zoo.spec.numel)
    written = (folder / "samples.json").stat().st_mtime_ns
    assert draw(tmp_path, zoo, "stock", source, {"n": 3}, seed=4) == folder
    assert (folder / "samples.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "tie"], "Unknown method 'tie'. Did you mean 'ties'?"),
        (
            ["--method", "karcher", "--density", "0.5"],
            "method karcher does not take density; ties, dare, dare-ties take it",
        ),
        (["--method", "ties", "--density", "0"], "density is 0, expected more than 0 and at most 1"),
        (["--method", "ties", "--networks", "[0, 5]"], "network 5 is not one of the 4 train networks of zoo 'zoo'"),
        (["--method", "ties", "--start", "9"], "start 9: zoo 'zoo' has networks 0 to 5"),
        (["--method", "ties", "--recalibrate", "true"], "have no batch-norm statistics"),
        (["--method", "ties", "--n", "0"], "n is 0"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words, said, zoo, tmp_path, capsys):
    merge("--zoo", zoo.path, "--out", tmp_path / "m", *words, code=2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m" / "samples.json").exists()


def test_a_merged_network_says_how_it_was_made(zoo, tmp_path):
    merge("--zoo", zoo.path, "--method", "dare", "--networks", 2, "--n", 3, "--seed", 5, "--out", tmp_path / "m")
    saved = json.loads((tmp_path / "m" / "samples.json").read_text())
    assert (saved["generator"], saved["seed"], len(saved["networks"]), saved["zoo"]) == ("dare", 5, 3, "zoo")
