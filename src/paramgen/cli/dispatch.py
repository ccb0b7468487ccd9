"""The table of commands. Only the requested command is imported."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from inspect import isclass, signature
from types import UnionType
from typing import Any, NamedTuple, get_args

from paramgen import __version__
from paramgen.cli.given import require_fit, require_plan, require_recipe, require_zoo
from paramgen.cli.next_step import next_step
from paramgen.core.command_line import typed
from paramgen.core.locks import locked
from paramgen.core.shards import parse_shard
from paramgen.errors import ParamgenError, did_you_mean, require_seed

NAMED_FILES = ("out", "source", "samples", "ckpt_path", "start", "base", "table", "results", "card")
"""Options that name files or folders. An empty one would be the working folder."""
LIGHTNING = {
    "fit": "fit a generator on a zoo",
    "validate": "compute losses on the zoo's validation runs",
    "test": "compute losses on the zoo's held-out runs",
    "predict": "sample one network per training network",
}


class Command(NamedTuple):
    """A command that is a function: its signature is the command line.

    Args:
        what: Short description for the list of commands.
        module: Holds its function ``main``, or ``COMMANDS``, functions by verb.
        configs: Folder under ``configs/`` whose names it accepts.
        out_is_file: ``out`` is a file; else it is a folder, which one process writes to at a time.
        parses: Its function ``main`` takes the words of the command line.
        check: Refuses mistakes in the words of the command line before the module is imported.
    """

    what: str
    module: str
    configs: str = ""
    out_is_file: bool = False
    parses: bool = False
    check: Callable[[list[str]], None] | None = None


FUNCTIONS = {
    "collect": Command(
        "train networks and save them as a zoo", "collect.single", "zoo", check=partial(require_recipe, "collect")
    ),
    "collect_tasks": Command(
        "train one network or adapter per task of a family",
        "collect.multi",
        "zoo",
        check=partial(require_recipe, "collect_tasks"),
    ),
    "zoo": Command(
        "show, check, import, change, merge or share zoos: "
        "info | verify | import | convert | align | prune | quantise | merge | push | pull",
        "cli.commands.zoo",
    ),
    "sample": Command("sample new networks from a generator", "cli.commands.sample", check=require_zoo),
    "merge": Command("merge networks of a zoo into one, without training", "cli.commands.merge", check=require_zoo),
    "generator": Command("share fitted generators on the Hugging Face Hub: push | pull", "cli.commands.generator"),
    "consolidate": Command("write a sharded checkpoint as one file", "cli.commands.consolidate", out_is_file=True),
    "export": Command(
        "write networks for timm, torchvision, transformers, diffusers, peft, ONNX", "cli.commands.export"
    ),
    "adapters": Command("export generated adapters for peft", "cli.commands.adapters", check=require_zoo),
    "evaluate": Command(
        "compare generated networks with baselines; write a report", "cli.commands.evaluate", check=require_zoo
    ),
    "compare": Command("fit, sample and evaluate generators on zoos, over seeds", "cli.commands.compare", "compare"),
    "unseen": Command(
        "score generators on a family's unseen tasks", "studies.unseen", out_is_file=True, check=require_zoo
    ),
    "interpolate": Command("score networks generated between two tasks", "studies.interpolate", check=require_zoo),
    "flips": Command("score networks generated for seen codes with flipped bits", "studies.flips", check=require_zoo),
    "tickets": Command(
        "train networks under generated masks from the zoo's own start", "studies.tickets", check=require_zoo
    ),
    "plan": Command(
        "show what a fit costs before it is run: memory, time, what does not fit",
        "cli.commands.plan",
        parses=True,
        check=require_plan,
    ),
    "configs": Command("list the shipped configs", "cli.commands.configs"),
    "completion": Command("complete commands and names in bash, zsh or fish", "cli.commands.completion", parses=True),
    "doctor": Command("check this installation", "cli.commands.doctor"),
}


class LogLines(logging.Handler):
    """Writes the package's log as plain lines on stderr, from the first process only."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        if first_process():
            print(self.format(record), file=sys.stderr)


def first_process() -> bool:
    """Whether this is the first process of a fit on this machine, started by torchrun, Lightning or SLURM. Only it prints."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def usage() -> str:
    """The text of ``paramgen --help``."""
    listed = LIGHTNING | {name: command.what for name, command in FUNCTIONS.items()}
    rows = [f"  {name:15s}{what}" for name, what in listed.items()]
    return "\n".join(
        ["usage: paramgen <command> [options]", "", *rows, "", "paramgen <command> --help shows its options."]
    )


def run(args: list[str]) -> str | None:
    """Run one command.

    Args:
        args: The command line after ``paramgen``.

    Returns:
        What to do next, if there is anything.

    Raises:
        ParamgenError: A user error.
    """
    log = logging.getLogger("paramgen")
    if not any(isinstance(handler, LogLines) for handler in log.handlers):
        log.addHandler(LogLines())
        log.setLevel(logging.INFO)
    if odd := next((word for word in args if not _is_unicode(word)), None):
        raise ParamgenError(f"{odd!r} is not Unicode text, so no file can record it; rename the file or folder")
    command, *arguments = args or ["--help"]
    if command in LIGHTNING:
        require_fit(command, arguments)
        return next_step(command, {}, import_module("paramgen.cli.lightning").main(args))
    if command in FUNCTIONS:
        return _run_function(command, arguments)
    if command not in ("-h", "--help", "--version"):
        raise ParamgenError(f"Unknown command {command!r}. {did_you_mean(command, {**LIGHTNING, **FUNCTIONS})}")
    print(__version__ if command == "--version" else usage())
    return None


def _is_unicode(word: str) -> bool:
    """Whether a word can be encoded; Python decodes bytes of file names that are not UTF-8 to halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def _run_function(command: str, args: list[str]) -> str | None:
    """Parse the command line that a function's signature and docstring describe, and call it; what to do next."""
    table = FUNCTIONS[command]
    if table.check is not None:
        table.check(args)
    functions = import_module(f"paramgen.{table.module}")
    if table.parses:
        return next_step(command, {"words": args}, functions.main(args))
    if hasattr(functions, "COMMANDS"):
        verbs: dict[str, Any] = functions.COMMANDS
        if not args or args[0] in ("-h", "--help"):
            rows = [f"  {verb:10s}{(f.__doc__ or '').splitlines()[0]}" for verb, f in verbs.items()]
            print("\n".join([f"usage: paramgen {command} <verb> [options]", "", *rows]))
            return None
        if args[0] not in verbs:
            raise ParamgenError(f"Unknown command '{command} {args[0]}'. {did_you_mean(args[0], verbs)}")
        function, prog, args = verbs[args[0]], f"paramgen {command} {args[0]}", args[1:]
    else:
        function, prog = functions.main, f"paramgen {command}"
    arguments = arguments_of(function, prog, table.configs, args)
    folder = None if table.out_is_file else arguments.get("out")
    if folder and (shard := parse_shard(arguments.get("shard"))) is not None:
        folder = shard.folder(folder)
    with typed([*prog.split()[1:], *args]), locked(folder) if folder else nullcontext():
        result = function(**arguments)
    return next_step(prog.removeprefix("paramgen "), arguments, result)


def arguments_of(function: Any, prog: str, folder: str, args: list[str]) -> dict[str, Any]:
    """The values of a function's parameters, as the command line and a config give them.

    Args:
        function: A command's function.
        prog: Names it in messages.
        folder: Of shipped configs whose names are accepted.
        args: The words after the command.

    Raises:
        ParamgenError: A word that the parser refuses, an empty name of a file, or a number that cannot be a seed.
    """
    values = parsed_values(parser_of(function, prog, folder), _switched_on(args, function))
    for name in NAMED_FILES:
        if values.get(name) == "":
            raise ParamgenError(f"--{name} is empty, expected a file or a folder")
    for seed in [*(values.get("seeds") or ()), values.get("seed") or 0]:
        require_seed(seed)
    return values


def parsed_values(parser: Any, args: list[str]) -> dict[str, Any]:
    """What a parser of :func:`parser_of` makes of the words after a command."""
    values = vars(parser.instantiate(parser.parse_args(args)))
    return {name: value for name, value in values.items() if name != "config"}


def _switched_on(args: list[str], function: Any) -> list[str]:
    """The words after a command with ``true`` after each switch that has no value: ``--dry_run`` is ``--dry_run true``."""
    switches = {
        f"--{name}" for name, parameter in signature(function).parameters.items() if parameter.annotation is bool
    }
    words = list[str]()
    for word, following in zip(args, [*args, "--"][1:], strict=True):
        words += [word, "true"] if word in switches and following.startswith("-") else [word]
    return words


def parser_of(function: Any, prog: str, folder: str) -> Any:
    """The parser of the command line that a function's signature and docstring describe; arguments as of :func:`arguments_of`."""
    from paramgen.cli.parser import ConfigFile, OneLineErrors

    parser = OneLineErrors(prog=prog, description=(function.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "-c", "--config", action=ConfigFile, folder=folder, help="YAML file, or the name of a shipped config."
    )
    given = {n: p.annotation for n, p in signature(function).parameters.items()}
    kinds = {n: get_args(kind)[0] if isinstance(kind, UnionType) else kind for n, kind in given.items()}  # Task | None
    parser.names = [f"--{name}" for name in ("config", *given)]
    parser.bases = {n: kind for n, kind in kinds.items() if isclass(kind)}
    parser.add_function_arguments(function, sub_configs=True)
    return parser
