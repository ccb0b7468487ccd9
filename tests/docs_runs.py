"""Somebody who runs what a page of the documentation says, in a folder and in this process."""

import io
import re
import runpy
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import yaml

from docs_pages import ROOT, steps
from docs_shortened import INSTEAD, NAMES, SHORTER, STAND_INS
from paramgen.cli.main import main

ASSIGNMENT = re.compile(r"[A-Z_]+=\S*$")


class StepError(Exception):
    """A step that does not work."""


class Reader:
    """Follows pages in the working folder.

    Args:
        hub: A local Hub.
        monkeypatch: For the environment of stand-ins.
        thorough: Run also what takes minutes.
    """

    def __init__(self, hub, monkeypatch, thorough=False):
        self.hub, self.monkeypatch, self.thorough = hub, monkeypatch, thorough
        self.checkpoint = ""  # of the last fit
        self.names = {"__name__": "docs"}  # of the page's Python
        self.used = set()  # rows of the tables
        self.page = ""

    def follow(self, page):
        """Run every step of a page.

        Raises:
            StepError: The first step that does not work.
        """
        self.page = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else ""
        for step in steps(page):
            try:
                self.run(step)
            except Exception as error:
                raise StepError(f"{page.name}: {step.text}\n{type(error).__name__}: {error}") from error

    def run(self, step):
        """Run one step as the tables say."""
        if step.file:
            Path(step.file).write_text(self._changed(step.text))
        elif step.language == "python":
            exec(compile(self._changed(step.text), "docs", "exec"), self.names)
        else:
            for command in [step.text] if step.text.startswith("#!") else step.text.split(" && "):
                self.run_command(self._changed(command))

    def _changed(self, text):
        for row in NAMES:
            text = self._replaced(row, text, row.to)
        for row in STAND_INS:
            if re.search(row.pattern, text):
                text = self._replaced(row, text, row.made(self))
        for row in SHORTER:
            text = self._replaced(row, text, row.to)
        return text

    def options(self, command):
        """The options that the tables add to a command, by name."""
        words = shlex.split(self._changed(command).removeprefix(command))
        return {
            name.removeprefix("--"): yaml.safe_load(value) for name, value in zip(words[::2], words[1::2], strict=True)
        }

    def _replaced(self, row, text, to):
        text, times = re.subn(row.pattern, to, text)
        self.used |= {row} if times else set()
        return text

    def run_command(self, command):
        """``paramgen …`` or ``python FILE …``, perhaps behind variables, or what a table has in place of it."""
        for row in INSTEAD:
            if re.match(row.pattern, command) and row.page in ("", self.page) and not (row.quick and self.thorough):
                self.used.add(row)
                row.run(self, command)
                return
        words = shlex.split(command)
        while ASSIGNMENT.match(words[0]):
            words.pop(0)
        program, *rest = words
        if program == "paramgen":
            self.paramgen(rest)
        elif program == "python":
            run_file(rest)
        else:
            raise StepError(f"no row of docs_shortened.py says how {program!r} runs")

    def paramgen(self, words):
        """Run a command of paramgen; what it prints."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main(words)
            except SystemExit as stop:  # after --print_config
                code = stop.code
        if code:
            raise StepError(f"paramgen {shlex.join(words)} ends with {code}\n{err.getvalue()[-2000:]}")
        for saved in re.findall(r"^checkpoint: (.*)$", out.getvalue(), re.MULTILINE):
            self.checkpoint = saved
        return out.getvalue()


def run_file(words):
    """As ``python FILE …`` does it."""
    before, path = sys.argv, [*sys.path]
    sys.argv, sys.path[0:0] = words, [str(Path(words[0]).parent.absolute())]
    try:
        with redirect_stdout(io.StringIO()):
            runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before, path
