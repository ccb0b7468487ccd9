"""Commands by name: a table; only the one asked for is imported."""

import logging
import os
import sys
from contextlib import nullcontext
from importlib import import_module
from inspect import isclass, signature
from typing import Any

from paramgen import __version__
from paramgen.errors import ParamgenError, near
from paramgen.locks import locked

LIGHTNING = {
    "fit": "train a generator on a zoo",
    "validate": "its losses on the zoo's validation runs",
    "test": "its losses on the zoo's held-out runs",
    "predict": "draw one network for each training network",
}
FUNCTIONS = {  # commands/<name>.py: its `main` is the command line
    "collect": "train networks and keep them as a zoo",
    "collect_tasks": "train a network or an adapter for every task of a family",
    "zoo": "look at, check, import or align a zoo: info | verify | import | align",
    "sample": "draw new networks from a fitted generator",
    "adapters": "write generated adapters as folders that peft loads",
    "evaluate": "score generated networks beside every baseline",
    "compare": "fit, sample and evaluate several generators on one zoo or more, over seeds",
    "unseen": "score generators on unseen tasks beside every simple way",
    "interpolate": "score networks generated between two tasks on both, beside their averaged weights",
    "flips": "score networks generated for seen codes with bits turned",
    "configs": "list the shipped configs",
    "doctor": "check this installation",
}
CONFIG_FOLDERS = {
    "collect": "zoo",
    "collect_tasks": "zoo",
    "compare": "compare",
}  # where short config names are looked for
OUT_IS_FILE = ("unseen",)  # `out` of every other command is a folder, which one process writes to at a time


class LogLines(logging.Handler):
    """Writes what the package logs as plain lines on stderr; of several processes the first alone does."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        if first_process():
            print(self.format(record), file=sys.stderr)


def first_process() -> bool:
    """Whether this is the first of the processes of a fit on this machine, which speaks for all of them."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def usage() -> str:
    """The page of ``paramgen --help``."""
    rows = [f"  {name:15s}{what}" for name, what in {**LIGHTNING, **FUNCTIONS}.items()]
    return "\n".join(["usage: paramgen <command> [options]", "", *rows, "", "paramgen <command> --help tells more."])


def run(args: list[str]) -> None:
    """Run one command.

    Args:
        args: The command line after ``paramgen``.

    Raises:
        ParamgenError: A mistake that the user can mend.
    """
    log = logging.getLogger("paramgen")
    if not any(isinstance(handler, LogLines) for handler in log.handlers):
        log.addHandler(LogLines())
        log.setLevel(logging.INFO)
    command, *rest = args or ["--help"]
    if command in LIGHTNING:
        import_module("paramgen.lit_cli").main(args)
    elif command in FUNCTIONS:
        _run_function(command, rest)
    elif command in ("-h", "--help", "--version"):
        print(__version__ if command == "--version" else usage())
    else:
        raise ParamgenError(f"no command {command!r}; {near(command, {**LIGHTNING, **FUNCTIONS})}")


def _run_function(command: str, args: list[str]) -> None:
    """Parse the command line that a function's signature and docstring describe, and call it."""
    functions = import_module(f"paramgen.commands.{command}")
    if hasattr(functions, "COMMANDS"):
        verbs: dict[str, Any] = functions.COMMANDS
        if not args or args[0] in ("-h", "--help"):
            rows = [f"  {verb:10s}{(f.__doc__ or '').splitlines()[0]}" for verb, f in verbs.items()]
            print("\n".join([f"usage: paramgen {command} <verb> [options]", "", *rows]))
            return
        if args[0] not in verbs:
            raise ParamgenError(f"no command '{command} {args[0]}'; {near(args[0], verbs)}")
        function, prog, args = verbs[args[0]], f"paramgen {command} {args[0]}", args[1:]
    else:
        function, prog = functions.main, f"paramgen {command}"
    config = arguments_of(function, prog, CONFIG_FOLDERS.get(command, ""), args)
    folder = None if command in OUT_IS_FILE else config.get("out")
    with locked(folder) if folder else nullcontext():
        function(**{name: value for name, value in config.items() if name != "config"})


def arguments_of(function: Any, prog: str, folder: str, args: list[str]) -> dict[str, Any]:
    """The values of a function's parameters, as the command line and a config give them.

    Args:
        function: A command's function.
        prog: Names it in messages.
        folder: Of shipped configs whose names are accepted.
        args: The words after the command.
    """
    parser = parser_of(function, prog, folder)
    return vars(parser.instantiate(parser.parse_args(args)))


def parser_of(function: Any, prog: str, folder: str) -> Any:
    """The parser of the command line that a function's signature and docstring describe; arguments as of :func:`arguments_of`."""
    from paramgen.parsing import ConfigFile, OneLineErrors

    parser = OneLineErrors(prog=prog, description=(function.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "-c", "--config", action=ConfigFile, folder=folder, help="YAML file, or the name of a shipped config."
    )
    parser.bases = {n: p.annotation for n, p in signature(function).parameters.items() if isclass(p.annotation)}
    parser.add_function_arguments(function, sub_configs=True)
    return parser
