"""``paramgen fit | validate | test | predict``: LightningCLI with short config names and arguments linked from the data."""

import logging
import shlex
import signal
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

import paramgen.backends  # noqa: F401  registers the backends
from paramgen.cli.given import NEWEST
from paramgen.cli.parser import ConfigFile, OneLineErrors
from paramgen.cli.recipes import facts_of, with_recipes
from paramgen.core.hub import local_checkpoint
from paramgen.core.plugins import is_installed
from paramgen.core.signals import restored
from paramgen.errors import ParamgenError, first_line, require_positive, require_seed
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.callbacks import LearningRates, SampleQuality, SparingProgressBar
from paramgen.generators.checkpoints import Checkpoints, CompleteCheckpoints, StopRequests
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.distributed_checkpoints import is_sharded
from paramgen.generators.divergence import Divergence
from paramgen.generators.restore import read_checkpoint
from paramgen.generators.sharding import NAME as FSDP
from paramgen.generators.sharding import without_values

LOST_PROCESS = (
    "another process of this fit ended unexpectedly (if it has not said why: killed, out of memory, or a lost machine); "
    "run the same command with --ckpt_path last to resume from the last checkpoint"
)
RUNS = "runs"  # where fits log and save
LOGGER = f"{TensorBoardLogger.__module__}.TensorBoardLogger"
T = TypeVar("T", bound="GeneratorCLI")
_log = logging.getLogger(__name__)
# arguments of a backend that the data decide
LINKED = ("seq_len", "token_dim", "cond_dim", "num_networks", "num_runs", "start_weights")
LAYOUT = "layout"  # another one, which takes seconds to read: only for backends that have it


class Parser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser, with one-line error messages and settings that follow the zoo."""

    bases = MappingProxyType({"model": ParameterGenerator})

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """As jsonargparse's, after each ``auto`` of a config has its value."""
        given = sys.argv[1:] if args is None else args
        settled = with_recipes(given, self.facts) if isinstance(given, list) else given
        return super().parse_args(settled, *rest, **kwargs)

    facts = staticmethod(facts_of)


class GeneratorCLI(LightningCLI):
    """A backend, a data module and a Trainer from one YAML."""

    saved = ""  # the checkpoint of a fit

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose ``--config`` knows short names."""
        parser = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="YAML file, or the name of a shipped config.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Callbacks of every fit, and the arguments that depend on the data."""
        parser.add_lightning_class_args(StopRequests, "stop_requests")
        parser.add_lightning_class_args(Divergence, "divergence")
        parser.add_lightning_class_args(SampleQuality, "quality")
        parser.add_lightning_class_args(LearningRates, "lr_monitor")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.set_defaults({"checkpoint.save_last": "link", "checkpoint.enable_version_counter": False})
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Keep the requested arguments: ``--ckpt_path`` later replaces the model's arguments with the checkpoint's."""
        super().parse_arguments(parser, args)
        self.requested: Namespace = self.config.clone()
        if verb := self.config.get("subcommand"):
            config = self.config[verb]
            _check_values(config)
            logger = config.trainer.logger
            if (
                isinstance(logger, Namespace)
                and logger.class_path.endswith(".TensorBoardLogger")
                and logger.init_args.save_dir == RUNS
            ):
                logger.init_args.save_dir = config.trainer.default_root_dir
            if config.get("ckpt_path") == NEWEST:
                config.ckpt_path = _last_checkpoint(config.checkpoint.dirpath, Path(config.trainer.default_root_dir))
            elif config.get("ckpt_path"):
                config.ckpt_path = str(local_checkpoint(config.ckpt_path))
            _check_checkpoint(verb, config.get("ckpt_path"), config.model.class_path)

    def before_instantiate_classes(self) -> None:
        """Refuse a checkpoint that would silently change the model."""
        torch.set_flush_denormal(True)
        if self.subcommand is None:
            return
        requested, parsed = self.requested[self.subcommand].model, self._with_saved_arguments()
        for name in requested.init_args.keys():  # noqa: SIM118  a Namespace iterates over something else
            if name not in (*LINKED, LAYOUT) and requested.init_args[name] != parsed.init_args[name]:
                given, saved = requested.init_args[name], parsed.init_args[name]
                raise ParamgenError(
                    f"config and checkpoint disagree: model.{name} is {given!r} here and {saved!r} in the checkpoint"
                )

        if LAYOUT in requested.init_args:
            self._parser(self.subcommand).link_arguments(
                f"data.{LAYOUT}", f"model.init_args.{LAYOUT}", apply_on="instantiate"
            )

        # the checkpoint also holds arguments of the data, which not every backend has
        self.config[self.subcommand].model = requested

    def _with_saved_arguments(self) -> Namespace:
        """The model's section with the arguments of the checkpoint, if one was given."""
        config = self.config[self.subcommand]
        path = config.get("ckpt_path")
        if path and is_sharded(path):  # Lightning has read those of files
            saved = dict(read_checkpoint(path, parts=()).get("hyper_parameters", {}))
            saved.pop("_instantiator", None)
            model = {"class_path": saved.pop("_class_path", config.model.class_path), "dict_kwargs": saved}
            config = self.parser.parse_object({self.subcommand: {"model": model}}, self.config)[self.subcommand]
        model_section: Namespace = config.model
        return model_section

    def instantiate_classes(self) -> None:
        """Build the model, the data and the trainer; of a generator that will be sharded the first process alone has the weights."""
        config = self.config.get(self.subcommand or "")
        sharded = config and config.trainer.strategy == FSDP and LAYOUT not in config.model.init_args
        first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # set when it is imported
        try:
            with without_values() if sharded and not first else nullcontext():
                super().instantiate_classes()
        except MisconfigurationException as error:
            raise ParamgenError(first_line(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer, or a one-line error; its checkpoints are complete unless a plugin writes them."""
        configured = self.config_init[self.subcommand].trainer
        given = configured.callbacks or []
        callbacks = given if isinstance(given, list) else [given]
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if configured.enable_progress_bar is not False and not has_bar:
            kwargs["callbacks"] = [*callbacks, SparingProgressBar()]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise ParamgenError(f"trainer: {first_line(error)}") from error
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = CompleteCheckpoints()
        return trainer

    def before_fit(self) -> None:
        """Store the command and all settings for the checkpoint, and announce the fit."""
        numbers = sum(p.numel() for p in self.model.parameters())
        _log.info("fitting %s with %s parameters", type(self.model).__name__, f"{numbers:,}")
        self.model.fit_command = shlex.join(["paramgen", *sys.argv[1:]])
        self.model.fit_config = self._parser(self.subcommand).dump(self.config[self.subcommand])

    def after_fit(self) -> None:
        """Keep and print where the result is."""
        self.model.history = self.config_init[self.subcommand].quality.history
        callback = self.trainer.checkpoint_callback
        known = [getattr(callback, name, "") for name in ("last_model_path", "best_model_path")]
        # the state of a fit that was resumed elsewhere still names its old folder
        folder = Path(getattr(callback, "dirpath", None) or ".")
        here = [path for path in known if path and Path(path).parent == folder]
        resumed = self.config_init[self.subcommand].ckpt_path  # without steps left nothing is saved
        self.saved = next(iter(here), str(resumed or ""))
        if self.saved and self.trainer.is_global_zero:
            print(f"checkpoint: {self.saved}")

    @property
    def foreign(self) -> bool:
        """Whether reading the generator's checkpoint needs trust."""
        return not all(is_installed(type(part)) for part in (self.model, self.model.codec))


class _NoTips(logging.Filter):
    """Drops Lightning's advertisements."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is shown."""
        return "Tip: For seamless" not in record.getMessage()


_TIPS = _NoTips()


def is_lost_process(error: BaseException) -> bool:
    """Whether an error of torch.distributed means that another process of this fit has ended."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
    return isinstance(error, torch.distributed.DistError) or any(sign in str(error) for sign in signs)


def _check_values(config: Namespace) -> None:
    """Refuse settings that Lightning takes, and then fails or writes elsewhere."""
    if not isinstance(seed := config.seed_everything, bool | None):
        require_seed(seed, "seed_everything", bits=32)
    trainer = config.trainer
    numbers = {name: trainer[name] for name in ("accumulate_grad_batches", "check_val_every_n_epoch")}
    if isinstance(trainer.val_check_interval, int | float):  # else a time
        numbers["val_check_interval"] = trainer.val_check_interval
    require_positive("trainer.", **numbers)
    if str(trainer.precision).endswith("16-true"):
        raise ParamgenError(
            f"trainer.precision is {trainer.precision}, but generators keep their weights in float32; expected bf16-mixed or 16-mixed"
        )
    if config.checkpoint.dirpath == "":
        raise ParamgenError("checkpoint.dirpath is empty, expected a folder")


def _last_checkpoint(folder: str | None, root: Path) -> str:
    """The newest ``last.ckpt`` in a folder of checkpoints, or of the fits under a folder."""
    if folder:
        paths, where = [*Path(folder).expanduser().glob("last*.ckpt")], Path(folder)
    else:
        paths, where = (
            [*root.glob("lightning_logs/*/checkpoints/last*.ckpt"), *root.glob("checkpoints/last*.ckpt")],
            root,
        )
    if not paths:
        alternative = "" if folder else ", or its folder as --checkpoint.dirpath"
        raise ParamgenError(f"no last.ckpt under {where}; pass its path as --ckpt_path{alternative}")
    return str(max(paths, key=lambda path: path.stat().st_mtime))


def _check_checkpoint(verb: str, path: str | None, backend: str) -> None:
    """Check a checkpoint before Lightning reads it and imports the classes that it names."""
    if path is not None:
        checkpoint = read_checkpoint(path, parts=())
        arguments = dict(checkpoint.get("hyper_parameters", {}))
        made_by = arguments.pop("_class_path", checkpoint["paramgen"]["class_path"])
        if made_by != backend:
            raise ParamgenError(f"the config asks for {backend}, the checkpoint was made by {made_by}")
        if verb == "fit" and not is_sharded(path) and "optimizer_states" not in checkpoint:
            raise ParamgenError(
                f"checkpoint {path!r} has no optimizer state: it can be sampled, but no fit can resume from it"
            )
        if _names_class(arguments):
            raise ParamgenError(
                f"checkpoint {path!r} names a class in the arguments of its generator, expected plain values"
            )


def _names_class(value: Any) -> bool:
    """Whether Lightning's parser would import a class from arguments."""
    if isinstance(value, Mapping):
        return "class_path" in value or any(map(_names_class, value.values()))
    return isinstance(value, list | tuple) and any(map(_names_class, value))


def main(args: list[str] | None = None) -> GeneratorCLI:
    """Run one of Lightning's verbs.

    Args:
        args: The command line after ``paramgen``; the process's own when None.

    Raises:
        ParamgenError: A mistake in a config, a zoo or a checkpoint.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_TIPS)
    try:
        # Lightning ignores SIGINT once a fit is interrupted
        with restored([signal.SIGINT]), warnings.catch_warnings():
            # Lightning 2.6.6 makes a LeafSpec for each data loader, which torch 2.14 calls deprecated
            warnings.filterwarnings("ignore", ".*LeafSpec.*deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "The dirpath has changed")  # resuming in a moved folder is no fault
            return run_command_line(GeneratorCLI, words=args)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning treats this as an exit
            raise stop.__context__ from None
        raise
    except RuntimeError as error:
        if is_lost_process(error):
            raise ParamgenError(LOST_PROCESS) from error
        raise


def run_command_line(
    cli: type[T], parser: type[Parser] = Parser, command: str | None = None, words: list[str] | None = None
) -> T:
    """Parse a command line, with the defaults of every fit.

    Args:
        cli: What to make of it.
        parser: Class of its parser.
        command: The command of paramgen that it is. Default: its first word is one of Lightning's verbs.
        words: The command line after ``paramgen`` or, with ``command``, after that; the process's own when None.
    """
    before = sys.argv
    if words is not None:
        sys.argv = [before[0], *words]  # Lightning starts its other processes with this command line
    try:
        return cli(
            ParameterGenerator,
            ParameterDataModule,
            parser_class=parser,
            run=command is None,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={
                "default_root_dir": RUNS,
                "max_epochs": -1,
                "enable_model_summary": False,  # it ends with 'Total FLOPs: 0'
                "num_sanity_val_steps": 0,
                "logger": {"class_path": LOGGER, "init_args": {"save_dir": RUNS}},
            },
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": f"paramgen {command}" if command else "paramgen"},
        )
    finally:
        sys.argv = before
