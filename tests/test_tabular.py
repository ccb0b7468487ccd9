"""Tables of scikit-learn: a regression and a classifier, from their recipes to their reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_wine
from sklearn.metrics import root_mean_squared_error

from paramgen.cli.main import main
from paramgen.core.params import state_tensors
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import RegressionTask, TabularClassificationTask, task_of

SPLITS = ("train", "val", "test")


def test_splits_are_disjoint_cover_the_table_and_only_val_depends_on_the_seed():
    task, other = RegressionTask(), RegressionTask(split_seed=1)
    rows = torch.cat([task.table.rows[split] for split in SPLITS])
    assert sorted(rows.tolist()) == list(range(442))
    assert torch.equal(task.table.rows["test"], other.table.rows["test"])
    assert not torch.equal(task.table.rows["val"], other.table.rows["val"])
    targets = np.concatenate([task.data(split).targets[:, 0].numpy() for split in SPLITS])
    assert np.allclose(np.sort(task.mean + task.deviation * targets), np.sort(load_diabetes().target), atol=1e-3)


def test_rmse_is_that_of_scikit_learn_in_the_unit_of_the_target():
    task, network = RegressionTask(hidden=[4]), RegressionTask(hidden=[4]).build()
    found = task.evaluate([state_tensors(network)], "test").value.item()
    predicted = task.mean + task.deviation * network(task.data("test").inputs)[:, 0].detach().double()
    truth = load_diabetes().target[task.table.rows["test"].numpy()]
    assert found == pytest.approx(root_mean_squared_error(truth, predicted), rel=1e-4)
    constant = root_mean_squared_error(truth, np.full(len(truth), task.mean))
    assert task.chance(task.data("test").targets) == pytest.approx(constant, rel=1e-4)


def test_every_split_of_a_classified_table_keeps_the_shares_of_the_classes():
    task, share = TabularClassificationTask("wine"), np.bincount(load_wine().target) / 178
    for split in SPLITS:
        targets = task.data(split).targets
        assert np.allclose(targets.bincount() / len(targets), share, atol=0.04)
    assert task.build()(task.data("val").inputs).shape == (len(task.data("val")), 3)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: RegressionTask("diabets"), "Unknown table 'diabets'. Did you mean 'diabetes'"),
        (lambda: TabularClassificationTask("diabetes"), "Unknown table 'diabetes'. Available: breast_cancer, iris"),
        (lambda: RegressionTask(hidden=[0]), "hidden is 0, expected 1 or more"),
        (lambda: RegressionTask(val_fraction=1), "val_fraction is 1, expected a number between 0 and 1"),
        (lambda: RegressionTask(split_seed=-1), "split_seed is -1, expected 0 or more"),
        (lambda: RegressionTask().data("tset"), "split is 'tset', expected train, val or test"),
    ],
)
def test_mistakes_are_one_line(make, expected):
    with pytest.raises(ParamgenError, match=expected.replace(".", r"\.")):
        make()


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer"])
def test_recipe_and_generator_config_lead_to_a_report(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--checkpoints", "5", "--epochs", "8", "--heldout_runs", "1", "--runs", "3"]
    quiet = ["--trainer.logger", "false", "--quality.sample_every", "0", "--trainer.enable_progress_bar", "false"]
    few = ["--trainer.max_steps", "10", "--checkpoint.dirpath", "fit"]
    for line in (
        ["collect", "--config", f"{name}_mlp_trajectory", "--out", "zoo", *small],
        ["fit", "--config", f"pdiff_{name}", "--data.zoo", "zoo", *few, *quiet],
        ["sample", "--ckpt_path", "fit/last.ckpt", "--n", "4", "--out", "samples"],
        ["evaluate", "--zoo", "zoo", "--samples", "samples", "--out", "report", "--n", "4", "--baselines", "[soup-2]"],
    ):
        assert main(line) == 0, capsys.readouterr().err
    task, results = task_of(Zoo("zoo")), json.loads(Path("report/results.json").read_text())
    zoo, generated = (
        next(row for row in results["rows"] if row["name"] == row_name) for row_name in ("zoo", "samples")
    )
    guess = task.chance(task.data("test").targets)
    assert results["score"]["name"] == task.score.name
    assert task.score.sign * zoo["values"]["mean"] > task.score.sign * guess
    assert generated["n"] == 4
    assert generated["values"]["mean"] is not None
