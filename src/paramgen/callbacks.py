"""What is watched while a generator learns."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor

from paramgen import metrics
from paramgen.data import ParameterDataModule
from paramgen.errors import ParamgenError
from paramgen.generator import ParameterGenerator
from paramgen.tasks import Task, load_task
from paramgen.tasks.scoring import predict


class SampleQuality(Callback):
    """Draws a few networks now and then and logs how good and how varied they are, under ``sample/``.

    Accuracy is on the task's validation images, never on its test split; distances are to the training networks.

    Args:
        sample_every: Optimizer steps between two looks; 0 for none.
        n: Networks a look, 2 or more.
    """

    def __init__(self, sample_every: int = 1000, n: int = 8) -> None:
        if sample_every < 0 or n < 2:
            raise ParamgenError(
                f"quality.sample_every is {sample_every} (expected 0 or more), quality.n is {n} (expected 2 or more)"
            )
        self.sample_every, self.n = sample_every, n
        self._task: Task | None = None
        self._weights: Tensor | None = None
        self._last = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        """Look when it is time; the first process alone does."""
        step = trainer.global_step
        due = self.sample_every and step % self.sample_every == 0 and step != self._last
        if due and trainer.is_global_zero and trainer.logger is not None:
            self._last = step
            assert isinstance(module, ParameterGenerator)
            with torch.random.fork_rng():  # looking does not change what is learned
                trainer.logger.log_metrics(self.look(module, trainer.datamodule), step)

    def look(self, module: ParameterGenerator, data: ParameterDataModule) -> dict[str, float]:
        """Accuracy, nn_ratio and dispersion of `n` new networks."""
        if self._task is None or self._weights is None:
            self._task = load_task(data.zoo.task_config)
            self._weights = data.zoo.matrix(data.train_indices)  # (K, P)
        networks = module.sample(self.n)
        samples = data.zoo.spec.flatten_many(networks)  # (n, P)
        accuracy = predict(self._task.build(), networks, self._task.data("val")).accuracy
        distance = metrics.nearest(samples, self._weights).distance
        return {
            "sample/accuracy_mean": float(accuracy.mean()),
            "sample/accuracy_best": float(accuracy.max()),
            "sample/nn_ratio": metrics.nn_ratio(distance, metrics.tau(self._weights)),
            "sample/dispersion": metrics.dispersion(samples, self._weights),
        }


class LearningRates(LearningRateMonitor):
    """Logs the learning rates, where there is a logger; Lightning's own refuses a trainer without one."""

    def on_train_start(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        """Begin, unless nobody listens."""
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)
