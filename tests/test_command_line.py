"""The recorded command line gives back the arguments of the call."""

import shlex

import pytest

from paramgen.cli.commands import compare, evaluate
from paramgen.cli.dispatch import arguments_of
from paramgen.collect import single as collect
from paramgen.collect.train import OptimSettings
from paramgen.core.command_line import command_line
from paramgen.tasks import ClassificationTask


def read_again(function, prog, line):
    words = shlex.split(line)
    assert words[:2] == prog.split()
    return arguments_of(function, prog, "", words[2:])


@pytest.mark.parametrize("config", ["digits", "pdiff_figure4", "rpg_table16", "wild_table1_paper"])
def test_a_comparison_recorded_is_the_comparison_that_was_configured(config):
    typed = arguments_of(compare.main, "paramgen compare", "compare", ["--config", config])
    line = command_line("paramgen compare", compare.main, typed)
    assert read_again(compare.main, "paramgen compare", line) == {**typed, "config": None}


def test_names_with_spaces_and_brackets_survive():
    arguments = {"zoo": "my zoo", "samples": ["a, b", "c]"], "baselines": "none", "aligned": True}
    typed = {**arguments_of(evaluate.main, "paramgen evaluate", "", ["--zoo", "x"]), **arguments}
    line = command_line("paramgen evaluate", evaluate.main, typed)
    assert read_again(evaluate.main, "paramgen evaluate", line) == typed


def test_a_task_and_settings_are_written_as_their_configs():
    task, optim = ClassificationTask(network="mlp", network_args={"hidden": [8]}), OptimSettings(lr=0.5)
    typed = arguments_of(collect.main, "paramgen collect", "zoo", ["--config", "digits_mlp_seeds20", "--out", "o"])
    line = command_line("paramgen collect", collect.main, {**typed, "task": task, "optim": optim})
    again = read_again(collect.main, "paramgen collect", line)
    assert again["task"].config() == task.config()
    assert again["optim"] == optim
