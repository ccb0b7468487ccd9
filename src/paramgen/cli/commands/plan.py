"""``paramgen plan``: what a fit costs before it is run."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from paramgen.cli.lightning import LAYOUT, LINKED, GeneratorCLI, Parser, run_command_line
from paramgen.cli.plan_table import show_plan
from paramgen.cli.planned_zoo import PlannedZoo, planned_zoo
from paramgen.core.codec import FlatCodec, ParamCodec
from paramgen.core.trust import import_class
from paramgen.errors import ParamgenError, require_positive
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.callbacks import Float32Ends
from paramgen.generators.recipe import Facts
from paramgen.planning.advice import Advice, advise
from paramgen.planning.devices import DEVICES, EFFICIENCY, find_device
from paramgen.planning.dry_run import FitSettings
from paramgen.planning.plan import FitPlan, Machine, plan
from paramgen.symmetry.layout import UnitLayout


class PlanParser(Parser):
    """The parser of a fit; recipes follow zoos that may not exist yet."""

    @staticmethod
    def facts(zoo: str) -> Facts:
        """What a recipe depends on."""
        shape = planned_zoo(zoo).shape
        return Facts(shape.networks, shape.runs, shape.spec.numel, shape.cond_dim > 0)


class PlanCLI(GeneratorCLI):
    """The command line of a fit, and the machine that it is planned for; nothing is built."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The machine."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--device", type=str, default="h100", help=f"One of {', '.join(DEVICES)}.")
        parser.add_argument(
            "--devices", type=int | None, help="Number of devices, one process each. Default: the trainer's, else 1."
        )
        parser.add_argument(
            "--ram", type=float | None, help="GB of the host's memory. Default: 128 with a GPU, else this machine's."
        )
        parser.add_argument(
            "--efficiency",
            type=float,
            default=EFFICIENCY,
            help="Share of the device's limits that a step reaches, above 0 to 1. Default: as measured on an H200.",
        )
        parser.add_argument("--advice", type=bool, default=True, help="Search for settings that fit.")
        parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")

    def instantiate_classes(self) -> None:
        """Build nothing."""


def main(args: list[str]) -> FitPlan:
    """Predict the cost of a fit: the command line of ``paramgen fit``, with ``--device`` and ``--devices``.

    Args:
        args: The command line after ``paramgen plan``.

    Raises:
        ParamgenError: An unknown device, config, zoo or recipe, or settings that a fit would refuse.
    """
    with quiet():
        config = parsed(args)
        machine = machine_of(config)
        settings = settings_of(config)
        found = plan(settings, machine)
        advice = advise(settings, machine) if found.misfit is not None and config.advice else []
    if config.json:
        print(json.dumps(_plain(found, machine, advice), indent=1))
    else:
        show_plan(Console(), found, settings, machine, advice)
    return found


def parsed(words: list[str]) -> Namespace:
    """The settings of a command line."""
    config: Namespace = run_command_line(PlanCLI, PlanParser, "plan", words).config
    return config


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's announcements of a fit: there is none."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def machine_of(config: Namespace) -> Machine:
    """The machine of a command line."""
    require_positive(devices=config.devices, efficiency=config.efficiency, ram=config.ram)
    if config.efficiency > 1:
        raise ParamgenError(f"efficiency is {config.efficiency}, expected a share above 0 and up to 1")
    device, strategy, given = find_device(config.device), config.trainer.strategy, config.trainer.devices
    name = strategy if isinstance(strategy, str) else strategy.class_path.rpartition(".")[2].lower()
    devices = config.devices or (given if isinstance(given, int) and given > 0 else 1) * config.trainer.num_nodes
    ram = config.ram * 1e9 if config.ram else Machine.ram if device.is_gpu else device.memory
    return Machine(device, devices, name, config.data.residency, config.efficiency, ram)


def settings_of(config: Namespace) -> FitSettings:
    """The settings of a fit that decide its cost."""
    data, trainer, model = config.data, config.trainer, config.model
    if not model or not data.get("zoo"):
        raise ParamgenError("plan needs a generator and a zoo: --config NAME, or --model and --data.zoo")
    backend = import_class(model.class_path, ParameterGenerator, "backend")  # type: ignore[type-abstract]
    zoo = planned_zoo(data.zoo)
    shape = _used(zoo, data)
    callbacks = [(import_class(c.class_path, Callback, "callback"), c) for c in _listed(trainer.callbacks)]
    ends = [_dict(given.get("init_args")) for kind, given in callbacks if issubclass(kind, Float32Ends)]
    return FitSettings(
        backend=backend,
        arguments={name: value for name, value in _dict(model.init_args).items() if name not in (*LINKED, LAYOUT)},
        codec=_codec(data.get("codec")),
        zoo=shape,
        batch_size=data.batch_size,
        tokens=data.tokens_per_step,
        start_weights=data.start is not None,
        max_steps=_steps(trainer, data),
        accumulate=trainer.accumulate_grad_batches,
        precision=str(trainer.precision or "32-true"),
        clip=trainer.gradient_clip_val,
        float32_share=ends[-1]["share"] if ends else 0.0,
        averaged=any(issubclass(kind, WeightAveraging) for kind, _ in callbacks),
        layout=UnitLayout.of(zoo.symmetries()).to_dict() if LAYOUT in signature(backend).parameters else None,
    )


def _used(zoo: PlannedZoo, data: Namespace) -> Any:
    """The shape of the part of a zoo that a fit learns, prompts counted as conditions."""
    shape, most = zoo.shape, data.max_networks
    networks = shape.networks if most is None else min(shape.networks, most)
    return shape._replace(
        networks=networks, runs=min(shape.runs, networks), cond_dim=shape.cond_dim + len(data.prompt or ())
    )


def _steps(trainer: Namespace, data: Namespace) -> int:
    """Optimizer steps of a fit; -1 where nothing ends it."""
    epochs = trainer.max_epochs
    by_epochs = epochs * data.steps_per_epoch // trainer.accumulate_grad_batches if epochs and epochs > 0 else -1
    given = [steps for steps in (trainer.max_steps, by_epochs) if steps > 0]
    return min(given, default=-1)


def _listed(callbacks: Any) -> list[Namespace]:
    return callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []


def _dict(namespace: Any) -> dict[str, Any]:
    return namespace.as_dict() if isinstance(namespace, Namespace) else dict(namespace or {})


def _codec(given: Any) -> ParamCodec:
    if given is None:
        return FlatCodec()
    kind = import_class(given.class_path, ParamCodec, "codec")  # type: ignore[type-abstract]
    return kind(**_dict(given.get("init_args")))


def _plain(found: FitPlan, machine: Machine, advice: list[Advice]) -> dict[str, Any]:
    """Everything as plain values."""
    device: Mapping[str, Any] = machine.device._asdict()
    rest = {f.name: getattr(machine, f.name) for f in fields(machine) if f.name != "device"}
    changes = [
        {"setting": a.setting, "value": a.value, "why": a.why, "peak": a.plan.peak, "fits": a.plan.misfit is None}
        for a in advice
    ]
    return {**found.to_dict(), "device": device, **rest, "advice": changes}
