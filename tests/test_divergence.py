"""A fit that diverges ends with exit code 3 and one line, and what was good of it is kept."""

import json

import pytest
import torch

import gaussian_backend
from conftest import write_fit, write_zoo
from paramgen.cli.main import main
from paramgen.errors import DivergedError, ParamgenError
from paramgen.generators.divergence import Divergence
from paramgen.generators.loading import load_generator
from paramgen.tasks import ClassificationTask


@pytest.fixture
def fit(tmp_path):
    """The command line of a fit of 40 steps, which saves every 10."""
    return write_fit(tmp_path, max_steps=40)


def spoil(monkeypatch, step, change):
    """From one step on the loss is another."""
    loss, calls = gaussian_backend.GaussianBackend.loss, []

    def spoilt(self, batch):
        terms = loss(self, batch)
        calls.extend([1] * self.training)
        return terms if len(calls) < step else {**terms, "loss": change(terms["loss"])}

    monkeypatch.setattr(gaussian_backend.GaussianBackend, "loss", spoilt)


def one_line(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("paramgen: ")]
    return line


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_loss_that_is_no_number_ends_the_fit_and_keeps_the_last_good_checkpoint(
    number, fit, tmp_path, monkeypatch, capsys
):
    spoil(monkeypatch, 25, lambda loss: loss + float(number))
    assert main(fit) == 3
    last = tmp_path / "fit" / "last.ckpt"
    line = one_line(capsys)
    assert line.startswith(f"paramgen: the fit diverged: the loss is {number} (its start: ")
    assert "at step 30, at learning rate 0.05;" in line
    assert f"the last good checkpoint is {last};" in line
    assert torch.load(last, weights_only=True)["global_step"] == 20
    assert all(p.isfinite().all() for p in load_generator(last).parameters())


def test_weights_that_are_no_numbers_are_never_saved(fit, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, 13, lambda loss: loss * float("nan"))
    assert main([*fit, "--checkpoint.every_n_train_steps", "3"]) == 3  # step 15 is saved before the loss is looked at
    assert "the fit diverged: at step 15 " in one_line(capsys)
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"] == 12


def test_a_loss_far_above_its_start_ends_the_fit(fit, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, 15, lambda loss: loss + 1e4)
    assert main([*fit, "--divergence.patience", "10", "--trainer.max_steps", "1000"]) == 3
    line = one_line(capsys)
    assert "try a lower learning rate, or raise --divergence.factor" in line
    assert "at step 50 since step 40" in line
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"] == 10


def test_a_fit_that_ends_far_above_its_start_says_so(fit, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, 2, lambda loss: loss + 1e4)
    assert main(fit) == 3
    line = one_line(capsys)
    assert "at step 40 since step 2" in line
    assert "no checkpoint had been saved" in line
    assert not [*(tmp_path / "fit").glob("*.ckpt")]


def test_one_spike_is_no_divergence(fit, tmp_path, monkeypatch):
    loss, calls = gaussian_backend.GaussianBackend.loss, []

    def spiking(self, batch):
        calls.append(1)
        terms = loss(self, batch)
        return {**terms, "loss": terms["loss"] + 1e6} if len(calls) == 20 else terms

    monkeypatch.setattr(gaussian_backend.GaussianBackend, "loss", spiking)
    assert main(fit) == 0
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"] == 40


def test_a_rate_far_too_high_is_said(fit, capsys):
    assert main([*fit, "--model.lr", "1e9"]) == 3
    assert "learning rate 1e+09" in one_line(capsys)


def test_the_start_of_a_resumed_fit_is_the_first_ones(fit, tmp_path):
    assert main([*fit, "--trainer.max_steps", "10"]) == 0
    callbacks = torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["callbacks"]
    start = callbacks["Divergence"]["start"]
    assert main([*fit, "--ckpt_path", "last"]) == 0
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["callbacks"]["Divergence"]["start"] == start


def test_a_checkpoint_that_holds_nan_is_refused(fit, tmp_path, capsys):
    assert main(fit) == 0
    last = tmp_path / "fit" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    next(iter(checkpoint["state_dict"].values())).fill_(float("nan"))
    torch.save(checkpoint, last)
    for command in (["sample", "--out", str(tmp_path / "s")], fit):
        capsys.readouterr()
        assert main([*command, "--ckpt_path", str(last)]) == 2
        assert "the checkpoint holds NaN or infinite values (" in one_line(capsys)
    assert not (tmp_path / "s").exists()


def test_a_comparison_says_which_generator_diverged(fit, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    command = ["compare", "--out", str(tmp_path / "out"), "--baselines", "none", "--n", "2"]
    zoo = write_zoo(tmp_path / "scored", networks=8, task=ClassificationTask().config())
    zoos = {"own": {"path": str(zoo.path)}}
    generators = {"wild": {"fit": str(config), "arguments": {"model.lr": 1e9}}}
    assert main([*command, "--zoos", json.dumps(zoos), "--generators", json.dumps(generators)]) == 3
    assert "generator 'wild': the fit diverged" in one_line(capsys)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ParamgenError, match="factor is -1"):
        Divergence(factor=-1)
    with pytest.raises(ParamgenError, match=r"divergence\.patience is 0"):
        Divergence(patience=0)
    assert DivergedError.exit_code == 3
