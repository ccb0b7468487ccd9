"""What a fit is watched by, on a real small zoo."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gaussian_backend import GaussianBackend
from measured import make_zoo
from paramgen.errors import ParamgenError
from paramgen.generators.callbacks import MOST_POINTS, Float32Ends, SampleQuality, SparingProgressBar
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.tasks import ClassificationTask

STEPS = 40


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A fit of a Gaussian that is looked at every 10 steps, and what may not happen in it: a look at the test split."""
    folder = tmp_path_factory.mktemp("watched")
    zoo = make_zoo(folder / "zoo", runs=6, heldout=1, hidden=[8])
    looked, data_of = [], ClassificationTask.data

    def data(task, split):
        looked.append(split)
        return data_of(task, split)

    quality = SampleQuality(sample_every=10, n=4)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        logger=TensorBoardLogger(folder),
        callbacks=[quality],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    modules = ParameterDataModule(str(zoo.path), batch_size=4, steps_per_epoch=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "data", data)
        trainer.fit(GaussianBackend(modules.seq_len, modules.token_dim), modules)
    trainer.save_checkpoint(folder / "end.ckpt")
    return quality, folder / "end.ckpt", trainer.logger.log_dir, looked


def test_nothing_looks_at_the_test_split(watched):
    *_, looked = watched
    assert set(looked) == {"val"}


def test_tensorboard_has_the_pictures_at_the_end(watched):
    events = EventAccumulator(watched[2])
    events.Reload()
    assert set(events.Tags()["images"]) == {"sample/strips", "sample/plane", "sample/map"}
    (image,) = events.Images("sample/map")
    assert image.step == STEPS
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert image.width > 300


def test_the_checkpoint_remembers_the_course_of_the_fit(watched):
    quality, path, *_ = watched
    history = load_generator(path).history
    assert history == quality.history
    assert [step for step, _ in history["sample/dispersion"]] == [10, 20, 30, 40]
    assert all(ratio > 0 for key in ("sample/run_ratio", "sample/nn_ratio") for _, ratio in history[key])
    assert all(0 <= accuracy <= 1 for _, accuracy in history["sample/score_mean"])
    losses = history["train/loss"]
    assert [step for step, _ in losses] == sorted({step for step, _ in losses})
    assert losses[-1][1] < losses[0][1]


def test_networks_on_disk_stay_there_when_samples_are_measured(watched, tmp_path, monkeypatch, caplog):
    zoo = watched[1].parent / "zoo"
    data = ParameterDataModule(str(zoo), batch_size=4, steps_per_epoch=5, residency="disk")
    monkeypatch.setattr(ParameterDataModule, "training_weights", lambda self: pytest.fail("all networks were read"))
    quality, quiet = SampleQuality(sample_every=4, n=2), {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        max_steps=5,
        logger=TensorBoardLogger(tmp_path),
        callbacks=[quality],
        num_sanity_val_steps=0,
        **quiet,
    )
    trainer.fit(GaussianBackend(data.seq_len, data.token_dim), data)
    assert {"sample/score_mean", "sample/score_best"} <= quality.history.keys()
    assert not {"sample/nn_ratio", "sample/dispersion"} & quality.history.keys()
    assert "distances of samples are not logged: data.residency disk" in caplog.text


def test_a_long_history_is_thinned_evenly():
    trainer = SimpleNamespace(accumulate_grad_batches=1, logger=None, is_global_zero=True)
    quality = SampleQuality()
    for trainer.global_step in range(1, 10_001):
        quality.on_train_batch_end(trainer, None, {"loss": torch.tensor(0.5)})
    steps = [step for step, _ in quality.history["train/loss"]]
    assert MOST_POINTS / 2 - 1 <= len(steps) <= MOST_POINTS
    assert len({b - a for a, b in pairwise(steps)}) == 1
    assert steps[-1] > 9_900


def test_losses_on_val_runs_are_kept_as_they_are_measured():
    trainer = SimpleNamespace(callback_metrics={}, state=SimpleNamespace(fn="fit"), sanity_checking=True, global_step=0)
    quality = SampleQuality()
    quality.on_validation_end(trainer, None)
    trainer.sanity_checking = False
    for trainer.global_step in (5, 10):
        trainer.callback_metrics = {"val/loss": torch.tensor(1.0 / trainer.global_step)}
        quality.on_validation_end(trainer, None)
    assert quality.history["val/loss"] == [[5, pytest.approx(0.2)], [10, pytest.approx(0.1)]]


def test_float32_at_the_ends_needs_a_middle_in_bf16_and_a_last_step(tmp_path):
    with pytest.raises(ParamgenError, match=r"share of Float32Ends is 0\.6, expected 0 to 0\.5"):
        Float32Ends(0.6)
    for settings, message in (
        ({"max_steps": 4}, "needs trainer.precision bf16-mixed between the ends, not 32-true"),
        ({"max_epochs": -1, "precision": "bf16-mixed"}, "needs to know the last step"),
    ):
        zoo = make_zoo(tmp_path / str(len(settings)), runs=4, heldout=1, hidden=[8])
        data = ParameterDataModule(str(zoo.path), batch_size=2, steps_per_epoch=2)
        model = GaussianBackend(data.seq_len, data.token_dim)
        trainer = Trainer(
            accelerator="cpu", callbacks=[Float32Ends()], logger=False, enable_checkpointing=False, **settings
        )
        with pytest.raises(ParamgenError, match=message):
            trainer.fit(model, data)


def test_the_bar_counts_batches_and_names_no_last_epoch():
    bar = SparingProgressBar()
    trainer = Trainer(accelerator="cpu", max_steps=200, max_epochs=-1, accumulate_grad_batches=4, callbacks=[bar])
    trainer.fit_loop.max_batches = 500
    bar.setup(trainer, None, "fit")
    assert bar.total_train_batches == 500
    trainer.fit_loop.max_batches = 1000
    assert bar.total_train_batches == 800
    name, *_ = bar.configure_columns(trainer)
    assert name.render(SimpleNamespace(description="[white]Epoch 3/-2")).plain == "Epoch 3"
    assert name.render(SimpleNamespace(description="Validation")).plain == "Validation"
