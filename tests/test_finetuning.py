"""Steps until a start is as good as the zoo."""

import json
from importlib.resources import files
from math import inf

import jsonschema
import pytest
import torch

from measured import make_zoo
from paramgen.evaluation import evaluate
from paramgen.finetuning import steps_to_reach, validation_accuracy
from paramgen.samples import SampleInfo, Samples
from paramgen.tasks import ClassificationTask, load_task
from paramgen.training import NetworkGroup, OptimSettings, Trainer


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
    own = validation_accuracy(task, [zoo.full(0)]).item()
    needed = steps_to_reach(task, zoo, starts(zoo, task), own - 0.05, most=400, settings=OptimSettings(lr=3e-3))
    assert needed[0] == 0
    assert 20 < needed[1] <= 400
    assert needed[2] == inf


def test_steps_are_where_a_training_alone_first_gets_there(zoo, task):
    start, settings = starts(zoo, task)[1], OptimSettings(lr=3e-3)
    group = NetworkGroup(task.build(), [zoo.complete(zoo.spec.unflatten(start))], zoo.spec.names)
    course = {}
    for step in Trainer(group, task.data("train"), settings, [0], 60).run():
        course[step] = validation_accuracy(task, group.states()).item()
    goal = course[60] - 0.02
    first = min(step for step, accuracy in course.items() if step % 5 == 0 and accuracy >= goal)
    assert steps_to_reach(task, zoo, start[None], goal, most=60, settings=settings).tolist() == [first]
    assert steps_to_reach(task, zoo, start[None], goal, most=first - 1, settings=settings).tolist() == [inf]


def test_rows_tell_steps_only_when_asked(zoo):
    samples = Samples("near", zoo.matrix([0, 1]) * 1.0001, SampleInfo(), total=2)
    task = load_task(zoo.task_config)
    asked = evaluate(zoo, task, [samples], ["noise-0.1", "random-init"], n=2, finetune=True).to_dict()
    steps = {row["name"]: inf if row["finetune_steps"] is None else row["finetune_steps"] for row in asked["rows"]}
    assert steps["near"] <= steps["noise-0.1"] < steps["random-init"]
    schema = json.loads(files("paramgen").joinpath("results.schema.json").read_text())
    jsonschema.validate(asked, schema)
    silent = evaluate(zoo, task, [samples], [], n=2).to_dict()
    assert [row["finetune_steps"] for row in silent["rows"]] == [None] * len(silent["rows"])
