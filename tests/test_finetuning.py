"""Steps until a start is as good as the zoo."""

import json
from importlib.resources import files
from math import inf

import jsonschema
import pytest
import torch

from measured import make_zoo
from paramgen.collect.finetune import steps_to_reach, validation_scores
from paramgen.collect.multi import Pretraining
from paramgen.collect.multi import main as collect_tasks
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.shards import Shard
from paramgen.core.zoo import Zoo
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.fine_tuning import FineTuning
from paramgen.evaluation.network_set import NetworkSet
from paramgen.evaluation.score_store import ScoreStore
from paramgen.tasks import ClassificationTask, RotatedFamily, family_of, load_family, load_task
from paramgen.tasks.conditions import CodeCondition


class WithoutTest(ClassificationTask):
    """Refuses the test split."""

    def data(self, split):
        assert split != "test"
        return super().data(split)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return make_zoo(tmp_path_factory.mktemp("finetune") / "zoo", runs=4, heldout=1, hidden=[12])


@pytest.fixture(scope="module")
def task(zoo):
    return WithoutTest(**zoo.task_config["init_args"])


def starts(zoo, task):
    """A trained network, one that is random, and one of NaN."""
    torch.manual_seed(0)
    random = zoo.spec.flatten(task.build().state_dict())
    return torch.stack([zoo.matrix([0])[0], random, torch.full_like(random, torch.nan)])


def test_good_start_needs_no_step_a_random_one_many_and_a_broken_one_never_arrives(zoo, task):
    own = validation_scores(task, [zoo.full(0)]).item()
    needed = steps_to_reach(task, zoo, starts(zoo, task), own - 0.05, most=400, settings=OptimSettings(lr=3e-3))
    assert needed[0] == 0
    assert 20 < needed[1] <= 400
    assert needed[2] == inf


def test_steps_are_where_a_training_alone_first_gets_there(zoo, task):
    start, settings = starts(zoo, task)[1], OptimSettings(lr=3e-3)
    group = NetworkGroup(task.build(), [zoo.complete(zoo.spec.unflatten(start))], zoo.spec.names)
    course = {}
    for step in GroupTrainer(group, task.data("train"), settings, [0], 60).run():
        course[step] = validation_scores(task, group.states()).item()
    goal = course[60] - 0.02
    first = min(step for step, accuracy in course.items() if step % 5 == 0 and accuracy >= goal)
    assert steps_to_reach(task, zoo, start[None], goal, most=60, settings=settings).tolist() == [first]
    assert steps_to_reach(task, zoo, start[None], goal, most=first - 1, settings=settings).tolist() == [inf]


def test_rows_tell_steps_only_when_asked(zoo):
    samples = Samples("near", zoo.matrix([0, 1]) * 1.0001, SampleInfo(), total=2)
    task = load_task(zoo.task_config)
    asked = evaluate(zoo, task, [samples], ["noise-0.1", "random-init"], n=2, finetune=True).to_dict()
    steps = {
        row["name"]: inf if row["values"]["finetune_steps"] is None else row["values"]["finetune_steps"]
        for row in asked["rows"]
    }
    assert steps["near"] <= steps["noise-0.1"] < steps["random-init"]
    schema = json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    jsonschema.validate(asked, schema)
    silent = evaluate(zoo, task, [samples], [], n=2).to_dict()
    assert [row["values"]["finetune_steps"] for row in silent["rows"]] == [None] * len(silent["rows"])


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    family = RotatedFamily(seen=[-20.0, 0.0, 20.0], unseen=[-10.0, 10.0], network_args={"hidden": [16]})
    out = tmp_path_factory.mktemp("turned") / "zoo"
    settings = {"steps": 60, "networks": 2, "save_every": 20, "start": "converged", "score": False}
    collect_tasks(family, str(out), CodeCondition(dim=2), pretraining=Pretraining(steps=100), **settings)
    return Zoo(out)


def test_each_start_is_trained_on_its_own_task(turned):
    family = load_family(turned.task_config)
    names = ["rotation+010", "rotation-010", "rotation+010"]
    torch.manual_seed(0)
    weights = turned.spec.flatten_many([family.build().state_dict() for _ in names])
    networks = NetworkSet("fresh", "baseline", "untrained", weights, names)
    steps = FineTuning(family, turned, networks, [family.build().state_dict() for _ in names], torch.device("cpu"))
    steps.targets = {"rotation+010": 0.3, "rotation-010": 0.6}
    alone = [
        steps_to_reach(family.task(name), turned, weights[mine], steps.targets[name])
        for name, mine in (("rotation+010", [0, 2]), ("rotation-010", [1]))
    ]
    assert steps.counted(networks).tolist() == torch.cat(alone).tolist()
    assert steps.counted(networks).isfinite().all()


def test_shards_count_the_steps_that_their_starts_need_among_all(turned, tmp_path):
    family = load_family(turned.task_config)
    names = ["rotation+010"] * 3 + ["rotation-010"] * 2
    torch.manual_seed(0)
    states = [family.build().state_dict() for _ in names]
    networks = NetworkSet("fresh", "baseline", "untrained", turned.spec.flatten_many(states), names)

    def fine_tuning(store=None):
        steps = FineTuning(family, turned, networks, states, torch.device("cpu"), store)
        steps.targets = {"rotation+010": 0.3, "rotation-010": 0.3}
        return steps

    for number in (2, 1):
        fine_tuning(ScoreStore(tmp_path, Shard(number, 2))).share(networks)
    store = ScoreStore(tmp_path)
    assert fine_tuning(store).counted(networks).tolist() == fine_tuning().counted(networks).tolist()
    assert store.computed == 0


def test_of_a_family_starts_are_trained_until_as_good_as_direct_training(turned):
    rows = {row.name: row for row in evaluate(turned, family_of(turned), finetune=True).rows}
    assert rows["direct"].values["finetune_steps"] == 0
    assert 0 <= rows["average-2"].values["finetune_steps"] <= rows["random-init"].values["finetune_steps"]
    assert rows["random-init"].values["finetune_steps"] > 20
    assert rows["nearest-noised"].values["nn_ratio"] > rows["nearest"].values["nn_ratio"]
    assert rows["vote-5"].values["finetune_steps"] is None
    plain = evaluate(turned, family_of(turned)).rows
    assert "random-init" not in [row.name for row in plain]
    assert all(row.values["finetune_steps"] is None for row in plain)
