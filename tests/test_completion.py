"""The shells complete commands, verbs, options, configs and zoos."""

import inspect
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from paramgen.cli.commands import completion
from paramgen.cli.commands.completion import SCRIPTS, candidates
from paramgen.cli.dispatch import FUNCTIONS, LIGHTNING
from paramgen.cli.given import PLAN_OPTIONS
from paramgen.cli.main import main

BASH = """
eval "$(paramgen completion bash)"
complete -p paramgen
for line in 'sam' 'fit --config pdiff_dia' 'fit --config=trainer/dd' 'zoo ' 'zoo info --zoo ' 'fit --config ./x'; do
    COMP_WORDS=(paramgen ${line/=/ = }); [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _paramgen; echo "${COMPREPLY[*]}"
done
"""
FISH = "paramgen completion fish | source; complete -C 'paramgen sam'; complete -C 'paramgen fit --config pdiff_dia'"
ZSH = """
autoload -U compinit; compinit -u -D; eval "$(paramgen completion zsh)"
compadd() { print -r -- "$found" }
words=(paramgen sam); CURRENT=2; _paramgen
words=(paramgen fit --config pdiff_dia); CURRENT=4; _paramgen
"""


@pytest.fixture
def shell(tmp_path):
    """Runs a program in a folder with one zoo, where the command paramgen is found."""
    script = tmp_path / "bin/paramgen"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m paramgen "$@"\n')
    script.chmod(0o755)
    (tmp_path / "checkpoints_zoo/mine").mkdir(parents=True)
    (tmp_path / "checkpoints_zoo/mine/zoo.json").touch()
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return run


def test_bash_completes_commands_configs_verbs_and_zoos(shell):
    registered, *found = shell("bash", "--norc", "-c", BASH)
    assert registered == "complete -o default -F _paramgen paramgen"
    assert found[:3] == ["sample", "pdiff_diabetes", "trainer/ddp"]
    assert set(found[3].split()) == set(import_module("paramgen.cli.commands.zoo").COMMANDS)
    assert found[4:] == ["digits_small mine", ""]  # nothing is known of other paths: bash completes files


@pytest.mark.parametrize(("name", "words"), [("fish", ["-c", FISH]), ("zsh", ["-f", "-c", ZSH])])
def test_other_shells_complete_too(shell, name, words):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    assert shell(name, *words) == ["sample", "pdiff_diabetes"]


@pytest.mark.parametrize("command", FUNCTIONS)
def test_options_are_the_parameters_of_the_command(command):
    table = FUNCTIONS[command]
    if table.parses:
        return
    module = import_module(f"paramgen.{table.module}")
    functions = getattr(module, "COMMANDS", None)
    for verb, function in (functions or {"": module.main}).items():
        words = [command, verb, "--"] if functions else [command, "--"]
        assert set(candidates(words)) == {f"--{name}" for name in (*inspect.signature(function).parameters, "config")}


def test_commands_and_configs_are_those_that_exist():
    assert candidates([""]) == sorted([*LIGHTNING, *FUNCTIONS, "--help", "--version"])
    assert "digits_relabel" in candidates(["collect_tasks", "--config", "digits_"])
    assert "digits_relabel" not in candidates(["collect", "--config", "digits_"])
    assert candidates(["completion", ""]) == sorted(SCRIPTS)
    assert candidates(["fit", "--data.zoo", "", "x"]) == candidates(["nothing", ""]) == []
    from paramgen.cli.commands.plan import PlanCLI

    source = inspect.getsource(PlanCLI.add_arguments_to_parser)
    assert source.count('"--') == len(PLAN_OPTIONS)
    assert all(f'"--{name}"' in source for name in PLAN_OPTIONS)


def test_another_shell_is_refused_and_the_command_explains_itself(capsys):
    assert main(["completion", "fishh"]) == 2
    assert "Unknown shell 'fishh'. Did you mean 'fish'" in capsys.readouterr().err
    assert main(["completion"]) == 0
    assert "bash | zsh | fish" in capsys.readouterr().out
    assert "torch" not in Path(completion.__file__).read_text()
