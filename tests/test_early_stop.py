"""A fit can end when the loss on the zoo's val runs no longer falls: Lightning's EarlyStopping, on losses that can be compared."""

import yaml

from conftest import write_zoo
from paramgen.cli import lightning
from paramgen.generators.callbacks import SampleQuality

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}


def test_a_fit_stops_when_the_loss_on_val_runs_does_not_fall_because_its_noise_is_the_same_every_time(tmp_path):
    zoo = write_zoo(tmp_path / "zoo", networks=12, runs=4)
    stop = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val/loss", "patience": 2},
    }
    config = {
        "trainer": {"max_steps": 100, **QUIET, "callbacks": [stop]},
        "model": {
            "class_path": "DiT",
            "init_args": {
                "diffusion": {"prediction_type": "epsilon"},
                "optimizer": {"lr": 1e-30},
                "denoiser": {"width": 8, "depth": 1, "heads": 2},
            },
        },
        "data": {"zoo": str(zoo.path), "batch_size": 3, "steps_per_epoch": 5},
        "checkpoint": {"dirpath": str(tmp_path / "fit")},
        "quality": {"sample_every": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    cli = lightning.main(["fit", "--config", str(tmp_path / "config.yaml")])
    (quality,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, SampleQuality))
    assert len({loss for _, loss in quality.history["val/loss"]}) == 1
    assert cli.trainer.global_step == 15  # the first epoch, and two without a lower loss
