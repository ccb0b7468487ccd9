"""Runs commands in processes forked from one that has imported everything, so that a command starts at once.

A process that has used autograd must not fork, so the forking one is a process of its own: ``Commands`` starts it, and it does nothing
else. They speak JSON, one line a command: arguments in, exit code and output back.
"""

import gc
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """How a process ended, and what it wrote on its terminal."""

    code: int
    text: str
    seconds: float


class Commands:
    """A process that has imported everything and forks one process for each command; it ends with the ``with`` block."""

    def __enter__(self) -> "Commands":
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.server.communicate()

    def run(self, arguments: list[str], folder: Path, number: int | None = None, after: float = 0.0) -> Ended:
        """Run a command in a folder to its end, or send it a signal after some seconds."""
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps([arguments, str(folder), number, after]) + "\n")
        self.server.stdin.flush()
        return Ended(*json.loads(self.server.stdout.readline()))


def fork(arguments: list[str], folder: Path, log: Path) -> int:
    """Run a command in a forked process, its output in a file; the process's number."""
    from paramgen.cli.main import main as paramgen

    if pid := os.fork():
        return pid
    code: Any = 1
    try:
        sys.stdin = open(os.devnull)  # noqa: SIM115
        os.dup2(sys.stdin.fileno(), 0)  # the server's own holds the commands to come
        sys.stdout = sys.stderr = log.open("w", buffering=1)
        for descriptor in (1, 2):
            os.dup2(sys.stdout.fileno(), descriptor)
        os.chdir(folder)
        sys.argv = ["paramgen", *arguments]
        code = paramgen(arguments)
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def run(arguments: list[str], folder: Path, number: int | None, after: float) -> Ended:
    """Fork a command and wait for its end, with a signal after some seconds where there is one to send."""
    log, begun = folder / "log.txt", time.perf_counter()
    log.write_text("")
    pid = fork(arguments, folder, log)
    ended = status = 0
    while number is not None and not ended and time.perf_counter() - begun < after:
        time.sleep(0.005)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        if number is not None:
            os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(), time.perf_counter() - begun)


def serve() -> None:
    """Import what the commands import when they run, and run one command a line of the standard input."""
    import torch

    from paramgen.cli import lightning  # noqa: F401
    from paramgen.cli.commands import compare, evaluate, sample, zoo  # noqa: F401
    from paramgen.collect import single  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # forked processes share what is imported
    for line in sys.stdin:
        arguments, folder, number, after = json.loads(line)
        print(json.dumps(run(arguments, Path(folder), number, after)), flush=True)


if __name__ == "__main__":
    serve()
