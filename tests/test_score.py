"""Scores of any kind: an implicit field and a language model beside classifiers."""

import math

import pytest
import torch
from torch.nn import functional as F

from paramgen.cli.main import main
from paramgen.collect.train import OptimSettings, fresh_states
from paramgen.core.score import ACCURACY, ScoreSpec
from paramgen.core.seeds import mix
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import FieldTask, TextTask
from paramgen.tasks.scoring import score_networks
from paramgen.tasks.text import VOCABULARY

TASKS = {"FieldTask": FieldTask(hidden=8), "TextTask": TextTask(hidden=8, train=2000, held=300)}


def outputs(task, states, data):
    """What each network returns, run by hand."""
    for state in states:
        network = task.build().eval()
        network.load_state_dict(state)
        with torch.no_grad():
            yield network(data.inputs)


@pytest.fixture(params=TASKS)
def scored(request):
    task = TASKS[request.param]
    states, data = fresh_states(task.build, [mix(0, i) for i in range(3)]), task.data("val")
    return task, data, [*outputs(task, states, data)], score_networks(task, task.build(), states, data, batch_size=100)


def test_psnr_and_perplexity_are_those_of_networks_run_one_by_one(scored):
    task, data, by_hand, found = scored
    for i, output in enumerate(by_hand):
        if isinstance(task, FieldTask):
            expected = -10 * math.log10(F.mse_loss(output.clamp(0, 1), data.targets).item())
            assert found.loss[i].item() == pytest.approx(F.mse_loss(output, data.targets).item(), rel=1e-4)
        else:
            expected = math.exp(F.cross_entropy(output, data.targets).item())
            assert torch.equal(found.predictions[i], output.argmax(-1))
        assert found.value[i].item() == pytest.approx(expected, rel=1e-4)
    assert found.items.shape == (3, len(data))
    assert (found.predictions is None) == isinstance(task, FieldTask)


def test_splits_of_a_field_are_different_points_of_one_picture():
    splits = {name: FieldTask(picture=5, resolution=8).data(name) for name in ("train", "val", "test")}
    points = torch.cat([data.inputs for data in splits.values()])
    assert len(points.unique(dim=0)) == len(points)
    from sklearn.datasets import load_digits

    pixels = torch.from_numpy(load_digits().images[5]).float() / 16  # at 8 points a side they are the train points
    torch.testing.assert_close(splits["train"].targets.view(8, 8), pixels)


def test_splits_of_the_text_follow_each_other_and_share_no_position():
    task = TextTask(context=4, train=300, held=100)
    text = "".join(VOCABULARY[int(i)] for i in task._text)
    start = 0
    for name, size in (("train", 300), ("val", 100), ("test", 100)):
        data = task.data(name)
        read = "".join(VOCABULARY[int(i)] for i in data.targets)
        assert read == text[start + 4 : start + 4 + size]
        assert torch.equal(data.inputs[1, :-1], data.inputs[0, 1:])
        start += size + 4


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ScoreSpec("R2", unit="%"), "score.unit is '%', expected percent, dB or plain"),
        (lambda: OptimSettings(optimizer="adan"), "optimizer is 'adan', expected sgd, adam or adamw"),
        (lambda: OptimSettings(weight_decay=-1), "weight_decay is -1, expected 0 or more"),
        (lambda: FieldTask(picture=1797), "picture is 1797, expected 0 to 1796"),
        (lambda: FieldTask().data("tset"), "split is 'tset', expected train, val or test"),
        (lambda: TextTask(train=10**7).data("train"), "need 10010018 characters; the text has"),
    ],
)
def test_mistakes_are_named(make, expected):
    with pytest.raises(ParamgenError, match=expected):
        make()


def test_the_direction_decides_what_is_good():
    perplexity = TextTask.score
    assert perplexity.floor(7.0) == pytest.approx(7.1)
    assert perplexity.good(torch.tensor([6.0, 7.05, 7.2]), perplexity.floor(7.0)).tolist() == [True, True, False]
    assert ACCURACY.good(torch.tensor([0.95, 0.93]), ACCURACY.floor(0.95)).tolist() == [True, False]


def test_numbers_are_printed_in_the_unit_of_the_score():
    assert (ACCURACY.text(0.9571), ACCURACY.symbol, ACCURACY.text(-0.012, signed=True)) == ("95.7", " %", "−1.2")
    assert (FieldTask.score.text(33.61), FieldTask.score.symbol) == ("33.6", " dB")
    assert (TextTask.score.text(7.036), TextTask.score.symbol) == ("7.04", "")
    assert ScoreSpec.from_dict(TextTask.score.to_dict()) == TextTask.score
    assert ScoreSpec.from_dict(None) == ACCURACY


@pytest.mark.parametrize("name", TASKS)
def test_a_zoo_of_any_score_is_collected_and_described(name, tmp_path, capsys):
    task, recipe = TASKS[name], ["--mode", "seeds", "--runs", "3", "--checkpoints", "1", "--epochs", "2"]
    config = [f"--task.{key}={value}" for key, value in task.config()["init_args"].items()]
    assert main(["collect", "--task", name, *config, *recipe, "--out", str(tmp_path / "zoo")]) == 0
    zoo = Zoo(tmp_path / "zoo")
    assert zoo.score == task.score
    found = score_networks(task, task.build(), [zoo.full(i) for i in range(3)], task.data("val"))
    assert [e.scores["val"]["score"] for e in zoo.entries] == pytest.approx(found.value.tolist(), rel=1e-5)
    capsys.readouterr()
    assert main(["zoo", "info", "--zoo", str(tmp_path / "zoo")]) == 0
    assert f"{task.score.name} mean" in capsys.readouterr().out
