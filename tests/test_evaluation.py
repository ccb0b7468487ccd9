import json
import time
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest
import torch

from measured import make_zoo
from paramgen.cli.commands.evaluate import main
from paramgen.core import distances
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation import metrics
from paramgen.evaluation.baseline import Baseline
from paramgen.evaluation.baselines import BASELINES, shown_in
from paramgen.evaluation.compare import Report, summarise
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.flags import Flag
from paramgen.evaluation.intervals import Against, Interval
from paramgen.evaluation.judgement import copying, flags_of, not_better, some_copies
from paramgen.evaluation.results import Row
from paramgen.evaluation.rows import row_or_reason
from paramgen.report.page import page
from paramgen.symmetry import PermutationSpec
from paramgen.tasks import load_task


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    return make_zoo(tmp_path_factory.mktemp("zoos") / "seeds", runs=12, heldout=4, hidden=[16])


@pytest.fixture(scope="module")
def samples(zoo) -> list[Samples]:
    W = zoo.matrix(zoo.indices("train"))
    near = W[:6] + 1e-4 * torch.randn(6, W.shape[1], generator=torch.Generator().manual_seed(0))
    info = SampleInfo(fit_seconds=2.0, sample_seconds=0.6, num_inference_steps=20, generator_params=1000)
    return [
        Samples("copier", near, info, identity=torch.arange(6), total=6),
        Samples("collapsed", W.mean(0) + 0.1 * (W[:6] - W.mean(0)), SampleInfo(uses_task_data=True), total=6),
    ]


@pytest.fixture(scope="module")
def results(zoo, samples) -> dict:
    return evaluate(zoo, load_task(zoo.task_config), samples, n=6).to_dict()


def row(results: dict, name: str) -> dict:
    return next(r for r in results["rows"] if r["name"] == name)


def kinds(found: dict) -> list[str]:
    return [flag["kind"] for flag in found["flags"]]


def accuracy_by_hand(zoo: Zoo, state: dict, split: str) -> float:
    task = load_task(zoo.task_config)
    model = task.build().eval()
    model.load_state_dict(state)
    x, y = next(iter(task.data(split).batches(10_000)))
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def test_rows_are_references_then_generators_then_every_baseline(results):
    names = [r["name"] for r in results["rows"]]
    assert names == ["zoo", "held-out runs", "copier", "collapsed", *shown_in("one_task")]
    assert [r["kind"] for r in results["rows"][:3]] == ["reference", "reference", "generator"]


def test_results_keep_to_the_packaged_schema(results):
    schema = json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(results, schema)
    broken = json.loads(json.dumps(results))
    del broken["rows"][3]["values"]["dispersion"]
    with pytest.raises(jsonschema.ValidationError, match="dispersion"):
        jsonschema.validate(broken, schema)


def test_accuracies_are_those_of_the_networks_loaded_one_by_one(zoo, results):
    train = zoo.indices("train")
    test = [accuracy_by_hand(zoo, zoo.full(i), "test") for i in train]
    found = row(results, "zoo")["values"]
    assert found["mean"] == pytest.approx(sum(test) / len(test), abs=1e-6)
    assert (found["best"], found["worst"]) == pytest.approx((max(test), min(test)), abs=1e-6)
    on_train = [accuracy_by_hand(zoo, zoo.full(i), "train") for i in train]
    assert found["selected"] == pytest.approx(test[on_train.index(max(on_train))], abs=1e-6)
    assert results["good_from"] == pytest.approx(sum(test) / len(test) - 0.01, abs=1e-6)


def test_held_out_runs_are_never_in_what_baselines_and_distances_see(zoo, results):
    train, heldout = zoo.matrix(zoo.indices("train")), zoo.matrix(zoo.indices("heldout"))
    expected = metrics.nn_ratio(distances.nearest(heldout, train).distance, metrics.tau(train))
    assert row(results, "held-out runs")["values"]["nn_ratio"] == pytest.approx(expected, rel=1e-5)
    assert (results["networks"], results["heldout"], results["runs"]) == (8, 4, 8)


def test_references_measure_themselves(results):
    zoo, heldout = row(results, "zoo"), row(results, "held-out runs")
    assert zoo["values"]["nn_ratio"] == pytest.approx(1)
    assert zoo["values"]["dispersion"] == pytest.approx(1)
    assert heldout["values"]["nn_ratio"] == pytest.approx(1, abs=0.15)
    assert abs(zoo["values"]["zu"]) < 2.5
    assert heldout["values"]["zu"] is None
    assert zoo["flags"] == heldout["flags"] == []


def test_copies_are_flagged_and_matched_to_their_identity(results):
    copier = row(results, "copier")
    assert copier["values"]["nn_ratio"] < 0.01
    assert copier["values"]["zu"] < -2
    assert copier["values"]["id_match"] == 1
    assert copier["values"]["iou_wrong_max"] > 0.95
    assert copier["novel_and_good"]["0.25"] == 0
    assert kinds(copier)[0] == "copies"
    assert row(results, "copy")["values"]["nn_ratio"] == 0


def test_collapse_is_flagged_with_task_data_and_better_baselines(results):
    collapsed = row(results, "collapsed")
    assert collapsed["values"]["dispersion"] < 0.15
    assert {"collapsed", "task_data"} <= set(kinds(collapsed))
    worse_than = {flag["detail"] for flag in collapsed["flags"] if flag["kind"] == "worse"}
    better = {
        r["name"]
        for r in results["rows"]
        if r["kind"] == "baseline"
        and r["values"]["mean"] >= collapsed["values"]["mean"] + 0.2
        and r["values"]["nn_ratio"] >= 1.1 * collapsed["values"]["nn_ratio"]
    }
    assert better
    assert better <= worse_than


def test_trajectories_are_lines_through_the_zoo_s_plane_to_the_samples(zoo, samples):
    way = torch.stack([torch.randn(2, zoo.spec.numel), samples[0].weights[:2]])  # (2, 2, P)
    drawn = Samples("watched", samples[0].weights, SampleInfo(), total=6, trajectory=way)
    found = evaluate(zoo, load_task(zoo.task_config), [drawn, samples[1]], [], n=6).to_dict()
    assert list(found["trajectories"]) == ["watched"]
    lines = torch.tensor(found["trajectories"]["watched"])  # (m, S, 2)
    ends = torch.tensor(row(found, "watched")["points"]["xy"][:2])
    assert lines.shape == (2, 2, 2)
    assert torch.allclose(lines[:, -1], ends, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(lines[:, 0], ends, atol=0.1)
    jsonschema.validate(
        found, json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    )


def test_costs_are_those_of_the_samples(results):
    copier = row(results, "copier")
    assert copier["values"]["fit_seconds"] == 2.0
    assert copier["values"]["sample_seconds"] == pytest.approx(0.1)
    assert (results["generators"]["copier"]["num_inference_steps"], copier["values"]["params"]) == (20, 1000)
    assert row(results, "zoo")["values"]["fit_seconds"] == 1.0
    assert row(results, "gaussian")["values"]["sample_seconds"] > 0


def test_baselines_depend_on_the_seed_alone(zoo):
    task = load_task(zoo.task_config)
    a, b, c = (evaluate(zoo, task, baselines=["gaussian", "random-init"], n=3, seed=s) for s in (0, 0, 1))
    assert [r.points for r in a.rows] == [r.points for r in b.rows]
    assert a.rows[2].points != c.rows[2].points


def test_every_row_has_as_many_networks_as_the_smallest_set_and_it_is_said(zoo, samples):
    found = evaluate(zoo, load_task(zoo.task_config), samples, ["copy"], n=50)
    assert {r.n for r in found.rows if r.kind != "reference"} == {6}
    assert any("6 networks" in note for note in found.notes)


def test_samples_are_matched_to_the_run_that_conditioned_them(zoo, samples):
    near, task = samples[0].weights, load_task(zoo.task_config)
    by_run = Samples("by run", near, SampleInfo(), total=6, run=torch.tensor([0, 1, 2, 0, 0, 0]))
    unknown = Samples("unknown", near, SampleInfo(), total=6)
    found = evaluate(zoo, task, [by_run, samples[0], unknown], [], n=6).to_dict()
    assert [row(found, name)["values"]["run_match"] for name in ("by run", "copier", "unknown", "zoo")] == [
        0.5,
        1,
        None,
        None,
    ]
    assert row(found, "by run")["values"]["id_match"] is None


def test_one_run_has_nothing_to_match(tmp_path):
    zoo = make_zoo(tmp_path / "one", runs=1)
    copies = Samples("copies", zoo.matrix(zoo.indices("train")), SampleInfo(), torch.arange(2), 2)
    found = row(evaluate(zoo, load_task(zoo.task_config), [copies], [], n=2).to_dict(), "copies")
    assert (found["values"]["id_match"], found["values"]["run_match"]) == (1, None)


def test_nan_weights_are_counted_and_the_rest_is_measured(zoo, samples, results):
    weights = samples[0].weights.clone()
    weights[1, 5] = float("nan")
    weights[4] = float("inf")
    found = evaluate(
        zoo, load_task(zoo.task_config), [Samples("ill", weights, SampleInfo(), torch.arange(6), 6)], [], n=6
    ).to_dict()
    ill, whole = row(found, "ill"), row(results, "copier")
    assert ill["nonfinite"] == 2
    assert {"kind": "nonfinite", "detail": "2 of 6"} in ill["flags"]
    assert ill["values"]["id_match"] == 1
    assert ill["values"]["nn_ratio"] == pytest.approx(whole["values"]["nn_ratio"], rel=0.1)
    assert [d is None for d in ill["points"]["distance"]] == [False, True, False, False, True, False]
    assert ill["values"]["mean"] < whole["values"]["mean"]  # broken networks are not left out of the mean
    schema = json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    jsonschema.validate(found, schema)


def test_samples_that_are_all_nan_give_a_row_without_distances(zoo):
    nothing = Samples("nothing", torch.full((3, zoo.spec.numel), float("nan")), SampleInfo(), total=3)
    found = row(evaluate(zoo, load_task(zoo.task_config), [nothing], [], n=3).to_dict(), "nothing")
    assert found["nonfinite"] == 3
    assert found["values"]["nn_ratio"] is None
    assert found["values"]["dispersion"] is None


def test_a_zoo_of_one_run_has_no_held_out_row_and_says_so(tmp_path):
    zoo = make_zoo(tmp_path / "one", runs=1, hidden=[8])
    found = evaluate(zoo, load_task(zoo.task_config), baselines=["soup-2"], n=3).to_dict()
    assert [r["name"] for r in found["rows"]] == ["zoo", "soup-2"]
    assert all(r["values"]["zu"] is None for r in found["rows"])
    assert any("one training run" in note and "no held-out row" in note for note in found["notes"])


def test_a_permuted_copy_is_far_raw_and_a_copy_aligned(zoo):
    shuffled = []
    for i in zoo.indices("train")[:5]:
        state = zoo[i]
        order = torch.randperm(16, generator=torch.Generator().manual_seed(i))
        for name in ("layers.0.weight", "layers.0.bias"):
            state[name] = state[name][order]
        state["layers.1.weight"] = state["layers.1.weight"][:, order]
        shuffled.append(zoo.spec.flatten(state))
    permuted = Samples("permuted", torch.stack(shuffled), SampleInfo(), total=5)
    found = evaluate(zoo, load_task(zoo.task_config), [permuted], [], n=5, aligned=True).to_dict()
    assert row(found, "permuted")["values"]["nn_ratio"] > 0.5
    assert row(found, "permuted")["values"]["nn_ratio_aligned"] < 1e-3
    assert "copies_aligned" in kinds(row(found, "permuted"))
    assert row(found, "zoo")["values"]["nn_ratio_aligned"] == pytest.approx(1)
    assert row(found, "held-out runs")["values"]["nn_ratio_aligned"] == pytest.approx(1, abs=0.2)


@pytest.fixture(scope="module")
def mixed(zoo) -> dict:
    """Four new runs and two copies: raw ones, ones with permuted units, and none."""
    task, W = load_task(zoo.task_config), zoo.matrix()
    new = W[zoo.indices("heldout")]
    copies = W[:2]
    permuted = copies.clone()
    symmetries = PermutationSpec.of(task.build().eval(), next(iter(task.data("train").batches(2)))[0], zoo.spec)
    for group, units in symmetries.units.items():
        symmetries.permute_(permuted, group, torch.arange(units).flip(0).expand(2, -1))
    sets = {"raw": torch.cat([new, copies]), "permuted": torch.cat([new, permuted]), "none": new}
    samples = [Samples(name, weights, SampleInfo(), total=len(weights)) for name, weights in sets.items()]
    found = [evaluate(zoo, task, [s], baselines=[], n=6, aligned=True).to_dict()["rows"][-1] for s in samples]
    return {r["name"]: r for r in found}


def test_a_few_copies_are_counted_where_the_median_is_that_of_new_runs(mixed):
    assert all(r["values"]["run_ratio"] > 0.9 and r["values"]["run_ratio_aligned"] > 0.9 for r in mixed.values())
    third, shares = pytest.approx(1 / 3), ("near_share", "near_share_aligned", "same_predictions")
    assert [mixed["raw"]["values"][key] for key in shares] == [third, third, third]
    assert [mixed["permuted"]["values"][key] for key in shares] == [0, third, third]
    assert [mixed["none"]["values"][key] for key in shares] == [0, 0, 0]


def test_a_few_copies_are_flagged_with_their_number(mixed):
    two = "2 of 6"
    unseen, seen = {"kind": "some_near", "detail": two}, {"kind": "same_predictions", "detail": two}
    aligned = {"kind": "some_near_aligned", "detail": two}
    assert mixed["raw"]["flags"][-3:] == [unseen, aligned, seen]
    assert mixed["permuted"]["flags"][-2:] == [aligned, seen]
    assert unseen not in mixed["permuted"]["flags"]
    assert mixed["none"]["flags"] == []


def test_copies_are_no_news_where_the_reference_has_as_many():
    new = replace(judged(accuracy=0.9, near_share=0.5, same_predictions=0.5), kind="reference", n=100)
    some = replace(judged(accuracy=0.9, nn_ratio=1.0, near_share=0.54, same_predictions=0.55), n=100)
    assert some_copies(some, [new]) == [Flag("same_predictions", "55 of 100")]
    broken = replace(judged(accuracy=0.9, near_share=1.0), n=100, nonfinite=60)  # distances are of the 40 others
    assert some_copies(broken, [new]) == [Flag("some_near", "40 of 40")]
    assert some_copies(some, []) == []


def test_batch_norm_networks_are_shown_with_and_without_recalibration(tmp_path):
    zoo = make_zoo(tmp_path / "bn", runs=3, heldout=1, network="cnn_digits")
    stale = zoo.matrix([0, 1])
    statistics = torch.cat([torch.full((t.numel,), t.kind != "weight") for t in zoo.spec.tensors])
    stale[:, statistics] = stale[:, statistics] * 30 + 1
    found = evaluate(
        zoo, load_task(zoo.task_config), [Samples("stale", stale, SampleInfo(), total=2)], [], n=2
    ).to_dict()
    ill = row(found, "stale")
    assert ill["values"]["mean"] < 0.5  # the statistics as generated
    assert ill["values"]["recalibrated"] == pytest.approx(row(found, "zoo")["values"]["mean"], abs=0.05)


def test_networks_without_batch_norm_have_no_recalibrated_figure(results):
    assert all(r["values"]["recalibrated"] is None for r in results["rows"])


@pytest.mark.parametrize(
    ("n", "baselines", "message"),
    [(0, [], "n is 0"), (3, ["gausian"], "Unknown baseline 'gausian'. Did you mean 'gaussian'")],
)
def test_wrong_wishes_are_refused(n, baselines, message, zoo):
    with pytest.raises(ParamgenError, match=message):
        evaluate(zoo, load_task(zoo.task_config), baselines=baselines, n=n)


def test_a_zoo_of_one_training_network_is_refused(tmp_path):
    zoo = make_zoo(tmp_path / "two", runs=2, heldout=1, hidden=[8])
    with pytest.raises(ParamgenError, match="1 training network, expected at least 2"):
        evaluate(zoo, load_task(zoo.task_config), n=2)


def test_a_hundred_networks_and_all_baselines_take_five_cpu_seconds(tmp_path):

    zoo = make_zoo(tmp_path / "zoo", runs=6, heldout=2)  # the default MLP, 5,018 parameters
    assert zoo.spec.numel == 5018
    drawn = zoo.matrix([0]).expand(100, -1) + 0.01 * torch.randn(100, 5018)
    task = load_task(zoo.task_config)
    start = time.process_time()
    evaluate(zoo, task, [Samples("generator", drawn, SampleInfo(), total=100)], n=100)
    assert time.process_time() - start < 5


def out_of_memory(*_: object) -> torch.Tensor:
    raise MemoryError("cannot allocate 21 GB")


def test_a_baseline_that_fails_is_a_row_with_the_reason_and_the_others_are_measured(zoo, tmp_path, monkeypatch, capsys):
    failing = {**BASELINES, "kde": Baseline(out_of_memory)}
    monkeypatch.setattr("paramgen.evaluation.baselines.BASELINES", failing)
    main(str(zoo.path), out=str(tmp_path), n=4, baselines=["soup-2", "kde", "gaussian"])
    results = json.loads((tmp_path / "results.json").read_text())
    jsonschema.validate(
        results, json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    )
    failed = row(results, "kde")
    assert failed["flags"] == [{"kind": "failed", "detail": "MemoryError: cannot allocate 21 GB"}]
    assert (failed["n"], failed["values"]["mean"], failed["points"]["score"]) == (0, None, [])
    assert row(results, "gaussian")["values"]["mean"] > 0
    assert "kde: failed: MemoryError: cannot allocate 21 GB" in capsys.readouterr().out
    assert "failed: MemoryError: cannot allocate 21 GB" in (tmp_path / "report.html").read_text().split("<script")[0]
    compared = [Report("zoo", 0, tmp_path / "results.json")]
    rows = {r["name"]: r for r in summarise(compared)}
    assert rows["kde"]["figures"] == {}
    assert rows["gaussian"]["figures"]["mean"]["mean"] == row(results, "gaussian")["values"]["mean"]


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Zoo:
    """Six runs of four neighbouring checkpoints, two of them held out."""
    return make_zoo(tmp_path_factory.mktemp("zoos") / "dense", runs=6, heldout=2, checkpoints=4, hidden=[16])


@pytest.fixture(scope="module")
def of_dense(dense) -> dict:
    W, runs = dense.matrix(dense.indices("train")), [dense.entries[i].run for i in dense.indices("train")]
    step = metrics.tau(W) / W.shape[1] ** 0.5
    near = W + 2 * step * torch.randn(
        W.shape, generator=torch.Generator().manual_seed(0)
    )  # two steps away from its checkpoint
    assert len(set(runs)) == 4
    drawn = Samples("near", near, SampleInfo(), total=16)
    new = Samples("new", dense.matrix(dense.indices("heldout")).repeat(2, 1), SampleInfo(), total=16)
    return evaluate(dense, load_task(dense.task_config), [drawn, new], n=16, aligned=True).to_dict()


def test_samples_within_a_run_are_not_new_however_many_steps_away(of_dense):
    near, heldout = row(of_dense, "near"), row(of_dense, "held-out runs")
    assert near["values"]["nn_ratio"] > 1.5  # by the step between checkpoints it would be new
    assert near["values"]["run_ratio"] < 0.3
    assert near["values"]["run_ratio_aligned"] < 0.4
    assert kinds(near)[0] == "within_run"
    assert set(near["novel_and_good"].values()) == {0}
    assert heldout["values"]["run_ratio"] == pytest.approx(1)
    assert row(of_dense, "zoo")["values"]["run_ratio"] == pytest.approx(1, abs=0.2)
    assert row(of_dense, "copy")["values"]["run_ratio"] == 0
    assert kinds(row(of_dense, "copy"))[0] == "copies"
    assert (of_dense["checkpoints"], of_dense["unit"]) == (4, "run")
    assert of_dense["run_scale"]["runs"] == 2


def test_new_runs_are_new(of_dense):
    new = row(of_dense, "new")
    assert new["values"]["run_ratio"] == pytest.approx(1, abs=0.1)
    assert not {"within_run", "copies", "nearer_than_heldout"} & set(kinds(new))
    assert new["novel_and_good"]["0.5"] == row(of_dense, "held-out runs")["novel_and_good"]["0.5"]


def test_points_are_in_the_unit_of_the_page(of_dense):
    for name in ("near", "new", "noise-1"):
        found = row(of_dense, name)
        assert torch.tensor(found["points"]["distance"]).double().quantile(0.5) == pytest.approx(
            found["values"]["run_ratio"], rel=1e-4
        )


def test_untrained_networks_near_the_zoo_are_no_copies(of_dense):
    untrained = row(of_dense, "random-init")
    assert not {"within_run", "copies", "nearer_than_heldout"} & set(kinds(untrained))
    found = judged(accuracy=0.1, nn_ratio=0.1, run_ratio=0.1)
    assert copying(found, several=True) == [Flag("copies")]
    assert flags_of(found, [], several=True, works=False) == []
    assert flags_of(judged(accuracy=0.6, nn_ratio=0.1), [], several=True, works=True) == [Flag("copies")]


def test_zu_counts_a_held_out_run_once_and_says_where_it_is_saturated(of_dense):
    near = row(of_dense, "near")
    assert near["values"]["zu"] == pytest.approx(-near["values"]["zu_limit"])
    assert near["values"]["zu_limit"] == pytest.approx((3 * 2 * 16 / (16 + 2 + 1)) ** 0.5)
    assert row(of_dense, "zoo")["values"]["zu_limit"] == pytest.approx((3 * 2 * 4 / (4 + 2 + 1)) ** 0.5)


def test_results_of_dense_runs_keep_to_the_schema_and_have_a_page(of_dense):
    jsonschema.validate(
        of_dense, json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    )
    html = page(of_dense)
    assert "within the runs that the generator learnt from" in html
    assert "within its run" in html


def test_one_run_with_nothing_held_out_counts_no_novel_networks(tmp_path):
    zoo = make_zoo(tmp_path / "one", runs=1, checkpoints=5)
    found = evaluate(zoo, load_task(zoo.task_config), baselines=["noise-1"], n=3).to_dict()
    noise = row(found, "noise-1")
    assert (noise["values"]["run_ratio"], noise["novel_and_good"], found["run_scale"], found["unit"]) == (
        None,
        {},
        None,
        "step",
    )
    assert noise["values"]["nn_ratio"] > 0
    assert any("nothing shows how far away a new network would lie" in note for note in found["notes"])


def test_a_gaussian_per_weight_under_another_name_is_flagged(tmp_path):
    zoo = make_zoo(tmp_path / "run", runs=1, checkpoints=20, hidden=[8])
    W = zoo.matrix(zoo.indices("train"))
    noise = W.mean(0) + W.std(0) * torch.randn(10, W.shape[1], generator=torch.Generator().manual_seed(0))
    half = torch.lerp(W[:-2], W[1:-1], 0.5)  # between neighbouring checkpoints
    drawn = [Samples(name, w[:10], SampleInfo(), total=10) for name, w in (("noise", noise), ("between", half))]
    found = evaluate(zoo, load_task(zoo.task_config), drawn, ["gaussian"], n=10).to_dict()
    assert row(found, "noise")["values"]["dispersion"] > 0.8  # what dispersion sees is the zoo's spread
    assert row(found, "noise")["values"]["structure"] < 0.2
    assert "mean_plus_noise" in kinds(row(found, "noise"))
    assert "mean_plus_noise" not in kinds(row(found, "between"))
    assert row(found, "between")["values"]["structure"] > 0.8
    assert row(found, "gaussian")["values"]["structure"] < 0.2


def judged(accuracy: float, **figures: float) -> Row:
    """A generator's row with these figures."""
    blank = row_or_reason("blank", lambda: 1 / 0).row
    values = {**blank.values, "mean": accuracy, **figures}
    return replace(blank, kind="generator", n=10, flags=[], values=values)


@pytest.mark.parametrize("names", [["gaussian"], ["zoo"], ["held-out runs"], ["mine", "mine"]])
def test_samples_with_the_name_of_another_row_are_refused(zoo, names):
    """Their differences would be those of the other row."""
    samples = [Samples(name, zoo.matrix([0, 1]), SampleInfo(), total=2) for name in names]
    with pytest.raises(ParamgenError, match=f"generator '{names[-1]}' has the name of another row"):
        evaluate(zoo, load_task(zoo.task_config), samples, ["gaussian"], n=2)


def test_one_network_per_row_is_compared_with_nothing_and_a_note_says_so(zoo):
    alone = Samples("alone", zoo.matrix([0]), SampleInfo(), total=1)
    results = evaluate(zoo, load_task(zoo.task_config), [alone], ["gaussian"], n=1)
    row = next(row for row in results.rows if row.name == "alone")
    assert (row.against[0].verdict, [flag.kind for flag in row.flags]) == ("alike", ["copies"])
    assert any("One network per row" in note for note in results.notes)


def test_a_baseline_counts_unless_the_generator_is_shown_to_be_better_in_accuracy_or_distance():
    better, alike, worse = Interval(0.1, 0.05, 0.15), Interval(0.001, -0.01, 0.012), Interval(-0.1, -0.15, -0.05)
    cases = {
        "more accurate": (better, worse),
        "farther": (worse, better),
        "as good": (alike, alike),
        "beaten": (worse, alike),
        "beaten from afar": (worse, worse),
        "trained on the task": (worse, worse),
    }
    pairs = [Against(name, accuracy.verdict(), accuracy, distance) for name, (accuracy, distance) in cases.items()]
    rows = [
        replace(judged(0.9), name=name, kind="baseline", uses_task_data=name == "trained on the task") for name in cases
    ]
    found = not_better(replace(judged(0.9), against=pairs), rows)
    assert found == [Flag("worse", "beaten"), Flag("worse", "beaten from afar"), Flag("alike", "as good")]
    told = not_better(replace(judged(0.9), against=pairs, uses_task_data=True), rows)
    assert Flag("worse", "trained on the task") in told
