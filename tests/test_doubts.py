"""A zoo that is useless to learn from is said to be: in the terminal, in zoo.json and on the page."""

import json

import torch

from paramgen.cli.main import main
from paramgen.collect.doubts import doubts, guessing
from paramgen.core.score import ACCURACY, ScoreSpec
from paramgen.core.zoo import Zoo, ZooEntry
from paramgen.tasks.score import CLASSIFIES


def entries(accuracy, loss=0.5, task=None):
    return [
        ZooEntry(f"{i}", i, 0, 0, scores={"val": {"score": a, "loss": loss}}, task=task) for i, a in enumerate(accuracy)
    ]


def test_guessing_is_the_commonest_class_and_what_chance_adds():
    assert guessing(CLASSIFIES, torch.tensor([0] * 75 + [1] * 25)) == 0.75 + 2 * (0.75 * 0.25 / 100) ** 0.5


def test_networks_that_guess_are_counted():
    found = doubts(entries([0.1, 0.12, 0.11, 0.9]), ACCURACY, {None: 0.13}, 300)
    assert found == [
        "3 of 4 networks are no better on val than a constant prediction: 30.8 % on average. "
        "There is nothing to learn from them."
    ]
    assert not doubts(entries([0.1, 0.8, 0.7, 0.9]), ACCURACY, {None: 0.13}, 300)


def test_each_task_has_its_own_guess():
    mixed = [*entries([0.55] * 3, task="even"), *entries([0.55] * 2, task="rare")]
    assert not doubts(mixed, ACCURACY, {"even": 0.52, "rare": 0.9}, 300)
    assert "5 of 5" in doubts(mixed, ACCURACY, {"even": 0.6, "rare": 0.9}, 300)[0]


def test_networks_without_a_loss_have_diverged():
    for loss in (None, float("nan"), float("inf")):
        found = doubts(entries([0.9, 0.9], loss=loss), ACCURACY, {None: 0.1}, 300)
        assert found == ["2 of 2 networks have a NaN or infinite loss: their training diverged."]


def test_networks_worse_than_their_start_are_noticed():
    (found,) = doubts(entries([0.6, 0.7]), ACCURACY, {None: 0.1}, 300, start=0.95)
    assert "65.0 % on val, 95.0 % at its start. Use" in found
    assert not doubts(entries([0.94, 0.93]), ACCURACY, {None: 0.1}, 300, start=0.95)


def test_a_score_in_percent_need_not_be_a_share():
    assert "at its start" in doubts(entries([-0.9]), ScoreSpec("R2"), {}, 300, start=-0.1)[0]


def test_a_zoo_without_scores_has_no_doubts():
    assert not doubts([ZooEntry("0", 0, 0, 0)], ACCURACY, {None: 0.1}, 300)


def test_a_fine_tuning_that_diverges_is_said_everywhere(tmp_path, capsys):
    out, page = tmp_path / "zoo", tmp_path / "page"
    command = ["collect", "--config", "digits_mlp_trajectory", "--checkpoints", "4", "--epochs", "8", "--out", str(out)]
    assert main([*command, "--task.network_args", "{hidden: [8]}", "--finetune.lr", "1e9"]) == 0
    error = capsys.readouterr().err
    (warning,) = json.loads((out / "zoo.json").read_text())["warnings"]
    assert "Fine-tuning made the networks worse" in warning
    assert f"warning: {warning}" in error
    assert main(["evaluate", "--zoo", str(out), "--n", "2", "--baselines", "copy", "--out", str(page)]) == 0
    assert json.loads((page / "results.json").read_text())["notes"][0] == warning
    assert warning in (page / "report.html").read_text()


def test_a_sound_zoo_has_no_warnings(tmp_path, capsys):
    command = ["collect", "--config", "digits_mlp_trajectory", "--checkpoints", "4", "--epochs", "8"]
    assert main([*command, "--task.network_args", "{hidden: [8]}", "--out", str(tmp_path / "zoo")]) == 0
    assert "warning" not in capsys.readouterr().err
    assert "warnings" not in Zoo(tmp_path / "zoo").meta
