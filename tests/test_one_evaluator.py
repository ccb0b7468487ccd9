"""One evaluator: a single task is a family of one, and a baseline is one entry that says what it needs."""

import pytest

from measured import make_zoo
from paramgen.collect.multi import Pretraining
from paramgen.collect.multi import main as collect_tasks
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.baseline import Baseline
from paramgen.evaluation.baselines import BASELINES, all_baselines
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.flags import Flag
from paramgen.tasks import ClassificationTask, RotatedFamily, ScorerTask, family_of
from paramgen.tasks.conditions import CodeCondition

QUICK = {"pretraining": Pretraining(steps=5), "score": False}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    return make_zoo(tmp_path_factory.mktemp("one") / "zoo", runs=5, heldout=2, hidden=[8])


@pytest.fixture(scope="module")
def turned(tmp_path_factory) -> Zoo:
    out = tmp_path_factory.mktemp("turned") / "zoo"
    family = RotatedFamily(seen=[-20.0, 0.0, 20.0], unseen=[10.0], network_args={"hidden": [8]})
    collect_tasks(family, str(out), CodeCondition(dim=2), steps=20, networks=2, **QUICK)
    return Zoo(out)


def test_a_family_of_one_task_is_evaluated_as_that_task(tmp_path):
    family = RotatedFamily(seen=[0.0], unseen=[], network_args={"hidden": [8]})
    collect_tasks(family, str(tmp_path / "zoo"), steps=20, networks=4, **QUICK)
    zoo = Zoo(tmp_path / "zoo")
    of_family, of_task = (evaluate(zoo, tasks, baselines=["copy"], n=3).to_dict() for tasks in (family, family.task()))
    assert [row["name"] for row in of_family["rows"]] == ["zoo", "copy"]
    assert of_family["rows"][0]["tasks"] is None
    for results in (of_family, of_task):
        for row in results["rows"]:
            row["values"].pop("sample_seconds")
    assert of_family["rows"] == of_task["rows"]


def test_baselines_are_those_that_the_zoo_has_everything_for(turned):
    weights = [name for name, of in BASELINES.items() if not of.needs and "one_task" in of.shown]
    scorer = ScorerTask("own_scorers.Net", "own_scorers.bias")
    assert all_baselines(None) == weights
    assert all_baselines(scorer) == [*weights, "random-init"]
    assert all_baselines(ClassificationTask()) == [*weights, "random-init", "finetuned-copy"]
    assert all_baselines(family_of(turned)) == ["nearest", "average-2", "average-all", "ridge", "vote-5"]
    assert all_baselines(family_of(turned), finetune=True)[5:] == ["random-init", "nearest-noised"]


@pytest.mark.parametrize(("kind", "name"), [("one", "ridge"), ("many", "copy")])
def test_a_baseline_of_another_kind_of_zoo_is_refused(kind, name, zoo, turned):
    opened = zoo if kind == "one" else turned
    with pytest.raises(ParamgenError, match=f"Unknown baseline '{name}'"):
        evaluate(opened, family_of(opened), baselines=[name])


def test_what_a_baseline_needs_and_the_zoo_lacks_is_the_reason_on_its_row(zoo):
    failed = evaluate(zoo, None, baselines=["random-init"], n=2).rows[-1]
    assert failed.flags == [Flag("failed", "random-init needs a task, and zoo 'zoo' has none")]


def test_a_new_baseline_is_one_entry(zoo, monkeypatch):
    mean = Baseline(lambda pool, n, _: pool.weights.mean(0).expand(n, -1), needs=frozenset({"network", "data"}))
    monkeypatch.setattr("paramgen.evaluation.baselines.BASELINES", {**BASELINES, "mean": mean})
    row = evaluate(zoo, family_of(zoo), n=3).rows[-1]
    assert (row.name, row.n, row.uses_task_data) == ("mean", 3, True)
    assert {"collapsed", "task_data"} <= {flag.kind for flag in row.flags}
    assert row.value("dispersion") == 0


def test_a_start_of_a_family_may_be_requested_by_name_and_follows_the_seed(turned):
    first, again, other = (
        evaluate(turned, family_of(turned), baselines=["random-init"], seed=seed).rows[-1] for seed in (0, 0, 1)
    )
    assert (first.role, first.n) == ("untrained", 1)
    assert first.points.distance == again.points.distance
    assert first.points.distance != other.points.distance


def test_networks_are_scored_on_the_split_that_is_requested(zoo):
    task = family_of(zoo).task()
    drawn = Samples("drawn", zoo.matrix([0, 1]), SampleInfo(), total=2)
    on_val = evaluate(zoo, task, [drawn], [], n=2, split="val")
    expected = task.evaluate([zoo.full(0), zoo.full(1)], "val").value
    assert on_val.rows[-1].points.score == expected.tolist()
    assert on_val.test_items == len(task.data("val"))


def test_a_family_zoo_without_networks_of_an_unseen_task_is_refused(tmp_path):
    family = RotatedFamily(seen=[-20.0, 20.0], unseen=[10.0], network_args={"hidden": [4]})
    collect_tasks(family, str(tmp_path / "zoo"), CodeCondition(dim=2), steps=2, heldout=False, **QUICK)
    zoo = Zoo(tmp_path / "zoo")
    with pytest.raises(
        ParamgenError, match=r"no network of the unseen task 'rotation\+010'; collect it with heldout=true"
    ):
        evaluate(zoo, family_of(zoo))


@pytest.mark.parametrize("network", ["mlp", "cnn_digits"])
def test_the_architecture_is_built_once(network, tmp_path, monkeypatch):
    args = {"hidden": [8]} if network == "mlp" else {}
    zoo = make_zoo(tmp_path / "zoo", runs=3, heldout=1, network=network, **args)
    task, built = family_of(zoo).task(), []
    monkeypatch.setattr(
        ClassificationTask, "build", lambda self, build=ClassificationTask.build: built.append(1) or build(self)
    )
    evaluate(
        zoo, task, baselines=["copy", "gaussian"], n=2
    )  # scored on test and train, recalibrated where it has batch norm
    assert len(built) == 1
