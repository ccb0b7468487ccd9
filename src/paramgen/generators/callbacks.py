"""Monitoring during a fit, and its precision."""

import logging
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.plugins.precision import Precision
from rich.progress import ProgressColumn, Task
from rich.text import Text
from torch import Tensor

from paramgen.core.components import principal_components
from paramgen.core.devices import forked_random
from paramgen.core.params import StateDict
from paramgen.core.score import ScoreSpec
from paramgen.core.spacing import first_to_last
from paramgen.core.trust import UntrustedError
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation import metrics
from paramgen.evaluation.novelty import Novelty, RawBank
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.data import ParameterDataModule, data_of
from paramgen.generators.sharding import FSDP2
from paramgen.tasks import TaskFamily, family_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paramgen.report.fit import Group

_LOG = logging.getLogger(__name__)
STEPS_BETWEEN_READINGS = 10  # of the losses shown next to the progress bar
MOST_POINTS = 400  # maximum length of a loss's history; beyond it, every second point is dropped


class SampleQuality(Callback):
    """Periodically samples networks and logs accuracy, novelty and diversity under ``sample/``.

    Scores use the task's val split, never its test split; distances are to the training networks. If the zoo has no task, or names an
    untrusted class, only distances are logged. With ``data.residency: disk`` only scores are: distances need all training
    networks in memory. The values and the losses are stored in the checkpoint, for reports. If the logger
    accepts images, the last samples are plotted at the end.

    Args:
        sample_every: Optimizer steps between measurements. 0: never.
        n: Networks per measurement, 2 or more.
    """

    def __init__(self, sample_every: int = 1000, n: int = 8) -> None:
        if sample_every < 0 or n < 2:
            raise ParamgenError(
                f"quality.sample_every is {sample_every} (expected 0 or more), quality.n is {n} (expected 2 or more)"
            )
        self.sample_every, self.n = sample_every, n
        self._scored = True  # whether the zoo's task is available
        self._family: TaskFamily | None = None
        self._weights: Tensor | None = None
        self._novelty: Novelty | None = None
        self._last = 0
        self._stride = 1
        self._history: dict[str, list[list[float]]] = {}  # name to [step, value]
        self._unread: list[tuple[int, Tensor]] = []  # steps and losses on the device

    @property
    def history(self) -> dict[str, list[list[float]]]:
        """Name to [step, value]."""
        self._read_losses()
        return self._history

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Log once what cannot be measured: scores without a trusted task, distances to networks that stay on disk."""
        if self.sample_every:
            self._find_task(data_of(trainer).zoo)
            if data_of(trainer).on_disk:
                _LOG.warning(
                    "distances of samples are not logged: data.residency disk keeps the networks out of memory"
                )

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: object) -> None:
        """Measure when due; the first process logs it."""
        step = trainer.global_step
        if step % self._stride == 0 and not (self._unread and self._unread[-1][0] == step):
            # Lightning divides the loss by the number of batches of a step
            self._unread.append((step, outputs["loss"].detach().float() * trainer.accumulate_grad_batches))
            if len(self._unread) + len(self._history.get("train/loss", ())) > MOST_POINTS:
                self._read_losses()
        due = self.sample_every and step % self.sample_every == 0 and step != self._last
        if due and _takes_part(trainer) and trainer.logger is not None:
            self._last = step
            assert isinstance(module, ParameterGenerator)
            with forked_random(module.device):  # measuring does not change the training
                metrics = self.look(module, data_of(trainer))
            trainer.logger.log_metrics(metrics, step)  # Lightning's loggers write on the first process alone
            for name, value in metrics.items():
                self._remember(name, step, value)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Store the loss on the zoo's val runs."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            loss = trainer.callback_metrics.get("val/loss")
            if loss is not None:
                self._remember("val/loss", trainer.global_step, float(loss))

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Plot the last samples with training networks if they are scored and the logger accepts images."""
        writer = getattr(trainer.logger, "experiment", None)
        if (
            self.sample_every
            and self._family is not None
            and not data_of(trainer).on_disk
            and _takes_part(trainer)
            and writer is not None
            and hasattr(writer, "add_figure")
        ):
            assert isinstance(module, ParameterGenerator)
            with forked_random(module.device):
                figures = self.draw(module, data_of(trainer))
            for name, figure in figures.items():
                writer.add_figure(f"sample/{name}", figure, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The measurements so far."""
        return {"history": self.history, "stride": self._stride}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self._history, self._stride = state_dict["history"], state_dict["stride"]

    def look(self, module: ParameterGenerator, data: ParameterDataModule) -> dict[str, float]:
        """Score, distance over both scales and dispersion of `n` new networks."""
        if self._family is None and self._scored:
            self._find_task(data.zoo)
        if self._family is None and data.on_disk:
            return {}  # nothing can be measured
        indices = first_to_last(data.num_networks, self.n)
        networks = module.sample(self.n, _conditions(module, data, indices))
        family = self._family
        logged = (
            {} if family is None else _summary(family.score, _scores(family, data, networks, indices, module.device))
        )
        return logged if data.on_disk else {**logged, **self._distances(networks, data)}

    def _distances(self, networks: list[StateDict], data: ParameterDataModule) -> dict[str, float]:
        """Distance over both scales, and dispersion."""
        weights, novelty = self._measures(data)
        samples = data.zoo.spec.flatten_many(networks)  # (n, P)
        ratios = novelty.ratios(novelty.bank.nearest(samples).distance)
        return {
            **({} if ratios.run is None else {"sample/run_ratio": ratios.run}),
            "sample/nn_ratio": ratios.step,
            "sample/dispersion": metrics.dispersion(samples, weights),
        }

    def draw(self, module: ParameterGenerator, data: ParameterDataModule) -> "dict[str, Figure]":
        """Pictures of `n` new networks and as many training networks, on the val images."""
        from paramgen.report.fit import Group, fit_figures  # matplotlib takes a second, and most fits draw nothing

        weights, novelty = self._measures(data)
        family = self._family
        assert family is not None  # only scored networks are plotted
        indices = first_to_last(len(weights), self.n)
        networks, plane = module.sample(self.n, _conditions(module, data, indices)), principal_components(weights, 2)
        length = novelty.length

        def group(states: list[StateDict], vectors: Tensor, distance: Tensor) -> "Group":
            accuracy = _scores(family, data, states, indices, module.device)
            xy = plane.place(vectors) / length  # (n, 2)
            return Group(
                accuracy.tolist(), (distance / length).tolist(), xy.tolist(), metrics.dispersion(vectors, weights)
            )

        samples = data.zoo.spec.flatten_many(networks)  # (n, P)
        trained = [data.zoo.full(data.train_indices[i]) for i in indices.tolist()]
        return fit_figures(
            group(trained, weights[indices], novelty.own[indices]),
            group(networks, samples, novelty.bank.nearest(samples).distance),
            family.score,
            family.task(family.names[0]).count("val"),
            novelty.unit,
            int(_runs(data, data.train_indices).unique(return_counts=True)[1].max()),
        )

    def _find_task(self, zoo: Zoo) -> None:
        try:
            self._family = None if zoo.task_config is None else family_of(zoo)
            reason = "the zoo has no task"
        except UntrustedError as error:
            reason = str(error)
        self._scored = self._family is not None
        if not self._scored:
            _LOG.warning("samples are not scored; only their distances are logged: %s", reason)

    def _measures(self, data: ParameterDataModule) -> tuple[Tensor, Novelty]:
        """The training networks (K, P), and the scales of distances; val runs replace held-out ones."""
        if self._weights is None or self._novelty is None:
            self._weights, val = data.training_weights(), data.zoo.indices("val")
            self._novelty = Novelty(
                RawBank(self._weights), _runs(data, data.train_indices), data.zoo.matrix(val), _runs(data, val)
            )
        return self._weights, self._novelty

    def _read_losses(self) -> None:
        """Read the losses of the training from the device, all at once: at every step, the host would wait at every step."""
        unread, self._unread = self._unread, []
        values = torch.stack([loss for _, loss in unread]).tolist() if unread else []
        for (step, _), value in zip(unread, values, strict=True):
            self._remember("train/loss", step, value)

    def _remember(self, name: str, step: int, value: float) -> None:
        points = self._history.setdefault(name, [])
        if not (points and points[-1][0] == step) and isfinite(value):
            points.append([step, value])
        if len(points) > MOST_POINTS:
            self._history[name] = points[1::2]
            if name == "train/loss":
                self._stride *= 2


class _BarName(ProgressColumn):
    """The name of a bar, without the epoch -2 that Lightning counts to if a fit ends after a number of steps."""

    def render(self, task: Task) -> Text:
        """The name as text."""
        return Text.from_markup(task.description.removesuffix("/-2"))


class SparingProgressBar(RichProgressBar):
    """Lightning's progress bar, which on a GPU shows the losses of every tenth step: to read them, the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self._losses: dict[str, float] = {}

    @property
    def total_train_batches(self) -> int | float:
        """The batches of this epoch. Lightning takes the steps that are left for batches, also with several batches a step."""
        trainer = self.trainer
        if trainer.max_epochs != -1 or trainer.max_steps <= 0:
            return trainer.num_training_batches
        left = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        return min(trainer.num_training_batches, left)

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Lightning's columns, the first of which names the bar."""
        return [_BarName(), *super().configure_columns(trainer)[1:]]

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The values shown next to the bar."""
        if trainer.global_step % STEPS_BETWEEN_READINGS == 0 and pl_module.device.type != "cpu":
            losses = {name: v for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
            values = torch.stack([*losses.values()]).tolist() if losses else []
            self._losses = dict(zip(losses, values, strict=True))
        return {**super().get_metrics(trainer, pl_module), **self._losses}


class LearningRates(LearningRateMonitor):
    """Logs the learning rates if there is a logger; Lightning's own callback raises without one."""

    def on_train_start(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        """Start if there is a logger."""
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)


class Float32Ends(Callback):
    """Trains in float32 at the start and the end of the fit, and in ``trainer.precision: bf16-mixed`` in between.

    As in RPG's code: bf16 from step 5,000 to 45,000 of 50,000, that is float32 for a tenth at each end.

    Args:
        share: Share of all steps at each end, 0 to 0.5.

    Raises:
        ParamgenError: A share out of range; at the start of a fit, a trainer of another precision, or one without a last step.
    """

    def __init__(self, share: float = 0.1) -> None:
        if not 0 <= share <= 0.5:
            raise ParamgenError(f"the share of Float32Ends is {share}, expected 0 to 0.5 of the steps at each end")
        self.share = share

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the trainer's precision for the middle."""
        if trainer.precision != "bf16-mixed":
            raise ParamgenError(
                f"Float32Ends needs trainer.precision bf16-mixed between the ends, not {trainer.precision}"
            )
        if trainer.estimated_stepping_batches == float("inf"):
            raise ParamgenError("Float32Ends needs to know the last step: give trainer.max_steps")
        self._half = trainer.strategy.precision_plugin

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Choose the precision of a step."""
        done = trainer.global_step / trainer.estimated_stepping_batches
        middle = self.share <= done < 1 - self.share
        trainer.strategy.precision_plugin = self._half if middle else Precision()

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Give the trainer its precision back."""
        trainer.strategy.precision_plugin = self._half


def _takes_part(trainer: Trainer) -> bool:
    """Whether this process samples: the first one, and all where each holds a part of the weights."""
    return trainer.is_global_zero or isinstance(trainer.strategy, FSDP2)


def _runs(data: ParameterDataModule, indices: list[int]) -> Tensor:
    """The runs (n,) of some of the zoo's networks."""
    return torch.tensor([data.zoo.entries[i].run for i in indices], dtype=torch.int64)


def _conditions(module: ParameterGenerator, data: ParameterDataModule, indices: Tensor) -> Tensor | None:
    """Conditions (n, C) of some training networks, for generators that take them."""
    return data.conditions[indices].to(module.device) if module.cond_dim else None


def _summary(score: ScoreSpec, values: Tensor) -> dict[str, float]:
    """Logged values of scores (n,): mean and best; where some are not finite, how many, and no mean."""
    finite = values[values.isfinite()]
    missing = len(values) - len(finite)
    counted = {"sample/without_score": float(missing)} if missing else {}
    if not len(finite):
        return counted
    best = finite.max() if score.higher_is_better else finite.min()
    mean = {} if missing else {"sample/score_mean": float(finite.mean())}  # a mean of the others would look better
    return {**mean, "sample/score_best": float(best), **counted}


def _scores(
    family: TaskFamily, data: ParameterDataModule, networks: list[StateDict], indices: Tensor, device: torch.device
) -> Tensor:
    """Scores (n,) on the val split, each network on the task of its training network, computed on a device."""
    names = [data.zoo.entries[data.train_indices[i]].task for i in indices.tolist()]
    return family.evaluate_each(networks, names, "val", device=device).value
