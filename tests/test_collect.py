"""Collecting: what stands in a zoo, going on after an interruption, and mistakes."""

import errno
import json
import os
import re
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from paramgen.cli import dispatch
from paramgen.cli.main import main as paramgen
from paramgen.collect import collector, multi
from paramgen.collect import single as collect
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings, fresh_states
from paramgen.core import io as files
from paramgen.core.subsets import select_tensors
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import ClassificationTask, RelabelFamily, family_of, score_family, task_of
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks

FAST = {"optim": OptimSettings(lr=5e-3, batch_size=128), "epochs": 2}


def task(**arguments):
    return ClassificationTask(**{"network_args": {"hidden": [12]}, **arguments})


def trajectory(out, chosen=None, **options):
    settings = {"runs": 3, "checkpoints": 4, "save_every": 2, "val_runs": 1, "heldout_runs": 1, **FAST, **options}
    collect.main(chosen or task(), str(out), **settings)
    return Zoo(out)


def seeds(out, chosen=None, **options):
    collect.main(chosen or task(), str(out), **{"mode": "seeds", "runs": 4, "checkpoints": 2, **FAST, **options})
    return Zoo(out)


def families(out, **options):
    """Five tasks, all from a start that was trained for 16 steps."""
    family = RelabelFamily(network_args={"hidden": [12]}, seen=4, unseen=1)
    settings = {"steps": 4, "networks": 2, "save_every": 2, "start": "converged", "start_steps": 16}
    multi.main(family, str(out), **{"condition": CodeCondition(dim=10), "optim": FAST["optim"], **settings, **options})
    return Zoo(out)


def content(folder):
    """Every file of a finished zoo; the seconds it took are no part of it."""
    found = {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name != "zoo.json"}
    meta = json.loads((Path(folder) / "zoo.json").read_text())
    meta.pop("seconds", None)
    return found, meta


# ---- what stands in a zoo


def test_trajectory_branches_from_one_network_and_is_split_by_run(tmp_path):
    zoo = trajectory(tmp_path)
    assert [(e.run, e.step) for e in zoo.entries] == [(run, step) for run in range(3) for step in (2, 4, 6, 8)]
    assert [e.split for e in zoo.entries] == ["train"] * 4 + ["val"] * 4 + ["heldout"] * 4
    weights = zoo.matrix()
    assert (weights[0] - weights[4]).norm() < (weights[3] - weights[7]).norm()  # branches move apart
    assert len({e.seed for e in zoo.entries}) == 3


def test_every_network_loads_and_its_recorded_scores_are_its_own(tmp_path):
    zoo, digits = trajectory(tmp_path), task()
    for i in (0, 5, 11):
        network = digits.build()
        network.load_state_dict(zoo.full(i), strict=True)
        for split in ("train", "val"):
            data = digits.data(split)
            with torch.no_grad():
                right = (network.eval()(data.images).argmax(1) == data.targets).float().mean().item()
            assert zoo.entries[i].scores[split]["score"] == pytest.approx(right, abs=1e-3)
        assert set(zoo.entries[i].scores) == {"train", "val"}


def test_converged_network_is_better_than_an_untrained_one(tmp_path):
    zoo = trajectory(tmp_path, epochs=6)
    assert min(e.scores["val"]["score"] for e in zoo.entries) > 0.8


def test_seeds_are_the_runs_that_training_each_alone_gives(tmp_path):
    zoo, digits = seeds(tmp_path), task()
    assert [(e.run, e.step) for e in zoo.entries] == [(run, step) for run in range(4) for step in (15, 16)]
    entry = zoo.entries[5]
    group = NetworkGroup(digits.build(), fresh_states(digits.build, [entry.seed]), list(digits.build().state_dict()))
    for _ in GroupTrainer(group, digits.data("train"), FAST["optim"], [entry.seed], 16).run():
        pass
    assert torch.allclose(zoo.spec.flatten(group.states()[0]), zoo.matrix([5])[0], atol=1e-5)


def test_groups_of_seeds_do_not_change_the_zoo(tmp_path, monkeypatch):
    whole = seeds(tmp_path / "a").matrix()
    monkeypatch.setattr(collector, "NUMBERS_AT_ONCE", 2000)  # two networks at a time
    assert torch.allclose(seeds(tmp_path / "b").matrix(), whole, atol=1e-5)


def test_only_the_chosen_parameters_change_and_are_stored(tmp_path):
    digits = task(network="cnn_digits", network_args={"channels": [4, 4]})
    zoo = trajectory(tmp_path, digits, parameters=["last_two_norms"], epochs=1)
    assert zoo.spec.names == [f"norms.{i}.{kind}" for i in range(2) for kind in ("weight", "bias")]
    assert zoo.matrix().std(0).min() > 0
    base = zoo.base()
    assert {*base, *zoo.spec.names} == set(digits.build().state_dict())
    # statistics that are not generated stay as they were, so the recorded scores are those of base and generated tensors together
    found = score_networks(CLASSIFIES, digits.build(), [zoo.full(7)], digits.data("val")).value.item()
    assert found == pytest.approx(zoo.entries[7].scores["val"]["score"])


def test_start_weights_take_the_place_of_training(tmp_path):
    state = task().build().state_dict()
    save_file(state, tmp_path / "start.safetensors")
    zoo = trajectory(
        tmp_path / "zoo", start=str(tmp_path / "start.safetensors"), epochs=None, finetune=OptimSettings("sgd", lr=1e-8)
    )
    assert torch.allclose(zoo.matrix(), zoo.spec.flatten(state).expand(12, -1), atol=1e-5)


def test_weights_are_stored_in_the_dtype_asked_for(tmp_path):
    zoo = trajectory(tmp_path, dtype="bfloat16")
    assert {t.dtype for t in zoo[0].values()} == {torch.bfloat16}
    task().build().load_state_dict(zoo.full(0), strict=True)


def test_seconds_are_those_of_the_whole_zoo_or_none(tmp_path, monkeypatch):
    assert trajectory(tmp_path / "a").meta["seconds"] > 0
    monkeypatch.setattr(collector.ZooWriter, "close", lambda *_, **__: (_ for _ in ()).throw(_StopError))
    with pytest.raises(_StopError):
        trajectory(tmp_path / "b")
    monkeypatch.undo()
    assert "seconds" not in trajectory(tmp_path / "b").meta


def test_same_seed_same_zoo_other_seed_another(tmp_path):
    first, again = trajectory(tmp_path / "a"), trajectory(tmp_path / "b")
    assert content(first.path) == content(again.path)
    assert not torch.equal(first.matrix(), trajectory(tmp_path / "c", seed=1).matrix())


# ---- a single task is a family of one


def test_a_single_task_is_collected_as_a_family_of_one(tmp_path):
    digits = task()
    multi.main(digits, str(tmp_path / "zoo"), steps=20, networks=3, save_every=2, optim=FAST["optim"])
    zoo = Zoo(tmp_path / "zoo")
    assert [(e.run, e.step, e.task, e.split, e.condition) for e in zoo.entries] == [
        (0, step, None, "train", None) for step in (20, 22, 24)
    ]
    assert zoo.task_config == digits.config()
    assert task_of(zoo).config() == family_of(zoo).config() == digits.config()
    expected = digits.evaluate([zoo.full(i) for i in range(3)], "val")
    assert [e.scores["val"]["score"] for e in zoo.entries] == pytest.approx(expected.value.tolist())
    assert score_family(zoo, list(zoo), [None] * 3, "val").tolist() == expected.value.tolist()


def test_the_runs_of_a_family_of_one_are_those_of_its_task(tmp_path):
    """From one start and one seed, a run of a family and a run of its task give the same networks."""
    family = RelabelFamily(network_args={"hidden": [12]}, seen=["0110010101"], unseen=0)
    zoos = []
    for name, tasks in (("family", family), ("task", family.task())):
        multi.main(tasks, str(tmp_path / name), steps=6, networks=2, optim=FAST["optim"])
        zoos.append(Zoo(tmp_path / name))
    assert torch.equal(zoos[0].matrix(), zoos[1].matrix())
    assert [{e.task for e in zoo.entries} for zoo in zoos] == [{"0110010101"}, {None}]
    scores = [[e.scores for e in zoo.entries] for zoo in zoos]
    assert scores[0] == scores[1]
    assert zoos[0].meta["score"] == zoos[1].meta["score"]


def test_conditions_of_a_single_task_are_refused(tmp_path):
    with pytest.raises(ParamgenError, match="ClassificationTask describes no task"):
        multi.main(task(), str(tmp_path / "zoo"), CodeCondition(dim=10))
    assert not (tmp_path / "zoo").exists()


def test_networks_of_a_family_record_their_loss_and_the_seed_of_their_run(tmp_path):
    zoo = families(tmp_path, shared_order=False)
    assert all(entry.scores["val"]["loss"] > 0 for entry in zoo.entries)
    assert len({entry.seed for entry in zoo.entries}) == 5


def test_a_finished_zoo_of_a_family_stays_unless_its_settings_differ(tmp_path, monkeypatch):
    made = content(families(tmp_path).path)
    monkeypatch.setattr(GroupTrainer, "run", lambda self: pytest.fail("trained in vain"))
    assert content(families(tmp_path).path) == made
    for changed in ({"steps": 9}, {"heldout": False}, {"score": False}, {"condition": None}):
        with pytest.raises(ParamgenError, match="already holds a zoo"):
            families(tmp_path, **changed)


# ---- interruptions


class _StopError(Exception):
    pass


@pytest.mark.parametrize("make", [trajectory, seeds, families])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_interrupted_anywhere_the_same_command_ends_with_the_same_zoo(tmp_path, monkeypatch, make, after):
    monkeypatch.setattr(collector, "PENDING", 0)  # write each step's networks at once
    monkeypatch.setattr(collector, "REST", 0.0)
    monkeypatch.setattr(collector, "NUMBERS_AT_ONCE", 2000)
    whole = make(tmp_path / "whole")
    write, count = collector.ZooWriter.add, iter(range(100))

    def stopping(self, *args, **kwargs):
        if next(count) == after:
            raise _StopError
        return write(self, *args, **kwargs)

    monkeypatch.setattr(collector.ZooWriter, "add", stopping)
    with pytest.raises(_StopError):
        make(tmp_path / "stopped")
    monkeypatch.setattr(collector.ZooWriter, "add", write)
    trained = []
    run = GroupTrainer.run
    monkeypatch.setattr(GroupTrainer, "run", lambda self: (trained.append(step) or step for step in run(self)))
    resumed = make(tmp_path / "stopped")
    assert content(resumed.path) == content(whole.path)
    if make is not seeds:
        assert 16 not in trained  # the converged network was stored, not trained again


@pytest.mark.parametrize("make", [trajectory, seeds, families])
@pytest.mark.parametrize("lost", ["run0000_step*", "run0001_step*[26]", "rest-*"])
def test_networks_lost_before_the_stored_state_are_trained_again(tmp_path, monkeypatch, make, lost):
    monkeypatch.setattr(collector, "PENDING", 0)
    monkeypatch.setattr(collector, "REST", 0.0)
    whole = make(tmp_path / "whole")
    monkeypatch.setattr(collector.ZooWriter, "close", lambda *_, **__: (_ for _ in ()).throw(_StopError))
    with pytest.raises(_StopError):
        make(tmp_path / "stopped")
    monkeypatch.undo()
    damaged = [*(tmp_path / "stopped").glob(f"{lost}.safetensors")]
    for path in damaged:
        path.write_bytes(bytes(100))
    assert damaged
    assert content(make(tmp_path / "stopped").path) == content(whole.path)


def test_rest_of_another_recipe_is_not_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(collector.Collector, "_open", lambda *_: (_ for _ in ()).throw(_StopError))
    with pytest.raises(_StopError):
        trajectory(tmp_path / "a", optim=OptimSettings(lr=1e-2))
    monkeypatch.undo()
    assert content(trajectory(tmp_path / "a").path) == content(trajectory(tmp_path / "b").path)


def test_half_written_zoo_of_another_recipe_is_refused_by_the_key(tmp_path, monkeypatch):
    monkeypatch.setattr(collector.ZooWriter, "close", lambda *_, **__: (_ for _ in ()).throw(_StopError))
    with pytest.raises(_StopError):
        trajectory(tmp_path)
    with pytest.raises(ParamgenError, match=r"made with save_every=2, now save_every=3"):
        trajectory(tmp_path, save_every=3)
    with pytest.raises(ParamgenError, match="made with task="):
        trajectory(tmp_path, task(split_seed=5))


def test_finished_zoo_stays_as_it_is(tmp_path, monkeypatch):
    made = content(trajectory(tmp_path).path)
    monkeypatch.setattr(GroupTrainer, "run", lambda self: pytest.fail("trained in vain"))
    assert content(trajectory(tmp_path).path) == made
    with pytest.raises(ParamgenError, match="already holds a zoo made with save_every=2, now save_every=3"):
        trajectory(tmp_path, save_every=3)


def test_full_disk_is_one_line_and_what_was_written_is_whole(tmp_path, monkeypatch, capsys):
    real, left = os.fsync, iter(range(100))

    def fsync(descriptor):
        if next(left) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor)

    arguments = [
        "collect",
        "--task.class_path=ClassificationTask",
        "--epochs=1",
        "--checkpoints=6",
        f"--out={tmp_path}",
    ]
    monkeypatch.setattr(files.os, "fsync", fsync)
    assert paramgen(arguments) == 2
    message = capsys.readouterr().err
    assert "cannot write" in message
    assert message.count("\n") == 1
    assert len(list(tmp_path.glob("run*.safetensors"))) >= 1
    monkeypatch.undo()
    assert paramgen(arguments) == 0
    assert len(Zoo(tmp_path)) == 6
    assert Zoo(tmp_path).verify() == []


# ---- mistakes


def test_network_that_became_nan_is_named_and_refused(tmp_path):
    with pytest.raises(ParamgenError, match=r"run 0, step \d: 'layers.0.weight' holds .* NaN"):
        trajectory(tmp_path, finetune=OptimSettings("sgd", lr=1e30))
    assert not (tmp_path / "zoo.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "runs is 0, expected 1 or more"),
        ({"checkpoints": 0}, "checkpoints is 0, expected 1 or more"),
        ({"save_every": 0}, "save_every is 0, expected 1 or more"),
        ({"epochs": -1}, "epochs is -1"),
        ({"runs": 1, "checkpoints": 1, "val_runs": 0, "heldout_runs": 0}, "needs at least 2 networks"),
        ({"val_runs": 2}, "leave no run to learn from, of 3"),
        ({"dtype": "int8"}, "dtype is 'int8', expected float32"),
        ({"parameters": ["layers.0.wieght"]}, "'layers.0.wieght' matches nothing. Did you mean 'layers.0.weight'"),
        ({"mode": "seeds", "parameters": ["classifier", "layers.1.*"]}, "mode seeds generates all parameters"),
        ({"mode": "seeds", "start": "pretrained"}, "start needs mode trajectory"),
        ({"mode": "trajectry"}, "mode is 'trajectry', expected trajectory or seeds"),
        ({"mode": "seeds", "checkpoints": 17, "save_every": 1}, "of 16 steps in total: too many"),
        ({"start": "pretrained"}, "no published weights"),
        ({"start": "nowhere.safetensors"}, "cannot read nowhere.safetensors: no such file"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, options, message):
    with pytest.raises(ParamgenError, match=message) as error:
        trajectory(tmp_path / "zoo", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task.class_path=ClasificationTask"],
            "unknown Task 'ClasificationTask'. Did you mean 'ClassificationTask'",
        ),
        (["--task=ClasificationTask"], "Did you mean 'ClassificationTask'"),
        (["--task.class_path=ClassificationTask", "--task.init_args.dataset=digit"], "digits"),
        (["--task.class_path=ClassificationTask", "--task.init_args.network=mpl"], "Did you mean 'mlp'"),
        (["--task.class_path=ClassificationTask", "--save_every=many"], "save_every"),
        (["--config=digits_mlp_trajectry"], "digits_mlp_trajectory"),
    ],
)
def test_command_line_mistakes_exit_2_with_one_line(tmp_path, capsys, arguments, message):
    assert paramgen(["collect", f"--out={tmp_path / 'zoo'}", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_start_weights_can_be_trained_further(tmp_path):
    torch.manual_seed(0)
    save_file(task().build().state_dict(), tmp_path / "start.safetensors")
    zoo = trajectory(tmp_path / "zoo", start=str(tmp_path / "start.safetensors"), epochs=10)
    assert min(e.scores["val"]["score"] for e in zoo.entries) > 0.8


def count_in(comment):
    found = re.search(r"([\d,]+) parameters", comment)
    return int(found[1].replace(",", "")) if found else None


OF_THE_HUB = {
    "llama7b_commonsense"
}  # its tokenizer is read from the Hub at once; tests/test_language.py has it with files of its own
RECIPES = [
    p
    for p in sorted(Path("configs/zoo").glob("*.yaml"))
    if yaml.safe_load(p.read_text()).get("task") and p.stem not in OF_THE_HUB
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipe_parses_and_its_network_has_the_size_it_says(path, monkeypatch, tmp_path):
    seen = {}
    for label in ("dog", "horse"):  # for recipes whose images are a folder of the user's
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / label / "0.png")
    monkeypatch.setenv("PARAMGEN_DATA", str(tmp_path))

    def stopped(task, out, recipe, device, shard):
        seen.update(locals())
        raise _StopError

    monkeypatch.setattr(collect, "collect_runs", stopped)
    with pytest.raises(_StopError):
        dispatch.run(["collect", "--config", path.stem])
    assert seen["out"] == Path("checkpoints_zoo") / path.stem
    assert path.read_text().startswith("# ")
    with torch.device("meta"):
        network = seen["task"].build()
    assert select_tensors(network, seen["recipe"].parameters)
    said = count_in(path.read_text().splitlines()[0])
    assert said in (None, sum(p.numel() for p in network.parameters()))
    if seen["recipe"].mode == "trajectory" and "imagenet" not in path.stem:
        kinds = list(dict.fromkeys(run.split for run in seen["recipe"].all_runs()))
        assert kinds in (["train"], ["train", "heldout"], ["train", "val", "heldout"])


@pytest.mark.slow
def test_trajectory_of_a_hundred_takes_half_a_cpu_second(tmp_path, monkeypatch):
    spent, train = [], collector.Collector._train

    def timed(self, *arguments):
        spent.append(time.process_time())
        yield from train(self, *arguments)

    monkeypatch.setattr(collector.Collector, "_train", timed)
    collect.collect_runs(ClassificationTask(), tmp_path, recipe_of_hundred())
    assert len(spent) == 2  # converging, then the trajectory
    assert time.process_time() - spent[1] < 0.5


def recipe_of_hundred():
    return collect.Recipe("trajectory", 1, 100, 1, 2, OptimSettings(), OptimSettings(lr=4e-3))


def test_a_network_that_cannot_run_on_the_images_is_refused_in_a_line(tmp_path):
    with pytest.raises(ParamgenError, match=r"the network cannot be run on the task's data: .*have 3 channels"):
        collect.main(ClassificationTask(network="torchvision:squeezenet1_1"), str(tmp_path / "zoo"))
    assert not (tmp_path / "zoo").exists()
